"""``SESSION_SERIALIZER``: each field goes through it, and what did not change is told from it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from django.core.cache import caches

from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionUnreadable
from django_header_sessions.keys import ID_LENGTH
from django_header_sessions.stores import get_store
from tests.processes import Valkey

from .face import Sessions
from .serializers import Encrypting, Noting, Upside, path

VALUES = {"text": "words", "n": 12, "yes": True, "none": None, "cart": {"eggs": [1, {"a": 2.5}]}}


@pytest.fixture(params=[Upside, Encrypting])
def other_serializer(request: pytest.FixtureRequest, settings: Any) -> type[Any]:
    settings.SESSION_SERIALIZER = path(request.param)
    chosen: type[Any] = request.param
    return chosen


async def test_every_field_goes_through_the_serializer(
    sessions: Sessions, other_serializer: type[Any]
) -> None:
    face = await sessions.saved(**VALUES)
    assert await sessions.stored(face) == VALUES

    found = get_store("default").get(face.key.id)
    assert found is not None
    assert set(found.fields) == set(VALUES)
    for name, raw in found.fields.items():
        # As Django promises it, the serializer is given a dictionary of a session's data.
        assert other_serializer().loads(raw[1:]) == {name: VALUES[name]}
    assert b"words" not in b"".join(found.fields.values())


async def test_what_was_read_is_not_sent_if_it_was_not_changed(
    header_sessions: Sessions, other_serializer: type[Any]
) -> None:
    sessions = header_sessions
    face = await sessions.saved(**VALUES)
    slow = await sessions.opened(face.key)
    dict(await slow.items())
    await face.set("cart", {"eggs": []})
    await face.save()
    await slow.set("mine", 1)
    await slow.save()
    assert await sessions.stored(face) == VALUES | {"cart": {"eggs": []}, "mine": 1}


async def test_what_was_changed_in_place_is_sent(
    header_sessions: Sessions, other_serializer: type[Any]
) -> None:
    sessions = header_sessions
    face = await sessions.opened((await sessions.saved(**VALUES)).key)
    for more in (2, 3):
        (await face.get("cart"))["eggs"].append(more)
        await face.save()
    assert await sessions.stored(face) == VALUES | {"cart": {"eggs": [1, {"a": 2.5}, 2, 3]}}


@pytest.mark.parametrize("value", [(1, 2), {1: "one"}, {"nested": [(1,)]}])
async def test_what_is_read_differently_than_it_was_assigned_was_not_changed(
    header_sessions: Sessions, other_serializer: type[Any], value: Any
) -> None:
    sessions = header_sessions
    face = await sessions.saved(field=value)
    other = await sessions.opened(face.key)
    await other.set("field", "another")
    await other.save()
    # The first still holds a tuple, of which the store has a list.
    await face.set("mine", 1)
    await face.save()
    assert await sessions.stored(face) == {"field": "another", "mine": 1}


async def test_an_expiry_and_the_signed_in_user_are_known_under_any_serializer(
    header_sessions: Sessions, other_serializer: type[Any]
) -> None:
    sessions = header_sessions
    face = sessions.new()
    await face.set_expiry(100)
    await face.set("_auth_user_id", "7")
    await face.save()
    found = (await sessions.opened(face.key)).session
    assert found.user_id == "7"
    assert found.expires_in is not None
    assert 90 <= found.expires_in <= 100


async def test_a_counter_says_which_serializer_it_needs(
    header_sessions: Sessions, other_serializer: type[Any]
) -> None:
    sessions = header_sessions
    face = await sessions.saved(n=1)
    with pytest.raises(TypeError, match="JSONSerializer"):
        await face.increment("n")
    assert await sessions.stored(face) == {"n": 1}


async def test_a_field_is_decoded_when_it_is_asked_for_and_once(
    sessions: Sessions, settings: Any
) -> None:
    settings.SESSION_SERIALIZER = path(Noting)
    face = await sessions.saved(one=[1], two=[2], three=[3])
    Noting.read.clear()
    opened = await sessions.opened(face.key)
    assert await opened.has_key("one")
    assert sorted(await opened.keys()) == ["one", "three", "two"]
    assert Noting.read == []
    await opened.get("two")
    await opened.get("two")
    assert Noting.read == [{"two": [2]}]
    await opened.set("four", [4])
    await opened.pop("one")
    await opened.save()
    assert {"three": [3]} not in Noting.read


async def test_a_field_of_another_serializer_is_named_and_the_others_can_be_written(
    sessions: Sessions, settings: Any
) -> None:
    face = await sessions.saved(text="words", cart=[1, 2])
    settings.SESSION_SERIALIZER = path(Upside)
    other = await sessions.opened(face.key)
    for name in ("text", "cart"):
        with pytest.raises(SessionUnreadable, match="SESSION_SERIALIZER") as raised:
            await other.get(name)
        assert repr(name) in str(raised.value)
        assert face.key.id in str(raised.value)
        assert face.key[ID_LENGTH:] not in str(raised.value)
    # It is not taken for an empty session, and not for an ended one.
    assert other.session.session_key == face.key
    assert other.session.fault is None
    await other.set("new", 1)
    await other.save()
    assert await other.get("new") == 1
    settings.SESSION_SERIALIZER = "django.contrib.sessions.serializers.JSONSerializer"
    rest = await sessions.opened(face.key)
    assert (await rest.get("text"), await rest.get("cart")) == ("words", [1, 2])


class Bomb:
    """Says so when somebody unpickles it."""

    went_off = False

    def __reduce__(self) -> Any:
        return _go_off, ()


def _go_off() -> None:
    Bomb.went_off = True


def test_nothing_is_pickled_and_nothing_unpickled(
    redis_cache: dict[str, Any], settings: Any, valkey: Valkey
) -> None:
    settings.CACHES = {"default": redis_cache}
    session = SessionStore(transport="header")
    session["object"] = Bomb()
    with pytest.raises(TypeError, match="not JSON serializable"):
        session.save()
    del session["object"]
    session.update(VALUES)
    session.save()

    server: Any = valkey.client
    [key] = server.keys("*:s:*")
    kept = server.hgetall(key)
    for value in kept.values():
        with pytest.raises(Exception):  # noqa: B017, PT011  whatever pickle makes of it
            pickle.loads(value)

    for prefix in (b"", b"\xff"):
        server.hset(key, "planted", prefix + pickle.dumps(Bomb()))
        with pytest.raises(SessionUnreadable, match="planted"):
            SessionStore(session.session_key, transport="header").get("planted")
    assert not Bomb.went_off
    # What django-redis itself would do with it.
    caches["default"].set("bomb", Bomb())
    caches["default"].get("bomb")
    assert Bomb.went_off
    Bomb.went_off = False
