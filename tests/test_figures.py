"""What the registry says of all sessions together, and does to many of them: sync and async."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, cast

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.cache import caches

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.keys import make
from django_header_sessions.registry import KINDS, Activity, Alarm, Kind
from django_header_sessions.signals import session_alarm, session_ended
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Commit, Draft, Expiry, Store, Terms

from .processes import Valkey

TERMS = Terms(1_800_000, 43_200_000)

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks the registry, in one of its two ways."""

    async def asked(name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(registry, name)(*args, **kwargs)
        verb = getattr(registry, "a" + name)
        assert iscoroutinefunction(verb)
        return await verb(*args, **kwargs)

    return asked


@pytest.fixture
def own_cache(settings: Any, tmp_path: Any) -> None:
    """A LocMemCache that no other test has counted in."""
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": str(tmp_path),
            "OPTIONS": {"MAX_ENTRIES": 10_000},
        }
    }


async def walk(ask: Ask, verb: str, *args: Any, **kwargs: Any) -> list[Any]:
    """All pages, one after the other."""
    pages = [await ask(verb, *args, **kwargs)]
    while pages[-1].next is not None:
        pages.append(await ask(verb, *args, after=pages[-1].next, **kwargs))
        assert len(pages) < 60
    return pages


def ids_of(page: Any) -> list[str]:
    return [one.id for one in page.sessions]


def start(
    user: str | None = None, transport: str = "header", idle: int = 1800, **fields: bytes
) -> str:
    draft = Draft(transport, fields, user, Expiry("idle", idle * 1000))
    return get_store("default").create(draft, TERMS)[0].id


def totals(activity: list[Activity]) -> tuple[int, int, int]:
    return (
        sum(one.created for one in activity),
        sum(one.ended for one in activity),
        sum(one.expired for one in activity),
    )


async def test_the_overview_counts_sessions_of_each_kind(ask: Ask, listing_store: Store) -> None:
    figures = await ask("overview")
    assert figures.counts == dict.fromkeys(KINDS, 0)
    assert (figures.live, figures.oldest, figures.alarms) == (0, None, [])
    start()
    start("7")
    start("7", "cookie")
    figures = await ask("overview")
    assert figures.live == 3
    assert figures.counts == {
        Kind("header", False): 1,
        Kind("header", True): 1,
        Kind("cookie", False): 0,
        Kind("cookie", True): 1,
    }


Forward = Callable[[float], None]


async def test_the_oldest_was_not_used_for_longest_whatever_its_kind(
    ask: Ask, listing_store: Store, forward: Forward
) -> None:
    # A cookie lives for weeks, a header session for half an hour.
    oldest = start(transport="cookie", idle=14 * 86_400)
    forward(3600)
    for _ in range(registry.FIRST + 1):
        start()
        start("7")
        start(transport="cookie", idle=14 * 86_400)
    figures = await ask("overview")
    assert figures.oldest is not None
    assert figures.oldest.id == oldest
    assert abs(figures.oldest.idle_ms - 3_600_000) < 10_000


async def test_those_idle_longest_are_found_whatever_their_time_outs(
    ask: Ask, listing_store: Store, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SEARCHED", 40)
    expected = []
    for n in range(7):
        expected.append(start("7" if n % 2 else None, "cookie", idle=14 * 86_400))
        forward(600)
    header = [start() for _ in range(60)]
    forward(900)
    page = await ask("idle", timedelta(seconds=1200))
    assert [one.id for one in page.sessions] == expected
    page = await ask("idle", timedelta(seconds=600), 100)
    assert [one.id for one in page.sessions[:7]] == expected
    assert page.more
    assert {one.id for one in page.sessions[7:]} <= set(header)
    # Of some kinds alone.
    page = await ask("idle", timedelta(seconds=1200), kinds=[Kind("cookie", True)])
    assert [one.id for one in page.sessions] == expected[1::2]
    page = await ask("idle", timedelta(days=2))
    assert page.sessions == []


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_pages_of_the_idle_go_on_and_back_in_order(
    ask: Ask,
    listing_store: Store,
    forward: Forward,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
) -> None:
    monkeypatch.setattr(registry, "SEARCHED", 16)
    expected = []
    for n in range(30):
        kind = KINDS[n * 7 % 4] if n < 20 else KINDS[3]
        idle = 86_400 if kind.transport == "cookie" else 7200
        expected.append(start("7" if kind.signed_in else None, kind.transport, idle))
        forward(60)
    fresh = [start(), start("7", "cookie", 86_400)]
    pages: list[Any] = []
    after = None
    while not pages or pages[-1].more:
        page = await ask("idle", timedelta(seconds=30), limit, after)
        assert len(page.sessions) <= limit
        pages.append(page)
        assert len(pages) <= 60
        after = page.end
    ids = [[one.id for one in page.sessions] for page in pages]
    assert list(chain(*ids)) == expected
    # And back over the same pages.
    back: list[str] = []
    before, turns = pages[-1].start, 0
    while before:
        page = await ask("idle", timedelta(seconds=30), limit, before, backward=True)
        back[:0] = [one.id for one in page.sessions]
        turns += 1
        assert turns < 60
        # What lies behind a page that was gone back to is what lay behind it before.
        onward = await ask("idle", timedelta(seconds=30), 30, page.start)
        assert [one.id for one in onward.sessions][: len(page.sessions)] == [
            one.id for one in page.sessions
        ]
        before = page.start
    assert back == expected[: len(expected) - len(ids[-1])]
    assert not set(back) & set(fresh)


async def test_one_kind_in_use_does_not_stand_before_the_idle_of_another(
    ask: Ask, listing_store: Store, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cookie that was saved first expires first, however often it was used since."""
    monkeypatch.setattr(registry, "SEARCHED", 8)
    store = get_store("default")
    deadline = Draft("cookie", {}, None, Expiry("deadline", 14 * 86_400_000))
    terms = Terms(14 * 86_400_000, None)
    used, _ = store.create(deadline, terms)
    forward(60)
    idle = store.create(deadline, terms)[0].id
    header = []
    for _ in range(9):
        header.append(start())
        forward(100)
    assert store.open(used, "cookie", terms)
    page = await ask("idle", timedelta(seconds=300), 100)
    assert page.sessions[0].id == idle
    assert used.id not in {one.id for one in page.sessions}
    page = await ask("idle", timedelta(seconds=300), 1)
    assert [one.id for one in page.sessions] == [idle]


@pytest.mark.usefixtures("listing_store")
async def test_the_sessions_of_users_come_latest_to_expire_first_page_by_page(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST", 7)
    of = {n: start("7" if n % 3 else "8", idle=600 + 60 * n) for n in range(30)}
    start("9")
    start()
    for users in (["7"], ["7", "8"]):
        expected = [of[n] for n in range(29, -1, -1) if "8" in users or n % 3]
        for backward in (False, True):
            pages = await walk(ask, "page", 4, users=users, backward=backward)
            for page in pages:
                assert ids_of(page) == [one.session_id for one in page.places]
            shown = list(chain(*map(ids_of, pages)))
            assert shown == (expected[::-1] if backward else expected)
        assert await ask("count_of_users", users, 100) == len(expected)
    assert await ask("count_of_users", ["7"], 5) == 5
    assert await ask("count_of_users", ["nobody"]) == 0
    page = await ask("search", lambda one: one.id == of[1], users=["7"])
    assert [one.id for one in page.sessions] == [of[1]]
    page = await ask("page", 100, None, [Kind("cookie", True)], users=["7"])
    assert page.sessions == []


@pytest.mark.usefixtures("listing_store")
async def test_a_page_holds_a_thousand_at_the_most(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST", 5)
    for _ in range(7):
        start("7")
    page = await ask("page", 1000)
    assert len(page.sessions) == 5
    assert len((await ask("page", 1000, page.next)).sessions) == 2
    page = await ask("page", 1000, users=["7"])
    assert len(page.sessions) == 5


async def test_a_page_whose_sessions_were_thrown_out_goes_on_to_those_that_were_not(
    ask: Ask, valkey: Valkey, redis_cache: dict[str, Any], settings: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    ids = [start(idle=600 + n) for n in range(12)]
    for lost in ids[-7:]:
        valkey.client.delete(*valkey.client.keys(f"*:s:{lost}"))
    page = await ask("page", 3)
    assert [one.id for one in page.sessions] == ids[4:1:-1][: len(page.sessions)]
    assert page.sessions


async def test_creations_and_ends_are_counted_in_the_store(ask: Ask, listing_store: Store) -> None:
    before = totals((await ask("overview")).activity)
    ids = [start() for _ in range(5)]
    start("7", "cookie")
    listing_store.end(ids[0])
    listing_store.end(ids[0])
    listing_store.end_many(ids[1:3])
    activity = (await ask("overview")).activity
    created, ended, expired = (now - was for now, was in zip(totals(activity), before, strict=True))
    assert (created, ended, expired) == (6, 3, 0)
    assert len(activity) == 60
    minutes = [one.start_ms // 60_000 for one in activity]
    assert minutes == list(range(minutes[0], minutes[0] + 60))
    assert abs(datetime.now(UTC) - activity[-1].start) < timedelta(minutes=2)


@pytest.mark.usefixtures("own_cache")
async def test_an_expiry_is_counted_when_it_is_swept(ask: Ask, time_machine: Any) -> None:
    time_machine.move_to(datetime(2030, 1, 1, 12, tzinfo=UTC), tick=False)
    for _ in range(3):
        start(idle=60)
    left = start()
    time_machine.shift(120)
    assert totals((await ask("overview")).activity) == (4, 0, 0)
    assert await ask("sweep", 2) == 2
    assert await ask("sweep") == 1
    assert await ask("sweep") == 0
    activity = (await ask("overview")).activity
    assert totals(activity) == (4, 0, 3)
    assert (activity[-3].created, activity[-1].expired) == (4, 3)
    assert listed() == [left]
    # After an hour it is forgotten.
    time_machine.shift(58 * 60 - 1)
    assert totals((await ask("overview")).activity) == (4, 0, 3)
    time_machine.shift(1)
    assert totals((await ask("overview")).activity) == (0, 0, 3)
    time_machine.shift(2 * 60)
    assert totals((await ask("overview")).activity) == (0, 0, 0)


def listed() -> list[str]:
    return [session.id for session in registry.page(1000).sessions]


def test_an_expiry_is_counted_by_whoever_comes_upon_it(
    valkey: Valkey, redis_cache: dict[str, Any], settings: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    store, client = get_store("default"), cast("Any", valkey.client)

    def lost(session_id: str) -> str:
        (key,) = client.keys(f"*:s:{session_id}")
        client.delete(key)
        return session_id

    lost(start())
    store.page(10)
    lost(start("7"))
    store.of_user("7")
    store.end(lost(start()))
    assert totals(store.activity()) == (3, 0, 3)
    assert listed() == []
    # What creations take along: two of each index at the most.
    for _ in range(5):
        lost(start())
    for index in client.keys("*:i:*"):
        for entry in client.zrange(index, 0, -1):
            client.zadd(index, {entry: 1})
    start()
    assert totals(store.activity()) == (9, 0, 5)


def test_counters_of_more_than_an_hour_ago_are_dropped(
    valkey: Valkey, redis_cache: dict[str, Any], settings: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    store, client = get_store("default"), cast("Any", valkey.client)
    start()
    (counters,) = client.keys("*:n")
    ((field, count),) = client.hgetall(counters).items()
    assert (field[-1:], count) == (b"+", b"1")
    this = int(field[:-1])
    client.delete(counters)
    for ago in (200, 61, 60, 59, 1):
        client.hset(counters, f"{this - ago}-", 10)
    start()
    left = {int(name[:-1]) - this for name in client.hkeys(counters)}
    assert left <= {-60, -59, -1, 0, 1}
    assert {-59, -1} <= left
    assert totals(store.activity()) == (1, 20, 0)
    assert 60 * 60 <= client.ttl(counters) <= 61 * 60


def test_counters_cost_no_round_trip(
    valkey: Valkey, redis_cache: dict[str, Any], settings: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    store = get_store("default")
    store.end(start())

    def calls() -> int:
        stats: Any = valkey.client.info("commandstats")
        none = {"calls": 0}
        return sum(stats.get(f"cmdstat_{name}", none)["calls"] for name in ("evalsha", "eval"))

    before = calls()
    store.end(start())
    assert calls() - before == 2


async def test_memory_is_what_the_server_uses(
    ask: Ask, valkey: Valkey, redis_cache: dict[str, Any], settings: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    memory = (await ask("overview")).memory
    info: Any = valkey.client.info("memory")
    assert memory is not None
    assert abs(memory.used - info["used_memory"]) < 2_000_000
    assert (memory.limit, memory.policy) == (None, info["maxmemory_policy"])
    valkey.client.config_set("maxmemory", "100mb")
    try:
        memory = (await ask("overview")).memory
    finally:
        valkey.client.config_set("maxmemory", "0")
    assert memory is not None
    assert memory.limit == 100 * 2**20


@pytest.mark.usefixtures("quiet_cache")
async def test_memory_that_may_not_be_asked_for_is_not_known(ask: Ask) -> None:
    start()
    figures = await ask("overview")
    assert (figures.live, figures.memory) == (1, None)


@pytest.mark.usefixtures("own_cache")
async def test_the_memory_of_a_local_cache_is_that_of_its_fields(ask: Ask) -> None:
    session_id = start(name=b"12345678")
    start(n=b"1")
    figures = await ask("overview")
    assert figures.memory is not None
    assert figures.memory.used == 12 + 2
    registry.end(session_id)
    figures = await ask("overview")
    assert figures.memory is not None
    assert figures.memory.used == 2


async def test_an_alarm_stands_while_a_limit_is_passed(
    ask: Ask, listing_store: Store, settings: Any
) -> None:
    told: list[dict[str, Any]] = []

    def receive(signal: Any, **kwargs: Any) -> None:
        told.append(kwargs)

    session_alarm.connect(receive)
    start()
    last = start()
    settings.HEADER_SESSIONS_ALERT_COUNT = 2
    assert (await ask("overview")).alarms == []
    assert told == []
    settings.HEADER_SESSIONS_ALERT_COUNT = 1
    assert (await ask("overview")).alarms == [Alarm("count", 2, 1)]
    assert told == [
        {"sender": "django_header_sessions.registry", "of": "count", "value": 2, "limit": 1}
    ]
    registry.end(last)
    assert (await ask("overview")).alarms == []
    session_alarm.disconnect(receive)


async def test_listed_sessions_say_how_much_they_hold(ask: Ask, listing_store: Store) -> None:
    session_id = start("7", cart=b"\xff" + b"x" * 100, n=b"1")
    for sessions in (
        (await ask("page")).sessions,
        await ask("of_user", "7"),
        await ask("get_many", [session_id]),
    ):
        assert [(one.id, one.size, one.fields) for one in sessions] == [(session_id, 107, 2)]
    session, fields = await ask("fields", session_id)
    assert session.id == session_id
    assert [(field.name, field.size) for field in fields] == [("cart", 105), ("n", 2)]
    session, sizes = await ask("sizes", session_id)
    assert session.id == session_id
    assert sizes == {"cart": 105, "n": 2}


async def test_of_many_ids_those_that_are_live_are_found(ask: Ask, listing_store: Store) -> None:
    ids = [start() for _ in range(3)]
    registry.end(ids[1])
    found = await ask("get_many", [*ids, "a" * 15, "no id", str(make())])
    assert {one.id for one in found} == {ids[0], ids[2]}
    for verb in ("fields", "sizes"):
        assert await ask(verb, ids[1]) is None
        assert await ask(verb, "no id") is None


async def test_the_list_can_be_walked_backward(ask: Ask, listing_store: Store) -> None:
    ids = [start("7" if n % 2 else None, idle=600 + n) for n in range(9)]
    for kinds, expected in (((), ids), ([Kind("header", True)], ids[1::2])):
        for limit in (1, 2, 5, 9, 20):
            pages = await walk(ask, "page", limit, kinds=kinds, backward=True)
            for page in pages:
                assert ids_of(page) == [place.session_id for place in page.places]
            assert list(chain(*map(ids_of, pages))) == expected
    # From any place of the one walk, the other goes back over what lies before it.
    page = await ask("page", 4)
    back = await ask("page", 10, page.places[-1], (), backward=True)
    assert [one.id for one in back.sessions] == ids[6:]


async def test_a_backward_walk_keeps_its_order_within_a_millisecond(
    ask: Ask, listing_store: Store
) -> None:
    draft = Draft("header", {}, None, Expiry("idle", 10**12))
    # A deadline that all of them share.
    terms = Terms(1_800_000, 60_000)
    ids = [listing_store.create(draft, terms)[0].id for _ in range(12)]
    forward = [one.id for one in (await ask("page", 100)).sessions]
    assert sorted(forward) == sorted(ids)
    pages = await walk(ask, "page", 5, backward=True)
    assert list(chain(*map(ids_of, pages))) == forward[::-1]


async def test_a_search_stops_where_it_said_and_goes_on_from_there(
    ask: Ask, listing_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SEARCHED", 6)
    monkeypatch.setattr(registry, "BATCH", 3)
    ids = [start(idle=600 + n) for n in range(20)][::-1]
    wanted = {ids[0], ids[1], ids[4], ids[13], ids[19]}
    looked = []

    def matches(session: Any) -> bool:
        looked.append(session.id)
        return session.id in wanted

    page = await ask("search", matches, 2)
    assert ids_of(page) == ids[:2]
    page = await ask("search", matches, 2, page.next)
    assert ids_of(page) == [ids[4]]
    found, turns = [], 0
    while page.next is not None:
        looked.clear()
        page = await ask("search", matches, 2, page.next)
        turns += 1
        assert len(looked) <= 6
        assert turns < 10
        found += ids_of(page)
    assert found == [ids[13], ids[19]]


async def test_a_search_that_is_full_goes_on_behind_the_last_it_found(
    ask: Ask, listing_store: Store
) -> None:
    ids = [start(idle=600 + n) for n in range(6)][::-1]
    pages = await walk(ask, "search", lambda session: True, 1)
    assert list(chain(*map(ids_of, pages))) == ids


async def test_many_are_ended_in_steps_and_each_is_told(ask: Ask, listing_store: Store) -> None:
    told: list[tuple[str, str]] = []

    def receive(session_id: str, reason: str, **kwargs: Any) -> None:
        told.append((session_id, reason))

    session_ended.connect(receive)
    ids = [start() for _ in range(registry.BATCH + 50)]
    left = start()
    progress: list[tuple[int, int]] = []
    gone = ids[7]
    registry.end(gone)
    told.clear()
    ended = await ask(
        "end_many",
        [*ids, "no id", "a" * 15, ids[0]],
        "why",
        lambda *figures: progress.append(figures),
    )
    session_ended.disconnect(receive)
    assert ended == [one for one in ids if one != gone]
    assert told == [(one, "why") for one in ended]
    assert progress == [
        (registry.BATCH - 1, registry.BATCH),
        (registry.BATCH + 49, registry.BATCH + 51),
    ]
    assert listed() == [left]


async def test_all_of_a_user_are_ended_however_many(ask: Ask, listing_store: Store) -> None:
    for _ in range(1100):
        start("7")
    other = start("77")
    anonymous = start()
    progress: list[tuple[int, int]] = []
    ended = await ask("end_user", "7", "why", lambda *figures: progress.append(figures))
    assert progress == [(n, n) for n in (200, 400, 600, 800, 1000, 1100)]
    assert len({one.id for one in ended}) == 1100
    assert {one.user for one in ended} == {"7"}
    assert set(listed()) == {other, anonymous}
    assert await ask("end_user", "7") == []


async def test_what_expired_does_not_hide_the_live_sessions_of_a_user(
    ask: Ask, listing_store: Store, forward: Forward
) -> None:
    for _ in range(1001):
        start("7", idle=60)
    forward(200)
    key, _ = listing_store.create(Draft("header", {}, "7"), TERMS)
    assert [one.id for one in await ask("of_user", "7")] == [key.id]
    assert [one.id for one in await ask("end_user", "7")] == [key.id]
    assert listing_store.open(key, "header", TERMS) is None


@pytest.mark.usefixtures("own_cache")
async def test_anonymous_sessions_are_ended_by_their_age(ask: Ask, time_machine: Any) -> None:
    time_machine.move_to(datetime(2030, 1, 1, tzinfo=UTC), tick=False)
    for _ in range(registry.BATCH + 10):
        start()
    start(transport="cookie")
    signed_in = start("7")
    used = get_store("default").create(Draft("header", {}), TERMS)[0]
    time_machine.shift(601)
    get_store("default").open(used, "header", TERMS)
    young = start()
    assert await ask("end_anonymous", timedelta(seconds=601)) == 0
    progress: list[tuple[int, int]] = []
    count = await ask(
        "end_anonymous",
        timedelta(seconds=600),
        "why",
        lambda *figures: progress.append(figures),
    )
    # By its age, not by how long it was idle.
    assert count == registry.BATCH + 12
    assert progress == [(registry.BATCH, registry.BATCH), (count, count + 1)]
    assert sorted(listed()) == sorted([signed_in, young])


async def test_health_says_how_long_the_answer_took(ask: Ask, listing_store: Store) -> None:
    health = await ask("health")
    assert health.usable
    assert 0 < health.seconds < 5


def test_what_was_ended_is_not_counted_as_expired(listing_store: Store) -> None:
    listing_store.sweep(1_000_000)  # what other tests left to expire is not this one's to count
    before = totals(listing_store.activity())
    key, _ = listing_store.create(Draft("header", {}), TERMS)
    listing_store.commit(key, "header", TERMS, Commit(signed=True, user="7"))
    listing_store.end(key.id)
    listing_store.sweep()
    after = totals(listing_store.activity())
    assert [now - was for now, was in zip(after, before, strict=True)] == [1, 1, 0]


@pytest.mark.usefixtures("own_cache")
async def test_the_memory_of_a_local_cache_is_that_of_its_contexts_too(ask: Ask) -> None:
    async def used() -> int:
        memory = (await ask("overview")).memory
        assert memory is not None
        return int(memory.used)

    @sync_to_async
    def begin() -> SessionStore:
        session = SessionStore(transport="header")
        session["n"] = 1
        session.context("a")["text"] = "a watch!"
        session.context("b")["n"] = 1
        session.save()
        return session

    session = await begin()
    key = session.session_key
    assert key is not None
    assert await used() == 2 + 12 + 2
    await session.aset("n", 1000)
    (await session.acontext("b"))["n"] = 100
    await session.asave()
    assert await used() == 5 + 12 + 4
    assert await ask("end_context", key.id, "a")
    assert await used() == 5 + 4
    await session.aset("n", 1)
    await session.asave()
    assert await used() == 2 + 4
    await ask("end", key.id)
    assert await used() == 0
    # Of a session that the cache threw out, nothing is counted that it left.
    session = await begin()
    key = session.session_key
    assert key is not None
    caches["default"].delete(f"hs:s:{key.id}")
    assert await used() == 0
    assert not await ask("end_context", key.id, "a")
    assert await used() == 0
