"""Locks when the store fails: whoever holds one, waits for one or just asks is told, and no session
stays locked because of it."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest

from django_header_sessions import policies, registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionUnavailable
from django_header_sessions.stores import get_store

from . import site
from .conftest import Caller, Failing, alias, cluster_alias, until
from .test_cluster import made, slot_of
from .test_faults import assert_unavailable
from .topologies import SLOTS, Cluster, Moving

TIMEOUT = 0.3


@pytest.fixture
def store(store: Failing, settings: Any) -> Failing:
    """The same with little patience, both of and with it: who is not let in at once is told."""
    timeouts = {"SOCKET_TIMEOUT": TIMEOUT, "SOCKET_CONNECT_TIMEOUT": TIMEOUT}
    settings.CACHES = {"default": alias(store.valkey.url, **timeouts)}
    settings.HEADER_SESSIONS_LOCK_WAIT = 0
    policies._owed.clear()
    return store


def locks(store: Failing) -> list[bytes]:
    found: Any = store.valkey.client.keys("*:l:*")
    return list(found)


# A session that somebody asked for while the store hung: it may be locked, by the time it is back,
# for a request that has long been answered.


@pytest.mark.parametrize(
    ("mode", "transport", "view"),
    [
        ("sync", "header", "alone/read"),
        ("async", "cookie", "alone/read"),
        ("async", "header", "block"),
        ("sync", "cookie", "block"),
    ],
)
async def test_a_store_that_hung_while_it_was_asked_for_a_lock_leaves_none(
    store: Failing, mode: str, transport: str, view: str
) -> None:
    caller = await Caller(mode, transport).started()
    assert (await caller(view)).status == 200
    if view == "block":
        site.meanwhile.append(lambda: store.valkey.signal(signal.SIGSTOP))
    else:
        store.valkey.signal(signal.SIGSTOP)
    assert_unavailable(await caller(view), executed=view == "block")

    site.meanwhile.clear()
    store.valkey.signal(signal.SIGCONT)
    # The server has done meanwhile what it was asked then.
    await until(lambda: locks(store))
    await until(lambda: registry.health().usable)
    answer = await caller(view)
    assert (answer.status, answer.body) == (200, {"n": 1})
    assert locks(store) == []


async def test_a_debt_is_paid_by_whoever_locks_next(store: Failing, caller: Caller) -> None:
    """Since the session concerned may be asked for in another process."""
    await caller.started()
    other = await Caller(caller.mode, "header").started()
    assert (await caller("alone/read")).status == 200
    store.valkey.signal(signal.SIGSTOP)
    assert_unavailable(await caller("alone/read"), executed=False)
    store.valkey.signal(signal.SIGCONT)
    (lock,) = await until(lambda: locks(store))
    assert lock.decode().endswith(caller.key[:15])
    await until(lambda: registry.health().usable)
    assert (await other("alone/read")).status == 200
    assert locks(store) == []
    assert not policies._owed


async def test_a_debt_that_cannot_be_paid_yet_is_paid_later(store: Failing, caller: Caller) -> None:
    await caller.started()
    assert (await caller("alone/read")).status == 200
    store.valkey.signal(signal.SIGSTOP)
    for _ in range(2):
        assert_unavailable(await caller("alone/read"), executed=False)
    store.valkey.signal(signal.SIGCONT)
    await until(lambda: locks(store))
    await until(lambda: registry.health().usable)
    assert (await caller("alone/read")).status == 200
    assert locks(store) == []
    assert not policies._owed


async def keys(number: int) -> list[str]:
    """Those of so many new sessions."""
    callers = [await Caller("async", "header").started() for _ in range(number)]
    return [caller.key for caller in callers]


async def test_a_debt_is_paid_once_however_many_would_pay_it(
    store: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    debtors = [SessionStore(key, transport="header") for key in await keys(2)]
    one, two = [SessionStore(key, transport="header") for key in await keys(2)]
    for debtor in debtors:
        await debtor.alock()
    store.valkey.signal(signal.SIGSTOP)
    await asyncio.gather(*[debtor.aunlock() for debtor in debtors])
    store.valkey.signal(signal.SIGCONT)
    await until(lambda: registry.health().usable)
    assert len(policies._owed) == 2

    backend: Any = one._store
    unlock, paid = backend.aunlock, []

    async def unlocking(*at: str) -> None:
        paid.append(at)
        if len(paid) == 1:
            await two.alock()
        await unlock(*at)

    monkeypatch.setattr(backend, "aunlock", unlocking)
    await one.alock()
    assert len(set(paid)) == len(paid) == 2
    assert (one.locked, two.locked) == (True, True)
    assert len(locks(store)) == 2


async def test_what_is_no_outage_is_no_debt(store: Failing, caller: Caller) -> None:
    """Else it would be for ever, and every lock of the process would fail of it."""
    await caller.started()
    other = await Caller(caller.mode, "header").started()
    redis: Any = store.valkey.client
    (session,) = redis.keys(f"*:s:{caller.key[:15]}")
    redis.set(session.replace(b":s:", b":q:"), "no queue")
    for _ in range(2):
        with pytest.raises(Exception, match="WRONGTYPE"):
            await caller("alone/read")
        assert not policies._owed
        assert (await other("alone/read")).status == 200


async def test_who_waited_when_the_store_hung_keeps_no_place(
    store: Failing, caller: Caller, settings: Any
) -> None:
    await caller.started()
    holder = SessionStore(caller.key, transport="header")
    await holder.alock()
    settings.HEADER_SESSIONS_LOCK_WAIT = 20
    waiting = asyncio.create_task(caller("alone/read"))
    redis: Any = store.valkey.client
    await until(lambda: redis.keys("*:q:*"))
    store.valkey.signal(signal.SIGSTOP)
    assert_unavailable(await waiting, executed=False)

    store.valkey.signal(signal.SIGCONT)
    await until(lambda: registry.health().usable)
    await holder.aunlock()
    settings.HEADER_SESSIONS_LOCK_WAIT = 0
    assert (await caller("alone/read")).status == 200
    assert redis.keys("*:q:*") == []


# A session that somebody has when memory is full, or its server has lost what it knew.


async def test_a_full_store_locks_and_unlocks_and_refuses_what_is_to_be_stored(
    store: Failing, either_caller: Caller
) -> None:
    caller = await either_caller.started()
    store.valkey.client.config_set("maxmemory", "1")
    for _ in range(2):
        for view in ("alone/read", "block"):
            answer = await caller(view)
            assert (answer.status, answer.body) == (200, {"n": 1})
        assert_unavailable(await caller("alone/write", n=2), executed=True)
    holder = SessionStore(caller.key, transport=caller.transport)  # type: ignore[arg-type]
    await holder.alock()
    assert (await caller("alone/read")).status == 409
    await holder.aunlock()

    store.valkey.client.config_set("maxmemory", "0")
    assert (await caller("alone/write", n=3)).status == 200
    assert (await caller("alone/read")).body == {"n": 3}


async def test_a_full_store_opens_lists_and_ends_contexts_and_refuses_others(
    store: Failing, mode: str
) -> None:
    session = SessionStore(transport="header")
    for name in ("one", "two"):
        (await session.acontext(name))["n"] = name
    await session.asave()
    store.valkey.client.config_set("maxmemory", "1")

    async def work() -> None:
        mine = SessionStore(session.session_key, transport="header")
        context = await mine.acontext("one")
        assert dict(context) == {"n": "one"}
        assert [each.name for each in await mine.acontexts()] == ["one", "two"]
        for write in (context.asave, context.apromote):
            context["n"] = "another"
            with pytest.raises(SessionUnavailable):
                await write()
        assert await mine.aend_context("two")
        assert [each.name for each in await mine.acontexts()] == ["one"]

    def sync() -> None:
        mine = SessionStore(session.session_key, transport="header")
        context = mine.context("one")
        assert dict(context) == {"n": "one"}
        assert [each.name for each in mine.contexts()] == ["one", "two"]
        for write in (context.save, context.promote):
            context["n"] = "another"
            with pytest.raises(SessionUnavailable):
                write()
        assert mine.end_context("two")
        assert [each.name for each in mine.contexts()] == ["one"]

    await (work() if mode == "async" else asyncio.to_thread(sync))
    store.valkey.client.config_set("maxmemory", "0")


async def test_a_server_that_lost_its_data_while_one_had_the_session(
    store: Failing, caller: Caller, settings: Any
) -> None:
    await caller.started()
    settings.HEADER_SESSIONS_LOCK_WAIT = 20
    redis: Any = store.valkey.client
    behind: list[asyncio.Task[Any]] = []
    loop = asyncio.get_running_loop()

    def lose() -> None:
        site.meanwhile.clear()
        loop.call_soon_threadsafe(lambda: behind.append(loop.create_task(caller("alone/read"))))
        asyncio.run_coroutine_threadsafe(until(lambda: redis.keys("*:q:*")), loop).result(20)
        redis.flushall()

    site.meanwhile.append(lose)
    answer = await caller("alone/write", n=2)
    assert (answer.status, answer.body["executed"]) == (401, True)
    assert answer.body["type"].endswith(":ended")
    # Neither has who waits, and its view did not run.
    answer = await behind[0]
    assert (answer.status, answer.body["executed"]) == (401, False)
    assert site.ran[-1] == "write"
    assert redis.keys("*") == []
    assert await Caller(caller.mode, "header").started()


async def test_a_server_that_was_started_anew_while_one_had_the_session(
    store: Failing, caller: Caller
) -> None:
    await caller.started()

    def restart() -> None:
        site.meanwhile.clear()
        store.close()
        store.start()

    site.meanwhile.append(restart)
    answer = await caller("alone/write", n=2)
    # By the word of the server, or because its connection was lost.
    assert answer.status in (401, 503)
    assert answer.body["executed"] is True
    await until(lambda: registry.health().usable)
    assert (await caller("alone/read")).status in (401, 503)
    new = await Caller(caller.mode, "header").started()
    assert (await new("alone/write", n=2)).status == 200


async def test_a_lock_that_the_store_lost_fences_all_the_same(
    store: Failing, either_caller: Caller
) -> None:
    """As in a failover to a replica that was behind."""
    caller = await either_caller.started()
    site.meanwhile.append(lambda: store.valkey.client.delete(*locks(store)))
    answer = await caller("alone/write", n=2)
    assert (answer.status, answer.body["executed"]) == (409, True)
    assert answer.body["type"].endswith(":lease-expired")
    assert (await caller("alone/read")).body == {"n": 1}


# A cluster that moves what is locked.


async def test_a_lock_is_held_waited_for_and_given_back_while_its_slot_moves(
    cluster: Cluster, mode: str, settings: Any
) -> None:
    for node in cluster.nodes[:3]:
        node.client.flushall()
    settings.CACHES = {"default": cluster_alias(cluster)}
    settings.HEADER_SESSIONS_BUCKETS = 4
    slot = SLOTS // 4  # the second bucket
    (key,) = await made(mode, lambda session_id: slot_of(session_id) == slot, 1)
    others = 6

    async def add() -> int:
        session = SessionStore(key, transport="header")

        def sync() -> int:
            with session.serialized(wait=20):
                session["n"] += 1
                return int(session["n"])

        if mode == "sync":
            return await asyncio.to_thread(sync)
        async with session.serialized(wait=20):
            session["n"] += 1
            return int(session["n"])

    moving = Moving(cluster, slot)
    source: Any = cluster.nodes[moving.source].client

    def waiting() -> int:
        found: Any = source.zcard(get_store("default")._buckets[1].lock(key.id)[1])  # type: ignore[attr-defined]
        return int(found)

    holder = SessionStore(key, transport="header")
    try:
        async with holder.serialized():
            holder["n"] = holder["n"] + 1
            adding = [asyncio.create_task(add()) for _ in range(others)]
            await until(lambda: waiting() == others)
            moving.begin()
            # The lock is here still and the session there, or the other way round.
            keys = source.execute_command("CLUSTER GETKEYSINSLOT", slot, 100)
            port = cluster.nodes[moving.target].port
            source.execute_command(
                "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys[: len(keys) // 2]
            )

            def finish() -> None:
                moving.move()
                moving.end()

            rest = threading.Timer(0.15, finish)
            rest.start()
        rest.join()
        assert sorted(await asyncio.gather(*adding)) == list(range(3, 3 + others))
        assert await add() == 3 + others
    finally:
        moving.back()
