"""A session is a dictionary that lasts: Django's promises of its data, on every store."""

from __future__ import annotations

import enum
from typing import Any

import django
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionTooLarge
from django_header_sessions.fields import MAX_FIELDS
from django_header_sessions.middleware import HeaderSessionMiddleware
from django_header_sessions.stores.base import Store

from .face import Face, Sessions

VALUES = [
    *("", "words", "ünïcödé ✓", "12", "-3", "0", "007", "true", "null", "ÿ1", '"quoted"', "a\0b"),
    *("half of a pair \ud800", "x" * 5000),
    *(0, -1, 12, 2**63 - 1, -(2**63), 2**63, -(10**40)),
    *(1.5, -0.25, 1e300, True, False, None),
    *([], [1, [2, {"3": None}]], {}, {"a": {"b": [1, 2.5, "c", True]}}),
]


class Level(enum.IntEnum):
    TWO = 2


# Reading and writing.


async def test_what_was_assigned_is_there_in_the_next_request(sessions: Sessions) -> None:
    face = sessions.new()
    for at, value in enumerate(VALUES):
        await face.set(f"field {at}", value)
    await face.save()

    found = await sessions.stored(face)
    assert found == {f"field {at}": value for at, value in enumerate(VALUES)}
    types = [type(found[f"field {at}"]) for at in range(len(VALUES))]
    assert types == [type(value) for value in VALUES]


async def test_names_may_be_any_text(sessions: Sessions) -> None:
    names = ["", " ", "ü", "a\0b", "ÿh", "s", "x" * 300, "half \udc80", "1"]
    face = await sessions.saved(**{name: at for at, name in enumerate(names)})
    assert await sessions.stored(face) == {name: at for at, name in enumerate(names)}


async def test_what_is_not_there_is_a_key_error_or_the_default(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(there=1))
    assert await face.get("there") == 1
    assert await face.get("missing") is None
    assert await face.get("missing", 7) == 7
    assert face.session["there"] == 1
    with pytest.raises(KeyError, match="missing"):
        face.session["missing"]
    with pytest.raises(KeyError, match="missing"):
        del face.session["missing"]
    assert not face.session.modified


async def test_pop_takes_a_field_out(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(one=1, two=2))
    assert await face.pop("one") == 1
    assert face.session.modified
    await face.save()
    assert await sessions.stored(face) == {"two": 2}


async def test_pop_of_what_is_not_there_answers_the_default_or_raises(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(one=1))
    assert await face.pop("missing", "default") == "default"
    assert await face.pop("missing", default=None) is None
    with pytest.raises(KeyError, match="missing"):
        await face.pop("missing")
    assert not face.session.modified


async def test_setdefault_assigns_only_what_is_not_there(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(one=1))
    assert await face.setdefault("one", 2) == 1
    assert not face.session.modified
    assert await face.setdefault("list", []) == []
    assert face.session.modified
    (await face.setdefault("list", None)).append("in place")
    await face.save()
    assert await sessions.stored(face) == {"one": 1, "list": ["in place"]}


async def test_update_assigns_many(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(one=1, two=2))
    await face.update({"two": "b", "three": "c"})
    assert face.session.modified
    await face.save()
    assert await sessions.stored(face) == {"one": 1, "two": "b", "three": "c"}


async def test_keys_values_and_items_show_what_is_there_now(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(old=1, gone=2, other=3))
    await face.get("old")
    await face.set("new", [4])
    await face.set("other", 5)
    await face.pop("gone")
    assert sorted(await face.keys()) == ["new", "old", "other"]
    assert sorted(map(str, await face.values())) == ["1", "5", "[4]"]
    assert dict(await face.items()) == {"old": 1, "other": 5, "new": [4]}
    assert len(await face.keys()) == len(await face.values()) == len(await face.items()) == 3
    for name, there in {"old": True, "new": True, "gone": False, "never": False}.items():
        assert await face.has_key(name) is there
        assert (name in face.session) is there
        assert (name in await face.keys()) is there


async def test_a_field_may_be_deleted_and_assigned_again(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(a=[1], b=2))
    await face.get("a")
    await face.pop("a")
    await face.set("a", 2)
    await face.pop("b")
    await face.set("c", 1)
    del face.session["c"]
    assert face.session.modified
    await face.save()
    assert await sessions.stored(face) == {"a": 2}
    await face.pop("a")
    await face.save()
    assert await sessions.stored(face) == {}


async def test_names_that_are_no_strings_are_coerced_as_json_does(sessions: Sessions) -> None:
    names: dict[Any, str] = {None: "null", True: "true", False: "false", 7: "7", -2.5: "-2.5"}
    names |= {float("inf"): "Infinity", Level.TWO: "2"}
    face = sessions.new()
    for name, text in names.items():
        await face.set(name, f"value of {text}")
        assert await face.get(name) == await face.get(text) == f"value of {text}"
    assert sorted(await face.keys()) == sorted(names.values())
    await face.save()
    assert await sessions.stored(face) == {text: f"value of {text}" for text in names.values()}

    other = sessions.again(face)
    for name, text in names.items():
        assert await other.has_key(name)
        assert await other.pop(name) == f"value of {text}"
    await other.save()
    assert await sessions.stored(face) == {}


async def test_a_name_that_json_refuses_is_refused_at_once(local_sessions: Sessions) -> None:
    face = local_sessions.new()
    refused: list[Any] = [("a", "b"), b"bytes", frozenset()]
    for name in refused:
        with pytest.raises(TypeError, match="named by strings"):
            await face.set(name, 1)
    assert face.session.is_empty()


async def test_a_value_that_cannot_be_stored_is_a_type_error_and_changes_nothing(
    sessions: Sessions,
) -> None:
    face = sessions.again(await sessions.saved(a=1))
    await face.update({"a": 2, "b": object()})
    with pytest.raises(TypeError, match="not JSON serializable"):
        await face.save()
    assert await sessions.stored(face) == {"a": 1}

    new = sessions.new()
    await new.set("b", {1, 2})
    with pytest.raises(TypeError, match="not JSON serializable"):
        await new.save()
    assert new.session.session_key is None


async def test_the_test_cookie_tells_whether_the_client_came_back(sessions: Sessions) -> None:
    face = sessions.new()
    assert not await face.test_cookie_worked()
    await face.set_test_cookie()
    await face.save()

    other = sessions.again(face)
    assert await other.test_cookie_worked()
    await other.delete_test_cookie()
    await other.save()
    assert not await sessions.again(face).test_cookie_worked()


# Emptying.


async def test_clear_removes_all_fields_and_keeps_the_session(sessions: Sessions) -> None:
    face = await sessions.saved(a=1, b=[2])
    key = face.key
    face.session.clear()
    assert (face.session.accessed, face.session.modified) == (True, True)
    assert dict(await face.items()) == {}
    await face.set("c", 3)
    await face.save()
    assert face.key == key
    assert await sessions.stored(face) == {"c": 3}


async def test_clear_removes_what_others_added_meanwhile(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    slow = await sessions.opened(face.key)
    await face.set("b", 2)
    await face.save()
    slow.session.clear()
    await slow.save()
    assert await sessions.stored(face) == {}


async def test_clear_does_not_ask_the_store_what_it_removes(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(a=1))
    face.session.clear()
    await face.set("b", 2)
    await face.save()
    assert await sessions.stored(face) == {"b": 2}


async def test_a_session_is_empty_that_has_neither_key_nor_fields(sessions: Sessions) -> None:
    face = sessions.new()
    assert face.session.is_empty()
    await face.set("a", 1)
    assert not face.session.is_empty()
    await face.pop("a")
    assert face.session.is_empty()
    await face.save()
    assert not face.session.is_empty()
    await face.flush()
    assert face.session.is_empty()


async def test_the_truth_of_a_session_is_what_this_django_says(local_sessions: Sessions) -> None:
    face = local_sessions.new()
    assert bool(face.session) is (django.VERSION < (6, 1))
    await face.set("a", 1)
    assert face.session
    await face.save()
    face.session.clear()
    assert face.session


# Flags.


@pytest.mark.parametrize(
    ("use", "accessed", "modified"),
    [
        (lambda face: face.open(), False, False),
        (lambda face: face.exists("a" * 40), False, False),
        (lambda face: face.get("a"), True, False),
        (lambda face: face.get("missing"), True, False),
        (lambda face: face.has_key("a"), True, False),
        (lambda face: face.keys(), True, False),
        (lambda face: face.values(), True, False),
        (lambda face: face.items(), True, False),
        (lambda face: face.get_expiry_age(), True, False),
        (lambda face: face.get_expiry_date(), True, False),
        (lambda face: face.test_cookie_worked(), True, False),
        (lambda face: face.setdefault("a", 2), True, False),
        (lambda face: face.pop("missing", None), True, False),
        (lambda face: face.set_expiry(None), True, False),
        (lambda face: face.set("a", 1), True, True),
        (lambda face: face.update({}), True, True),
        (lambda face: face.pop("a"), True, True),
        (lambda face: face.setdefault("b", 2), True, True),
        (lambda face: face.set_expiry(60), True, True),
        (lambda face: face.set_test_cookie(), True, True),
        (lambda face: face.cycle_key(), True, True),
        (lambda face: face.flush(), True, True),
        # Stored at once, so that nothing is left to commit.
        (lambda face: face.increment("n"), True, False),
    ],
)
async def test_whether_a_session_was_accessed_and_modified_is_remembered(
    local_sessions: Sessions, use: Any, accessed: bool, modified: bool
) -> None:
    face = local_sessions.again(await local_sessions.saved(a=1))
    assert (face.session.accessed, face.session.modified) == (False, False)
    await use(face)
    assert (face.session.accessed, face.session.modified) == (accessed, modified)


async def test_the_flags_may_be_set_by_hand(local_sessions: Sessions) -> None:
    face = local_sessions.new()
    face.session.modified = True
    face.session.accessed = True
    assert (face.session.accessed, face.session.modified) == (True, True)


# What is changed in place.


def change_in_place(request: HttpRequest) -> HttpResponse:
    request.session["cart"]["eggs"].append(6)
    if "tell" in request.GET:
        request.session.modified = True
    return HttpResponse()


@pytest.mark.parametrize("path", ["/", "/admin/"])
@pytest.mark.parametrize("tell", [True, False])
def test_a_change_in_place_is_stored_if_the_view_says_so(
    any_store: Store, path: str, tell: bool
) -> None:
    session = SessionStore(transport="cookie" if path == "/admin/" else "header")
    session["cart"] = {"eggs": [1]}
    session.save()
    request = RequestFactory().get(path, {"tell": 1} if tell else {})
    if path == "/admin/":
        request.COOKIES["sessionid"] = str(session.session_key)
    else:
        request.META["HTTP_X_SESSION_KEY"] = str(session.session_key)

    HeaderSessionMiddleware(lambda request: change_in_place(request))(request)

    found = SessionStore(session.session_key, transport=session.transport)
    assert found["cart"] == {"eggs": [1, 6] if tell else [1]}


async def test_a_save_sends_what_was_changed_in_place(sessions: Sessions) -> None:
    face = await sessions.opened((await sessions.saved(cart={"n": [1]}, other=[1])).key)
    (await face.get("cart"))["n"].append(2)
    face.session.modified = True
    await face.save()
    assert await sessions.stored(face) == {"cart": {"n": [1, 2]}, "other": [1]}
    # What was stored is what later changes are told from.
    (await face.get("cart"))["n"].append(3)
    await face.save()
    assert await sessions.stored(face) == {"cart": {"n": [1, 2, 3]}, "other": [1]}


async def test_what_was_assigned_may_be_changed_in_place_later(sessions: Sessions) -> None:
    face, cart = sessions.new(), [1]
    await face.set("cart", cart)
    cart.append(2)
    await face.save()
    assert await sessions.stored(face) == {"cart": [1, 2]}
    cart.append(3)
    await face.save()
    assert await sessions.stored(face) == {"cart": [1, 2, 3]}


async def test_what_was_only_read_is_not_sent(sessions: Sessions) -> None:
    face = await sessions.saved(cart=[1], n=1, text="a", nothing=None)
    slow = await sessions.opened(face.key)
    dict(await slow.items())
    changed = {"cart": [2], "n": 2, "text": "b", "nothing": False}
    await face.update(changed)
    await face.save()
    await slow.set("mine", 1)
    await slow.save()
    assert await sessions.stored(face) == changed | {"mine": 1}


async def test_what_was_assigned_is_sent_even_if_it_looks_the_same(sessions: Sessions) -> None:
    face = await sessions.saved(n=1, cart=[1])
    slow = await sessions.opened(face.key)
    await face.update({"n": 2, "cart": [2]})
    await face.save()
    await slow.update({"n": 1, "cart": [1]})
    await slow.save()
    assert await sessions.stored(face) == {"n": 1, "cart": [1]}


async def test_a_second_save_sends_only_what_changed_since_the_first(sessions: Sessions) -> None:
    first = sessions.new()
    await first.update({"cart": [1], "n": 1, "gone": 1})
    await first.pop("gone")
    await first.save()
    other = await sessions.opened(first.key)
    await other.update({"cart": [2], "n": 2, "gone": 2})
    await other.save()
    await first.set("mine", 1)
    await first.save()
    await first.save()
    expected = {"cart": [2], "n": 2, "gone": 2, "mine": 1}
    assert await sessions.stored(first) == expected

    again = await sessions.opened(first.key)
    await again.pop("gone")
    await again.set("n", 3)
    await again.save()
    await other.update({"gone": 4, "n": 4})
    await other.save()
    await again.set("mine", 2)
    await again.save()
    assert await sessions.stored(first) == {"cart": [2], "n": 4, "gone": 4, "mine": 2}


# Limits.


async def test_a_session_over_the_limit_is_refused_and_stays_as_it_was(
    sessions: Sessions, settings: Any
) -> None:
    settings.HEADER_SESSIONS_MAX_BYTES = 100
    face = await sessions.saved(a="x" * 50)
    await face.set("b", "x" * 48)
    await face.save()  # 100 bytes of names and values
    await face.set("b", "x" * 49)
    with pytest.raises(SessionTooLarge, match="101 bytes"):
        await face.save()
    assert await sessions.stored(face) == {"a": "x" * 50, "b": "x" * 48}

    new = sessions.new()
    await new.set("a", "ü" * 50)
    with pytest.raises(SessionTooLarge, match="101 bytes"):
        await new.save()
    assert new.session.session_key is None


async def _shorten(face: Face) -> None:
    await face.set("a", "x" * 110)


async def _drop(face: Face) -> None:
    await face.pop("b")


async def _replace_all(face: Face) -> None:
    face.session.clear()
    await face.set("a", "x" * 150)


@pytest.mark.parametrize("shrink", [_shorten, _drop, _replace_all])
async def test_a_commit_that_shrinks_a_session_always_passes(
    sessions: Sessions, settings: Any, shrink: Any
) -> None:
    face = await sessions.saved(a="x" * 120, b="x" * 80)
    settings.HEADER_SESSIONS_MAX_BYTES = 100
    other = await sessions.opened(face.key)
    await shrink(other)
    await other.save()
    assert await sessions.stored(face) == dict(await other.items())


async def test_no_limit_is_no_limit(header_sessions: Sessions, settings: Any) -> None:
    settings.HEADER_SESSIONS_MAX_BYTES = None
    face = await header_sessions.saved(a="x" * 200_000)
    found = await header_sessions.stored(face)
    assert found == {"a": "x" * 200_000}


async def test_a_session_has_at_most_so_many_fields(header_sessions: Sessions) -> None:
    face = await header_sessions.saved(**{str(at): at for at in range(MAX_FIELDS)})
    await face.set("one more", 1)
    with pytest.raises(SessionTooLarge, match=f"{MAX_FIELDS + 1} fields"):
        await face.save()
    found = await header_sessions.stored(face)
    assert found is not None
    assert len(found) == MAX_FIELDS
