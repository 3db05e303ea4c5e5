"""Counters: at once, exact, and told what they cannot count."""

from __future__ import annotations

import enum
import threading
from typing import Any

import pytest

from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import KeyAlreadySent, SessionEnded, SessionTooLarge
from django_header_sessions.fields import MAX_FIELDS
from django_header_sessions.resolvers import Transport
from django_header_sessions.stores.base import Store

from .face import Sessions

MOST = 2**63 - 1


class Level(enum.IntEnum):
    TWO = 2


async def test_a_counter_begins_at_zero_and_answers_its_new_value(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    assert await face.increment("n") == 1
    assert await face.increment("n", 5) == 6
    assert await face.increment("n", by=-10) == -4
    assert await face.increment("n", 0) == -4
    assert await face.get("n") == -4
    assert await sessions.stored(face) == {"a": 1, "n": -4}


async def test_it_is_stored_at_once_and_nothing_else_with_it(sessions: Sessions) -> None:
    face = await sessions.opened((await sessions.saved(a=1, cart=[1])).key)
    await face.set("a", 2)
    (await face.get("cart")).append(2)
    assert await face.increment("n") == 1
    assert await sessions.stored(face) == {"a": 1, "cart": [1], "n": 1}
    await face.save()
    assert await sessions.stored(face) == {"a": 2, "cart": [1, 2], "n": 1}


async def test_it_counts_on_what_the_store_holds_not_on_what_was_opened(
    sessions: Sessions,
) -> None:
    face = await sessions.saved(n=10)
    slow = await sessions.opened(face.key)
    assert await slow.get("n") == 10
    assert await face.increment("n") == 11
    assert await slow.increment("n") == 12
    assert await slow.get("n") == 12
    assert await face.increment("n") == 13
    # A later save of either does not undo what the other counted.
    for each in (face, slow):
        await each.set("last", 1)
        await each.save()
    assert await sessions.stored(face) == {"n": 13, "last": 1}


async def test_what_is_no_counter_any_more_or_has_become_one_is_for_the_store_to_say(
    sessions: Sessions,
) -> None:
    face = await sessions.saved(was="text", full=MOST, becomes=1)
    slow = await sessions.opened(face.key)
    dict(await slow.items())
    await face.update({"was": 1, "full": 0, "becomes": "text"})
    await face.save()
    assert await slow.increment("was") == 2
    assert await slow.increment("full") == 1
    with pytest.raises(TypeError, match="'becomes' holds no integer"):
        await slow.increment("becomes")


async def test_a_new_session_is_made_by_its_first_count(sessions: Sessions) -> None:
    face = sessions.new()
    await face.set("a", 1)
    assert await face.increment("n", 2) == 2
    assert face.session.modified
    assert await sessions.stored(face) == {"a": 1, "n": 2}
    assert await face.increment("n", 2) == 4
    await face.save()
    assert await sessions.stored(face) == {"a": 1, "n": 4}


async def test_a_session_that_was_not_opened_yet_counts(sessions: Sessions) -> None:
    face = sessions.again(await sessions.saved(n=1, a="b"))
    assert await face.increment("n") == 2
    assert await face.get("a") == "b"


async def test_it_counts_on_what_was_assigned_and_not_saved(sessions: Sessions) -> None:
    for face in (sessions.new(), await sessions.opened((await sessions.saved(n=1)).key)):
        await face.set("n", 10)
        assert await face.increment("n") == 11
        assert await sessions.stored(face) == {"n": 11}
        assert await face.get("n") == 11
        # What was assigned was stored with it, so that others may count on it from now on.
        other = await sessions.opened(face.key)
        assert await other.increment("n") == 12
        await face.save()
        assert await sessions.stored(face) == {"n": 12}
        assert await face.increment("n") == 13


async def test_what_was_deleted_and_not_saved_counts_from_zero(sessions: Sessions) -> None:
    face = await sessions.opened((await sessions.saved(n=7, a=1)).key)
    await face.pop("n")
    assert await face.increment("n") == 1
    assert await sessions.stored(face) == {"n": 1, "a": 1}
    assert await face.get("n") == 1
    await face.save()
    assert await sessions.stored(face) == {"n": 1, "a": 1}


async def test_after_a_clear_it_counts_from_zero_and_clears(sessions: Sessions) -> None:
    for opened in (True, False):
        face = await sessions.saved(n=7, a=1)
        face = await sessions.opened(face.key) if opened else sessions.again(face)
        face.session.clear()
        await face.set("b", 2)
        assert await face.increment("n") == 1
        assert await sessions.stored(face) == {"b": 2, "n": 1}
        other = await sessions.opened(face.key)
        await other.set("c", 3)
        await other.save()
        await face.save()
        assert await sessions.stored(face) == {"b": 2, "n": 1, "c": 3}


@pytest.mark.parametrize("saved", [True, False])
async def test_what_holds_no_integer_cannot_be_counted(sessions: Sessions, saved: bool) -> None:
    values: list[Any] = ["text", "12", "", 1.0, True, None, [], {}, 2**63]
    for value in values:
        face = await sessions.saved(n=value if saved else 5)
        if not saved:
            await face.set("n", value)
        with pytest.raises(TypeError, match="'n' holds no integer"):
            await face.increment("n")
        assert await face.get("n") == value
        assert await sessions.stored(face) == {"n": value if saved else 5}


@pytest.mark.parametrize("saved", [True, False])
async def test_a_counter_has_64_bits(sessions: Sessions, saved: bool) -> None:
    for value, by in ((MOST, 1), (1, MOST), (-MOST, -2), (-5, -MOST)):
        face = await sessions.saved(n=value if saved else 0)
        if not saved:
            await face.set("n", value)
        with pytest.raises(OverflowError, match="64 bits"):
            await face.increment("n", by)
        assert await face.get("n") == value
        # One that fits is exact to the last bit.
        rest = MOST - abs(value)
        last = MOST if by > 0 else -MOST
        assert await face.increment("n", rest if by > 0 else -rest) == last
        assert await sessions.stored(face) == {"n": last}


async def test_a_counter_is_raised_by_an_int_of_64_bits_at_most(sessions: Sessions) -> None:
    face = await sessions.saved(n=1)
    for by in (True, 1.0, "1", None, 2.5):
        with pytest.raises(TypeError, match="raised by an int"):
            await face.increment("n", by)
    for by in (2**63, -(2**63) - 1, 10**30):
        with pytest.raises(OverflowError, match="64 bits"):
            await face.increment("n", by)
    assert await sessions.stored(face) == {"n": 1}


async def test_what_is_djangos_own_is_no_counter(sessions: Sessions) -> None:
    fields = {"_auth_user_id": "7", "_session_expiry": 100, "_mine": 1}
    face = await sessions.saved(**fields)
    for name in (*fields, "_new"):
        with pytest.raises(TypeError, match=name):
            await face.increment(name)
    assert await sessions.stored(face) == fields


async def test_an_enumeration_of_ints_counts_as_they_do(sessions: Sessions) -> None:
    face = await sessions.saved(n=Level.TWO)
    assert await face.increment("n", Level.TWO) == 4
    assert await sessions.stored(face) == {"n": 4}


async def test_a_count_that_failed_is_not_made_up_by_a_later_save(sessions: Sessions) -> None:
    gone = await sessions.opened((await sessions.saved(n=1)).key)
    await gone.set("n", 5)
    await sessions.new().delete(gone.key)
    with pytest.raises(SessionEnded):
        await gone.increment("n")
    assert await gone.get("n") == 5

    new = sessions.new()
    new.session.sealed = True
    await new.set("n", 5)
    with pytest.raises(KeyAlreadySent):
        await new.increment("n")
    assert await new.get("n") == 5
    assert not await new.has_key("other")
    with pytest.raises(KeyAlreadySent):
        await new.increment("other")
    assert not await new.has_key("other")


async def test_the_limit_of_bytes_holds_for_counters(sessions: Sessions, settings: Any) -> None:
    face = await sessions.saved(a="x" * 80)
    settings.HEADER_SESSIONS_MAX_BYTES = 90
    with pytest.raises(SessionTooLarge, match="91 bytes"):
        await face.increment("one more.")
    assert await face.increment("exactly.") == 1
    assert await sessions.stored(face) == {"a": "x" * 80, "exactly.": 1}
    # It grows with its digits.
    with pytest.raises(SessionTooLarge, match="91 bytes"):
        await face.increment("exactly.", 9)
    assert await face.increment("exactly.", 8) == 9


async def test_over_the_limit_nothing_is_counted(sessions: Sessions, settings: Any) -> None:
    settings.HEADER_SESSIONS_MAX_BYTES = 90
    face = await sessions.saved(a="x" * 80)
    for setup in (None, "assigned", "cleared"):
        other = await sessions.opened(face.key)
        name = "a name too long"
        if setup == "assigned":
            await other.set(name, 5)
        if setup == "cleared":
            other.session.clear()
            await other.set("b", "x" * 89)
        with pytest.raises(SessionTooLarge, match="90"):
            await other.increment(name)
        assert await sessions.stored(face) == {"a": "x" * 80}
    new = sessions.new()
    await new.set("a", "x" * 88)
    with pytest.raises(SessionTooLarge, match="91 bytes"):
        await new.increment("n")
    assert new.session.session_key is None


async def test_the_limit_of_fields_holds_for_counters(header_sessions: Sessions) -> None:
    face = await header_sessions.saved(**{str(at): at for at in range(MAX_FIELDS)})
    with pytest.raises(SessionTooLarge, match=f"{MAX_FIELDS + 1} fields"):
        await face.increment("one more")
    assert await face.increment("7") == 8
    found = await header_sessions.stored(face)
    assert found is not None
    assert len(found) == MAX_FIELDS


async def test_counting_does_not_change_the_key(sessions: Sessions) -> None:
    face = await sessions.opened((await sessions.saved()).key)
    key = face.key
    await face.increment("n")
    assert face.key == key


def test_counters_are_exact_however_many_count_at_once(
    listing_store: Store, transport: Transport
) -> None:
    many = 8
    session = SessionStore(transport=transport)
    session.save()
    key = session.session_key
    barrier = threading.Barrier(many)
    answers: list[int] = []

    def count() -> None:
        own = SessionStore(key, transport=transport)
        barrier.wait()
        answers.extend(own.increment("n") for _ in range(10))

    threads = [threading.Thread(target=count) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(1, 10 * many + 1))
    assert SessionStore(key, transport=transport)["n"] == 10 * many
