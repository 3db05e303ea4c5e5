"""How long a session lives: Django's expiry on both transports, and ours on the header."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import timezone

from django_header_sessions import keys, registry
from django_header_sessions.engine import LONGEST, SessionStore
from django_header_sessions.exceptions import SessionEnded
from django_header_sessions.middleware import HeaderSessionMiddleware
from django_header_sessions.resolvers import Transport
from django_header_sessions.stores.base import Draft, Expiry, Store, Terms

from .face import Half, Sessions
from .serializers import Pickling, path

DAY = 86400
IDLE, ABSOLUTE = 1800, 12 * 3600
COOKIE_AGE = 14 * DAY
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def default_age(transport: Transport) -> int:
    return IDLE if transport == "header" else COOKIE_AGE


def near(seconds: int | None, expected: float) -> bool:
    """Whether it is ``expected``, but for the time that passed since."""
    return seconds is not None and expected - 10 <= seconds <= expected


# What a session says of its age: the same answers on every store, so that one is asked.


@pytest.fixture
def told(local_sessions: Sessions, clock: object) -> Sessions:
    return local_sessions


async def test_an_age_of_a_projects_own_may_have_any_fraction(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionStore, "get_session_cookie_age", lambda self: 3600 / 7)
    face = await sessions.saved(a=1)
    assert await sessions.stored(face) == {"a": 1}
    assert near(face.session.expires_in, 3600 / 7)


async def test_without_an_expiry_of_its_own_a_session_has_its_transports_age(
    told: Sessions, transport: Transport, settings: Any
) -> None:
    face = told.new()
    age = default_age(transport)
    assert face.session.get_session_cookie_age() == age
    assert await face.get_expiry_age() == age
    assert await face.get_expiry_date() == NOON + timedelta(seconds=age)
    settings.SESSION_COOKIE_AGE = settings.HEADER_SESSIONS_IDLE_TIMEOUT = 90
    assert await face.get_expiry_age() == 90
    assert await face.get_expiry_date() == NOON + timedelta(seconds=90)


async def test_seconds_count_from_now(told: Sessions) -> None:
    face = told.new()
    await face.set_expiry(10)
    assert await face.get_expiry_age() == 10
    assert await face.get_expiry_date() == NOON + timedelta(seconds=10)
    assert await face.get_expire_at_browser_close() is False


async def test_seconds_count_from_the_modification_that_is_given(told: Sessions) -> None:
    face = told.new()
    await face.set_expiry(10)
    hour = NOON + timedelta(hours=1)
    assert await face.get_expiry_age(modification=hour) == 10
    assert await face.get_expiry_date(modification=hour) == hour + timedelta(seconds=10)


@pytest.mark.parametrize("late", [timedelta(hours=1), NOON + timedelta(hours=1)])
async def test_a_timedelta_and_a_datetime_are_moments(
    told: Sessions, late: Any, clock: time_machine.Traveller
) -> None:
    face = told.new()
    await face.set_expiry(late)
    assert await face.get_expiry_age() == 3600
    assert await face.get_expiry_date() == NOON + timedelta(hours=1)
    assert await face.get_expire_at_browser_close() is False
    assert await face.get_expiry_age(modification=NOON - timedelta(hours=1)) == 7200
    clock.shift(600)
    assert await face.get_expiry_age() == 3000
    assert await face.get_expiry_date() == NOON + timedelta(hours=1)


async def test_an_expiry_that_is_given_is_taken_instead_of_the_sessions(
    told: Sessions, transport: Transport
) -> None:
    face = told.new()
    await face.set_expiry(10)
    hour = NOON + timedelta(hours=1)
    assert await face.get_expiry_age(expiry=20) == 20
    assert await face.get_expiry_age(expiry=hour) == 3600
    assert await face.get_expiry_age(expiry=hour.isoformat(), modification=hour) == 0
    assert await face.get_expiry_age(expiry=None) == default_age(transport)
    assert await face.get_expiry_date(expiry=20) == NOON + timedelta(seconds=20)
    assert await face.get_expiry_date(expiry=20, modification=hour) == hour + timedelta(seconds=20)
    assert await face.get_expiry_date(expiry=hour) == hour
    assert await face.get_expiry_date(expiry=hour.isoformat()) == hour


async def test_an_expiry_that_is_given_saves_the_question(settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",  # where nobody listens
        }
    }
    session = SessionStore(keys.make(), transport="header")
    assert session.get_expiry_age(expiry=20) == 20
    assert session.get_expiry_date(expiry=20, modification=NOON) == NOON + timedelta(seconds=20)


async def test_zero_is_until_the_browser_closes(told: Sessions, transport: Transport) -> None:
    face = told.new()
    await face.set_expiry(0)
    assert await face.get_expire_at_browser_close() is True
    assert await face.get_expiry_age() == default_age(transport)


@pytest.mark.parametrize("closes", [True, False])
async def test_without_an_expiry_the_setting_says_if_closing_ends_it(
    told: Sessions, settings: Any, closes: bool
) -> None:
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = closes
    face = told.new()
    assert await face.get_expire_at_browser_close() is closes
    await face.set_expiry(10)
    assert await face.get_expire_at_browser_close() is False
    await face.set_expiry(0)
    assert await face.get_expire_at_browser_close() is True
    await face.set_expiry(None)
    assert await face.get_expire_at_browser_close() is closes


async def test_none_takes_an_expiry_back(told: Sessions, transport: Transport) -> None:
    face = told.new()
    await face.set_expiry(None)
    assert not face.session.modified
    await face.set_expiry(10)
    await face.set_expiry(None)
    assert await face.get_expiry_age() == default_age(transport)
    assert dict(await face.items()) == {}


async def test_an_expiry_is_remembered_by_the_session(sessions: Sessions) -> None:
    face = sessions.new()
    await face.set_expiry(timedelta(hours=1))
    await face.save()
    other = sessions.again(face)
    assert near(await other.get_expiry_age(), 3600)
    assert await other.get_expiry_date() == await face.get_expiry_date()


# What the store makes of it.


async def test_a_header_session_lives_the_idle_timeout_from_its_last_use(
    half: Half, clocked: None, clock: time_machine.Traveller
) -> None:
    sessions = Sessions("header", half)
    face = await sessions.saved(a=1)
    assert face.session.expires_in == IDLE
    for _ in range(4):
        clock.shift(IDLE - 60)
        opened = await sessions.opened(face.key)
        assert opened.session.expires_in == IDLE
    clock.shift(IDLE + 60)
    assert await sessions.stored(face) is None


async def test_it_ends_at_the_absolute_timeout_however_much_it_is_used(
    half: Half, clocked: None, clock: time_machine.Traveller
) -> None:
    sessions = Sessions("header", half)
    face = await sessions.saved(a=1)
    for _ in range(ABSOLUTE // 1200 - 1):
        clock.shift(1200)
        assert await sessions.stored(face) == {"a": 1}
    assert (await sessions.opened(face.key)).session.expires_in == 1200
    clock.shift(1201)
    assert await sessions.stored(face) is None


async def test_without_an_absolute_timeout_use_alone_keeps_it_alive(
    half: Half, clocked: None, clock: time_machine.Traveller, settings: Any
) -> None:
    settings.HEADER_SESSIONS_ABSOLUTE_TIMEOUT = None
    sessions = Sessions("header", half)
    face = await sessions.saved(a=1)
    for _ in range(ABSOLUTE // 1500 + 2):
        clock.shift(1500)
        assert await sessions.stored(face) == {"a": 1}


async def test_a_cookie_session_lives_from_its_last_save_whatever_is_read(
    half: Half, clocked: None, clock: time_machine.Traveller
) -> None:
    sessions = Sessions("cookie", half)
    face = await sessions.saved(a=1)
    assert face.session.expires_in == COOKIE_AGE
    clock.shift(10 * DAY)
    assert await sessions.stored(face) == {"a": 1}
    saved = await sessions.opened(face.key)
    assert saved.session.expires_in == 4 * DAY
    # Without a change as well: that is what SESSION_SAVE_EVERY_REQUEST does.
    await saved.save()
    assert saved.session.expires_in == COOKIE_AGE
    clock.shift(10 * DAY)
    assert await sessions.stored(face) == {"a": 1}
    clock.shift(4 * DAY + 1)
    assert await sessions.stored(face) is None


async def test_seconds_are_a_header_sessions_own_idle_timeout(
    half: Half, clocked: None, clock: time_machine.Traveller
) -> None:
    sessions = Sessions("header", half)
    face = await sessions.saved(a=1)
    await face.set_expiry(100)
    await face.save()
    assert face.session.expires_in == 100
    for _ in range(3):
        clock.shift(90)
        assert (await sessions.opened(face.key)).session.expires_in == 100
    clock.shift(104)
    assert await sessions.stored(face) is None


async def test_seconds_may_be_longer_than_the_default_idle_timeout(
    half: Half, clocked: None, clock: time_machine.Traveller
) -> None:
    sessions = Sessions("header", half)
    face = sessions.new()
    await face.set_expiry(3 * IDLE)
    await face.save()
    clock.shift(3 * IDLE - 60)
    assert (await sessions.opened(face.key)).session.expires_in == 3 * IDLE


async def test_seconds_of_a_cookie_session_count_from_its_last_save(
    half: Half, clocked: None, clock: time_machine.Traveller
) -> None:
    sessions = Sessions("cookie", half)
    face = await sessions.saved(a=1)
    await face.set_expiry(100)
    await face.save()
    clock.shift(90)
    opened = await sessions.opened(face.key)
    assert opened.session.expires_in == 10
    await opened.save()
    clock.shift(90)
    assert await sessions.stored(face) is not None
    clock.shift(11)
    assert await sessions.stored(face) is None


@pytest.mark.parametrize("late", [timedelta(hours=1), NOON + timedelta(hours=1)])
async def test_a_deadline_comes_whatever_happens_until_then(
    transport: Transport, half: Half, clocked: None, clock: time_machine.Traveller, late: Any
) -> None:
    sessions = Sessions(transport, half)
    face = sessions.new()
    await face.set_expiry(late)
    await face.save()
    assert face.session.expires_in == 3600
    for _ in range(2):
        clock.shift(1700)
        opened = await sessions.opened(face.key)
        await opened.set("a", 1)
        await opened.save()
    assert opened.session.expires_in == 200
    clock.shift(199)
    assert await sessions.stored(face) is not None
    clock.shift(2)
    assert await sessions.stored(face) is None


async def test_a_moment_may_be_kept_as_one_where_the_serializer_bears_it(
    transport: Transport,
    half: Half,
    clocked: None,
    clock: time_machine.Traveller,
    settings: Any,
) -> None:
    """As Django's own ``set_expiry`` did it once."""
    settings.SESSION_SERIALIZER = path(Pickling)
    sessions = Sessions(transport, half)
    face = await sessions.saved(_session_expiry=NOON + timedelta(seconds=100))
    assert face.session.expires_in == 100
    clock.shift(60)
    opened = await sessions.opened(face.key)
    assert opened.session.expires_in == await opened.get_expiry_age() == 40
    await opened.set("_session_expiry", NOON)
    await opened.save()
    assert await sessions.stored(face) is None


@pytest.mark.parametrize("late", [ABSOLUTE + 1000, timedelta(days=2)])
async def test_the_absolute_timeout_caps_every_expiry(header_sessions: Sessions, late: Any) -> None:
    face = header_sessions.new()
    await face.set_expiry(late)
    await face.save()
    assert near(face.session.expires_in, ABSOLUTE)
    assert near((await header_sessions.opened(face.key)).session.expires_in, ABSOLUTE)


@pytest.mark.parametrize("back", [None, 0])
async def test_none_and_zero_give_a_header_session_its_default_back(
    header_sessions: Sessions, back: Any
) -> None:
    face = header_sessions.new()
    await face.set_expiry(100)
    await face.save()
    assert near(face.session.expires_in, 100)
    opened = await header_sessions.opened(face.key)
    assert near(opened.session.expires_in, 100)
    await opened.set_expiry(back)
    await opened.save()
    assert near(opened.session.expires_in, IDLE)
    assert near((await header_sessions.opened(face.key)).session.expires_in, IDLE)


async def test_clear_gives_the_default_back_too(sessions: Sessions, transport: Transport) -> None:
    face = sessions.new()
    await face.set_expiry(timedelta(seconds=100))
    await face.save()
    opened = await sessions.opened(face.key)
    opened.session.clear()
    await opened.save()
    assert near(opened.session.expires_in, default_age(transport))
    found = (await sessions.opened(face.key)).session
    assert near(found.expires_in, default_age(transport))


@pytest.mark.parametrize("change", ["set", "increment", "cycle_key"])
async def test_what_does_not_touch_the_expiry_leaves_a_header_session_its_own(
    header_sessions: Sessions, change: str
) -> None:
    face = header_sessions.new()
    await face.set_expiry(timedelta(seconds=100))
    await face.save()
    opened = await header_sessions.opened(face.key)
    await getattr(opened, change)(*{"set": ("a", 1), "increment": ("n",)}.get(change, ()))
    await opened.save()
    assert near((await header_sessions.opened(opened.key)).session.expires_in, 100)


@pytest.mark.parametrize("never", [10**12, float("inf"), datetime.max.replace(tzinfo=UTC)])
async def test_an_expiry_beyond_all_measure_is_cut(
    sessions: Sessions, settings: Any, never: Any
) -> None:
    settings.HEADER_SESSIONS_ABSOLUTE_TIMEOUT = None
    face = sessions.new()
    await face.set("a", 1)
    face.session["_session_expiry"] = never.isoformat() if isinstance(never, datetime) else never
    await face.save()
    assert face.session.expires_in is not None
    assert LONGEST - 10 <= face.session.expires_in <= LONGEST
    # Nobody has to count further than a calendar does.
    (listed,) = await registry.aget_many([face.key.id])
    assert listed.expires.year < 2200
    found = await sessions.stored(face)
    assert found is not None
    assert found["a"] == 1


@pytest.mark.parametrize("over", [-1, timedelta(seconds=-1), datetime(2020, 1, 1, tzinfo=UTC)])
async def test_an_expiry_in_the_past_ends_the_session(sessions: Sessions, over: Any) -> None:
    face = await sessions.opened((await sessions.saved(a=1)).key)
    key = face.key
    await face.set_expiry(over)
    await face.save()
    assert not await face.exists(key)
    assert await sessions.stored(key) is None
    assert face.session.expires_in is None
    # The middleware saves once more what the view had saved already.
    await face.save()
    assert await sessions.stored(key) is None
    if sessions.transport == "header":
        assert face.session.session_key is None
    else:
        assert face.session.session_key == key


@pytest.mark.parametrize("over", [-1, timedelta(seconds=-1), datetime(2020, 1, 1, tzinfo=UTC)])
async def test_a_new_session_that_is_over_already_is_not_stored(
    sessions: Sessions, over: Any
) -> None:
    face = sessions.new()
    await face.set("a", 1)
    await face.set_expiry(over)
    await face.save()
    if sessions.transport == "header":
        assert face.session.session_key is None
    else:
        # Django sends a cookie all the same, of an age that is over.
        assert await sessions.stored(face) is None


async def test_a_deadline_that_comes_while_the_view_runs_ends_the_session(
    transport: Transport, half: Half, clocked: None, clock: time_machine.Traveller
) -> None:
    sessions = Sessions(transport, half)
    face = await sessions.saved(a=1)
    await face.set_expiry(timedelta(seconds=100))
    key = face.key
    clock.shift(100)
    await face.save()
    assert await sessions.stored(key) is None


async def test_a_deadline_comes_by_the_stores_own_clock(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    await face.set_expiry(timedelta(milliseconds=150))
    await face.save()
    give_up = time.monotonic() + 5
    while await face.exists(face.key):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)
    assert await sessions.stored(face) is None


async def test_a_naive_datetime_is_local_time_where_a_project_has_no_zones(
    header_sessions: Sessions, settings: Any
) -> None:
    settings.USE_TZ = False
    face = header_sessions.new()
    await face.set_expiry(timezone.now() + timedelta(seconds=600))
    await face.save()
    assert near((await header_sessions.opened(face.key)).session.expires_in, 600)
    assert near(await face.get_expiry_age(), 600)


# Through the middleware.


def read(request: HttpRequest) -> HttpResponse:
    request.session.get("a")
    return HttpResponse()


@pytest.mark.parametrize("every", [True, False])
def test_save_every_request_slides_a_cookie(
    clocked: None, clock: time_machine.Traveller, settings: Any, every: bool
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = every
    session = SessionStore()
    session["a"] = 1
    session.save()
    clock.shift(DAY)
    request = RequestFactory().get("/admin/")
    request.COOKIES["sessionid"] = str(session.session_key)
    response = HeaderSessionMiddleware(read)(request)
    assert isinstance(response, HttpResponse)
    found = SessionStore(session.session_key)
    assert found.open()
    if every:
        assert response.cookies["sessionid"].value == session.session_key
        assert response.cookies["sessionid"]["max-age"] == COOKIE_AGE
        assert found.expires_in == COOKIE_AGE
    else:
        assert not response.cookies
        assert found.expires_in == COOKIE_AGE - DAY


def test_save_every_request_means_nothing_to_a_header_session(
    clocked: None, clock: time_machine.Traveller, settings: Any
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = True
    session = SessionStore(transport="header")
    session.set_expiry(timedelta(seconds=100))
    session.save()
    clock.shift(40)
    key = str(session.session_key)

    def read_and_change_in_place(request: HttpRequest) -> HttpResponse:
        request.session.get("a")
        request.session["_session_expiry"]
        return HttpResponse()

    request = RequestFactory().get("/", headers={"X-Session-Key": key})
    response = HeaderSessionMiddleware(read_and_change_in_place)(request)
    assert isinstance(response, HttpResponse)
    assert response["X-Session-Expires-In"] == "60"

    # An empty one is not made either.
    response = HeaderSessionMiddleware(read)(RequestFactory().get("/"))
    assert isinstance(response, HttpResponse)
    assert "X-Session-Key" not in response


# Sweeping.


def expired(store: Store, many: int) -> None:
    """Leave what sessions leave that expired at once."""
    for _ in range(many):
        store.create(Draft("header", {}, "7", Expiry("deadline", 1)), Terms(60_000, None))


@pytest.mark.parametrize("how", ["clear_expired", "clearsessions"])
async def test_the_sweep_drops_what_expired_and_spares_what_lives(
    listing_store: Store, transport: Transport, half: Half, how: str
) -> None:
    sessions = Sessions(transport, half)
    live = await sessions.saved(a=1)
    # That there is something to sweep.
    expired(listing_store, 3)
    await asyncio.sleep(0.005)
    assert listing_store.sweep() > 0

    expired(listing_store, 450)
    await asyncio.sleep(0.005)
    if how == "clearsessions":
        call_command("clearsessions")
    else:
        await live.clear_expired()
    assert listing_store.sweep() == 0
    assert await sessions.stored(live) == {"a": 1}


async def test_a_store_without_a_list_has_nothing_to_sweep(sessions: Sessions) -> None:
    live = await sessions.saved(a=1)
    await live.clear_expired()
    await sessions.new().clear_expired()
    assert await sessions.stored(live) == {"a": 1}


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("at", ["in half an hour", "at a moment"])
async def test_a_deadline_is_judged_by_the_clock_of_the_store_alone(
    redis_cache: Any, settings: Any, transport: Transport, half: Half, hours: int, at: str
) -> None:
    """Whatever the clock of a worker says that saves something else."""
    settings.CACHES = {"default": redis_cache}
    sessions = Sessions(transport, half)
    face = await sessions.saved(n=1)
    until: Any = timedelta(minutes=30)
    await face.set_expiry(until if at == "in half an hour" else timezone.now() + until)
    await face.save()
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
        other = await sessions.opened(face.key)
        await other.set("n", 2)
        await other.save()
    found = await sessions.opened(face.key)
    assert await found.get("n") == 2
    assert near(found.session.expires_in, 1800)


@pytest.mark.parametrize("expiry", [-1, timedelta(seconds=-5), datetime(2020, 1, 1, tzinfo=UTC)])
async def test_a_session_that_is_to_be_over_at_once_is_not_made(
    sessions: Sessions, expiry: Any
) -> None:
    for act in ("increment", "cycle_key", "create"):
        face = sessions.new()
        await face.set_expiry(expiry)
        with pytest.raises(SessionEnded):
            await getattr(face, act)(*(["n"] if act == "increment" else []))
        assert face.session.session_key is None
    assert registry.count() == dict.fromkeys(registry.count(), 0)
