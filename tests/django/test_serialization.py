"""What a session can hold, and what the serializer has to do with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.sessions.serializers import JSONSerializer
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest

from django_header_sessions.exceptions import SessionUnreadable
from tests.engine.face import Face, Sessions

from .conftest import Visitor

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

# Session serialization.


async def test_json_is_what_data_is_serialized_with_by_default(
    visitor: Visitor, settings: Any
) -> None:
    assert settings.SESSION_SERIALIZER == "django.contrib.sessions.serializers.JSONSerializer"
    data = {"text": "blue", "number": 4, "list": [1, [2.5, None]], "dict": {"yes": True}}

    async def fill(request: HttpRequest, session: Face) -> None:
        await session.update(data)

    async def look(request: HttpRequest, session: Face) -> Any:
        return dict(await session.items())

    await visitor.does(fill)
    assert await visitor.does(look) == data


class Pickled:
    """What only pickle could keep."""


async def test_nothing_is_pickled(visitor: Visitor) -> None:
    async def fill(request: HttpRequest, session: Face) -> None:
        await session.set("object", Pickled())

    with pytest.raises(TypeError, match="not JSON serializable"):
        await visitor.visits(fill)
    assert visitor.key is None


# Bundled serializers.


async def test_keys_that_are_no_strings_are_strings_afterwards(visitor: Visitor) -> None:
    """DIFFERS: on the page a key that is no string is not found by itself any more; here it is
    coerced whenever it is used, so that it is found both ways from the first moment on."""

    async def fill(request: HttpRequest, session: Face) -> list[Any]:
        request.session[0] = "bar"  # type: ignore[index]
        return [await session.get(0), await session.get("0")]

    async def look(request: HttpRequest, session: Face) -> list[Any]:
        return [list(await session.keys()), await session.get("0"), await session.get(0)]

    assert await visitor.does(fill) == ["bar", "bar"]
    assert await visitor.does(look) == [["0"], "bar", "bar"]


@pytest.mark.parametrize("value", [b"\xd9", NOON, Decimal("1.5"), {1, 2}, 1j])
async def test_what_json_cannot_hold_cannot_be_stored(visitor: Visitor, value: Any) -> None:
    async def first(request: HttpRequest, session: Face) -> None:
        await session.set("kept", 1)

    async def fill(request: HttpRequest, session: Face) -> None:
        await session.set("value", value)

    await visitor.does(first)
    with pytest.raises(TypeError, match="not JSON serializable"):
        await visitor.visits(fill)
    assert await visitor.stored() == {"kept": 1}


# Write your own serializer.


class Moments:
    """A serializer as the page suggests one: JSON by Django's encoder, and which are moments."""

    def dumps(self, obj: dict[str, Any]) -> bytes:
        names = [name for name, value in obj.items() if isinstance(value, datetime)]
        return json.dumps([obj, names], cls=DjangoJSONEncoder).encode()

    def loads(self, data: bytes) -> dict[str, Any]:
        obj: dict[str, Any]
        obj, names = json.loads(data)
        return obj | {name: datetime.fromisoformat(obj[name]) for name in names}


@pytest.fixture
def own_serializer(settings: Any) -> None:
    settings.SESSION_SERIALIZER = f"{__name__}.Moments"


@pytest.mark.usefixtures("own_serializer")
async def test_a_serializer_of_ones_own_keeps_more_and_is_given_dictionaries(
    visitor: Visitor,
) -> None:
    async def fill(request: HttpRequest, session: Face) -> None:
        await session.update({"seen": NOON, "price": Decimal("1.50"), "text": "blue"})

    async def look(request: HttpRequest, session: Face) -> list[Any]:
        seen = await session.get("seen")
        assert isinstance(seen, datetime)
        return [seen.isoformat(), await session.get("price"), await session.get("text")]

    await visitor.does(fill)
    assert await visitor.does(look) == [NOON.isoformat(), "1.50", "blue"]


class Secret:
    """Another, which writes what nobody can read who does not know how."""

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(obj).encode()[::-1]

    def loads(self, data: bytes) -> Any:
        return json.loads(data[::-1])


async def test_all_data_goes_through_it(store: Sessions, settings: Any) -> None:
    settings.SESSION_SERIALIZER = f"{__name__}.Secret"
    face = await store.saved(text="blue", number=42)
    assert await store.stored(face) == {"text": "blue", "number": 42}
    settings.SESSION_SERIALIZER = f"{__name__}.Moments"
    other = await store.opened(face.key)
    with pytest.raises(SessionUnreadable):
        await other.get("text")


class Signed(JSONSerializer):
    """Django's own, and something more."""

    def dumps(self, obj: Any) -> bytes:
        return bytes(super().dumps(obj)) + b"!"

    def loads(self, data: bytes) -> Any:
        assert data.endswith(b"!")
        return super().loads(data[:-1])


async def test_it_may_derive_from_djangos(visitor: Visitor, settings: Any) -> None:
    settings.SESSION_SERIALIZER = f"{__name__}.Signed"

    async def count(request: HttpRequest, session: Face) -> Any:
        await session.set("visits", await session.get("visits", 0) + 1)
        return await session.get("visits")

    assert [await visitor.does(count) for _ in range(3)] == [1, 2, 3]


# Session object guidelines.


async def test_keys_that_begin_with_an_underscore_are_djangos(
    newcomer: Callable[[], Visitor],
) -> None:
    """It stores its own among the data, under the names that it documents nowhere else."""
    visitor = newcomer()

    async def expire(request: HttpRequest, session: Face) -> list[str]:
        await session.set_expiry(300)
        return list(await session.keys())

    assert await visitor.does(expire) == ["_session_expiry"]
