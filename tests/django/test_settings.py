"""Django's settings of sessions, and what the page says of their security.

``SESSION_SERIALIZER`` is in ``test_serialization``, ``SESSION_SAVE_EVERY_REQUEST`` and
``SESSION_EXPIRE_AT_BROWSER_CLOSE`` in ``test_saving``; ``SESSION_FILE_PATH`` is for files alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.middleware import HeaderSessionMiddleware
from tests.engine.face import Face, Sessions

from .conftest import Visitor


async def write(request: HttpRequest, session: Face) -> None:
    await session.set("foo", "bar")


async def read(request: HttpRequest, session: Face) -> Any:
    return await session.get("foo")


async def flush(request: HttpRequest, session: Face) -> None:
    await session.flush()


async def leave_alone(request: HttpRequest, session: Face) -> None:
    pass


# Enabling sessions.


def test_the_middleware_is_djangos_to_whoever_looks_for_it() -> None:
    assert issubclass(HeaderSessionMiddleware, SessionMiddleware)


async def test_without_the_middleware_a_request_has_no_session(
    visitor: Visitor, settings: Any
) -> None:
    settings.MIDDLEWARE = []
    with pytest.raises(AttributeError, match="session"):
        await visitor.visits(leave_alone)


def test_a_test_gives_a_request_its_session_by_the_middlewares_own_method(project: Any) -> None:
    """As much as everybody does it who tests a view with a ``RequestFactory``."""
    request = RequestFactory().get("/")
    HeaderSessionMiddleware(lambda request: HttpResponse()).process_request(request)
    request.session["foo"] = "bar"
    request.session.save()
    assert SessionStore(request.session.session_key)["foo"] == "bar"


# Configuring the session engine.


async def test_another_cache_is_used_that_the_alias_names(visitor: Visitor, settings: Any) -> None:
    settings.CACHES = {**settings.CACHES, "sessions": {**LOCMEM, "LOCATION": "sessions"}}
    settings.SESSION_CACHE_ALIAS = "sessions"
    await visitor.does(write)
    assert await visitor.does(read) == "bar"
    caches["default"].clear()
    assert await visitor.does(read) == "bar"
    settings.SESSION_CACHE_ALIAS = "default"
    assert sum(registry.count().values()) == 0


LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}

# Settings.

FLAGS: list[tuple[str, Any, str, Any]] = [
    ("SESSION_COOKIE_AGE", 1234, "max-age", 1234),
    ("SESSION_COOKIE_DOMAIN", "example.com", "domain", "example.com"),
    ("SESSION_COOKIE_DOMAIN", None, "domain", ""),
    ("SESSION_COOKIE_HTTPONLY", True, "httponly", True),
    ("SESSION_COOKIE_HTTPONLY", False, "httponly", ""),
    ("SESSION_COOKIE_PATH", "/sync/", "path", "/sync/"),
    ("SESSION_COOKIE_SAMESITE", "Strict", "samesite", "Strict"),
    ("SESSION_COOKIE_SAMESITE", "None", "samesite", "None"),
    ("SESSION_COOKIE_SAMESITE", False, "samesite", ""),
    ("SESSION_COOKIE_SECURE", True, "secure", True),
    ("SESSION_COOKIE_SECURE", False, "secure", ""),
]


@pytest.mark.parametrize(("name", "value", "flag", "told"), FLAGS)
async def test_the_cookie_has_the_flag_of_the_setting(
    browser: Visitor, settings: Any, name: str, value: Any, flag: str, told: Any
) -> None:
    setattr(settings, name, value)
    assert (await browser.visits(write)).cookies["sessionid"][flag] == told


@pytest.mark.parametrize(("name", "value", "flag", "told"), FLAGS)
async def test_a_program_is_sent_no_cookie_whatever_its_flags_would_be(
    program: Visitor, settings: Any, name: str, value: Any, flag: str, told: Any
) -> None:
    """DIFFERS: a header has none."""
    setattr(settings, name, value)
    answer = await program.visits(write)
    assert not answer.cookies
    assert len(answer.headers["X-Session-Key"]) == 40


async def test_the_cookie_has_the_name_of_the_setting(browser: Visitor, settings: Any) -> None:
    settings.SESSION_COOKIE_NAME = "mine"
    answer = await browser.visits(write)
    assert list(answer.cookies) == ["mine"]
    assert await browser.does(read) == "bar"


async def test_a_cookie_is_deleted_where_it_was_set(browser: Visitor, settings: Any) -> None:
    settings.SESSION_COOKIE_DOMAIN = "testserver"
    settings.SESSION_COOKIE_PATH = f"/{browser.half}/"
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    await browser.visits(write)
    cookie = (await browser.visits(flush)).cookies["sessionid"]
    assert (cookie.value, cookie["max-age"]) == ("", 0)
    assert cookie["expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert (cookie["domain"], cookie["path"], cookie["samesite"]) == (
        "testserver",
        f"/{browser.half}/",
        "Strict",
    )


async def test_an_answer_varies_by_what_it_was_made_from(visitor: Visitor) -> None:
    answer = await visitor.visits(write)
    assert told_apart_by(answer) >= {
        "Cookie" if visitor.transport == "cookie" else "X-Session-Key",
    }
    answer = await visitor.visits(read)
    assert told_apart_by(answer) >= {
        "Cookie" if visitor.transport == "cookie" else "X-Session-Key",
    }


async def test_it_does_not_vary_by_a_cookie_that_nobody_looked_at(browser: Visitor) -> None:
    await browser.visits(write)
    assert told_apart_by(await browser.visits(leave_alone)) == set()


def told_apart_by(answer: Any) -> set[str]:
    return {name.strip() for name in answer.headers.get("Vary", "").split(",")} - {""}


# Session security.


async def test_a_key_of_somebody_elses_choice_is_not_taken_for_a_session(
    visitor: Visitor,
) -> None:
    """What a subdomain may set as a cookie is not what a session is made under."""
    chosen = "attacker" * 5
    visitor.key = chosen
    answer = await visitor.visits(write)
    if visitor.transport == "header":
        assert answer.status_code == 401
    else:
        assert answer.status_code == 200
        assert visitor.key not in (chosen, None)
    assert sum(registry.count().values()) == (visitor.transport == "cookie")


async def test_a_session_of_an_attacker_is_not_what_one_signs_in_to(
    newcomer: Callable[[], Visitor],
) -> None:
    """Fixation: whoever handed somebody a session has nothing of it once its user changed."""
    attacker, victim = newcomer(), newcomer()
    await attacker.visits(write)
    fixed = attacker.key
    assert fixed is not None
    victim.key = fixed

    async def become(request: HttpRequest, session: Face) -> None:
        await session.set("_auth_user_id", "7")

    await victim.does(become)
    assert victim.key != fixed
    answer = await attacker.visits(read)
    assert answer.status_code == (409 if attacker.transport == "header" else 200)
    assert answer.json().get("did") is None


# Technical details.


async def test_a_cookie_is_only_sent_if_it_is_needed(visitor: Visitor) -> None:
    for does in (leave_alone, read):
        answer = await visitor.visits(does)
        assert not answer.cookies
        assert "X-Session-Key" not in answer.headers
    assert sum(registry.count().values()) == 0


async def test_an_empty_session_is_not_kept_for_its_own_sake(visitor: Visitor) -> None:
    async def write_and_take_back(request: HttpRequest, session: Face) -> None:
        await session.set("foo", "bar")
        await session.pop("foo")

    answer = await visitor.visits(write_and_take_back)
    assert not answer.cookies
    assert "X-Session-Key" not in answer.headers
    assert sum(registry.count().values()) == 0


async def test_any_value_that_json_can_hold_is_accepted(store: Sessions) -> None:
    values = {"a": [1, 2.5, None, True, {"b": ["ü", ""]}], "c": 10**30, "d": {}, "e": []}
    face = await store.saved(**values)
    assert await store.stored(face) == values


# Session IDs in URLs.


@pytest.mark.parametrize("name", ["sessionid", "X-Session-Key", "session_key"])
async def test_a_key_in_a_url_is_nobodys_session(visitor: Visitor, name: str) -> None:
    await visitor.does(write)
    key = visitor.key
    stranger = Visitor(visitor.transport, visitor.half)
    answer = await stranger.visits(read, query_params={name: key})
    assert answer.json() == {"did": None}
    assert key not in answer.content.decode()
