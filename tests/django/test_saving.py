"""When sessions are saved, for how long, and how what expired is cleared away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import call_command, get_commands
from django.http import HttpRequest, HttpResponse

from django_header_sessions import registry
from django_header_sessions.conf import conf
from django_header_sessions.engine import SessionStore
from django_header_sessions.resolvers import Transport
from django_header_sessions.stores.base import Draft, Expiry, Store, Terms
from tests.engine.face import Face, Sessions

from .conftest import Visitor

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = 86400

# When sessions are saved.


async def assign(request: HttpRequest, session: Face) -> None:
    await session.set("foo", "bar")


async def delete(request: HttpRequest, session: Face) -> None:
    del request.session["foo"]


async def assign_dict(request: HttpRequest, session: Face) -> None:
    request.session["foo"] = {}


async def alter(request: HttpRequest, session: Face) -> None:
    (await session.get("foo"))["bar"] = "baz"


async def alter_and_say_so(request: HttpRequest, session: Face) -> None:
    await alter(request, session)
    request.session.modified = True


async def read(request: HttpRequest, session: Face) -> Any:
    return await session.get("foo")


async def test_a_session_is_saved_when_a_value_was_assigned_or_deleted(visitor: Visitor) -> None:
    await visitor.does(assign)
    assert await visitor.stored() == {"foo": "bar"}
    await visitor.does(delete)
    assert await visitor.stored() == {}
    await visitor.does(assign_dict)
    assert await visitor.stored() == {"foo": {}}


async def test_the_gotcha_what_is_altered_inside_is_not_saved_unless_it_is_said(
    visitor: Visitor,
) -> None:
    await visitor.does(assign_dict)
    await visitor.does(alter)
    assert await visitor.stored() == {"foo": {}}
    await visitor.does(alter_and_say_so)
    assert await visitor.stored() == {"foo": {"bar": "baz"}}


def told(visitor: Visitor, answer: Any) -> bool:
    """Whether the answer tells the client which session it has."""
    if visitor.transport == "cookie":
        assert "X-Session-Key" not in answer.headers
        return "sessionid" in answer.cookies
    assert "sessionid" not in answer.cookies
    return "X-Session-Key" in answer.headers


async def test_the_cookie_is_sent_when_a_session_was_created_or_modified_and_not_else(
    visitor: Visitor,
) -> None:
    """DIFFERS: a key is announced when it is new, or has changed, and not each time."""
    assert not told(visitor, await visitor.visits(read))
    assert told(visitor, await visitor.visits(assign))
    assert not told(visitor, await visitor.visits(read))
    assert told(visitor, await visitor.visits(assign_dict)) is (visitor.transport == "cookie")


async def test_save_every_request_saves_and_sends_the_cookie_every_time(
    visitor: Visitor, settings: Any
) -> None:
    """DIFFERS: it means nothing to a header session, which is kept alive by its use."""
    settings.SESSION_SAVE_EVERY_REQUEST = True
    assert not told(visitor, await visitor.visits(read))
    await visitor.does(assign)
    assert told(visitor, await visitor.visits(read)) is (visitor.transport == "cookie")


@pytest.mark.parametrize("every", [True, False])
async def test_the_expiry_of_the_cookie_is_updated_each_time_it_is_sent(
    browser: Visitor, settings: Any, every: bool
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = every
    with time_machine.travel(NOON, tick=False) as clock:
        answer = await browser.visits(assign)
        first = answer.cookies["sessionid"]["expires"]
        assert answer.cookies["sessionid"]["max-age"] == settings.SESSION_COOKIE_AGE
        clock.shift(DAY)
        again = await browser.visits(read if every else assign_dict)
        assert first.startswith("Sun, 15 Mar 2026")
        assert again.cookies["sessionid"]["expires"].startswith("Mon, 16 Mar 2026")


@pytest.mark.parametrize(("status", "saved"), [(200, True), (404, True), (500, False)])
async def test_a_session_is_not_saved_with_a_500(
    visitor: Visitor, status: int, saved: bool
) -> None:
    async def answer(request: HttpRequest, session: Face) -> HttpResponse:
        await session.set("foo", status)
        return HttpResponse(status=status)

    await visitor.does(assign)
    assert (await visitor.visits(answer)).status_code == status
    assert await visitor.stored() == {"foo": status if saved else "bar"}


async def test_a_new_session_is_not_made_with_a_500(visitor: Visitor) -> None:
    async def answer(request: HttpRequest, session: Face) -> HttpResponse:
        await session.set("foo", "bar")
        return HttpResponse(status=500)

    assert not told(visitor, await visitor.visits(answer))
    assert sum(registry.count().values()) == 0


async def test_nor_where_the_view_raises(visitor: Visitor) -> None:
    async def fail(request: HttpRequest, session: Face) -> None:
        await session.set("foo", "another")
        raise RuntimeError("The view failed, as it was asked to.")

    await visitor.does(assign)
    visitor.client.raise_request_exception = False
    assert (await visitor.visits(fail)).status_code == 500
    assert await visitor.stored() == {"foo": "bar"}


async def test_a_session_that_is_gone_when_it_is_saved_is_a_400(visitor: Visitor) -> None:
    """DIFFERS: who sent a header is told 401, that the session ended while the view ran."""

    async def lose(request: HttpRequest, session: Face) -> None:
        await session.set("foo", "another")
        await Sessions(visitor.transport, visitor.half).again(session).delete()

    await visitor.does(assign)
    answer = await visitor.visits(lose)
    assert answer.status_code == (400 if visitor.transport == "cookie" else 401)


# Browser-length sessions vs. persistent sessions.


@pytest.mark.parametrize("at_close", [False, True])
async def test_the_setting_says_whether_cookies_last_beyond_the_browser(
    browser: Visitor, settings: Any, at_close: bool
) -> None:
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = at_close
    cookie = (await browser.visits(assign)).cookies["sessionid"]
    assert bool(cookie["max-age"]) is bool(cookie["expires"]) is not at_close
    # In the store it lives as long in either case.
    opened = SessionStore(cookie.value)
    if browser.half == "sync":
        opened.open()
    else:
        await opened.aopen()
    assert (opened.expires_in or 0) >= settings.SESSION_COOKIE_AGE - 10


@pytest.mark.parametrize(
    ("at_close", "expiry", "max_age"), [(True, 300, 300), (False, 0, ""), (True, None, "")]
)
async def test_a_session_overrides_it_by_set_expiry(
    browser: Visitor, settings: Any, at_close: bool, expiry: Any, max_age: Any
) -> None:
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = at_close

    async def expire(request: HttpRequest, session: Face) -> None:
        await session.set("foo", "bar")
        await session.set_expiry(expiry)

    assert (await browser.visits(expire)).cookies["sessionid"]["max-age"] == max_age


@pytest.mark.parametrize("at_close", [False, True])
async def test_a_program_is_closed_by_nobody(
    program: Visitor, settings: Any, at_close: bool
) -> None:
    """DIFFERS: what has no browser is not closed, so the setting and 0 mean the idle timeout."""
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = at_close

    async def expire(request: HttpRequest, session: Face) -> None:
        await session.set("foo", "bar")
        await session.set_expiry(0)

    answer = await program.visits(expire)
    assert answer.headers["X-Session-Expires-In"] == str(conf.HEADER_SESSIONS_IDLE_TIMEOUT)


by_the_clock = pytest.mark.parametrize("listing_store", ["locmem"], indirect=True)
"""On the store that goes by the clock of this process, which a test can set."""


@pytest.fixture
def clock(project: Any) -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@by_the_clock
async def test_reading_is_no_activity_for_the_expiry(
    clock: time_machine.Traveller, visitor: Visitor
) -> None:
    """DIFFERS: it is for a header session, whose seconds are those it may idle."""

    async def expire(request: HttpRequest, session: Face) -> None:
        await session.set_expiry(300)

    await visitor.does(assign)
    await visitor.does(expire)
    clock.shift(200)
    assert await visitor.does(read) == "bar"
    clock.shift(200)
    by_header = visitor.transport == "header"
    assert await visitor.stored() == ({"foo": "bar", "_session_expiry": 300} if by_header else None)


@by_the_clock
async def test_the_expiry_is_computed_from_the_last_modification(
    clock: time_machine.Traveller, visitor: Visitor
) -> None:
    async def expire(request: HttpRequest, session: Face) -> None:
        await session.set_expiry(300)

    await visitor.does(expire)
    clock.shift(200)
    await visitor.does(assign)
    clock.shift(200)
    assert await visitor.does(read) == "bar"
    clock.shift(400)
    assert await visitor.stored() is None


@by_the_clock
@pytest.mark.parametrize("as_delta", [True, False])
async def test_a_date_ends_it_whatever_happens_until_then(
    clock: time_machine.Traveller, visitor: Visitor, as_delta: bool
) -> None:
    async def expire(request: HttpRequest, session: Face) -> None:
        moment = timedelta(seconds=300)
        await session.set_expiry(moment if as_delta else NOON + moment)

    await visitor.does(expire)
    for _ in range(2):
        clock.shift(140)
        await visitor.does(assign)
    clock.shift(30)
    assert await visitor.stored() is None


# Clearing the session store.


def test_clearsessions_is_there_whether_or_not_djangos_app_is_installed(settings: Any) -> None:
    settings.INSTALLED_APPS = [
        app for app in settings.INSTALLED_APPS if app != "django.contrib.sessions"
    ]
    kept: Any = get_commands
    kept.cache_clear()
    try:
        assert get_commands()["clearsessions"] == "django_header_sessions"
    finally:
        kept.cache_clear()


@pytest.mark.parametrize("how", ["the command", "the class method"])
async def test_expired_sessions_are_purged_and_others_stay(
    store: Sessions, listing_store: Store, transport: Transport, how: str
) -> None:
    """DIFFERS: none is left to be purged in earnest: they expire by themselves, and what this
    clears is their entries in the list, which nobody is shown."""
    live = await store.saved(n=1)
    draft = Draft(transport, {}, None, Expiry("deadline", 1))
    gone, _ = listing_store.create(draft, Terms(60_000, None))
    await asyncio.sleep(0.005)
    if how == "the command":
        call_command("clearsessions", stdout=StringIO())
    else:
        await store.new().clear_expired()
    assert await store.stored(gone) is None
    assert await store.stored(live) == {"n": 1}
    assert sum(registry.count().values()) == 1
