"""Signing in and out: Django's functions on our sessions, and what the store is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.contrib.auth import (
    aget_user,
    alogin,
    alogout,
    aupdate_session_auth_hash,
    get_user,
    login,
    logout,
    update_session_auth_hash,
)
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionSuperseded
from django_header_sessions.fields import AUTH_FIELDS
from django_header_sessions.signals import session_ended
from django_header_sessions.stores.base import Store

from .face import Face, Half, Sessions, beside_database

HOUR = 3600
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann", password="ann's password")


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", password="bob's password")


def request_with(face: Face, user: Any = None) -> HttpRequest:
    request: HttpRequest = RequestFactory().get("/")
    request.session = face.session
    request.user = user or AnonymousUser()

    async def auser() -> Any:
        return request.user

    request.auser = auser
    return request


async def sign_in(sessions: Sessions, face: Face, user: User) -> None:
    await sessions.call(login, alogin, request_with(face), user)
    await face.save()


async def who(sessions: Sessions, face: Face) -> Any:
    """Whom Django takes the sender of this session's key for, in the next request."""
    return await sessions.call(get_user, aget_user, request_with(sessions.again(face)))


def known_user(face: Face) -> str | None:
    """Who is signed in, as the store knows it."""
    live = registry.get(face.key.id)
    assert live is not None
    return live.user


# Django's functions.


@beside_database
async def test_a_login_keeps_the_data_and_the_id_and_kills_the_old_key(
    sessions: Sessions, ann: User
) -> None:
    face = await sessions.opened((await sessions.saved(cart=[1])).key)
    old = face.key
    request = request_with(face)
    await sessions.call(login, alogin, request, ann)
    assert request.user == ann
    # At once, so that it holds even if the rest of the request fails.
    assert not await face.exists(old)
    await face.save()
    assert face.key != old
    assert face.key.id == old.id
    assert await sessions.again(face).get("cart") == [1]
    assert await who(sessions, face) == ann
    assert known_user(face) == face.session.user_id == str(ann.pk)


@beside_database
async def test_a_login_starts_a_session_where_there_was_none(sessions: Sessions, ann: User) -> None:
    face = sessions.new()
    await sign_in(sessions, face, ann)
    assert await who(sessions, face) == ann
    assert known_user(face) == str(ann.pk)


@beside_database
async def test_a_login_changes_the_key_once(sessions: Sessions, ann: User) -> None:
    face = await sessions.opened((await sessions.saved()).key)
    await sessions.call(login, alogin, request_with(face), ann)
    after_login = face.key
    await face.save()
    assert face.key == after_login


@beside_database
async def test_a_login_of_somebody_else_ends_the_session_and_starts_another(
    sessions: Sessions, ann: User, bob: User
) -> None:
    face = await sessions.saved(cart=["ann's"])
    await sign_in(sessions, face, ann)
    anns = face.key
    face = await sessions.opened(anns)
    await sign_in(sessions, face, bob)
    assert face.key.id != anns.id
    assert not await sessions.again(face).has_key("cart")
    assert await sessions.stored(anns) is None
    assert await who(sessions, face) == bob


@beside_database
async def test_a_second_login_of_the_same_user_keeps_the_session(
    sessions: Sessions, ann: User
) -> None:
    face = await sessions.saved(cart=[1])
    await sign_in(sessions, face, ann)
    again = await sessions.opened(face.key)
    await sign_in(sessions, again, ann)
    assert again.key.id == face.key.id
    assert await sessions.again(again).get("cart") == [1]
    assert await who(sessions, again) == ann


@beside_database
async def test_a_logout_ends_the_session(sessions: Sessions, ann: User) -> None:
    face = await sessions.saved(cart=[1])
    await sign_in(sessions, face, ann)
    key = face.key
    face = await sessions.opened(key)
    request = request_with(face, ann)
    await sessions.call(logout, alogout, request)
    assert not request.user.is_authenticated
    assert face.session.session_key is None
    assert face.session.user_id is None
    assert await sessions.stored(key) is None
    assert registry.get(key.id) is None


@beside_database
async def test_a_changed_password_signs_out_all_sessions_but_the_one_that_changed_it(
    sessions: Sessions, ann: User
) -> None:
    here, elsewhere = sessions.new(), sessions.new()
    for face in (here, elsewhere):
        await sign_in(sessions, face, ann)
    before = here.key
    here = await sessions.opened(before)
    ann.set_password("another password")
    await ann.asave()
    await sessions.call(
        update_session_auth_hash, aupdate_session_auth_hash, request_with(here, ann), ann
    )
    await here.save()

    assert here.key != before
    assert here.key.id == before.id
    assert not await here.exists(before)
    assert await who(sessions, here) == ann
    assert not (await who(sessions, elsewhere)).is_authenticated
    assert await sessions.stored(elsewhere) is None


@beside_database
async def test_a_new_secret_key_rotates_sessions_that_an_old_one_verifies(
    sessions: Sessions, ann: User, settings: Any
) -> None:
    face = await sessions.saved(cart=[1])
    await sign_in(sessions, face, ann)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "a new one"
    opened = await sessions.opened(face.key)
    assert await sessions.call(get_user, aget_user, request_with(opened)) == ann
    await opened.save()
    assert opened.key != face.key
    assert await who(sessions, opened) == ann
    settings.SECRET_KEY_FALLBACKS = []
    assert await who(sessions, opened) == ann


# Changes of the user, whoever makes them.


async def test_any_change_of_the_user_rotates(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    for user in ("7", "8", None):
        face = await sessions.opened(face.key)
        before = face.key
        if user is None:
            await face.pop("_auth_user_id")
        else:
            await face.set("_auth_user_id", user)
        await face.save()
        assert face.key != before
        assert face.key.id == before.id
        assert not await face.exists(before)
        assert await sessions.again(face).get("_auth_user_id") == user
        assert known_user(face) == face.session.user_id == user
        await face.save()
        assert await face.exists(face.key)


@pytest.mark.parametrize("opened", [True, False])
async def test_a_clear_that_signs_out_rotates_too(sessions: Sessions, opened: bool) -> None:
    signed_in = await sessions.saved(_auth_user_id="7", a=1)
    assert known_user(signed_in) == "7"
    face = sessions.again(signed_in)
    if opened:
        await face.open()
    face.session.clear()
    await face.set("b", 2)
    await face.save()
    assert known_user(face) is None
    assert face.key.id == signed_in.key.id
    assert not await face.exists(signed_in.key)
    assert await sessions.stored(face) == {"b": 2}


@pytest.mark.parametrize("opened", [True, False])
async def test_a_clear_that_changes_no_user_keeps_the_key(sessions: Sessions, opened: bool) -> None:
    for user in ({}, {"_auth_user_id": "7"}):
        first = await sessions.saved(a=1, **user)
        face = sessions.again(first)
        if opened:
            await face.open()
        face.session.clear()
        await face.update(user)
        await face.save()
        assert face.key == first.key
        assert await sessions.stored(face) == user
        assert known_user(face) == user.get("_auth_user_id")


async def test_what_is_not_the_user_does_not_rotate(sessions: Sessions) -> None:
    face = await sessions.opened((await sessions.saved(_auth_user_id="7", a=1)).key)
    key = face.key
    await face.update({"a": 2, "_auth_user_hash": "another"})
    await face.increment("n")
    await face.save()
    assert face.key == key
    assert known_user(face) == "7"


async def test_a_session_that_was_made_here_need_not_rotate(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    key = face.key
    await face.set("_auth_user_id", "7")
    await face.save()
    assert face.key == key
    assert known_user(face) == "7"


async def test_a_session_that_was_cleared_and_then_locked_rotates_too(sessions: Sessions) -> None:
    first = await sessions.saved(a=1)
    face = sessions.again(first)
    face.session.clear()
    await face.lock()
    await face.set("_auth_user_id", "7")
    await face.save()
    await face.unlock()
    assert face.key.id == first.key.id
    assert not await face.exists(first.key)
    assert await sessions.stored(face) == {"_auth_user_id": "7"}


async def test_one_of_two_sign_ins_at_once_is_told_superseded(sessions: Sessions) -> None:
    first = await sessions.saved(a=1)
    one, two = [await sessions.opened(first.key) for _ in range(2)]
    for face, user in ((one, "1"), (two, "2")):
        await face.update({name: f"{user} {name}" for name in AUTH_FIELDS})
    await one.save()
    with pytest.raises(SessionSuperseded):
        await two.save()
    assert await sessions.stored(one) == {"a": 1} | {name: f"1 {name}" for name in AUTH_FIELDS}
    assert two.key == first.key


async def test_what_says_who_is_signed_in_travels_together(sessions: Sessions) -> None:
    def trio(user: str, backend: str, hashed: str) -> dict[str, str]:
        return dict(zip(AUTH_FIELDS, (user, backend, hashed), strict=True))

    first = await sessions.saved(**trio("7", "old", "old"))
    one, two, three = [await sessions.opened(first.key) for _ in range(3)]
    await one.set("_auth_user_backend", "new")
    await one.save()
    assert await sessions.stored(first) == trio("7", "new", "old")
    # Opened before that: its own three, whole, and not two of them from the other.
    await two.set("_auth_user_hash", "new")
    await two.save()
    assert await sessions.stored(first) == trio("7", "old", "new")
    await three.pop("_auth_user_backend")
    await three.save()
    found = trio("7", "old", "old")
    del found["_auth_user_backend"]
    assert await sessions.stored(first) == found


# The absolute timeout.


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda face: face.set("_auth_user_id", "8"), 2 * HOUR),
        (lambda face: face.pop("_auth_user_id"), HOUR),
        (lambda face: face.set("a", 1), HOUR),
        (lambda face: face.cycle_key(), HOUR),
        (lambda face: face.increment("n"), HOUR),
    ],
)
async def test_a_sign_in_restarts_the_absolute_timeout_and_nothing_else_does(
    half: Half, clocked: None, clock: Any, settings: Any, change: Any, left: int
) -> None:
    settings.HEADER_SESSIONS_ABSOLUTE_TIMEOUT = 2 * HOUR
    settings.HEADER_SESSIONS_IDLE_TIMEOUT = 10 * HOUR
    sessions = Sessions("header", half)
    face = await sessions.saved(_auth_user_id="7")
    assert face.session.expires_in == 2 * HOUR
    clock.shift(HOUR)
    face = await sessions.opened(face.key)
    await change(face)
    await face.save()
    assert face.session.expires_in == left
    assert (await sessions.opened(face.key)).session.expires_in == left


# Most sessions of one user.


@pytest.fixture
def ended() -> Iterator[list[tuple[str, str]]]:
    """The id and the reason of each session that was ended."""
    heard = []

    def listen(sender: Any, session_id: str, reason: str, **kwargs: Any) -> None:
        heard.append((session_id, reason))

    session_ended.connect(listen)
    yield heard
    session_ended.disconnect(listen)


@pytest.fixture
def listed(listing_store: Store, half: Half, settings: Any) -> Sessions:
    settings.HEADER_SESSIONS_MAX_PER_USER = 2
    return Sessions("header", half)


async def one_after_the_other(sessions: Sessions, many: int, **fields: Any) -> list[Face]:
    """Sessions none of which were made in the same millisecond as the next."""
    faces = []
    for _ in range(many):
        faces.append(await sessions.saved(**fields))
        await asyncio.sleep(0.002)
    return faces


async def test_a_sign_in_too_many_ends_the_oldest_header_session_of_the_user(
    listed: Sessions, ended: list[tuple[str, str]]
) -> None:
    others = [await listed.saved(_auth_user_id="8"), await listed.saved()]
    cookie = await Sessions("cookie", listed.half).saved(_auth_user_id="7")
    faces = await one_after_the_other(listed, 4)
    # By sign-in, not by creation.
    for face in (faces[1], faces[0], faces[2], faces[3]):
        opened = await listed.opened(face.key)
        await opened.set("_auth_user_id", "7")
        await opened.save()
        face.session = opened.session
        await asyncio.sleep(0.002)
    assert {live.id for live in registry.of_user("7")} == {
        *(face.key.id for face in faces[2:]),
        cookie.key.id,
    }
    assert ended == [(faces[1].key.id, "limit"), (faces[0].key.id, "limit")]
    for other in others:
        assert await listed.stored(other) is not None


async def test_the_session_that_signs_in_is_not_ended_however_old_it_is(
    listed: Sessions, ended: list[tuple[str, str]], settings: Any
) -> None:
    settings.HEADER_SESSIONS_MAX_PER_USER = 1
    [oldest] = await one_after_the_other(listed, 1)
    [younger] = await one_after_the_other(listed, 1, _auth_user_id="7")
    opened = await listed.opened(oldest.key)
    await opened.set("_auth_user_id", "7")
    await opened.save()
    assert ended == [(younger.key.id, "limit")]
    assert [live.id for live in registry.of_user("7")] == [oldest.key.id]


async def test_a_session_that_is_made_signed_in_counts(
    listed: Sessions, ended: list[tuple[str, str]], settings: Any
) -> None:
    settings.HEADER_SESSIONS_MAX_PER_USER = 1
    [first] = await one_after_the_other(listed, 1, _auth_user_id="7")
    opened = await listed.opened(first.key)
    await opened.save(must_create=True)
    assert ended == [(first.key.id, "limit")]
    assert [live.id for live in registry.of_user("7")] == [opened.key.id]


async def test_a_session_that_somebody_else_ended_just_then_is_not_ended_again(
    listed: Sessions,
    ended: list[tuple[str, str]],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.HEADER_SESSIONS_MAX_PER_USER = 1
    [first] = await one_after_the_other(listed, 1, _auth_user_id="7")
    store: Any = first.session._store
    of_user, aof_user = store.of_user, store.aof_user

    def told(*args: Any) -> Any:
        found = of_user(*args)
        registry.end(first.key.id, "owner")
        return found

    async def atold(*args: Any) -> Any:
        found = await aof_user(*args)
        await registry.aend(first.key.id, "owner")
        return found

    if listed.half == "sync":
        monkeypatch.setattr(store, "of_user", told)
    else:
        monkeypatch.setattr(store, "aof_user", atold)
    await listed.saved(_auth_user_id="7")
    assert ended == [(first.key.id, "owner")]


def test_of_more_than_a_store_tells_at_once_the_oldest_are_ended(
    listing_store: Store, settings: Any
) -> None:
    def signed_in() -> str:
        session = SessionStore(transport="header")
        session["_auth_user_id"] = "7"
        session.save()
        assert session.session_key is not None
        return session.session_key.id

    for _ in range(1005):
        signed_in()
    settings.HEADER_SESSIONS_MAX_PER_USER = 3
    time.sleep(0.002)  # later than all others, by the milliseconds of the store
    last = signed_in()
    left = registry.of_user("7")
    assert len(left) == 3
    assert last in {session.id for session in left}


async def test_what_is_no_sign_in_ends_nobody(
    listed: Sessions, ended: list[tuple[str, str]], settings: Any
) -> None:
    settings.HEADER_SESSIONS_MAX_PER_USER = None
    faces = await one_after_the_other(listed, 4, _auth_user_id="7")
    settings.HEADER_SESSIONS_MAX_PER_USER = 2
    opened = await listed.opened(faces[0].key)
    await opened.update({"a": 1, "_auth_user_hash": "another"})
    await opened.save()
    await opened.cycle_key()
    await Sessions("cookie", listed.half).saved(_auth_user_id="7")
    for _ in range(3):
        await listed.saved()
    assert ended == []
    # A limit that was lowered is made good by the next sign-in.
    await listed.saved(_auth_user_id="7")
    assert [session_id for session_id, _ in ended] == [face.key.id for face in faces[:3]]


async def test_where_sessions_cannot_be_listed_there_is_no_limit(
    half: Half, settings: Any, tmp_path: Any
) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    settings.HEADER_SESSIONS_MAX_PER_USER = 1
    sessions = Sessions("header", half)
    faces = [await sessions.saved(_auth_user_id="7") for _ in range(2)]
    for face in faces:
        assert await sessions.stored(face) is not None


async def test_signing_in_again_rotates_and_restarts_the_absolute_timeout(
    sessions: Sessions,
) -> None:
    face = await sessions.opened((await sessions.saved(_auth_user_id="7", a=1)).key)
    key = face.key
    await face.set("_auth_user_id", "7")
    await face.save()
    assert face.key.id == key.id
    assert not await face.exists(key)
    assert await sessions.stored(face) == {"_auth_user_id": "7", "a": 1}


async def test_of_two_sign_ins_at_once_one_is_left(listed: Sessions, settings: Any) -> None:
    settings.HEADER_SESSIONS_MAX_PER_USER = None
    faces = [await listed.opened((await listed.saved()).key) for _ in range(2)]
    for face in faces:
        await face.set("_auth_user_id", "7")
        await face.save()
    # As if each had stored its sign-in before the other looked at the list.
    settings.HEADER_SESSIONS_MAX_PER_USER = 1
    for face in faces:
        await face.session._arun(face.session._signed("7"))
    assert len(registry.of_user("7")) == 1


def whoami(request: HttpRequest) -> JsonResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"user": request.user.get_username(), "visits": request.session["visits"]})


urlpatterns = [path("whoami/", whoami)]


@pytest.fixture
def cookie_site(any_store: Store, settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.HEADER_SESSIONS_COOKIE_PATHS = ("/",)


def test_djangos_test_client_signs_in_and_out(cookie_site: None, ann: User) -> None:
    client = Client()
    assert client.get("/whoami/").json() == {"user": "", "visits": 1}
    assert not client.login(username="ann", password="wrong")
    assert client.login(username="ann", password="ann's password")
    assert client.get("/whoami/").json() == {"user": "ann", "visits": 2}
    key = client.cookies["sessionid"].value
    assert client.session.session_key == key
    client.logout()
    assert not SessionStore(key).exists(key)
    assert client.get("/whoami/").json() == {"user": "", "visits": 1}
    client.force_login(ann)
    assert client.get("/whoami/").json() == {"user": "ann", "visits": 2}


def test_a_test_writes_to_the_session_of_djangos_test_client(cookie_site: None) -> None:
    client = Client()
    session = client.session
    session["visits"] = 41
    session.save()
    assert client.get("/whoami/").json() == {"user": "", "visits": 42}
    assert client.session["visits"] == 42
    assert sorted(client.session.keys()) == ["visits"]


@beside_database
async def test_djangos_async_test_client_signs_in_writes_and_signs_out(
    cookie_site: None, ann: User
) -> None:
    client = AsyncClient()
    assert await client.alogin(username="ann", password="ann's password")
    assert (await client.get("/whoami/")).json() == {"user": "ann", "visits": 1}
    session = await client.asession()
    await session.aset("visits", 41)
    await session.asave()
    assert (await client.get("/whoami/")).json() == {"user": "ann", "visits": 42}
    await client.alogout()
    assert (await client.get("/whoami/")).json() == {"user": "", "visits": 1}
    await client.aforce_login(ann)
    assert (await client.get("/whoami/")).json() == {"user": "ann", "visits": 2}
