"""The sync and the async half are one engine: the same methods, the same arguments, no thread."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import asgiref.sync
import pytest
import redis
from django.contrib.sessions.backends.base import SessionBase

from django_header_sessions.engine import SessionStore
from django_header_sessions.stores.base import Store

from .face import Sessions

# What no twin is needed for, as it never asks the store.
STORELESS = {
    *("clear", "decode", "encode", "get_session_cookie_age", "is_empty"),
    *("another", "readonly", "serialized"),
}
OURS = {
    *("another", "open", "increment", "lock", "unlock", "finish"),
    *("context", "contexts", "end_context", "new_context", "save_contexts"),
}


def defined(cls: type[Any], name: str) -> type[Any]:
    """The class that a method comes from."""
    return next(each for each in cls.__mro__ if name in vars(each))


def public_methods() -> dict[str, Callable[..., Any]]:
    """Of the engine and of Django's base class. Sync ones by name; their twins are found by it."""
    return {
        name: method
        for name, method in inspect.getmembers(SessionStore, inspect.isroutine)
        if not name.startswith("_")
    }


def pairs() -> list[str]:
    methods = public_methods()
    return sorted(
        name
        for name, method in methods.items()
        if not inspect.iscoroutinefunction(method) and name not in STORELESS
    )


def test_every_async_method_is_somebodys_twin() -> None:
    found = {
        name for name, method in public_methods().items() if inspect.iscoroutinefunction(method)
    }
    # ``aset`` is the twin of ``session[name] = value``.
    assert found == {"a" + name for name in pairs()} | {"aset"}
    assert "open" in pairs()
    assert "increment" in pairs()


@pytest.mark.parametrize("name", pairs())
def test_a_method_and_its_twin_are_defined_in_the_same_class(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(SessionStore, "a" + name, None))
    assert defined(SessionStore, name) is defined(SessionStore, "a" + name)


@pytest.mark.parametrize("name", pairs())
def test_a_method_and_its_twin_take_and_answer_the_same(name: str) -> None:
    sync, twin = (inspect.signature(getattr(SessionStore, each)) for each in (name, "a" + name))
    assert sync == twin


@pytest.mark.parametrize("name", [*pairs(), "clear", "get_session_cookie_age"])
def test_what_djangos_class_has_the_engine_takes_in_the_same_way(name: str) -> None:
    if not hasattr(SessionBase, name):
        assert name in OURS
        return
    django, ours = (inspect.signature(getattr(cls, name)) for cls in (SessionBase, SessionStore))
    assert list(ours.parameters) == list(django.parameters)
    for parameter in django.parameters.values():
        assert ours.parameters[parameter.name].default == parameter.default
        assert ours.parameters[parameter.name].kind == parameter.kind


@pytest.mark.parametrize("name", ["exists", "create", "save", "delete", "load", "clear_expired"])
def test_what_djangos_class_leaves_open_the_engine_defines(name: str) -> None:
    assert defined(SessionStore, name) is SessionStore
    assert defined(SessionStore, "a" + name) is SessionStore


async def test_the_async_half_stays_in_the_event_loop_on_redis(
    redis_cache: Any, settings: Any, transport: Any, monkeypatch: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    sessions = Sessions(transport, "async")

    def leave(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the event loop was left, or blocked")

    monkeypatch.setattr(asgiref.sync.SyncToAsync, "__call__", leave)
    monkeypatch.setattr(redis.Redis, "execute_command", leave)
    face = sessions.new()
    await face.set("a", [1])
    await face.set_expiry(100)
    await face.save()
    other = await sessions.opened(face.key)
    assert await other.pop("a") == [1]
    await other.setdefault("b", 1)
    await other.save()
    assert await other.increment("n") == 1
    await other.cycle_key()
    assert await other.load() == dict(await other.items())
    assert await other.exists(other.key)
    await other.clear_expired()
    await other.flush()
    await other.create()
    await other.delete()


async def test_a_session_of_a_loop_that_will_not_last_never_connects_in_it(
    any_store: Store, transport: Any, monkeypatch: Any
) -> None:
    """As in an async view inside a WSGI server, whose loop lives for that view alone."""

    def connect(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a connection was made in the event loop")

    monkeypatch.setattr(redis.asyncio.ConnectionPool, "__init__", connect)
    session = SessionStore(transport=transport)
    session.for_one_request = True
    session.open()
    await session.aset("a", 1)
    await session.asave()
    assert await session.aincrement("n") == 1
    await session.acycle_key()
    found = session.another(transport)
    await found.aset("b", 1)
    await found.asave()
    found = SessionStore(session.session_key, transport=transport)
    found.for_one_request = True
    assert found.open()
    assert await found.aget("a") == 1
    await found.aflush()
