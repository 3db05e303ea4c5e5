"""The session key: where it comes from, when it changes, and that nobody gets to see it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_header_sessions import keys
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import (
    KeyAlreadySent,
    SessionEnded,
    SessionError,
    SessionSuperseded,
    SessionUnavailable,
)
from django_header_sessions.keys import ID_LENGTH, SessionKey
from django_header_sessions.middleware import HeaderSessionMiddleware
from django_header_sessions.stores.base import Store
from tests.processes import free_port

from .face import Face, Sessions

MALFORMED: list[Any] = [
    *("", "1", "new", "a" * 39, "a" * 41, "a" * 1_000_000, "A" * 40, "é" * 40, "a" * 40 + "\n"),
    *("a" * 39 + "\0", "../" * 13 + "a", "１" * 40, "hs{0}:i:h1", "a" * 32, "a" * 15),
    *(None, b"a" * 40, 7),
]


# Creating.


async def test_a_new_session_has_no_key_until_it_is_saved(sessions: Sessions) -> None:
    face = sessions.new()
    assert face.session.session_key is None
    await face.set("a", 1)
    assert face.session.session_key is None
    await face.save()
    assert isinstance(face.session.session_key, SessionKey)
    assert await face.exists(face.key)


async def test_a_session_without_fields_can_be_saved(sessions: Sessions) -> None:
    face = sessions.new()
    await face.save()
    assert await sessions.stored(face) == {}


async def test_create_stores_a_session_at_once(sessions: Sessions) -> None:
    face = sessions.new()
    await face.create()
    assert face.session.modified
    assert await sessions.stored(face) == {}

    other = sessions.new()
    await other.set("a", 1)
    await other.create()
    assert await sessions.stored(other) == {"a": 1}


async def test_create_on_a_stored_session_makes_another(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    first = face.key
    await face.create()
    assert face.key.id != first.id
    await face.set("a", 2)
    await face.save()
    assert await sessions.stored(face) == {"a": 2}
    assert await sessions.stored(first) == {"a": 1}


async def test_save_with_must_create_makes_another_session(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    first = face.key
    await face.set("b", 2)
    await face.save(must_create=True)
    assert face.key.id != first.id
    assert await sessions.stored(face) == {"a": 1, "b": 2}
    assert await sessions.stored(first) == {"a": 1}


async def test_no_two_sessions_share_a_key_or_an_id(sessions: Sessions) -> None:
    made = [await sessions.saved() for _ in range(20)]
    assert len({face.key for face in made}) == len({face.key.id for face in made}) == 20


async def test_the_key_is_read_only(sessions: Sessions) -> None:
    with pytest.raises(AttributeError):
        sessions.new().session.session_key = "a" * 40  # type: ignore[misc, assignment]


# Keys that open nothing.


async def test_an_unknown_key_is_an_empty_session_that_has_no_key(sessions: Sessions) -> None:
    unknown = keys.make()
    face = sessions.new(unknown)
    assert dict(await face.items()) == {}
    assert face.session.session_key is None
    assert not face.session.modified
    assert not await face.exists(unknown)


async def test_a_cookie_that_opens_nothing_is_no_session_to_save(cookie_sessions: Sessions) -> None:
    unknown = keys.make()
    face = cookie_sessions.new(unknown)
    assert not await face.open()
    with pytest.raises(UpdateError):
        await face.save()
    assert not await face.exists(unknown)


async def test_a_key_of_a_clients_choice_is_never_adopted(sessions: Sessions) -> None:
    unknown = keys.make()
    face = sessions.new(unknown)
    assert not await face.open()
    await face.set("a", 1)
    await face.save()
    assert face.key != unknown
    assert face.key.id != unknown.id
    assert not await face.exists(unknown)


async def test_a_good_id_with_another_secret_opens_nothing(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    guess = keys.make(face.key.id)
    assert await sessions.stored(guess) is None
    assert not await face.exists(guess)
    thief = sessions.new(guess)
    await thief.set("a", 2)
    await thief.save()
    assert thief.key.id != face.key.id
    assert await sessions.stored(face) == {"a": 1}


async def test_to_load_an_unknown_key_makes_no_session(sessions: Sessions) -> None:
    unknown = keys.make()
    face = sessions.new(unknown)
    assert await face.load() == {}
    assert face.session.session_key is None
    assert not await face.exists(unknown)


async def test_a_session_opens_only_through_its_own_transport(any_store: Store, half: Any) -> None:
    header, cookie = Sessions("header", half), Sessions("cookie", half)
    for own, other in ((header, cookie), (cookie, header)):
        face = await own.saved(a=1)
        assert await other.stored(face) is None
        stranger = other.again(face)
        stranger.session.clear()
        with pytest.raises(UpdateError):
            await stranger.save()
        assert await own.stored(face) == {"a": 1}


async def test_exists_and_delete_do_not_ask_for_the_transport(any_store: Store, half: Any) -> None:
    header, cookie = Sessions("header", half), Sessions("cookie", half)
    for own, other in ((header, cookie), (cookie, header)):
        face = await own.saved(a=1)
        assert await other.new().exists(face.key)
        await other.new().delete(face.key)
        assert not await other.new().exists(face.key)
        assert await own.stored(face) is None


async def test_a_malformed_key_never_reaches_the_store(
    settings: Any, transport: Any, half: Any
) -> None:
    # Nobody listens here, so whoever asks the store is told so.
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{free_port()}/0",
        }
    }
    sessions = Sessions(transport, half)
    for text in MALFORMED:
        face = sessions.new(text)
        assert face.session.session_key is None
        assert not await face.open()
        assert await face.load() == {}
        assert not await face.exists(text)
        await face.delete(text)
        assert face.session.is_empty()

    with pytest.raises(SessionUnavailable):
        await sessions.new(keys.make()).open()


# Rotating.


async def test_cycle_key_gives_a_new_secret_and_keeps_id_and_data(sessions: Sessions) -> None:
    face = await sessions.saved(a=1, b=[2])
    old = face.key
    await face.cycle_key()
    assert face.key != old
    assert face.key.id == old.id
    assert face.session.modified
    assert dict(await face.items()) == {"a": 1, "b": [2]}
    assert await sessions.stored(face) == {"a": 1, "b": [2]}


async def test_the_old_key_is_dead_at_once(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    old = face.key
    slow = await sessions.opened(old)
    await face.cycle_key()
    assert not await face.exists(old)
    assert await face.exists(face.key)
    await slow.set("a", 2)
    with pytest.raises(SessionSuperseded):
        await slow.save()
    with pytest.raises(SessionSuperseded):
        await slow.cycle_key()
    assert await sessions.stored(face) == {"a": 1}


async def test_a_header_client_is_told_that_its_key_was_replaced(
    header_sessions: Sessions,
) -> None:
    face = await header_sessions.saved(a=1)
    old = face.key
    await face.cycle_key()
    with pytest.raises(SessionSuperseded, match=old.id):
        await header_sessions.new(old).open()


async def test_to_a_browser_its_old_cookie_is_unknown(cookie_sessions: Sessions) -> None:
    face = await cookie_sessions.saved(a=1)
    old = face.key
    await face.cycle_key()
    assert await cookie_sessions.stored(old) is None


async def test_what_was_not_saved_when_the_key_changed_can_be_saved_after(
    sessions: Sessions,
) -> None:
    face = await sessions.opened((await sessions.saved(a=1, cart=[1])).key)
    await face.set("a", 2)
    (await face.get("cart")).append(2)
    await face.cycle_key()
    assert await sessions.stored(face) == {"a": 1, "cart": [1]}
    await face.save()
    assert await sessions.stored(face) == {"a": 2, "cart": [1, 2]}


async def test_cycle_key_of_a_session_that_was_not_opened_yet(sessions: Sessions) -> None:
    first = await sessions.saved(a=1)
    face = sessions.again(first)
    await face.cycle_key()
    assert dict(await face.items()) == {"a": 1}
    assert await sessions.stored(face) == {"a": 1}
    assert not await face.exists(first.key)


async def test_cycle_key_of_a_new_session_stores_it(sessions: Sessions) -> None:
    face = sessions.new()
    await face.set("a", 1)
    await face.cycle_key()
    assert await sessions.stored(face) == {"a": 1}


async def test_a_session_may_be_rotated_again_and_again(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    before = []
    for _ in range(6):
        before.append(face.key)
        await face.cycle_key()
    assert len({face.key.id, *(key.id for key in before)}) == 1
    assert [await face.exists(key) for key in before] == [False] * 6
    assert await sessions.stored(face) == {"a": 1}


# Ending.


async def test_flush_ends_the_session_and_goes_on_with_an_empty_one(sessions: Sessions) -> None:
    face = await sessions.opened((await sessions.saved(a=1)).key)
    old = face.key
    await face.flush()
    assert face.session.session_key is None
    assert face.session.is_empty()
    assert (face.session.accessed, face.session.modified) == (True, True)
    assert face.session.expires_in is None
    assert await sessions.stored(old) is None

    await face.set("b", 2)
    await face.save()
    assert face.key.id != old.id
    assert await sessions.stored(face) == {"b": 2}


async def test_flush_ends_what_was_rotated_meanwhile(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    slow = await sessions.opened(face.key)
    await face.cycle_key()
    await slow.flush()
    assert await sessions.stored(face) is None


async def test_flush_of_a_session_that_never_was_does_nothing(sessions: Sessions) -> None:
    face = sessions.new()
    await face.set("a", 1)
    await face.flush()
    assert face.session.session_key is None
    assert face.session.is_empty()


async def test_delete_ends_this_session_or_another(sessions: Sessions) -> None:
    one, two, three = [await sessions.saved(n=n) for n in range(3)]
    await one.delete()
    await one.delete(str(two.key))
    assert await sessions.stored(one) is None
    assert await sessions.stored(two) is None
    assert await sessions.stored(three) == {"n": 2}


async def test_to_delete_what_is_not_there_is_no_error(sessions: Sessions) -> None:
    face = sessions.new()
    await face.delete()
    await face.delete(keys.make())
    await face.delete("not a key")
    gone = await sessions.saved()
    await gone.delete()
    await gone.delete()


async def test_a_session_that_was_deleted_keeps_its_key_but_lives_no_more(
    sessions: Sessions,
) -> None:
    face = await sessions.opened((await sessions.saved(a=1)).key)
    await face.delete()
    assert face.session.session_key is not None
    assert face.session.deleted
    assert face.session.expires_in is None
    await face.set("a", 2)
    with pytest.raises(UpdateError):
        await face.save()
    await face.create()
    assert not face.session.deleted
    assert await sessions.stored(face) == {"a": 2}


async def _write(face: Face) -> None:
    await face.set("a", 2)
    await face.save()


async def _clear(face: Face) -> None:
    face.session.clear()
    await face.save()


async def _change_in_place(face: Face) -> None:
    (await face.get("cart")).append(2)
    await face.save()


async def _rotate(face: Face) -> None:
    await face.cycle_key()


async def _count(face: Face) -> None:
    await face.increment("n")


async def _count_what_was_assigned(face: Face) -> None:
    await face.set("n", 1)
    await face.increment("n")


async def _count_what_was_cleared(face: Face) -> None:
    face.session.clear()
    await face.increment("n")


WRITES = [_write, _clear, _change_in_place, _rotate, _count]
WRITES += [_count_what_was_assigned, _count_what_was_cleared]


@pytest.mark.parametrize("write", WRITES)
async def test_nothing_brings_a_session_back_that_was_ended_meanwhile(
    sessions: Sessions, write: Any
) -> None:
    face = await sessions.saved(cart=[1])
    slow = await sessions.opened(face.key)
    await slow.get("cart")
    await face.flush()

    with pytest.raises(UpdateError) as raised:
        await write(slow)
    assert isinstance(raised.value, SessionEnded)
    assert await sessions.stored(slow) is None
    assert not await slow.exists(slow.key)


@pytest.mark.parametrize("write", [_clear, _rotate, _count_what_was_cleared])
async def test_nothing_brings_one_back_that_was_ended_before_it_was_opened(
    sessions: Sessions, write: Any
) -> None:
    face = await sessions.saved(cart=[1])
    slow = sessions.again(face)
    await face.delete()
    with pytest.raises(UpdateError):
        await write(slow)
    assert await sessions.stored(face.key) is None


async def test_save_of_a_session_that_is_gone_before_it_was_opened(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    slow = sessions.again(face)
    await face.delete()
    with pytest.raises(UpdateError):
        await slow.save()
    assert slow.session.session_key is None
    assert await sessions.stored(face.key) is None


@pytest.mark.parametrize("write", [False, True])
def test_a_client_whose_session_the_view_deleted_is_told_to_forget_it(
    any_store: Store, write: bool
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session.delete()
        if write:
            request.session["a"] = 2
        return HttpResponse()

    session = SessionStore(transport="header")
    session["a"] = 1
    session.save()
    request = RequestFactory().get("/", headers={"X-Session-Key": str(session.session_key)})
    response = HeaderSessionMiddleware(view)(request)
    assert isinstance(response, HttpResponse)
    assert response["X-Session-Key"] == ""
    assert "X-Session-Expires-In" not in response
    # What the view wrote to a session that it had deleted was not kept, and it is told so.
    assert response.status_code == (401 if write else 200)
    assert not session.exists(session.session_key)


def test_a_session_is_used_outside_of_views_as_djangos_documentation_shows(
    any_store: Store,
) -> None:
    session = SessionStore()
    session["last_login"] = 1376587691
    session.create()
    assert SessionStore(session_key=session.session_key)["last_login"] == 1376587691


# Loading again.


async def test_load_answers_what_is_stored_and_keeps_what_is_not_saved(
    sessions: Sessions,
) -> None:
    face = await sessions.saved(a=1)
    slow = await sessions.opened(face.key)
    await slow.set("b", 2)
    await face.set("a", 3)
    await face.save()
    assert await slow.load() == {"a": 3}
    assert dict(await slow.items()) == {"a": 1, "b": 2}
    await slow.save()
    assert await sessions.stored(face) == {"a": 3, "b": 2}


async def test_load_of_a_new_session_keeps_what_is_not_saved(sessions: Sessions) -> None:
    face = sessions.new()
    await face.set("a", 1)
    assert await face.load() == {}
    await face.save()
    assert await sessions.stored(face) == {"a": 1}


async def test_load_of_a_session_that_ended_forgets_what_it_held(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    slow = await sessions.opened(face.key)
    await slow.set("a", 2)
    await face.delete()
    assert await slow.load() == {}
    assert dict(await slow.items()) == {}
    assert slow.session.session_key is None


# What was learned while the view ran.


async def test_a_fault_of_a_header_session_is_kept_for_the_answer(
    header_sessions: Sessions,
) -> None:
    face = await header_sessions.saved(a=1)
    slow, late = [await header_sessions.opened(face.key) for _ in range(2)]
    assert slow.session.fault is None
    await face.cycle_key()
    await slow.set("a", 2)
    with pytest.raises(SessionSuperseded) as superseded:
        await slow.save()
    assert slow.session.fault is superseded.value
    assert await face.exists(face.key)
    assert slow.session.fault is superseded.value

    current = await header_sessions.opened(face.key)
    await face.delete()
    with pytest.raises(SessionEnded) as ended:
        await current.increment("n")
    assert current.session.fault is ended.value
    assert late.session.fault is None


async def test_that_a_cookie_session_is_gone_is_djangos_business(
    cookie_sessions: Sessions,
) -> None:
    face = await cookie_sessions.saved(a=1)
    slow = await cookie_sessions.opened(face.key)
    await face.delete()
    await slow.set("a", 2)
    with pytest.raises(UpdateError):
        await slow.save()
    assert slow.session.fault is None


async def test_that_the_store_is_down_is_kept_on_both_transports(
    settings: Any, transport: Any, half: Any
) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    location = f"redis://127.0.0.1:{free_port()}/0"
    backend = "django_redis.cache.RedisCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": location}}
    face = Sessions(transport, half).new(keys.make())
    with pytest.raises(SessionUnavailable) as raised:
        await face.get("a")
    assert face.session.fault is raised.value
    # An outage is not a logout.
    assert face.session.session_key is not None


async def test_a_mistake_of_the_callers_is_no_fault_of_the_session(
    header_sessions: Sessions,
) -> None:
    face = await header_sessions.saved(text="words")
    with pytest.raises(TypeError):
        await face.increment("text")
    assert face.session.fault is None


async def _sign_in(face: Face) -> None:
    await face.set("_auth_user_id", "7")
    await face.save()


async def _be_over(face: Face) -> None:
    await face.set_expiry(-1)
    await face.save()


@pytest.mark.parametrize(
    "change",
    [
        *(_sign_in, _be_over),
        *(lambda face: face.cycle_key(), lambda face: face.flush(), lambda face: face.delete()),
    ],
)
async def test_a_key_that_cannot_be_announced_any_more_does_not_change(
    header_sessions: Sessions, change: Any
) -> None:
    face = await header_sessions.opened((await header_sessions.saved(a=1)).key)
    face.session.sealed = True
    key = face.key
    with pytest.raises(KeyAlreadySent, match="headers of the answer were sent"):
        await change(face)
    assert face.key == key
    assert await header_sessions.stored(key) == {"a": 1}


async def test_what_changes_no_key_is_possible_to_the_end(header_sessions: Sessions) -> None:
    face = await header_sessions.opened((await header_sessions.saved(a=1)).key)
    face.session.sealed = True
    await face.set("a", 2)
    await face.save()
    assert await face.increment("n") == 1
    assert await header_sessions.stored(face) == {"a": 2, "n": 1}


@pytest.mark.parametrize("name", ["save", "create", "cycle_key", "increment"])
async def test_no_session_is_made_that_cannot_be_announced(
    header_sessions: Sessions, name: str
) -> None:
    face = header_sessions.new()
    face.session.sealed = True
    await face.set("a", 1)
    with pytest.raises(KeyAlreadySent):
        await getattr(face, name)(*["n"] * (name == "increment"))
    assert face.session.session_key is None


async def test_where_none_may_be_made_the_refusal_is_raised(header_sessions: Sessions) -> None:
    refusal = SessionError("not here")
    face = header_sessions.new(refusal=refusal)
    await face.set("a", 1)
    for make in (face.save, face.create, face.cycle_key):
        with pytest.raises(SessionError) as raised:
            await make()
        assert raised.value is refusal
    with pytest.raises(SessionError):
        await face.increment("n")
    assert face.session.session_key is None


# A key is a password.


async def test_nothing_that_is_shown_of_a_session_holds_its_secret_or_its_values(
    sessions: Sessions,
) -> None:
    face = await sessions.opened((await sessions.saved(name="private value")).key)
    secrets = [face.key[ID_LENGTH:]]
    other = await sessions.opened(face.key)
    await face.cycle_key()
    secrets.append(face.key[ID_LENGTH:])
    await face.set("more", ["private value"])
    with pytest.raises(SessionSuperseded) as superseded:
        await other.cycle_key()
    loaded = await face.load()
    shown = [
        *(face.session, vars(face.session), face.key, loaded, face.session.live),
        *(await face.keys(), await face.values(), await face.items()),
        *(superseded.value, [face.key], {"key": face.key}),
    ]
    for thing in shown:
        for secret in secrets:
            assert secret not in repr(thing)
        assert "private value" not in repr(thing)
    assert face.key.id in repr(face.key)
    assert "name" in repr(loaded)


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy]
    + [
        lambda key, protocol=protocol: pickle.loads(pickle.dumps(key, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ],
)
def test_a_copy_of_a_key_is_a_key_that_hides_its_secret(again: Any) -> None:
    key = keys.make()
    copied = again({"key": key})["key"]
    assert isinstance(copied, SessionKey)
    assert copied == key
    assert str(copied) == str(key)
    assert repr(copied) == f"<session key {key.id}…>"


def test_the_text_of_a_key_is_the_whole_key() -> None:
    key = keys.make()
    assert type(str(key)) is str
    assert str(key) == f"{key}" == "".join(key)
    assert len(key) == 40
    assert keys.parse(str(key)) == key
    assert {key: 1}[SessionKey(str(key))] == 1
