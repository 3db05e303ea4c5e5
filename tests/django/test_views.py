"""Using sessions in views."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse
from django.template import Context, Template

from django_header_sessions.engine import SessionStore
from tests.engine.face import Face

from .conftest import Visitor

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

# Using sessions in views.

DICTIONARY = "__getitem__ __setitem__ __delitem__ __contains__"
WITH_TWIN = """get update pop keys values has_key items setdefault flush set_test_cookie
    test_cookie_worked delete_test_cookie set_expiry get_expiry_age get_expiry_date
    get_expire_at_browser_close clear_expired cycle_key"""
WITHOUT_TWIN = "clear get_session_cookie_age"


def test_every_request_has_a_session_that_is_a_session_base() -> None:
    assert issubclass(SessionStore, SessionBase)


@pytest.mark.parametrize("name", [*DICTIONARY.split(), *WITH_TWIN.split(), *WITHOUT_TWIN.split()])
def test_every_method_of_the_page_is_there(name: str) -> None:
    assert callable(getattr(SessionStore, name))


@pytest.mark.parametrize("name", ["set", *WITH_TWIN.split()])
def test_and_its_asynchronous_version(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(SessionStore, f"a{name}"))


async def test_it_is_read_and_written_at_any_point_and_edited_many_times(visitor: Visitor) -> None:
    async def choose(request: HttpRequest, session: Face) -> list[Any]:
        before = await session.get("fav_color", "red")
        request.session["fav_color"] = "blue"
        await session.set("fav_color", "green")
        request.session["shade"] = {"dark": True}
        return [before, request.session["fav_color"], "fav_color" in request.session]

    async def choose_again(request: HttpRequest, session: Face) -> list[Any]:
        had = request.session["fav_color"], await session.has_key("shade")
        del request.session["fav_color"]
        return [*had, "fav_color" in request.session]

    assert await visitor.does(choose) == ["red", "green", True]
    assert await visitor.does(choose_again) == ["green", True, False]
    assert await visitor.stored() == {"shade": {"dark": True}}


async def test_to_delete_what_is_not_there_is_a_key_error(visitor: Visitor) -> None:
    async def drop(request: HttpRequest, session: Face) -> str:
        with pytest.raises(KeyError) as raised:
            del request.session["fav_color"]
        with pytest.raises(KeyError):
            request.session["fav_color"]
        return str(raised.value)

    assert await visitor.does(drop) == "'fav_color'"


async def test_it_has_the_methods_of_a_dictionary(visitor: Visitor) -> None:
    async def fill(request: HttpRequest, session: Face) -> list[Any]:
        await session.update({"fav_color": "red", "size": 42})
        return [
            await session.setdefault("fav_color", "blue"),
            await session.setdefault("list", []),
            await session.pop("size"),
            await session.pop("size", "none"),
            await session.get("size"),
        ]

    async def look(request: HttpRequest, session: Face) -> list[Any]:
        return [
            sorted(await session.keys()),
            sorted(map(str, await session.values())),
            sorted(await session.items()),
            await session.has_key("list"),
        ]

    assert await visitor.does(fill) == ["red", [], 42, "none", None]
    assert await visitor.does(look) == [
        ["fav_color", "list"],
        ["[]", "red"],
        [["fav_color", "red"], ["list", []]],
        True,
    ]


async def test_pop_without_a_default_is_a_key_error(visitor: Visitor) -> None:
    async def pop(request: HttpRequest, session: Face) -> None:
        with pytest.raises(KeyError, match="fav_color"):
            await session.pop("fav_color")

    await visitor.does(pop)


async def test_clear_leaves_an_empty_session(visitor: Visitor) -> None:
    async def fill(request: HttpRequest, session: Face) -> None:
        await session.update({"fav_color": "red", "size": 42})

    async def clear(request: HttpRequest, session: Face) -> list[Any]:
        request.session.clear()
        return list(await session.keys())

    await visitor.does(fill)
    key = visitor.key
    assert await visitor.does(clear) == []
    assert visitor.key == key
    assert await visitor.stored() == {}


async def test_a_template_reads_it(visitor: Visitor) -> None:
    template = Template("{{ request.session.fav_color }}, {{ request.session.size|default:'-' }}")

    async def choose(request: HttpRequest, session: Face) -> None:
        await session.set("fav_color", "red")

    async def show(request: HttpRequest, session: Face) -> HttpResponse:
        return HttpResponse(template.render(Context({"request": request})))

    await visitor.does(choose)
    assert (await visitor.visits(show)).content == b"red, -"


async def test_flush_deletes_the_data_and_the_cookie(visitor: Visitor) -> None:
    async def choose(request: HttpRequest, session: Face) -> None:
        await session.set("fav_color", "red")

    async def flush(request: HttpRequest, session: Face) -> list[Any]:
        await session.flush()
        return [list(await session.keys()), request.session.session_key]

    async def colour(request: HttpRequest, session: Face) -> Any:
        return await session.get("fav_color")

    await visitor.does(choose)
    key = visitor.key
    assert key is not None
    answer = await visitor.visits(flush)
    assert answer.json() == {"did": [[], None]}
    if visitor.transport == "cookie":
        assert answer.cookies["sessionid"]["max-age"] == 0
    else:
        assert answer.headers["X-Session-Key"] == ""
    assert visitor.key is None
    # The previous data cannot be accessed again, not even by who kept the key.
    visitor.key = key
    again = await visitor.visits(colour)
    assert (again.status_code, again.json().get("did")) == (
        (200, None) if visitor.transport == "cookie" else (401, None)
    )


async def test_cycle_key_makes_a_new_key_and_keeps_the_data(visitor: Visitor) -> None:
    async def choose(request: HttpRequest, session: Face) -> None:
        await session.set("fav_color", "red")

    async def cycle(request: HttpRequest, session: Face) -> Any:
        await session.cycle_key()
        return await session.get("fav_color")

    await visitor.does(choose)
    before = visitor.key
    assert await visitor.does(cycle) == "red"
    assert visitor.key not in (before, None)
    assert await visitor.stored() == {"fav_color": "red"}
    # Who knew the old key has nothing of it any more.
    visitor.key = str(before)
    answer = await visitor.visits(cycle)
    assert answer.status_code == (200 if visitor.transport == "cookie" else 409)
    assert answer.json().get("did") is None


@pytest.mark.parametrize("name", ["SESSION_COOKIE_AGE", "HEADER_SESSIONS_IDLE_TIMEOUT"])
async def test_the_age_of_the_cookie_is_the_settings(
    visitor: Visitor, settings: Any, name: str
) -> None:
    """DIFFERS: the idle timeout is to a header session what the age is to a cookie's."""

    async def ages(request: HttpRequest, session: Face) -> list[int]:
        return [request.session.get_session_cookie_age(), await session.get_expiry_age()]

    before = await visitor.does(ages)
    setattr(settings, name, 999)
    own = "SESSION_COOKIE_AGE" if visitor.transport == "cookie" else "HEADER_SESSIONS_IDLE_TIMEOUT"
    assert await visitor.does(ages) == ([999, 999] if name == own else before)


# set_expiry: what is asked for, then what the session says of it.

MOMENT = NOON + timedelta(minutes=5)
EXPIRIES: list[tuple[Any, int | None, datetime | None, bool]] = [
    (300, 300, NOON + timedelta(seconds=300), False),
    (MOMENT, 300, MOMENT, False),
    (timedelta(minutes=5), 300, MOMENT, False),
    (0, None, None, True),
    (None, None, None, False),
]


@pytest.mark.parametrize(("value", "age", "date", "at_close"), EXPIRIES)
@time_machine.travel(NOON, tick=False)
async def test_set_expiry_takes_seconds_moments_zero_and_none(
    visitor: Visitor, value: Any, age: int | None, date: datetime | None, at_close: bool
) -> None:
    async def expire(request: HttpRequest, session: Face) -> list[Any]:
        await session.set("fav_color", "red")
        await session.set_expiry(value)
        return await says(session)

    async def says(session: Face) -> list[Any]:
        return [
            await session.get_expiry_age(),
            (await session.get_expiry_date()).isoformat(),
            await session.get_expire_at_browser_close(),
        ]

    async def remembers(request: HttpRequest, session: Face) -> list[Any]:
        return await says(session)

    default = SessionStore(transport=visitor.transport).get_session_cookie_age()
    expected = [
        default if age is None else age,
        (NOON + timedelta(seconds=default) if date is None else date).isoformat(),
        at_close,
    ]
    assert await visitor.does(expire) == expected
    assert await visitor.does(remembers) == expected


@time_machine.travel(NOON, tick=False)
async def test_the_expiry_may_be_asked_of_another_modification_and_another_expiry(
    visitor: Visitor,
) -> None:
    hour = timedelta(hours=1)

    async def ask(request: HttpRequest, session: Face) -> list[Any]:
        await session.set_expiry(300)
        return [
            await session.get_expiry_age(modification=NOON - hour, expiry=NOON),
            await session.get_expiry_age(expiry=60),
            await session.get_expiry_age(expiry=None),
            (await session.get_expiry_date(modification=NOON - hour)).isoformat(),
            (await session.get_expiry_date(expiry=60)).isoformat(),
        ]

    default = SessionStore(transport=visitor.transport).get_session_cookie_age()
    assert await visitor.does(ask) == [
        3600,
        60,
        default,
        (NOON - hour + timedelta(seconds=300)).isoformat(),
        (NOON + timedelta(seconds=60)).isoformat(),
    ]


async def test_none_reverts_to_the_global_policy(visitor: Visitor) -> None:
    async def expire(request: HttpRequest, session: Face) -> int:
        await session.set_expiry(300)
        return int(await session.get_expiry_age())

    async def revert(request: HttpRequest, session: Face) -> int:
        await session.set_expiry(None)
        return int(await session.get_expiry_age())

    default = SessionStore(transport=visitor.transport).get_session_cookie_age()
    assert await visitor.does(expire) == 300
    assert await visitor.does(revert) == default


# Examples.


async def post_comment(request: HttpRequest, session: Face) -> HttpResponse:
    if await session.get("has_commented", False):
        return HttpResponse("You've already commented.")
    await session.set("has_commented", True)
    return HttpResponse("Thanks for your comment!")


async def test_a_visitor_comments_once(newcomer: Callable[[], Visitor]) -> None:
    one, other = newcomer(), newcomer()
    assert (await one.visits(post_comment)).content == b"Thanks for your comment!"
    assert (await one.visits(post_comment)).content == b"You've already commented."
    assert (await other.visits(post_comment)).content == b"Thanks for your comment!"


async def member_login(request: HttpRequest, session: Face) -> HttpResponse:
    await session.set("member_id", 7)
    return HttpResponse("You're logged in.")


async def member_logout(request: HttpRequest, session: Face) -> HttpResponse:
    try:
        del request.session["member_id"]
    except KeyError:
        return HttpResponse("You were not logged in.")
    return HttpResponse("You're logged out.")


async def test_a_member_logs_in_and_out(visitor: Visitor) -> None:
    async def member(request: HttpRequest, session: Face) -> Any:
        return await session.get("member_id")

    assert (await visitor.visits(member_login)).content == b"You're logged in."
    assert await visitor.does(member) == 7
    assert (await visitor.visits(member_logout)).content == b"You're logged out."
    assert await visitor.does(member) is None
    assert (await visitor.visits(member_logout)).content == b"You were not logged in."


# Setting test cookies.


async def login_form(request: HttpRequest, session: Face) -> HttpResponse:
    if await session.test_cookie_worked():
        await session.delete_test_cookie()
        return HttpResponse("You're logged in.")
    await session.set_test_cookie()
    return HttpResponse("Please enable cookies and try again.")


async def test_the_test_cookie_tells_who_comes_back(newcomer: Callable[[], Visitor]) -> None:
    """The test cookie is a field of the session: on a header it tells whether the key came back."""
    visitor = newcomer()
    for said in (b"Please enable cookies and try again.", b"You're logged in.", b"Please"):
        assert (await visitor.visits(login_form)).content.startswith(said)

    for _ in range(2):
        # Who keeps neither cookies nor keys is new each time.
        answer = await newcomer().visits(login_form)
        assert answer.content == b"Please enable cookies and try again."


async def test_a_test_cookie_is_for_the_next_call(visitor: Visitor) -> None:
    async def ask(request: HttpRequest, session: Face) -> list[Any]:
        before = await session.test_cookie_worked()
        await session.set_test_cookie()
        return [before]

    assert await visitor.does(ask) == [False]
