"""The store of a Redis: the contract, and what it promises on top."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import log2
from typing import Any

import pytest
import redis
import redis.asyncio
import time_machine

from django_header_sessions.exceptions import SessionEnded
from django_header_sessions.fields import Changes
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.origin import Origin
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import KINDS, Expiry, Kind, Opened, Queued, Terms

from ..processes import ROOT, Valkey
from .bench import RedisBench, open_store
from .conftest import django_redis
from .contract import (
    GRAIN,
    HOUR,
    IDLE,
    SLACK,
    TERMS,
    ListContract,
    ListRaceContract,
    RaceContract,
    StoreContract,
    Verbs,
    near,
)
from .sharing import ContextContract, LockContract

README = ROOT / "README.md"


class TestRedis(
    StoreContract, ListContract, RaceContract, ListRaceContract, LockContract, ContextContract
):
    @pytest.fixture
    def bench(self, valkey: Valkey, redis_cache: dict[str, Any], settings: Any) -> RedisBench:
        settings.CACHES = {"default": redis_cache}
        return RedisBench(open_store(), valkey.client)


class TestBuckets(ListContract, ListRaceContract):
    """Sessions in several buckets, as on a cluster."""

    @pytest.fixture(params=[4, 16])
    def bench(
        self,
        request: pytest.FixtureRequest,
        valkey: Valkey,
        redis_cache: dict[str, Any],
        settings: Any,
    ) -> RedisBench:
        settings.CACHES = {"default": redis_cache}
        settings.HEADER_SESSIONS_BUCKETS = request.param
        return RedisBench(open_store(), valkey.client)

    async def test_the_sessions_are_spread_over_all_of_them(
        self, verbs: Verbs, valkey: Valkey, settings: Any
    ) -> None:
        verbs.checking = False  # once, at the end
        for _ in range(40 * settings.HEADER_SESSIONS_BUCKETS):
            await verbs.create()
        verbs.bench.check()
        tags = Counter(
            re.findall(rb"\{(.*)\}", name)[0] for name in names(valkey) if b":s:" in name
        )
        assert len(tags) == settings.HEADER_SESSIONS_BUCKETS
        assert max(tags.values()) < 80
        # A session and its indexes are in one slot.
        assert {re.findall(rb"\{(.*)\}", name)[0] for name in names(valkey)} == set(tags)


class TestDjangosRedisCache(StoreContract, ListContract):
    """The same on Django's own cache backend for Redis."""

    @pytest.fixture
    def bench(self, valkey: Valkey, redis_cache: dict[str, Any], settings: Any) -> RedisBench:
        backend = "django.core.cache.backends.redis.RedisCache"
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": redis_cache["LOCATION"]}}
        return RedisBench(open_store(), valkey.client)


@pytest.fixture
def bench(valkey: Valkey, redis_cache: dict[str, Any], settings: Any) -> RedisBench:
    settings.CACHES = {"default": redis_cache}
    return RedisBench(open_store(), valkey.client)


@pytest.fixture(params=["sync", "async"])
def verbs(request: pytest.FixtureRequest, bench: RedisBench) -> Verbs:
    quiet = Verbs(bench, request.param)
    # The bench's own questions would be counted.
    quiet.checking = False
    return quiet


def names(valkey: Valkey) -> list[bytes]:
    return list(valkey.client.scan_iter(count=10_000))


@dataclass
class Traffic:
    round_trips: int = 0
    commands: list[str] = field(default_factory=list)
    inner: Counter[str] = field(default_factory=Counter)
    """Commands that scripts ran."""


@pytest.fixture
def traffic(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Counts what goes to Redis: how often something was sent, and what Redis then did."""
    sent = 0
    sync_send: Any = redis.connection.AbstractConnection.send_packed_command
    async_send = redis.asyncio.connection.AbstractConnection.send_packed_command

    def send(*args: Any, **kwargs: Any) -> Any:
        nonlocal sent
        sent += 1
        return sync_send(*args, **kwargs)

    def asend(*args: Any, **kwargs: Any) -> Any:
        nonlocal sent
        sent += 1
        return async_send(*args, **kwargs)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", send)
    monkeypatch.setattr(redis.asyncio.connection.AbstractConnection, "send_packed_command", asend)

    @contextmanager
    def watch() -> Iterator[Traffic]:
        seen = Traffic()
        with redis.Redis(port=valkey.port) as own, own.monitor() as monitor:
            before = sent
            yield seen
            seen.round_trips = sent - before
            valkey.client.echo("done")
            while not (heard := monitor.next_command())["command"].startswith("ECHO done"):
                command = heard["command"].split(" ", 1)[0].upper()
                if heard["client_type"] == "lua":
                    seen.inner[command] += 1
                else:
                    seen.commands.append(command)

    return watch


Watch = Callable[[], Any]


async def test_commands_and_round_trips_are_as_few_as_promised(
    verbs: Verbs, traffic: Watch
) -> None:
    key = await verbs.create({"a": b"1"}, user="7")
    # Connected, and all scripts known.
    for learn in (verbs.count, verbs.page, verbs.sweep):
        await learn()
    await verbs.of_user("7")
    await verbs.get(key.id)
    await verbs.commit(key)
    await verbs.end(make().id)
    await verbs.open(key)

    async def costs(verb: Awaitable[Any], round_trips: int, commands: int | None = None) -> None:
        with traffic() as seen:
            await verb
        assert seen.commands == ["EVALSHA"] * (commands or round_trips)
        assert seen.round_trips == round_trips

    await costs(verbs.open(key), 1)
    verbs.bench.forward(GRAIN)
    await costs(verbs.open(key), 1)  # one that slides the idle timeout
    await costs(verbs.open(make()), 1)
    await costs(verbs.create({"a": b"1"}, user="7", expiry=Expiry("idle", HOUR)), 1)
    await costs(verbs.commit(key, Changes(set={"b": b"2"}, delete=["a"])), 1)
    await costs(verbs.commit(key, Changes(add=("n", 1))), 1)
    new = make(key.id)
    await costs(verbs.commit(key, Changes(clear=True), signed=True, user="8", rotate_to=new), 1)
    with pytest.raises(SessionEnded):
        await costs(verbs.commit(make(), Changes(set={"a": b"1"})), 1)
    await costs(verbs.exists(new), 1)
    await costs(verbs.get(key.id), 1)
    await costs(verbs.count(), 1)
    await costs(verbs.of_user("7"), 2)
    await costs(verbs.page(), 2, commands=3)
    await costs(verbs.page_each(5), 2, commands=3)
    await costs(verbs.sweep(), 1)
    await costs(verbs.end(key.id), 1)


async def test_a_page_is_whole_where_one_bucket_holds_more_than_its_share(
    verbs: Verbs, valkey: Valkey, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_header_sessions.stores.redis.SPARE", 1)
    settings.HEADER_SESSIONS_BUCKETS = 16
    some = Verbs(RedisBench(open_store(), valkey.client), verbs.mode)
    some.checking = False
    ids = [
        (await some.create(user="7", expiry=Expiry("idle", HOUR + n * 1000))).id for n in range(60)
    ]
    for limit in (1, 7, 30, 59, 60, 61):
        page = await some.page(limit)
        assert [session.id for session in page.sessions] == ids[::-1][:limit]
        assert await some.walk(limit) == ids[::-1]
        assert await some.walk(limit, backward=True) == ids
    assert {one.id for one in await some.of_user("7")} == set(ids)
    assert len(await some.of_user("7", 30)) == 30


async def test_many_are_ended_in_parts_that_hold_nobody_up(verbs: Verbs, traffic: Watch) -> None:
    keys = [await verbs.create() for _ in range(200)]
    await verbs.end(make().id)
    with traffic() as seen:
        ended = await verbs.end_many([key.id for key in keys])
    assert ended == [True] * 200
    # A server runs what it was sent at once without looking at others.
    assert (len(seen.commands), seen.round_trips) == (200, 4)


async def test_buckets_are_asked_sixty_four_at_once(
    valkey: Valkey, redis_cache: dict[str, Any], settings: Any, traffic: Watch
) -> None:
    settings.CACHES = {"default": redis_cache}
    settings.HEADER_SESSIONS_BUCKETS = 256
    for mode in ("sync", "async"):
        verbs = Verbs(RedisBench(open_store(), valkey.client), mode)
        verbs.checking = False
        key = await verbs.create(user="7")
        # Once before, so that the server knows the scripts.
        await verbs.total()
        await verbs.open(key)
        with traffic() as seen:
            await verbs.total()
        assert (len(seen.commands), seen.round_trips) == (256, 4)
        with traffic() as seen:
            await verbs.open(key)
        assert (len(seen.commands), seen.round_trips) == (1, 1)


async def test_a_server_that_lost_its_scripts_learns_each_again_once(
    verbs: Verbs, valkey: Valkey, traffic: Watch
) -> None:
    key = await verbs.create({"a": b"1"}, user="7")
    await verbs.open(key)
    valkey.client.script_flush()
    with traffic() as seen:
        assert (await verbs.there(key)).fields == {"a": b"1"}
    assert (seen.commands, seen.round_trips) == (["EVALSHA", "EVAL"], 2)
    with traffic() as seen:
        assert await verbs.open(key)
    assert (seen.commands, seen.round_trips) == (["EVALSHA"], 1)
    # An increment that had to be sent twice was counted once.
    valkey.client.script_flush()
    assert (await verbs.commit(key, Changes(add=("n", 1)))).total == 1
    # Many scripts at once, too.
    valkey.client.script_flush()
    assert [session.id for session in await verbs.of_user("7")] == [key.id]
    assert await verbs.walk() == [key.id]
    valkey.client.script_flush()
    assert await verbs.total() == 1


async def test_expiry_score_and_last_seen_are_written_together_once_in_a_grain_or_not_at_all(
    verbs: Verbs, traffic: Watch
) -> None:
    key = await verbs.create(user="7")
    for _ in range(3):
        with traffic() as seen:
            for _ in range(10):
                await verbs.there(key)
        assert not seen.inner.keys() & {"HSET", "PEXPIREAT", "PEXPIRE", "ZADD", "HINCRBY", "HDEL"}
        verbs.bench.forward(GRAIN)
        with traffic() as seen:
            for _ in range(10):
                await verbs.there(key)
        written = {name: seen.inner[name] for name in ("HSET", "PEXPIREAT", "ZADD")}
        assert written == {"HSET": 1, "PEXPIREAT": 1, "ZADD": 1}
        verbs.bench.check()


async def test_nothing_is_asked_that_takes_longer_the_more_there_is(
    verbs: Verbs, traffic: Watch
) -> None:
    for _ in range(600):
        await verbs.create(user="7")
    verbs.bench.level()
    with traffic() as first:
        page = await verbs.page(10)
    pages = 1
    while page.next is not None:
        with traffic() as later:
            page = await verbs.page(10, page.next)
        pages += 1
        # To find a place among the entries of one millisecond is to halve them, index by index.
        assert later.inner.total() <= first.inner.total() + len(KINDS) * (2 + log2(600) + 1)
    assert pages == 61


async def test_a_session_lives_its_idle_timeout_by_the_servers_clock_and_at_most_a_grain_more(
    verbs: Verbs, valkey: Valkey
) -> None:
    def now() -> int:
        seconds, micros = valkey.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    idle, more = 128, 4
    for expiry, limit in (
        (None, idle + more),
        (Expiry("idle", 64), 64 + 2),
        (Expiry("deadline", 64), 64),
    ):
        before = now()
        key = await verbs.create(user="7", expiry=expiry, terms=Terms(idle, None))
        after = now()
        shortest = 64 if expiry else idle
        there = True
        while there:
            asked = now()
            there = await verbs.exists(key)
            assert asked <= after + limit or not there
        assert now() > before + shortest
        assert await verbs.total() == 0
        assert await verbs.of_user("7") == []


async def test_what_is_there_is_listed_to_its_last_millisecond(
    verbs: Verbs, valkey: Valkey
) -> None:
    async def counts(key: SessionKey) -> bool:
        return (await verbs.count())[Kind("header", True)] == 1

    async def walks(key: SessionKey) -> bool:
        return key.id in await verbs.walk()

    async def walks_backward(key: SessionKey) -> bool:
        return key.id in await verbs.walk(backward=True)

    async def sweeps(key: SessionKey) -> bool:
        return await verbs.sweep() >= 0

    async def creates(key: SessionKey) -> bool:
        return bool(await verbs.create())

    lasting = await verbs.create()
    (name_of_it,) = [name for name in names(valkey) if name.endswith(lasting.id.encode())]
    prefix = name_of_it[: name_of_it.index(b":s:")]
    await verbs.end(lasting.id)
    for look in (counts, walks, walks_backward, sweeps, creates):
        for _ in range(4):
            key = await verbs.create(user="7", expiry=Expiry("deadline", 5))
            name = prefix + b":s:" + key.id.encode()
            there = True
            while there:
                shown = await look(key)
                pipeline = valkey.client.pipeline(transaction=True)
                pipeline.exists(name)
                pipeline.zscore(prefix + b":i:h1", f"{key.id}\0007")
                pipeline.zscore(prefix + b":u", f"7\000{key.id}")
                there, *listed = pipeline.execute()
                if there:
                    assert shown
                    assert None not in listed


@pytest.mark.parametrize("wrong", [timedelta(hours=-1), timedelta(hours=1), timedelta(days=4000)])
async def test_a_client_whose_clock_is_wrong_changes_nothing(
    verbs: Verbs, valkey: Valkey, wrong: timedelta
) -> None:
    right = await verbs.create({"a": b"1"})
    with time_machine.travel(datetime.now(UTC) + wrong, tick=True):
        key = await verbs.create({"a": b"1"}, user="7")
        assert near((await verbs.there(key)).session.expires_in, IDLE)
        assert near((await verbs.there(right)).session.expires_in, IDLE)
        committed = await verbs.commit(right, expiry=Expiry("deadline", HOUR))
        assert near(committed.expires_in, HOUR)
        await verbs.commit(key, signed=True, user="8")
        assert await verbs.total() == 2
        assert len(await verbs.walk(1)) == 2
        assert await verbs.sweep() == 0
    seconds, _ = valkey.client.time()
    for each in (key, right):
        looked = await verbs.get(each.id)
        assert looked is not None
        assert abs(looked.session.created_ms - int(seconds) * 1000) <= SLACK
        assert abs(looked.session.last_seen_ms - int(seconds) * 1000) <= SLACK
    assert near((await verbs.there(right)).session.expires_in, HOUR)
    verbs.bench.check()


async def test_a_creation_takes_along_what_expired(verbs: Verbs, valkey: Valkey) -> None:
    for user in (None, "7"):
        for _ in range(5):
            await verbs.create(user=user)
    verbs.bench.forward(IDLE + GRAIN + 1)
    left = []
    for _ in range(4):
        await verbs.create(transport="header", user="8")
        verbs.bench.check()
        left.append(
            sum(
                valkey.client.zcard(name)
                for name in names(valkey)
                if b":i:" in name or name.endswith(b":u")
            )
        )
    # Fifteen entries of ten sessions at first, and two for each creation that stays.
    assert left == [15 - 6 + 2, 15 - 12 + 4, 6, 8]


async def test_all_names_carry_the_prefix_and_the_version_of_the_alias(
    verbs: Verbs, valkey: Valkey, redis_cache: dict[str, Any], settings: Any
) -> None:
    stores = {}
    for prefix in ("one", "two"):
        settings.CACHES = {"default": redis_cache | {"KEY_PREFIX": prefix, "VERSION": 7}}
        stores[prefix] = Verbs(RedisBench(open_store(), valkey.client), verbs.mode)
    key = await stores["one"].create({"a": b"1"}, user="7")
    assert await stores["two"].open(key) is None
    assert await stores["two"].end(key.id) is False
    assert await stores["two"].total() == 0
    assert await stores["two"].of_user("7") == []
    assert await stores["one"].open(key)
    assert names(valkey)
    for name in names(valkey):
        assert re.match(rb"one:7:hs\{\w+\}:\w+", name)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 32_761, 32_762, 32_763])
async def test_answers_of_all_lengths_are_understood(verbs: Verbs, number: int) -> None:
    """MessagePack counts in three ways: up to 15, up to 65,535, and beyond."""
    key = await verbs.create()
    names = [f"{n}" for n in range(number)]
    for start in range(0, number, 1000):
        await verbs.commit(key, Changes(set=dict.fromkeys(names[start : start + 1000], b"")))
    assert (await verbs.there(key)).fields == dict.fromkeys(names, b"")


async def test_a_usual_session_is_kept_compact(verbs: Verbs, valkey: Valkey) -> None:
    key = await verbs.create(
        {
            "_auth_user_id": b"12345",
            "_auth_user_backend": b"django.contrib.auth.backends.ModelBackend",
            "_auth_user_hash": b"f" * 64,
        },
        user="12345",
        origin=Origin("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "x" * 64),
    )
    for _ in range(5):
        key = await verbs.rotate(key)
    verbs.bench.forward(GRAIN)
    assert await verbs.open(key)
    (name,) = [name for name in names(valkey) if name.endswith(key.id.encode())]
    assert valkey.client.object("ENCODING", name) == b"listpack"


async def test_all_works_with_the_rights_that_the_readme_gives_and_no_others(
    verbs: Verbs, valkey: Valkey, settings: Any
) -> None:
    told = re.findall(r"redis-cli (ACL SETUSER .*?)```", README.read_text("utf-8"), re.DOTALL)
    words = shlex.split(told[0].replace("\\\n", " "))
    command: Any = valkey.client.execute_command
    command("ACL DELUSER", "sessions")
    command("ACL SETUSER", *words[2:])
    settings.CACHES = django_redis(f"redis://sessions:secret@127.0.0.1:{valkey.port}/1")
    store = open_store()
    limited = Verbs(RedisBench(store, redis.Redis(port=valkey.port, db=1)), verbs.mode)
    key = await limited.create({"a": b"1"}, user="7", expiry=Expiry("idle", HOUR))
    limited.bench.forward(GRAIN)
    assert await limited.open(key)
    await limited.commit(
        key,
        Changes(clear=True, set={"b": b"2"}, delete=["c"], add=("n", 1)),
        signed=True,
        user="8",
        expiry=Expiry("deadline", HOUR),
        rotate_to=(new := make(key.id)),
    )
    assert await limited.exists(new)
    assert await limited.get(key.id)
    assert await limited.total() == 1
    page = await limited.page(1)
    assert page.next is not None
    assert (await limited.page(1, page.next)).sessions == []
    assert len(await limited.of_user("8")) == 1
    assert len(await limited.activity()) == 60
    assert await limited.sweep() == 0
    await limited.commit_context(new, "one", Changes(set={"a": b"1"}), new=True)
    assert await limited.open_context(new, "one") == {"a": b"1"}
    assert len(await limited.contexts(key.id)) == 1
    await limited.promote(new, "one")
    assert not await limited.end_context(key.id, "one")
    waiter = store.waiter()
    try:
        assert isinstance(await limited.lock(new, "p.1"), Opened)
        assert isinstance(await limited.lock(new, waiter.ticket), Queued)
        for _ in range(2):  # until it hears
            await asyncio.to_thread(waiter.wait, 0.3)
        began = time.perf_counter()
        await limited.unlock(key.id, "p.1")
        await asyncio.to_thread(waiter.wait, 5)
        assert time.perf_counter() - began < 4, "the wake-up was not published, or not heard"
    finally:
        waiter.close()
    assert await limited.end(key.id)
    assert store.memory() is not None
    assert [finding.level for finding in store.examine()] == ["ok"]
    servers: Any = store
    servers._servers._server.ping()
    with pytest.raises(redis.exceptions.NoPermissionError):
        redis.Redis.from_url(settings.CACHES["default"]["LOCATION"]).keys("*")


def test_who_may_not_be_asked_how_it_is_is_not_taken_for_ill(valkey: Valkey, settings: Any) -> None:
    valkey.client.acl_setuser(
        "few", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info", "-eval"]
    )
    settings.CACHES = django_redis(f"redis://few:pw@127.0.0.1:{valkey.port}/0")
    store: Any = open_store()
    assert store.memory() is None
    (finding,) = store.examine()
    assert finding.level == "warning"
    assert "does not tell how it is set up" in finding.text
    store._servers._server.ping()


def test_each_alias_has_one_store_a_process(redis_cache: dict[str, Any], settings: Any) -> None:
    settings.CACHES = {"default": redis_cache, "other": redis_cache}
    assert get_store("default") is get_store("default")
    assert get_store("default") is not get_store("other")
    before = get_store("default")
    settings.CACHES = {"default": dict(redis_cache)}
    assert get_store("default") is not before


async def test_terms_do_not_shorten_what_they_were_not_asked_to(verbs: Verbs) -> None:
    """A session in its grain keeps the expiry that was written, whatever the default is by now."""
    key = await verbs.create()
    await verbs.there(key, terms=Terms(10 * 60 * 1000, None))
    assert near((await verbs.there(key, terms=TERMS)).session.expires_in, IDLE)
    verbs.bench.check()
