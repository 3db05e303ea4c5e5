"""The breaker: opened by what is not answered, closed by one probe in the background."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from django_header_sessions import registry
from django_header_sessions.exceptions import SessionUnavailable
from django_header_sessions.keys import make
from django_header_sessions.stores import breaker as breaker_module
from django_header_sessions.stores import get_store
from django_header_sessions.stores.breaker import Breaker

from .conftest import TIMEOUT, Caller, Failing, alias, until


class Probe:
    """A probe that passes when it is told to, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.passes = threading.Event()
        self.at_once = 0
        self.most_at_once = 0

    def __call__(self) -> None:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.001)
        self.at_once -= 1
        if not self.passes.is_set():
            raise SessionUnavailable("still down")


def probing(store: str) -> bool:
    return any(one.name == f"header-sessions-probe {store}" for one in threading.enumerate())


async def test_many_failures_at_once_open_it_once_and_one_probe_at_a_time_closes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "django_header_sessions")
    probe = Probe()
    breaker = Breaker("many", probe)
    barrier = threading.Barrier(8)

    def fail() -> None:
        barrier.wait()
        breaker.open(redis.ConnectionError("gone"))

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(fail) for _ in range(8)]:
            done.result()
    with pytest.raises(SessionUnavailable, match="gone"):
        breaker.check()
    outage = breaker.outage
    assert outage is not None
    assert (outage.server, outage.error) == ("many", "gone")
    await until(lambda: probe.asked > 2)
    probe.passes.set()
    await until(lambda: breaker.outage is None)
    breaker.check()
    assert probe.most_at_once == 1
    assert breaker.openings == 1
    await until(lambda: not probing("many"))
    opened, closed = caplog.records
    assert (opened.levelname, closed.levelname) == ("WARNING", "INFO")
    assert "many" in opened.getMessage()
    assert "gone" in opened.getMessage()
    assert "many" in closed.getMessage()


async def test_it_opens_again_after_it_closed() -> None:
    probe = Probe()
    probe.passes.set()
    breaker = Breaker("the store", probe)
    for openings in (1, 2):
        breaker.open(redis.TimeoutError())
        assert breaker.openings == openings
        await until(lambda: breaker.outage is None)


async def test_probes_are_spaced_by_the_setting(settings: Any) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 3
    probe = Probe()
    breaker = Breaker("asked rarely", probe)
    breaker.open(redis.TimeoutError())
    await until(lambda: probe.asked)
    await asyncio.sleep(0.1)
    assert probe.asked == 1


def test_zero_turns_it_off(settings: Any) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    breaker = Breaker("never asked", Probe())
    breaker.open(redis.TimeoutError())
    breaker.check()
    assert breaker.outage is None
    assert not probing("never asked")


async def test_turned_off_it_probes_once_at_a_time(settings: Any) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    asked, stuck = [], threading.Event()

    def probe() -> None:
        asked.append(1)
        stuck.wait(10)

    breaker = Breaker("the store", probe)
    for _ in range(3):
        breaker.open(redis.TimeoutError())
    stuck.set()
    await until(lambda: not breaker._probing)
    assert len(asked) == 1
    breaker.open(redis.TimeoutError())
    await until(lambda: len(asked) == 2)


async def test_a_probe_with_a_bug_keeps_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[Any] = []
    before, threading.excepthook = threading.excepthook, shown.append
    try:

        def bug() -> None:
            raise ZeroDivisionError

        breaker = Breaker("the store", bug)
        breaker.open(redis.TimeoutError())
        await until(lambda: breaker.outage is None)
        await until(lambda: shown)
    finally:
        threading.excepthook = before
    assert shown[0].exc_type is ZeroDivisionError


async def test_where_no_thread_probes_requests_go_through_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = threading.Event()
    breaker = Breaker("the store", stuck.wait)
    monkeypatch.setattr(breaker_module, "OVERDUE", 0.2)
    breaker.open(redis.TimeoutError())
    with pytest.raises(SessionUnavailable):
        breaker.check()

    def checked() -> bool:
        with contextlib.suppress(SessionUnavailable):
            breaker.check()
            return True
        return False

    await until(checked)
    stuck.set()
    await until(lambda: breaker.outage is None)


async def test_where_no_thread_can_be_had_it_stays_closed(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    probe = Probe()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        breaker = Breaker("the store", probe)
        breaker.open(redis.TimeoutError())
        breaker.check()
        # Turned off it would probe once, too.
        settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
        breaker.open(redis.TimeoutError())
    assert probe.asked == 0
    breaker.open(redis.TimeoutError())
    await until(lambda: probe.asked == 1)


async def test_a_breaker_that_nobody_has_any_more_probes_no_longer() -> None:
    breaker = Breaker("replaced", Probe())
    breaker.open(redis.TimeoutError())
    assert probing("replaced")
    del breaker
    gc.collect()
    await until(lambda: not probing("replaced"))


def test_a_fork_of_a_process_with_an_outage_has_a_breaker_of_its_own() -> None:
    probe = Probe()
    breaker = Breaker("the store", probe)
    breaker.open(redis.TimeoutError())
    child = os.fork()
    if child == 0:
        # Closed, since the child has no thread that would close it; and it can open and close.
        failed = 1
        try:
            breaker.check()
            breaker.open(redis.TimeoutError())
            opened = breaker.outage is not None
            probe.passes.set()
            give_up = time.monotonic() + 5
            while breaker.outage is not None and time.monotonic() < give_up:
                time.sleep(0.01)
            failed = int(not opened or breaker.outage is not None)
        finally:
            os._exit(failed)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert breaker.outage is not None
    probe.passes.set()


async def test_health_says_since_when_and_why_without_asking_a_store_that_is_down(
    store: Failing, mode: str
) -> None:
    assert registry.health() == registry.Health(True, "", [])
    assert await registry.ahealth() == registry.Health(True, "", [])
    store.valkey.signal(signal.SIGSTOP)
    health = registry.health() if mode == "sync" else await registry.ahealth()
    assert not health.usable
    began = time.perf_counter()
    health = registry.health() if mode == "sync" else await registry.ahealth()
    assert time.perf_counter() - began < TIMEOUT
    assert not health.usable
    assert "does not answer" in health.problem
    (outage,) = health.outages
    assert outage.server == "'default'"
    assert "Timeout" in outage.error
    store.valkey.signal(signal.SIGCONT)
    await until(lambda: not registry.health().outages)


async def test_no_session_key_is_in_the_log_of_an_outage(
    store: Failing, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await caller.started()
    store.stop()
    await caller("read")
    await caller("read")
    assert "does not answer" in caplog.text
    assert caller.key not in caplog.text
    assert caller.key[15:] not in caplog.text


async def test_both_sides_share_the_breaker(store: Failing) -> None:
    sync = await Caller("sync", "header").started()
    native = Caller("async", "header")
    native.key = sync.key
    await native("read")
    store.valkey.signal(signal.SIGSTOP)
    assert (await sync("read")).took >= TIMEOUT
    assert (await native("read")).took < TIMEOUT


async def test_while_writes_are_paused_no_probe_passes(store: Failing, caller: Caller) -> None:
    """As for a failover: what only reads is answered, and every script of ours waits."""
    await caller.started()
    store.valkey.client.client_pause(4000, all=False)
    first = await caller("read")
    await asyncio.sleep(0.5)  # ten probes
    second = await caller("read")
    assert (first.status, second.status) == (503, 503)
    assert first.took >= TIMEOUT
    # No probe has passed meanwhile, so that nobody waits again.
    assert second.took < TIMEOUT
    store.valkey.client.client_unpause()
    await until(lambda: registry.health().usable)
    assert (await caller("read")).status == 200


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_client_without_free_connections_is_no_outage_of_the_store(
    failing: Failing, settings: Any, mode: str
) -> None:
    settings.CACHES = {
        "default": alias(failing.valkey.url, CONNECTION_POOL_KWARGS={"max_connections": 1})
    }
    store: Any = get_store("default")
    (server,) = store._servers.every()
    if mode == "sync":
        taken = server.client.connection_pool.get_connection()
    else:
        await store.aexists(make())
        (client,) = server._async_clients.values()
        pool = client.connection_pool
        taken = [await pool.get_connection() for _ in range(pool.max_connections)]
    asked = asyncio.to_thread(store.exists, make()) if mode == "sync" else store.aexists(make())
    with pytest.raises(SessionUnavailable):
        await asked
    assert store.outages() == []
    if mode == "sync":
        server.client.connection_pool.release(taken)
        server.client.connection_pool.disconnect()
    else:
        for each in taken:
            await pool.release(each)
