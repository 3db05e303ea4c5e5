"""Redis Cluster under faults: a dead primary takes its own slots with it and no others, and a
slot on its way from one server to another loses nothing."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import redis
from django.core.cache import caches
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionUnavailable
from django_header_sessions.keys import SessionKey
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft, Terms
from django_header_sessions.stores.cluster import slot_tag
from tests.processes import Valkey, free_port

from .conftest import AT_ONCE, PATIENCE, TIMEOUT, Caller, alias, cluster_alias, until
from .test_faults import SLACK, assert_unavailable
from .topologies import Cluster, Moving

TERMS = Terms(1_800_000, None)


@pytest.fixture
def own_cluster(settings: Any) -> Iterator[Cluster]:
    """A cluster that a test may break, behind the sessions; an outage lasts until the test ends
    it."""
    with Cluster(node_timeout_ms=60_000) as started:
        settings.CACHES = {"default": cluster_alias(started, TIMEOUT)}
        yield started


@pytest.fixture
def shared_cluster(cluster: Cluster, settings: Any) -> Cluster:
    """A cluster behind the sessions, without any."""
    for node in cluster.nodes[:3]:
        node.client.flushall()
    settings.CACHES = {"default": cluster_alias(cluster)}
    return cluster


def slot_of(session_id: str) -> int:
    store: Any = get_store("default")
    return int(key_slot(store._bucket(session_id).session(session_id, "header")[0].encode()))


def test_the_buckets_are_shared_out_evenly_and_alike_in_every_process() -> None:
    tags = [slot_tag(SLOTS * bucket // 256) for bucket in range(256)]
    assert [key_slot(tag.encode()) for tag in tags] == [64 * bucket for bucket in range(256)]
    assert len(set(tags)) == 256
    assert tags[:3] == ["3560", "11423", "40821"]


async def sessions_by_primary() -> list[list[Caller]]:
    """Some sessions on each of the three primaries, half of them called in each mode."""
    found: list[list[Caller]] = [[], [], []]
    while min(map(len, found)) < 4:
        for mode in ("sync", "async"):
            caller = await Caller(mode, "header").started()
            found[slot_of(caller.key[:15]) * 3 // SLOTS].append(caller)
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_primary_costs_its_own_slots_alone_and_those_until_the_failover(
    own_cluster: Cluster, how: signal.Signals
) -> None:
    first, *others = await sessions_by_primary()
    good = [caller for part in others for caller in part]
    primary: Any = own_cluster.nodes[0].client
    primary.wait(1, 5000)
    own_cluster.nodes[0].signal(how)

    # What it may have locked, and cannot be told to unlock, is a debt that others do not pay for.
    answer = await first[0]("alone/read")
    assert_unavailable(answer, executed=False)
    assert answer.took < TIMEOUT + SLACK
    for _ in range(3):
        for caller in first:
            answer = await caller("read")
            assert_unavailable(answer, executed=False)
            assert answer.took < AT_ONCE
        for caller in good:
            answer = await caller("read")
            assert (answer.status, answer.body) == (200, {"n": 1})
    (outage,) = registry.health().outages
    assert str(own_cluster.nodes[0].port) in outage.server

    own_cluster.fail_over(0)
    statuses: set[int] = set()
    give_up = time.monotonic() + 30
    while statuses != {200}:
        assert time.monotonic() < give_up
        statuses = {(await caller("read")).status for caller in first}
        assert statuses <= {200, 503}
        for caller in good:
            answer = await caller("alone/read")
            assert (answer.status, answer.body) == (200, {"n": 1})
    for caller in first:
        answer = await caller("alone/write", n=2)
        assert answer.status == 200
    # It is asked no more, so there is nothing to wait for.
    await until(lambda: not registry.health().outages)


async def test_a_failover_is_noticed_without_a_breaker_too(
    own_cluster: Cluster, settings: Any
) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    first, *_ = await sessions_by_primary()
    primary: Any = own_cluster.nodes[0].client
    primary.wait(1, 5000)
    own_cluster.nodes[0].signal(signal.SIGKILL)
    for caller in first:
        assert_unavailable(await caller("read"), executed=False)
    # What is asked of all of them needs this one too.
    with pytest.raises(SessionUnavailable):
        registry.count()
    with pytest.raises(SessionUnavailable):
        await registry.acount()
    own_cluster.fail_over(0)
    for caller in first:
        await until(partial(read, caller), 30)
    assert registry.health().outages == []


async def read(caller: Caller) -> bool:
    status = (await caller("read")).status
    assert status in {200, 503}
    return status == 200


async def test_a_cluster_that_is_not_there_when_the_process_starts_is_503(
    own_cluster: Cluster,
) -> None:
    for node in own_cluster.nodes:
        node.signal(signal.SIGSTOP)
    for mode in ("sync", "async"):
        assert_unavailable(await Caller(mode, "header")("write", n=1), executed=True)
    assert len(registry.health().outages) == 1
    for node in own_cluster.nodes:
        node.signal(signal.SIGCONT)
    await until(lambda: registry.health().usable)
    for mode in ("sync", "async"):
        await until(partial(wrote, mode))


def test_a_cluster_that_has_gone_stays_an_outage(own_cluster: Cluster) -> None:
    servers: Any = get_store("default")
    servers = servers._servers
    assert registry.health().usable
    for node in own_cluster.nodes:
        node.kill()
    assert not registry.health().usable
    for server in servers.every():
        # As it is probed in the background.
        with pytest.raises(SessionUnavailable, match="No server of the cluster can be asked"):
            servers._probe(server)


async def test_an_outage_of_the_whole_cluster_is_over_once_somebody_is_in_it(
    shared_cluster: Cluster,
) -> None:
    await Caller("sync", "header").started()
    servers: Any = get_store("default")
    servers = servers._servers
    # By one who came in while another gave up.
    servers._entry.open(redis.ConnectionError("gone"))
    await until(lambda: registry.health().usable)


def test_a_cluster_without_slots_is_503(settings: Any) -> None:
    with Valkey("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as valkey:
        settings.CACHES = {
            "default": alias(
                valkey.url.removesuffix("/0"),
                CONNECTION_FACTORY="django_header_sessions.stores.cluster.ClusterConnectionFactory",
            )
        }
        session = SessionStore(transport="header")
        with pytest.raises(SessionUnavailable):
            session.create()
        client: Any = valkey.client
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
        valkey.wait_until(lambda: registry.health().usable)
        session.create()
        client.flushall()
        client.execute_command("CLUSTER FLUSHSLOTS")
        servers: Any = get_store("default")
        (server,) = servers._servers.every()
        # As it is probed in the background.
        with pytest.raises(SessionUnavailable, match="No server of the cluster can be asked"):
            servers._servers._probe(server)
        with pytest.raises(SessionUnavailable, match="No server of the cluster has any slots"):
            session.load()
        # As those who wait for a lock are called.
        with pytest.raises(SessionUnavailable, match="No server of the cluster has any slots"):
            servers._servers._own_connection()


async def test_the_memory_of_a_cluster_is_that_of_its_primaries(shared_cluster: Cluster) -> None:
    nodes: list[Any] = [node.client for node in shared_cluster.nodes[:3]]
    used = sum(node.info("memory")["used_memory"] for node in nodes)
    for overview in (registry.overview(), await registry.aoverview()):
        assert overview.memory is not None
        assert overview.memory.used == pytest.approx(used, rel=0.5)
        assert (overview.memory.limit, overview.memory.policy) == (None, "noeviction")


async def test_a_bug_is_not_taken_for_an_outage_of_a_server(
    shared_cluster: Cluster, mode: str
) -> None:
    await Caller(mode, "header").started()
    for node in shared_cluster.nodes[:3]:
        client: Any = node.client
        for name in client.keys("*"):
            client.set(name, "not what it was")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        await (registry.acount() if mode == "async" else asyncio.to_thread(registry.count))
    assert registry.health().outages == []


def test_the_alias_is_a_cache_whose_connections_can_be_closed(
    shared_cluster: Cluster, settings: Any
) -> None:
    def connected() -> set[str]:
        nodes: list[Any] = [node.client for node in shared_cluster.nodes]
        return {each["id"] + each["addr"] for node in nodes for each in node.client_list()}

    settings.DJANGO_REDIS_CLOSE_CONNECTION = True
    cache = caches["default"]
    cache.set("mine", 1)
    before = connected()
    cache.close()
    # The server may take a moment to notice.
    shared_cluster.nodes[0].wait_until(lambda: before - connected())
    assert cache.get("mine") == 1


async def wrote(mode: str) -> bool:
    """Whether a creation succeeds. Some slots may take until the servers know each other again."""
    return (await Caller(mode, "header")("write", n=1)).status == 200


async def made(mode: str, here: Callable[[str], bool], number: int) -> list[SessionKey]:
    """Sessions whose ids satisfy ``here``; others are made on the way, and ended."""
    store = get_store("default")
    keys: list[SessionKey] = []
    while len(keys) < number:
        key, _ = store.create(Draft("header", {"n": b"1"}, "7"), TERMS)
        if here(key.id):
            keys.append(key)
        else:
            store.end(key.id)
    return keys


async def test_a_slot_that_moves_is_waited_for_and_nothing_is_lost(
    shared_cluster: Cluster, mode: str, settings: Any
) -> None:
    settings.HEADER_SESSIONS_BUCKETS = 4
    store = get_store("default")
    slot = SLOTS // 4  # the second bucket
    keys = await made(mode, lambda session_id: slot_of(session_id) == slot, 30)
    moving = Moving(shared_cluster, slot)
    moving.begin()
    try:
        half: Any = shared_cluster.nodes[moving.source].client
        # Where they go nobody knows the scripts yet.
        new: Any = shared_cluster.nodes[moving.target].client
        new.script_flush()
        # Some of a session's keys are here and some there, until the rest follows.
        some = half.execute_command("CLUSTER GETKEYSINSLOT", slot, 20)
        half.execute_command(
            "MIGRATE",
            "127.0.0.1",
            shared_cluster.nodes[moving.target].port,
            "",
            0,
            5000,
            "KEYS",
            *some,
        )

        def finish() -> None:
            moving.move()
            moving.end()

        rest = threading.Timer(0.15, finish)
        rest.start()

        async def count(key: SessionKey) -> int:
            session = SessionStore(key, transport="header")
            if mode == "sync":
                assert await asyncio.to_thread(session.open)
                return await asyncio.to_thread(session.increment, "n")
            assert await session.aopen()
            return await session.aincrement("n")

        counts = await asyncio.gather(*[count(key) for key in keys])
        rest.join()
        assert counts == [2] * 30
        assert await asyncio.gather(*[count(key) for key in keys]) == [3] * 30
        assert len(store.of_user("7")) == 30
        assert len(store.page(100).sessions) == 30
    finally:
        moving.back()
    assert len(await store.aof_user("7")) == 30
    assert sum(store.count().values()) == 30


async def test_a_slot_that_moves_for_long_is_503_and_creations_go_elsewhere(
    shared_cluster: Cluster, mode: str, settings: Any
) -> None:
    settings.HEADER_SESSIONS_BUCKETS = 256
    caller = await Caller(mode, "header").started()
    slot = slot_of(caller.key[:15])
    moving = Moving(shared_cluster, slot)
    moving.begin()
    try:
        answer = await caller("read")
        assert_unavailable(answer, executed=False)
        # It tried on for as long as a request may wait.
        assert PATIENCE <= answer.took < PATIENCE + SLACK
        assert registry.health().outages == []
        for _ in range(20):
            other = Caller(mode, "header")
            answer = await other("write", n=1)
            assert answer.status == 200
            assert slot_of(answer.headers["X-Session-Key"][:15]) != slot
        store: Any = get_store("default")
        with pytest.MonkeyPatch.context() as patch:
            module: Any = import_module("django_header_sessions.stores.redis")
            # One that draws an id of the moving bucket draws again, and is not held up.
            drawn = [SessionKey(caller.key[:15] + caller.key[15:])]
            make = module.make
            patch.setattr(module, "make", lambda: drawn.pop() if drawn else make())
            began = time.monotonic()
            key, _ = store.create(Draft("header", {}), TERMS)
            assert time.monotonic() - began < PATIENCE
        assert drawn == []
        assert slot_of(key.id) != slot
    finally:
        moving.move()
        moving.end()
        moving.back()
    assert (await caller("read")).body == {"n": 1}


async def test_a_slot_that_moves_at_once_is_not_noticed(shared_cluster: Cluster, mode: str) -> None:
    """Valkey's own migration of a slot as a whole."""
    caller = await Caller(mode, "header").started()
    slot = slot_of(caller.key[:15])
    source = slot * 3 // SLOTS
    for at, to in ((source, (source + 1) % 3), ((source + 1) % 3, source)):
        client: Any = shared_cluster.nodes[at].client
        before = (await caller("count")).body["n"]
        client.execute_command(
            "CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", shared_cluster.ids[to]
        )
        target: Any = shared_cluster.nodes[to].client
        counted = 0
        give_up = time.monotonic() + 10
        while not target.execute_command("CLUSTER COUNTKEYSINSLOT", slot):
            assert time.monotonic() < give_up
            answer = await caller("count")
            assert answer.status == 200
            counted += 1
        assert (await caller("count")).body == {"n": before + counted + 1}


async def test_servers_that_send_each_other_on_for_ever_are_an_outage(
    shared_cluster: Cluster, mode: str
) -> None:
    store: Any = get_store("default")
    caller = await Caller(mode, "header").started()
    steps = store._servers._steps(next(store._open(SessionKey(caller.key), "header", TERMS)))
    next(steps)
    slot = slot_of(caller.key[:15])
    moved = [
        redis.exceptions.MovedError(f"{slot} 127.0.0.1:{n.port}") for n in shared_cluster.nodes
    ]
    for error in [*moved, *moved][:8]:
        steps.throw(error)
    with pytest.raises(SessionUnavailable, match="send each other on"):
        steps.throw(moved[0])
