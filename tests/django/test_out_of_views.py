"""The store of sessions, used without a request."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.http import HttpRequest

from django_header_sessions import registry
from tests.engine.face import Face, Half, Sessions

from . import engine
from .conftest import Visitor

# Using sessions out of views.


def session_store(*args: Any, **kwargs: Any) -> Any:
    """As the page tells to: the ``SessionStore`` of the engine that is designated."""
    return import_module(django_settings.SESSION_ENGINE).SessionStore(*args, **kwargs)


async def test_data_is_manipulated_outside_of_a_view(project: Any, half: Half) -> None:
    face = Face(session_store(), half)
    # Stored as seconds since epoch since datetimes are not serializable in JSON.
    face.session["last_login"] = 1376587691
    await face.create()
    key = face.session.session_key

    assert key is not None
    assert len(key) == 40
    again = Face(session_store(session_key=key), half)
    assert await again.get("last_login") == 1376587691
    if half == "sync":
        assert again.session["last_login"] == 1376587691


async def test_a_session_that_was_made_outside_is_a_browsers(browser: Visitor, half: Half) -> None:
    """And what the browser does to it is seen outside."""

    async def look(request: HttpRequest, session: Face) -> Any:
        await session.set("seen", True)
        return await session.get("last_login")

    face = Face(session_store(), half)
    await face.set("last_login", 1376587691)
    await face.create()
    browser.key = str(face.key)
    assert await browser.does(look) == 1376587691
    assert dict(await Face(session_store(face.key), half).items()) == {
        "last_login": 1376587691,
        "seen": True,
    }


async def test_a_header_session_is_asked_for_by_its_transport(program: Visitor, half: Half) -> None:
    """DIFFERS: a header session is not a cookie's, so that its transport has to be said."""

    async def look(request: HttpRequest, session: Face) -> Any:
        return await session.get("last_login")

    face = Face(session_store(transport="header"), half)
    await face.set("last_login", 1376587691)
    await face.create()
    program.key = str(face.key)
    assert await program.does(look) == 1376587691
    assert dict(await Face(session_store(face.key), half).items()) == {}


async def test_save_on_a_new_session_makes_one_too(store: Sessions) -> None:
    face = store.new()
    assert face.session.session_key is None
    await face.set("fav_color", "red")
    await face.save()
    assert await store.stored(face) == {"fav_color": "red"}


async def test_create_never_takes_the_key_of_another(store: Sessions) -> None:
    faces = [store.new() for _ in range(20)]
    for face in faces:
        await face.create()
    assert len({face.key for face in faces}) == len({face.key.id for face in faces}) == 20


def test_sessions_are_listed_with_their_expiry_by_the_registry(project: Any) -> None:
    """DIFFERS: there is no table. What the page asks the ``Session`` model for, the registry says,
    by the session's id: its key is known to nobody but the client."""
    session = session_store()
    session["fav_color"] = "red"
    session.create()
    live = registry.get(session.session_key.id)
    assert live is not None
    assert 0 <= session.get_expiry_age() - live.expires_in / 1000 < 10
    assert [each.id for each in registry.page(10).sessions] == [session.session_key.id]


# The SessionStore object.

METHODS = "exists create save delete load clear_expired".split()


def test_it_is_named_so_in_the_module_of_the_setting() -> None:
    module = import_module(django_settings.SESSION_ENGINE)
    assert issubclass(module.SessionStore, SessionBase)


@pytest.mark.parametrize("name", METHODS)
def test_it_has_the_methods_of_the_page_and_their_asynchronous_versions(name: str) -> None:
    cls = import_module(django_settings.SESSION_ENGINE).SessionStore
    assert not inspect.iscoroutinefunction(getattr(cls, name))
    assert inspect.iscoroutinefunction(getattr(cls, f"a{name}"))


async def test_exists_tells_whether_there_is_a_session(store: Sessions) -> None:
    face = store.new()
    assert not await face.exists("a" * 40)
    assert not await face.exists("")
    await face.create()
    assert await face.exists(face.key)
    await face.delete()
    assert not await store.new().exists(face.key)


async def test_load_answers_the_data(store: Sessions) -> None:
    face = await store.saved(fav_color="red")
    assert await store.again(face).load() == {"fav_color": "red"}
    assert await store.new().load() == {}
    assert await store.new("a" * 40).load() == {}


async def test_delete_takes_a_key_or_its_own(store: Sessions) -> None:
    one, other = await store.saved(n=1), await store.saved(n=2)
    await one.delete(other.key)
    assert (await store.stored(one), await store.stored(other)) == ({"n": 1}, None)
    await one.delete()
    assert await store.stored(one) is None
    await store.new().delete()
    await store.new().delete("a" * 40)


async def test_save_of_a_session_that_was_deleted_does_not_bring_it_back(store: Sessions) -> None:
    face = await store.opened((await store.saved(n=1)).key)
    await store.again(face).delete()
    await face.set("n", 2)
    with pytest.raises(UpdateError):
        await face.save()
    assert await store.stored(face.key) is None


async def test_save_with_must_create_makes_a_session_of_its_own(store: Sessions) -> None:
    face = await store.saved(n=1)
    first = face.key
    await face.set("n", 2)
    await face.save(must_create=True)
    assert face.key != first
    assert (await store.stored(first), await store.stored(face)) == ({"n": 1}, {"n": 2})


async def test_an_unknown_key_is_a_new_session_under_no_key(store: Sessions) -> None:
    """A key of the client's choice is never taken for a new session's."""
    face = store.new("a" * 40)
    await face.set("n", 1)
    with pytest.raises(KeyError):
        face.session["missing"]
    await face.save()
    assert face.key != "a" * 40


# Extending database-backed session engines: what the page says of deriving from one, for ours.


@pytest.fixture
def own_engine(project: Any) -> None:
    project.SESSION_ENGINE = "tests.django.engine"


@pytest.mark.usefixtures("own_engine")
async def test_a_class_that_derives_from_it_is_an_engine(visitor: Visitor) -> None:
    async def look(request: HttpRequest, session: Face) -> list[Any]:
        await session.set("seen", True)
        age = await session.get_expiry_age()
        return [request.session.get_session_cookie_age(), age]

    assert isinstance(session_store(), engine.SessionStore)
    answer = await visitor.visits(look)
    assert answer.json()["did"] == [engine.AGE, engine.AGE]
    if visitor.transport == "cookie":
        assert answer.cookies["sessionid"]["max-age"] == engine.AGE
    else:
        assert answer.headers["X-Session-Expires-In"] == str(engine.AGE)
    opened = Face(session_store(visitor.key, transport=visitor.transport), visitor.half)
    assert await opened.open()
    assert engine.AGE - 10 <= (opened.session.expires_in or 0) <= engine.AGE


@pytest.mark.usefixtures("own_engine")
async def test_what_it_overrides_is_called(visitor: Visitor) -> None:
    async def create(request: HttpRequest, session: Face) -> None:
        await session.create()

    async def change(request: HttpRequest, session: Face) -> None:
        await session.set("fav_color", "red")

    await visitor.does(create)
    assert await visitor.stored() == {"made by": "the project's own", "saved": 1}
    await visitor.does(change)
    assert await visitor.stored() == {
        "made by": "the project's own",
        "fav_color": "red",
        "saved": 2,
    }
