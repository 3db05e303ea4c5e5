"""The registry: which sessions are live, and how they are ended, by their ids alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import ListingNotSupported, SessionEnded
from django_header_sessions.keys import SessionKey
from django_header_sessions.registry import Kind, LiveSession
from django_header_sessions.resolvers import Transport
from django_header_sessions.signals import session_created, session_ended
from django_header_sessions.stores.base import Store

Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks the registry by one half of its functions."""

    def ask(name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(registry, name)(*args, **kwargs)

        async def asking() -> Any:
            return await getattr(registry, f"a{name}")(*args, **kwargs)

        return async_to_sync(asking)()

    return ask


def start(
    user: str | None = None, transport: Transport = "header", **data: Any
) -> tuple[SessionStore, SessionKey]:
    """A session that is stored, and its key."""
    session = SessionStore(transport=transport)
    session.update({"n": 1, **data})
    if user is not None:
        session["_auth_user_id"] = user
    session.save()
    assert session.session_key is not None
    return session, session.session_key


def opens(key: SessionKey) -> bool:
    return SessionStore(key, transport="header").open()


@pytest.mark.usefixtures("listing_store")
def test_it_counts_live_sessions_by_transport_and_sign_in(ask: Ask) -> None:
    start()
    start()
    start("7")
    _, key = start(transport="cookie")
    expected = {
        Kind("header", False): 2,
        Kind("header", True): 1,
        Kind("cookie", False): 1,
        Kind("cookie", True): 0,
    }
    assert ask("count") == expected
    ask("end", key.id)
    assert ask("count") == expected | {Kind("cookie", False): 0}


@pytest.mark.usefixtures("listing_store")
def test_it_shows_all_live_sessions_page_by_page(ask: Ask) -> None:
    started = {start()[1].id for _ in range(25)}
    shown, after = [], None
    while True:
        page = ask("page", 10, after)
        assert len(page.sessions) <= 10
        shown += [session.id for session in page.sessions]
        after = page.next
        if after is None:
            break
    assert len(shown) == 25
    assert set(shown) == started


@pytest.mark.usefixtures("listing_store")
def test_it_shows_sessions_of_some_kinds_alone(ask: Ask) -> None:
    _, anonymous = start()
    _, anns = start("7")
    _, by_cookie = start(transport="cookie")

    def shown(*kinds: Kind) -> set[str]:
        return {session.id for session in ask("page", kinds=kinds).sessions}

    assert shown() == {anonymous.id, anns.id, by_cookie.id}
    assert shown(Kind("header", True)) == {anns.id}
    assert shown(Kind("header", False), Kind("cookie", False)) == {anonymous.id, by_cookie.id}
    assert shown(Kind("cookie", True)) == set()


@pytest.mark.usefixtures("listing_store")
def test_it_finds_the_sessions_of_one_user(ask: Ask) -> None:
    ids = [start("7")[1].id for _ in range(3)]
    start("70")
    start("8")
    start()
    found = ask("of_user", "7")
    assert {session.id for session in found} == set(ids)
    assert {session.user for session in found} == {"7"}
    assert [session.created_ms for session in found] == sorted(s.created_ms for s in found)
    assert ask("of_user", "nobody") == []


@pytest.mark.usefixtures("listing_store")
@pytest.mark.parametrize("as_user", [False, True])
def test_a_user_may_be_named_as_such_or_by_the_primary_key(ask: Ask, as_user: bool) -> None:
    user = User(pk=7, username="ann")
    named: Any = user if as_user else user.pk
    ids = [start("7")[1].id for _ in range(2)]
    start("8")
    assert {session.id for session in ask("of_user", named)} == set(ids)
    assert ask("count_of_users", [named]) == 2
    assert {session.id for session in ask("page", users=[named]).sessions} == set(ids)
    assert ask("search", lambda session: True, users=[named]).sessions
    assert {session.id for session in ask("end_user", named)} == set(ids)
    assert ask("of_user", named) == []


@pytest.mark.usefixtures("any_store")
def test_it_looks_at_one_session_without_using_it(ask: Ask) -> None:
    _, key = start("7")
    seen = ask("get", key.id)
    assert isinstance(seen, LiveSession)
    assert (seen.id, seen.user, seen.transport) == (key.id, "7", "header")
    assert seen.created <= seen.last_seen <= seen.expires
    assert 0 < seen.expires_in <= 1800_000
    assert ask("get", key.id).last_seen_ms == seen.last_seen_ms


@pytest.mark.usefixtures("any_store")
def test_what_it_shows_opens_nothing(ask: Ask) -> None:
    _, key = start("7")
    seen = ask("get", key.id)
    for shown in (repr(seen), *(str(getattr(seen, each.name)) for each in fields(seen))):
        assert key[15:] not in shown
        assert key.secret_hash.hex() not in shown


@pytest.mark.usefixtures("any_store")
def test_it_ends_a_session_by_its_id_whatever_its_key_is_by_now(ask: Ask) -> None:
    session, key = start()
    session.cycle_key()
    session.cycle_key()
    rotated = session.session_key
    assert rotated is not None
    assert rotated.id == key.id
    assert ask("end", key.id) is True
    assert not opens(key)
    assert not opens(rotated)
    assert ask("get", key.id) is None
    assert ask("end", key.id) is False, "there is none any more, which is no error"
    with pytest.raises(SessionEnded):
        session.cycle_key()


@pytest.mark.usefixtures("any_store")
@pytest.mark.parametrize("name", ["", "x", "*", "a" * 16, "A" * 15, "a" * 40, "../" * 5])
def test_what_is_no_id_names_no_session(ask: Ask, name: str) -> None:
    assert ask("get", name) is None
    assert ask("end", name) is False


@pytest.mark.usefixtures("any_store")
def test_a_session_key_is_no_id(ask: Ask) -> None:
    _, key = start()
    assert ask("get", key) is None
    assert ask("end", key) is False
    assert opens(key)


@pytest.mark.usefixtures("any_store")
def test_it_shows_the_contexts_of_a_session_and_ends_one(ask: Ask) -> None:
    session, key = start()
    session.context("b")["n"] = 1
    session.context("a", idle_timeout=600)["text"] = "é"
    session.save()
    shown = ask("contexts", key.id)
    assert [(one.name, one.size, one.fields) for one in shown] == [("a", 6, 1), ("b", 2, 1)]
    assert 590_000 < shown[0].expires_in <= 600_000 < shown[1].expires_in
    (live,) = ask("get_many", [key.id])
    assert live.size == 2, "what they hold is not part of it"
    assert ask("end_context", key.id, "a") is True
    assert ask("end_context", key.id, "a") is False, "there is none any more, which is no error"
    assert [one.name for one in ask("contexts", key.id)] == ["b"]
    assert opens(key)
    ask("end", key.id)
    assert ask("contexts", key.id) == []
    assert ask("end_context", key.id, "b") is False


@pytest.mark.usefixtures("any_store")
@pytest.mark.parametrize("name", ["", "x", "*", "a b", "a" * 65, "é", "\ud800", "\0", "d1", "../a"])
def test_what_names_no_context_ends_none(ask: Ask, name: str) -> None:
    session, key = start()
    session.context("1")["n"] = 1
    session.save()
    assert ask("end_context", key.id, name) is False
    # The whole key is no id here, either.
    assert ask("end_context", key, "1") is False
    assert ask("contexts", key) == []
    assert [one.name for one in ask("contexts", key.id)] == ["1"]


@pytest.fixture
def heard() -> Iterator[list[tuple[str, object, dict[str, Any]]]]:
    """What was signalled of sessions that began and ended."""
    told: list[tuple[str, object, dict[str, Any]]] = []

    def created(sender: object, **kwargs: Any) -> None:
        told.append(("created", sender, {**kwargs, "signal": None}))

    def ended(sender: object, **kwargs: Any) -> None:
        told.append(("ended", sender, {**kwargs, "signal": None}))

    session_created.connect(created)
    session_ended.connect(ended)
    yield told
    session_created.disconnect(created)
    session_ended.disconnect(ended)


@pytest.mark.usefixtures("any_store")
def test_beginning_and_end_are_signalled_once_with_the_id_alone(
    ask: Ask, heard: list[tuple[str, object, dict[str, Any]]]
) -> None:
    _, key = start()
    ask("end", key.id, reason="no reason")
    ask("end", key.id)
    assert heard == [
        ("created", "header", {"session_id": key.id, "signal": None}),
        (
            "ended",
            "django_header_sessions.registry",
            {"session_id": key.id, "reason": "no reason", "signal": None},
        ),
    ]


@pytest.mark.usefixtures("any_store")
def test_every_end_has_a_reason(heard: list[tuple[str, object, dict[str, Any]]]) -> None:
    session, _ = start()
    session.flush()
    session, _ = start()
    session.set_expiry(-1)
    session.save()
    _, key = start()
    registry.end(key.id)
    reasons = [told["reason"] for what, _, told in heard if what == "ended"]
    assert reasons == ["logout", "expiry", "registry"]


def test_where_the_cache_keeps_no_list_it_says_so_and_ends_all_the_same(
    settings: Any, tmp_path: Any, ask: Ask
) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    _, key = start("7")
    assert registry.lists() is False
    for name, *args in (["count"], ["page"], ["of_user", "7"]):
        with pytest.raises(ListingNotSupported, match="cannot list its sessions"):
            ask(name, *args)
    assert ask("get", key.id).user == "7"
    assert ask("end", key.id) is True


def test_where_the_cache_keeps_a_list_it_says_so(listing_store: Store) -> None:
    assert registry.lists() is True


# Where a session was started from, as the middleware records it.

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"


def started_by_request(**more: Any) -> LiveSession:
    answer = Client().get(
        "/sync/?do=[[%22set%22,%22n%22,1]]", headers={"User-Agent": AGENT, **more}
    )
    found = registry.get(answer.headers["X-Session-Key"][:15])
    assert found is not None
    return found


def says_ip(request: Any) -> str:
    return str(request.headers["X-Real-Ip"])


@pytest.mark.usefixtures("any_store")
def test_the_origin_of_a_session_is_recorded_when_it_is_created() -> None:
    started = started_by_request()
    assert started.ip == "127.0.0.1"
    assert started.user_agent == "(X11; Linux x86_64) Firefox/127.0"


@pytest.mark.usefixtures("any_store")
def test_no_origin_is_recorded_where_that_is_switched_off(settings: Any) -> None:
    settings.HEADER_SESSIONS_RECORD_ORIGIN = False
    settings.HEADER_SESSIONS_CLIENT_IP = f"{__name__}.says_ip"
    started = started_by_request()
    assert (started.ip, started.user_agent) == ("", "")


@pytest.mark.usefixtures("any_store")
def test_the_projects_own_ip_is_recorded(settings: Any) -> None:
    settings.HEADER_SESSIONS_CLIENT_IP = f"{__name__}.says_ip"
    assert started_by_request(**{"X-Real-Ip": "2001:db8::1"}).ip == "2001:db8::1"


def test_every_function_but_those_of_commands_has_an_async_twin() -> None:
    public = {name for name in registry.__all__ if name[0].islower()}
    alone = {name for name in public if f"a{name}" not in public and name[1:] not in public}
    assert alone == {"lists", "examine", "outages"}


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_of_no_session_is_no_page(ask: Ask, listing_store: Store, limit: int) -> None:
    SessionStore().create()
    for name, args in (
        ("page", ()),
        ("page", (None, (), False, ["1"])),
        ("search", (lambda session: True,)),
        ("idle", (timedelta(),)),
        ("sweep", ()),
    ):
        given = [*args, limit] if name in ("search", "idle") else [limit, *args]
        with pytest.raises(ValueError, match="at least 1"):
            ask(name, *given)


def test_a_user_whose_name_no_text_can_have_has_no_sessions(ask: Ask, listing_store: Store) -> None:
    assert ask("of_user", "\udcff") == []
    assert ask("page", users=["\udcff"]).sessions == []
