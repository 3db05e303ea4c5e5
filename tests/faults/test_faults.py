"""What clients see of a store that is down, hung, read-only or full: 503, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionUnavailable
from django_header_sessions.keys import make
from django_header_sessions.stores import get_store
from django_header_sessions.stores.servers import MAX_CONNECTIONS

from . import site
from .conftest import AT_ONCE, TIMEOUT, Answer, Caller, Failing, alias, until

SLACK = 3
"""Seconds that a busy machine may add to a time-out. That nobody waits for a second one is seen by
what the server is asked."""


def assert_unavailable(answer: Answer, *, executed: bool) -> None:
    """A 503 that leaves the client's key and cookie alone."""
    assert answer.status == 503
    assert answer.body["type"] == "urn:django-header-sessions:unavailable"
    assert answer.body["executed"] is executed
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "X-Session-Key" not in answer.headers
    assert not answer.cookies


async def assert_unavailable_at_once(caller: Caller) -> None:
    """Nobody waits. How little it takes on a machine of one's own, the soak says."""
    for _ in range(20):
        answer = await caller("read")
        assert_unavailable(answer, executed=False)
        assert answer.took < AT_ONCE


async def test_a_stopped_store_is_503_at_once_and_every_session_is_good_after(
    store: Failing, either_caller: Caller
) -> None:
    caller = await either_caller.started()
    store.stop()
    site.ran.clear()
    first = await caller("read")
    assert_unavailable(first, executed=False)
    assert first.took < TIMEOUT + SLACK
    await assert_unavailable_at_once(caller)
    assert site.ran == []

    store.start()
    await until(lambda: registry.health().usable)
    answer = await caller("read")
    assert (answer.status, answer.body) == (200, {"n": 1})


async def test_a_hung_store_costs_each_worker_one_time_out_and_then_nothing(
    store: Failing, either_caller: Caller
) -> None:
    caller = await either_caller.started()
    before = store.scripts()
    store.valkey.signal(signal.SIGSTOP)
    site.ran.clear()
    for answer in await asyncio.gather(*[caller("read") for _ in range(8)]):
        assert_unavailable(answer, executed=False)
        assert answer.took < TIMEOUT + SLACK
    await assert_unavailable_at_once(caller)
    assert site.ran == []

    store.valkey.signal(signal.SIGCONT)
    await until(lambda: registry.health().usable)
    # The eight asked once each, at most, and nobody after them.
    assert 1 <= store.scripts() - before <= 8
    answer = await caller("read")
    assert (answer.status, answer.body) == (200, {"n": 1})


async def test_tasks_that_waited_for_a_connection_do_not_wait_for_a_second_time_out(
    store: Failing, settings: Any
) -> None:
    timeout = 1.5
    settings.CACHES = {
        "default": alias(
            store.valkey.url.replace("/0", "/1"),
            SOCKET_TIMEOUT=timeout,
            SOCKET_CONNECT_TIMEOUT=timeout,
        )
    }
    sessions = get_store("default")
    await sessions.aexists(make())
    before = store.scripts()

    async def ask() -> None:
        with pytest.raises(SessionUnavailable):
            await sessions.aexists(make())

    store.valkey.signal(signal.SIGSTOP)
    first = [asyncio.create_task(ask()) for _ in range(MAX_CONNECTIONS)]
    await asyncio.sleep(timeout / 3)
    # These find no connection, and get theirs when those of the others have timed out.
    await asyncio.gather(*[ask() for _ in range(30)], *first)
    store.valkey.signal(signal.SIGCONT)
    await until(lambda: registry.health().usable)
    assert store.scripts() - before <= MAX_CONNECTIONS


REFUSALS = {
    "a replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "too few replicas": (
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
async def test_a_store_that_must_not_be_written_refuses_reads_too(
    store: Failing, either_caller: Caller, why: str
) -> None:
    caller = await either_caller.started()
    begin, end = REFUSALS[why]
    store.command(*begin.split())
    site.ran.clear()
    for view in ("read", "write", "count"):
        assert_unavailable(await caller(view, n=2), executed=False)
    assert site.ran == []
    # It answers, so there is nothing to wait for.
    assert registry.health().outages == []

    store.command(*end.split())
    answer = await caller("read")
    assert (answer.status, answer.body) == (200, {"n": 1})


async def test_a_full_store_still_reads_and_loses_no_write_that_it_acknowledged(
    store: Failing, either_caller: Caller
) -> None:
    caller = await either_caller.started()
    store.valkey.client.config_set("maxmemory", "1")
    answer = await caller("read")
    assert (answer.status, answer.body) == (200, {"n": 1})
    assert_unavailable(await caller("write", n=2), executed=True)
    assert_unavailable(await caller("count"), executed=True)
    assert_unavailable(await Caller(caller.mode, caller.transport)("write", n=1), executed=True)
    assert registry.health().outages == []
    answer = await caller("read")
    assert (answer.status, answer.body) == (200, {"n": 1})

    store.valkey.client.config_set("maxmemory", "0")
    assert (await caller("write", n=3)).status == 200


async def test_a_loading_store_is_503_and_needs_no_breaker(
    store: Failing, either_caller: Caller
) -> None:
    caller = await either_caller.started()
    # Slow enough to be asked while it loads what it has just saved.
    store.command("DEBUG", "POPULATE", 500, "filler", 10)
    store.valkey.client.config_set("key-load-delay", "2000")
    store.valkey.client.config_set("loading-process-events-interval-bytes", "1024")
    loading = threading.Thread(target=store.command, args=("DEBUG", "RELOAD"))
    loading.start()
    try:
        answers = [await caller("read")]
        while loading.is_alive():
            answers.append(await caller("read"))
    finally:
        loading.join()
    for answer in answers:
        assert answer.status in (200, 503)
        if answer.status == 503:
            assert_unavailable(answer, executed=False)
    assert any(answer.status == 503 for answer in answers)
    assert registry.health().outages == []
    assert (await caller("read")).body == {"n": 1}


async def test_a_commit_that_fails_after_the_view_ran_is_no_success(
    store: Failing, either_caller: Caller
) -> None:
    caller = await either_caller.started()
    site.meanwhile.append(store.stop)
    answer = await caller("write", n=2)
    assert_unavailable(answer, executed=True)

    site.meanwhile.clear()
    store.start()
    await until(lambda: registry.health().usable)
    answer = await caller("read")
    assert (answer.status, answer.body) == (200, {"n": 1})


async def test_a_view_that_swallows_the_outage_does_not_answer_success(
    store: Failing, either_caller: Caller
) -> None:
    caller = await either_caller.started()
    site.meanwhile.append(store.stop)
    assert_unavailable(await caller("swallow"), executed=True)


async def test_a_count_that_timed_out_was_counted_once_at_most(
    store: Failing, caller: Caller, settings: Any
) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    await caller.started()
    assert (await caller("count")).body == {"n": 2}  # the server has learned the script
    session = SessionStore(caller.key, transport="header")
    sync = caller.mode == "sync"
    assert await (asyncio.to_thread(session.open) if sync else session.aopen())
    before = store.scripts()
    store.valkey.signal(signal.SIGSTOP)
    with pytest.raises(SessionUnavailable):
        await (asyncio.to_thread(session.increment, "n") if sync else session.aincrement("n"))
    store.valkey.signal(signal.SIGCONT)
    # Failed means unknown: this one is applied when the server wakes.
    await until(lambda: store.scripts() > before)
    assert (await caller("read")).body == {"n": 3}


async def test_a_creation_on_a_hung_store_makes_one_try(
    store: Failing, mode: str, settings: Any
) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    await Caller(mode, "header").started()
    before = store.scripts()
    store.valkey.signal(signal.SIGSTOP)
    answer = await Caller(mode, "header")("write", n=1)
    assert_unavailable(answer, executed=True)
    assert answer.took < TIMEOUT + SLACK
    store.valkey.signal(signal.SIGCONT)
    await until(lambda: store.scripts() > before)
    assert store.scripts() == before + 1


async def test_without_the_breaker_every_request_waits_for_its_own_time_out(
    store: Failing, caller: Caller, settings: Any
) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    await caller.started()
    store.valkey.signal(signal.SIGSTOP)
    for _ in range(2):
        answer = await caller("read")
        assert_unavailable(answer, executed=False)
        assert answer.took >= TIMEOUT
    assert registry.health().outages == []


async def test_retry_after_is_a_setting(store: Failing, caller: Caller, settings: Any) -> None:
    settings.HEADER_SESSIONS_RETRY_AFTER = 7
    await caller.started()
    store.stop()
    assert (await caller("read")).headers["Retry-After"] == "7"


async def test_a_bug_stays_a_500(store: Failing, caller: Caller) -> None:
    """What the store cannot name is nobody's outage: here, a key of another type."""
    await caller.started()
    for key in store.valkey.client.keys("*:s:*"):
        store.valkey.client.delete(key)
        store.valkey.client.set(key, "no hash")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await caller("read")


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_whose_clock_is_wrong_expires_nobody_early_or_late(
    store: Failing, caller: Caller, hours: int, settings: Any
) -> None:
    settings.HEADER_SESSIONS_IDLE_TIMEOUT = 600
    await caller.started()
    (key,) = store.valkey.client.keys("*:s:*")
    left = store.valkey.client.pttl(key)
    wrong = datetime.now(UTC) + timedelta(hours=hours)
    with time_machine.travel(wrong, tick=True):
        answer = await caller("write", n=2)
        assert answer.status == 200
        assert 590 <= int(answer.headers["X-Session-Expires-In"]) <= 600
        other = await Caller(caller.mode, "header").started()
        assert registry.count()[registry.Kind("header", False)] == 2
    assert abs(left - store.valkey.client.pttl(key)) < 10_000
    (others,) = [one for one in store.valkey.client.keys("*:s:*") if one != key]
    assert 590_000 < store.valkey.client.pttl(others) <= 600_000 + 600_000 // 32
    assert (await other("read")).status == 200
