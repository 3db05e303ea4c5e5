"""``session_created`` and ``session_ended``: what is heard, when, and what is not said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import alogin, alogout, login, logout
from django.contrib.auth.models import AnonymousUser, User
from django.dispatch import Signal
from django.test import RequestFactory

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.keys import ID_LENGTH
from django_header_sessions.resolvers import Transport
from django_header_sessions.signals import session_created, session_ended
from django_header_sessions.stores.base import Store

from .face import Face, Sessions, beside_database

Heard = list[tuple[str, Any, str, str]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Which signal came, its sender, the id and the reason of the session."""
    found: Heard = []

    def listen(signal: Signal, sender: Any, session_id: str, **kwargs: Any) -> None:
        name = "created" if signal is session_created else "ended"
        found.append((name, sender, session_id, kwargs.pop("reason", "")))
        assert not kwargs
        assert len(session_id) == ID_LENGTH

    for signal in (session_created, session_ended):
        signal.connect(listen)
    yield found
    for signal in (session_created, session_ended):
        signal.disconnect(listen)


async def test_the_creation_is_heard_once_and_after_it_is_stored(
    sessions: Sessions, transport: Transport, heard: Heard
) -> None:
    face = sessions.new()
    await face.set("a", 1)
    assert heard == []
    await face.save()
    assert heard == [("created", transport, face.key.id, "")]
    await face.set("a", 2)
    await face.save()
    await face.increment("n")
    await face.cycle_key()
    await sessions.stored(face)
    assert len(heard) == 1


async def test_whatever_makes_a_session_is_heard(
    sessions: Sessions, transport: Transport, heard: Heard
) -> None:
    makes: list[Callable[[Face], Any]] = [
        lambda face: face.create(),
        lambda face: face.cycle_key(),
        lambda face: face.increment("n"),
        lambda face: face.save(must_create=True),
    ]
    for make in makes:
        face = sessions.new()
        heard.clear()
        await make(face)
        assert heard == [("created", transport, face.key.id, "")]


@pytest.mark.parametrize("opened_in", ["sync", "async"])
async def test_an_async_receiver_hears_what_a_sync_one_does(
    sessions: Sessions, opened_in: str
) -> None:
    heard = []

    async def listen(session_id: str, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        heard.append((session_id, kwargs.get("reason")))

    async def use(name: str) -> None:
        if sessions.half == "async":
            await getattr(face, name)()
        else:
            # Django's sync half of a signal waits for async receivers where no loop runs.
            await sync_to_async(getattr(face.session, name))()

    face = sessions.new()
    if opened_in == "sync":  # an async view inside a WSGI server
        face.session.open()
    for signal in (session_created, session_ended):
        signal.connect(listen)
    try:
        await use("save")
        session_id = face.key.id
        await use("flush")
    finally:
        for signal in (session_created, session_ended):
            signal.disconnect(listen)
    assert heard == [(session_id, None), (session_id, "logout")]


async def test_a_receiver_may_listen_to_one_transport(any_store: Store, half: Any) -> None:
    ids: list[str] = []

    def listen(sender: Any, session_id: str, **kwargs: Any) -> None:
        ids.append(session_id)

    session_created.connect(listen, sender="header")
    try:
        await Sessions("cookie", half).saved()
        header = await Sessions("header", half).saved()
    finally:
        session_created.disconnect(listen, sender="header")
    assert ids == [header.key.id]


async def test_a_receiver_finds_the_session_stored(header_sessions: Sessions) -> None:
    found = []

    def look(session_id: str, **kwargs: Any) -> None:
        found.append(registry.get(session_id))

    session_created.connect(look)
    session_ended.connect(look)
    try:
        face = await header_sessions.saved(_auth_user_id="7")
        await face.delete()
    finally:
        session_created.disconnect(look)
        session_ended.disconnect(look)
    created, ended = found
    assert created is not None
    assert (created.id, created.user) == (face.key.id, "7")
    assert ended is None


async def test_the_end_is_heard_once(sessions: Sessions, heard: Heard) -> None:
    ends: list[Callable[[Face], Any]] = [
        lambda face: face.flush(),
        lambda face: face.delete(),
        lambda face: face.delete(face.key),
        lambda face: face.delete(str(face.key)),
    ]
    for end in ends:
        face = await sessions.saved(a=1)
        key = face.key
        heard.clear()
        await end(face)
        assert heard == [("ended", SessionStore, key.id, "logout")]
        await face.delete(key)
        await face.flush()
        await sessions.stored(key)
        assert len(heard) == 1


async def test_the_end_of_what_was_not_there_is_not_heard(sessions: Sessions, heard: Heard) -> None:
    face = sessions.new()
    await face.flush()
    await face.delete()
    await face.delete("a" * 40)
    assert heard == []


async def test_an_expiry_in_the_past_is_heard_as_one(sessions: Sessions, heard: Heard) -> None:
    for over in (-1, timedelta(seconds=-1), datetime(2020, 1, 1, tzinfo=UTC)):
        face = await sessions.saved(a=1)
        key = face.key
        heard.clear()
        await face.set_expiry(over)
        await face.save()
        await face.save()
        assert heard == [("ended", SessionStore, key.id, "expiry")]

        new = sessions.new()
        await new.set_expiry(over)
        await new.save()
        assert len(heard) == 1


@beside_database
async def test_a_login_and_a_logout_are_heard(
    sessions: Sessions, transport: Transport, heard: Heard, db: None
) -> None:
    ann = await User.objects.acreate(username="ann")
    request = RequestFactory().get("/")
    face = sessions.new()
    request.session, request.user = face.session, AnonymousUser()
    await sessions.call(login, alogin, request, ann)
    await face.save()
    session_id = face.key.id
    assert heard == [("created", transport, session_id, "")]
    if sessions.half == "async":
        del request.user
    await sessions.call(logout, alogout, request)
    assert heard[1:] == [("ended", SessionStore, session_id, "logout")]


async def test_a_receiver_that_fails_does_not_undo_what_it_heard(sessions: Sessions) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError("the receiver failed")

    face, other = sessions.new(), await sessions.saved()
    for signal in (session_created, session_ended):
        signal.connect(fail)
    try:
        await face.set("a", 1)
        await face.save()
        await other.delete()
    finally:
        for signal in (session_created, session_ended):
            signal.disconnect(fail)
    assert await sessions.stored(face) == {"a": 1}
    assert await sessions.stored(other) is None
    # What is saved next goes to the same session.
    key = face.key
    await face.set("a", 2)
    await face.save()
    assert face.key == key
    assert await sessions.stored(face) == {"a": 2}
