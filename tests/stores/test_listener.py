"""Whoever waits for a lock is woken by one listener a process, which outlives what befalls it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from django_header_sessions.engine import SessionStore
from django_header_sessions.stores import get_store
from django_header_sessions.stores import listener as module
from django_header_sessions.stores.base import Draft, Opened, Terms
from django_header_sessions.stores.bell import Bell, Waiter, process_name
from django_header_sessions.stores.listener import Listener
from tests.processes import ROOT, Valkey

CHANNELS = "test:w:"
TERMS = Terms(1_800_000, None)


class Bench:
    """A listener, and what the server has to do with it."""

    def __init__(self, valkey: Valkey) -> None:
        self.valkey = valkey
        self.patience = 10.0
        self.made: list[redis.Connection] = []
        self.understood: list[Any] = []
        self.bell = Listener(CHANNELS, self._connection)
        self._understand = self.bell._understand
        self.bell._understand = self._record  # type: ignore[method-assign]

    def _connection(self) -> redis.Connection:
        made: Any = redis.Connection
        connection: redis.Connection = made(
            port=self.valkey.port,
            socket_timeout=self.patience,
            socket_connect_timeout=self.patience,
        )
        self.made.append(connection)
        return connection

    def _record(self, message: Any) -> None:
        self._understand(message)
        self.understood.append(message)

    def has_understood(self, messages: int) -> bool:
        return len(self.understood) == messages

    def waiter(self) -> Waiter:
        """One who waits, and was told that the listener hears."""
        waiter = self.bell.waiter()
        began = time.monotonic()
        waiter.wait(20)
        assert time.monotonic() - began < 10
        return waiter

    def subscribed(self) -> list[Any]:
        """The connections that listen, by the server's word."""
        clients: Any = self.valkey.client.client_list(_type="pubsub")
        return list(clients)

    def call(self, waiter: Waiter) -> None:
        """As a script of another process does."""
        heard = self.valkey.client.publish(CHANNELS + process_name(), waiter.ticket)
        assert heard == 1


class Clock:
    """The time, for one who is told that more of it has passed."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def bench(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """With little patience, and with nobody of the tests before who listens still."""
    monkeypatch.setattr(module, "LINGER", 0.1)
    monkeypatch.setattr(module, "LOOK", 0.02)
    monkeypatch.setattr(module, "ASK_AGAIN", 100)
    bench = Bench(valkey)
    until(lambda: not threads())
    yield bench
    for waiter in list(bench.bell._here.values()):
        waiter.close()
    until(lambda: not threads())


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "header-sessions-listener"]


def woken(waiter: Waiter, by: Callable[[], object]) -> bool:
    """Whether ``by`` wakes a thread that sleeps, long before it would wake by itself."""
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        sleep = pool.submit(waiter.wait, 20)
        by()
        sleep.result()
        return time.monotonic() - began < 10


def test_a_thread_is_woken_by_a_call_of_its_own(bench: Bench) -> None:
    waiter, other = bench.waiter(), bench.bell.waiter()
    assert woken(waiter, lambda: bench.call(waiter))
    assert not other._woken.is_set()
    assert len(bench.made) == len(threads()) == 1


async def test_a_task_is_woken_by_a_call_of_its_own(bench: Bench) -> None:
    waiter = bench.bell.waiter()
    await waiter.await_(20)  # until the listener hears
    other = bench.bell.waiter()
    began = time.monotonic()
    sleeps = [asyncio.create_task(each.await_(20)) for each in (waiter, other)]
    await asyncio.sleep(0)
    bench.call(waiter)
    await sleeps[0]
    assert time.monotonic() - began < 10
    assert not sleeps[1].done()
    sleeps[1].cancel()
    assert len(bench.made) == len(threads()) == 1


def test_who_was_called_before_it_slept_does_not_sleep(bench: Bench) -> None:
    waiter = bench.waiter()
    bench.call(waiter)
    until(waiter._woken.is_set)
    assert woken(waiter, lambda: None)


async def test_a_task_that_was_called_before_it_slept_does_not_sleep(bench: Bench) -> None:
    waiter = bench.waiter()
    bench.call(waiter)
    until(waiter._woken.is_set)
    began = time.monotonic()
    await waiter.await_(20)
    assert time.monotonic() - began < 10


def test_a_server_that_has_nothing_to_say_is_asked_and_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiter, clock = bench.waiter(), Clock()
    monkeypatch.setattr(module, "time", clock)
    for heard in (2, 3):
        clock.ahead += module.SILENCE + 1
        until(partial(bench.has_understood, heard))
    assert bench.understood[1:] == [b"PONG", b"PONG"]
    (client,) = bench.subscribed()
    assert client["cmd"] == "ping"
    assert woken(waiter, lambda: bench.call(waiter))
    assert len(bench.made) == 1


def test_a_server_that_has_fallen_silent_is_left_and_all_are_rung_for_when_it_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters = [bench.waiter(), bench.bell.waiter()]
    (before,) = bench.subscribed()
    bench.valkey.signal(signal.SIGSTOP)
    try:
        bench.patience = 0.1
        with monkeypatch.context() as patch:
            patch.setattr(module, "SILENCE", 0.1)
            # It tries again, and not only once.
            until(lambda: len(bench.made) >= 3)
    finally:
        bench.patience = 10
        bench.valkey.signal(signal.SIGCONT)
    for waiter in waiters:
        assert woken(waiter, lambda: None)
    until(lambda: len(bench.subscribed()) == 1)
    (after,) = bench.subscribed()
    assert after["id"] != before["id"]
    assert woken(waiters[0], lambda: bench.call(waiters[0]))


def test_a_subscription_that_was_killed_is_made_anew_and_all_are_rung_for(bench: Bench) -> None:
    waiters = [bench.waiter(), bench.bell.waiter()]

    def kill() -> None:
        # Between two connections calls are lost.
        assert bench.valkey.client.client_kill_filter(_type="pubsub") == 1

    with ThreadPoolExecutor(2) as pool:
        began = time.monotonic()
        sleeps = [pool.submit(waiter.wait, 20) for waiter in waiters]
        kill()
        for sleep in sleeps:
            sleep.result()
        assert time.monotonic() - began < 10
    assert len(bench.subscribed()) == 1
    assert woken(waiters[1], lambda: bench.call(waiters[1]))


def test_it_lingers_for_the_next_one_and_ends_when_there_is_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER", 60)
    bench.waiter().close()
    (first,) = threads()
    second = bench.bell.waiter()
    assert woken(second, lambda: bench.call(second))
    assert threads() == [first]
    assert len(bench.made) == 1
    second.close()
    monkeypatch.setattr(module, "LINGER", 0.1)
    first.join(20)
    assert not first.is_alive()
    until(lambda: not bench.subscribed())
    # And begins again with the next one.
    third = bench.waiter()
    assert woken(third, lambda: bench.call(third))
    assert len(bench.made) == 2


def test_a_connection_that_is_lost_while_nobody_waits_is_not_made_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER", 60)
    bench.waiter().close()
    (thread,) = threads()
    bench.valkey.client.client_kill_filter(_type="pubsub")
    thread.join(20)
    assert not thread.is_alive()
    assert len(bench.made) == 1


def test_who_may_not_publish_or_subscribe_takes_turns_all_the_same(
    valkey: Valkey, settings: Any
) -> None:
    """Later than others, as it is not woken."""
    command: Any = valkey.client.execute_command
    command("ACL", "DELUSER", "deaf")
    command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "-publish", "-subscribe")
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"redis://deaf:secret@127.0.0.1:{valkey.port}/1",
        }
    }
    key, _ = get_store("default").create(Draft("header", {"n": b"1"}), TERMS)
    other = SessionStore(key, transport="header")
    # Each has a process of its own to be called in.
    assert isinstance(get_store("default").lock(key, "header", TERMS, "other.1", 60_000), Opened)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(other.lock, 20)
        until(lambda: redis.Redis(port=valkey.port, db=1).keys("*:q:*"))
        get_store("default").unlock(key.id, "other.1")
        waiting.result(10)
    assert other.locked
    other.unlock()


def test_where_no_thread_can_be_had_who_waits_asks_now_and_then(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    waiter = bench.bell.waiter()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        waiter.wait(0.001)
    assert not bench.made
    assert not threads()
    # And the next one tries again.
    bench.waiter()
    assert len(bench.made) == len(threads()) == 1


def test_of_two_who_would_listen_at_once_one_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(threading.Thread):
        """While it is made, another waiter comes and listens."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            patch.undo()
            bench.bell.listen()

    waiter = bench.bell.waiter()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Slow)
        bench.bell.listen()
    assert len(threads()) == 1
    assert waiter._woken.wait(10)
    assert len(bench.made) == 1


async def test_a_task_that_is_called_twice_wakes_once() -> None:
    waiter = Bell().waiter()
    sleep = asyncio.create_task(waiter.await_(20))
    await asyncio.sleep(0)
    waiter.wake()
    waiter.wake()
    await asyncio.wait_for(sleep, 10)
    waiter.close()


def test_a_fork_listens_for_itself_alone(valkey: Valkey) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _FORK, valkey.url],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "REDIS_URL": valkey.url},
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert said.split("\n")[:-1] == ["its own name, and nobody waits", "woken", "parent woken"]


# A process that serves, as one whose listener runs, and forks.
_FORK = """
import os, sys, threading, time, warnings
import django, redis
django.setup()
from django_header_sessions.stores import get_store
from django_header_sessions.stores.bell import process_name

warnings.simplefilter("ignore")
store, client = get_store("default"), redis.Redis.from_url(sys.argv[1])
channel = lambda: store._channels + process_name()

def hears(waiter):
    began = time.monotonic()
    waiter.wait(20)
    assert time.monotonic() - began < 10

def call(waiter):
    # One process is on this channel, and no other.
    assert client.publish(channel(), waiter.ticket) == 1

mine, name = store.waiter(), process_name()
hears(mine)  # the listener runs
child = os.fork()
if not child:
    assert process_name() != name and not store._bell.awaited
    print("its own name, and nobody waits", flush=True)
    its = store.waiter()
    assert its.ticket.startswith(process_name() + ".")
    hears(its)
    call(its)
    hears(its)
    assert not mine._woken.is_set()
    print("woken", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert store._bell.awaited and process_name() == name
call(mine)
hears(mine)
print("parent woken", flush=True)
"""
