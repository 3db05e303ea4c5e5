"""One request of a session at a time, and sessions that are only to be read."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import (
    LeaseExpired,
    SessionBusy,
    SessionEnded,
    SessionReadOnly,
    SessionSuperseded,
    SessionUnavailable,
)
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores.base import Store

from .face import Face, Half, Sessions


@pytest.fixture
def shared(any_store: Store, transport: Any, half: Half) -> Sessions:
    """Sessions of each transport, through each half, on every kind of store."""
    return Sessions(transport, half)


class Serialized:
    """``session.serialized()`` by either half, as an ``async with``."""

    def __init__(self, face: Face, **terms: float) -> None:
        self._face = face
        self._block = face.session.serialized(**terms)

    async def __aenter__(self) -> Face:
        if self._face.half == "async":
            await self._block.__aenter__()
        else:
            self._block.__enter__()
        return self._face

    async def __aexit__(self, *error: Any) -> None:
        if self._face.half == "async":
            await self._block.__aexit__(*error)
        else:
            self._block.__exit__(*error)


# Serialised.


async def test_a_block_has_the_session_as_it_is_and_stores_it_at_its_end(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    slow = await shared.opened(face.key)
    assert await slow.get("n") == 1
    await face.set("n", 2)
    await face.save()
    async with Serialized(slow):
        # Not what was read before others were done.
        assert await slow.get("n") == 2
        assert slow.session.locked
        await slow.set("n", await slow.get("n") + 1)
    assert not slow.session.locked
    assert await shared.stored(face) == {"n": 3}


async def test_a_block_opens_the_session_that_nobody_opened(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    async with Serialized(shared.new(face.key)) as mine:
        assert mine.session.live is not None
        await mine.set("n", await mine.get("n") + 1)
    assert await shared.stored(face) == {"n": 2}


async def test_what_was_changed_before_is_not_lost(shared: Sessions) -> None:
    face = await shared.saved(a=1, b=1, cart=[1], gone=1)
    slow = await shared.opened(face.key)
    await slow.set("mine", 1)
    (await slow.get("cart")).append(2)
    await slow.pop("gone")
    await face.set("b", 2)
    await face.save()
    async with Serialized(slow):
        assert dict(await slow.items()) == {"a": 1, "b": 2, "cart": [1, 2], "mine": 1}
    assert await shared.stored(face) == {"a": 1, "b": 2, "cart": [1, 2], "mine": 1}


async def test_what_was_cleared_before_stays_cleared(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    slow = await shared.opened(face.key)
    slow.session.clear()
    await slow.set("mine", 1)
    await face.set("b", 2)
    await face.save()
    async with Serialized(slow):
        assert dict(await slow.items()) == {"mine": 1}
    assert await shared.stored(face) == {"mine": 1}


async def test_a_block_that_fails_stores_nothing_and_lets_others_in(shared: Sessions) -> None:
    face = await shared.saved(n=1)

    async def fail() -> None:
        async with Serialized(await shared.opened(face.key)) as mine:
            await mine.set("n", 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with Serialized(await shared.opened(face.key), wait=0) as mine:
        assert await mine.get("n") == 1


async def test_a_block_that_changed_nothing_lets_others_in(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    for _ in range(2):
        async with Serialized(await shared.opened(face.key), wait=0) as mine:
            assert await mine.get("n") == 1


async def test_who_waits_in_vain_is_told(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    async with Serialized(await shared.opened(face.key)):
        second = await shared.opened(face.key)
        for wait in (0, 0.05):
            began = time.monotonic()
            with pytest.raises(SessionBusy) as raised:
                async with Serialized(second, wait=wait):
                    raise AssertionError("it was locked")
            assert time.monotonic() - began >= wait
            assert face.key not in str(raised.value)
        assert not second.session.locked
        # Nothing is latched: a view may go on and say so in its own words.
        assert second.session.fault is None
        assert await second.get("n") == 1
    async with Serialized(second, wait=0):
        assert await second.get("n") == 1


async def test_a_block_in_a_block_is_the_outer_ones_business(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    other = await shared.opened(face.key)
    async with Serialized(await shared.opened(face.key)) as mine:
        async with Serialized(mine, wait=0):
            await mine.set("n", 2)
        assert mine.session.locked
        assert await shared.stored(face) == {"n": 1}
        with suppress(ZeroDivisionError):
            async with Serialized(mine, wait=0):
                await mine.set("n", 3)
                raise ZeroDivisionError
        with pytest.raises(SessionBusy):
            async with Serialized(other, wait=0):
                raise AssertionError("it was locked")
    assert await shared.stored(face) == {"n": 3}


async def test_a_new_session_is_nobody_elses_yet(shared: Sessions) -> None:
    new = shared.new()
    async with Serialized(new, wait=0):
        assert not new.session.locked
        await new.set("n", 1)
    assert await shared.stored(new) == {"n": 1}


async def test_a_session_that_is_gone_cannot_be_locked(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    slow = await shared.opened(face.key)
    assert registry.end(face.key.id)
    for each in (slow, shared.new(make())):
        with pytest.raises(SessionEnded):
            async with Serialized(each):
                raise AssertionError("it was locked")
        assert (each.session.fault is not None) is (shared.transport == "header")
    new = await shared.saved(n=1)
    late = await shared.opened(new.key)
    await new.cycle_key()
    with pytest.raises(SessionSuperseded):
        async with Serialized(late):
            raise AssertionError("it was locked")


async def test_a_holder_past_its_lease_stores_nothing_and_is_told(
    clocked: None, time_machine: Any, half: Half
) -> None:
    time_machine.move_to(1_800_000_000, tick=False)
    sessions = Sessions("header", half)
    face = await sessions.saved(n=1)

    async def outlive(*, taken: bool) -> None:
        async with Serialized(await sessions.opened(face.key), lease=5) as mine:
            await mine.set("n", 2)
            time_machine.shift(6)
            if taken:
                async with Serialized(await sessions.opened(face.key), wait=0) as next_one:
                    await next_one.set("n", 10)
            with pytest.raises(LeaseExpired):
                await mine.increment("count")
            with pytest.raises(LeaseExpired):
                await mine.cycle_key()

    for taken in (False, True):
        with pytest.raises(LeaseExpired):
            await outlive(taken=taken)
        assert await sessions.stored(face) == {"n": 10 if taken else 1}


async def test_a_save_within_the_block_keeps_it_locked(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    async with Serialized(await shared.opened(face.key)) as mine:
        await mine.set("n", 2)
        await mine.save()
        assert await mine.increment("count") == 1
        assert await shared.stored(face) == {"n": 2, "count": 1}
        with pytest.raises(SessionBusy):
            async with Serialized(await shared.opened(face.key), wait=0):
                raise AssertionError("it was locked")


async def test_a_rotation_within_the_block_keeps_it_locked(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    async with Serialized(await shared.opened(face.key)) as mine:
        await mine.cycle_key()
        await mine.set("n", 2)
        with pytest.raises(SessionBusy):
            async with Serialized(await shared.opened(mine.key), wait=0):
                raise AssertionError("it was locked")
    assert await shared.stored(mine) == {"n": 2}
    async with Serialized(await shared.opened(mine.key), wait=0):
        pass


async def test_a_session_that_was_flushed_within_the_block_is_gone(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    async with Serialized(await shared.opened(face.key)) as mine:
        await mine.flush()
        await mine.set("new", 1)
    assert await shared.stored(face) is None
    assert await shared.stored(mine) == {"new": 1}
    async with Serialized(await shared.opened(mine.key), wait=0):
        pass


async def test_contexts_are_stored_with_the_block(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    async with Serialized(await shared.opened(face.key)) as mine:
        (await mine.context("tool"))["n"] = 1
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 1}


async def test_only_who_asks_is_held_up(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    async with Serialized(await shared.opened(face.key)):
        other = await shared.opened(face.key)
        await other.set("other", 1)
        await other.save()
    assert await shared.stored(face) == {"n": 1, "other": 1}


def together(half: Half, jobs: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Do the jobs at the same time, in a thread or in a task each."""

    def run(job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        barrier.wait()
        try:
            job().send(None)
        except StopIteration:
            return
        except BaseException as error:
            failed.append(error)

    async def all_of_them() -> None:
        await asyncio.gather(*[job() for job in jobs])

    if half == "async":
        asyncio.run(all_of_them())
        return
    barrier, failed = threading.Barrier(len(jobs)), list[BaseException]()
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def drive(work: Coroutine[Any, Any, Any], half: Half) -> Any:
    if half == "async":
        return asyncio.run(work)
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a sync method waited")


@pytest.mark.parametrize("together_at", [50])
def test_read_modify_write_by_many_at_once_loses_nothing(
    listing_store: Store, half: Half, together_at: int
) -> None:
    sessions = Sessions("header", half)
    face = drive(sessions.saved(n=0, seen=[]), half)
    at_work: list[int] = []

    def job(number: int) -> Callable[[], Coroutine[Any, Any, None]]:
        async def work() -> None:
            mine = sessions.new(face.key)
            async with Serialized(mine, wait=60):
                at_work.append(number)
                n = await mine.get("n")
                if half == "async":
                    await asyncio.sleep(0)
                assert at_work[-1] == number, "somebody else was let in"
                await mine.set("n", n + 1)
                await mine.set("seen", [*(await mine.get("seen")), number])

        return work

    together(half, [job(number) for number in range(together_at)])
    stored = drive(sessions.stored(face), half)
    assert stored["n"] == together_at
    assert sorted(stored["seen"]) == list(range(together_at))
    assert stored["seen"] == at_work


async def test_a_task_that_is_cancelled_while_it_waits_leaves_its_place(
    listing_store: Store,
) -> None:
    sessions = Sessions("header", "async")
    face = await sessions.saved(n=1)
    waiter, behind = await sessions.opened(face.key), await sessions.opened(face.key)
    async with Serialized(await sessions.opened(face.key)):
        task = asyncio.create_task(waiter.session.alock())
        queued = asyncio.create_task(behind.session.alock())
        for each in (task, queued):
            # Until both wait in turn.
            await asyncio.wait([each], timeout=0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not waiter.session.locked
    began = time.monotonic()
    await queued
    # At once, not when it is noticed that the one before does not ask again.
    assert time.monotonic() - began < 1.5
    assert behind.session.locked
    await behind.unlock()


async def test_a_store_that_fails_while_unlocking_hides_nothing(
    local_sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = await local_sessions.saved(n=1)
    mine = await local_sessions.opened(face.key)
    await mine.lock()

    def fail(*args: Any) -> None:
        raise SessionUnavailable("down")

    async def afail(*args: Any) -> None:
        fail()

    monkeypatch.setattr(mine.session._store, "unlock", fail)
    monkeypatch.setattr(mine.session._store, "aunlock", afail)
    await mine.unlock()
    assert mine.session.fault is None


# Only to be read.


def writes() -> dict[str, Callable[[Face], Any]]:
    async def item(face: Face) -> None:
        face.session["a"] = 2

    async def delete_item(face: Face) -> None:
        del face.session["a"]

    async def clear(face: Face) -> None:
        face.session.clear()

    async def modified(face: Face) -> None:
        face.session.modified = True

    return {
        "item": item,
        "set": lambda face: face.set("a", 2),
        "delete item": delete_item,
        "pop": lambda face: face.pop("a"),
        "setdefault": lambda face: face.setdefault("b", 1),
        "update": lambda face: face.update({"b": 1}),
        "clear": clear,
        "modified": modified,
        "set_expiry": lambda face: face.set_expiry(60),
        "set_test_cookie": lambda face: face.set_test_cookie(),
        "increment": lambda face: face.increment("n"),
        "cycle_key": lambda face: face.cycle_key(),
        "flush": lambda face: face.flush(),
        "delete": lambda face: face.delete(),
        "create": lambda face: face.create(),
        "new_context": lambda face: face.new_context(),
        "save a new one": lambda face: face.save(must_create=True),
    }


@pytest.mark.parametrize("name", writes())
async def test_whatever_writes_raises_where_it_is_written_and_changes_nothing(
    sessions: Sessions, name: str
) -> None:
    face = await sessions.saved(a=1, n=1)
    reader = await sessions.opened(face.key)
    with reader.session.readonly():
        with pytest.raises(SessionReadOnly):
            await writes()[name](reader)
        assert dict(await reader.items()) == {"a": 1, "n": 1}
        assert not reader.session.modified
        await reader.finish(commit=True)
    assert await sessions.stored(face) == {"a": 1, "n": 1}
    assert reader.session.fault is None


async def test_whatever_reads_goes_on(sessions: Sessions) -> None:
    face = await sessions.saved(a=1, cart=[1])
    reader = await sessions.opened(face.key)
    with reader.session.readonly():
        assert await reader.get("a") == 1
        assert "a" in reader.session
        assert dict(await reader.items()) == {"a": 1, "cart": [1]}
        assert await reader.get_expiry_age() > 0
        assert not await reader.test_cookie_worked()
        assert await reader.exists(face.key)
        # What is changed in place cannot be seen, and is not stored.
        (await reader.get("cart")).append(2)
        await reader.save()
    assert await sessions.stored(face) == {"a": 1, "cart": [1]}


async def test_a_session_that_is_not_there_is_not_made(sessions: Sessions) -> None:
    new = sessions.new()
    await new.open()
    with new.session.readonly():
        with pytest.raises(SessionReadOnly):
            await new.set("a", 1)
        await new.finish(commit=True)
    assert new.session.session_key is None
    await new.set("a", 1)
    await new.save()
    assert await sessions.stored(new) == {"a": 1}


async def test_after_the_block_the_session_is_as_it_was_before(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    mine = await sessions.opened(face.key)
    await mine.set("b", 2)
    with mine.session.readonly():
        with mine.session.readonly():
            pass
        with pytest.raises(SessionReadOnly):
            await mine.set("c", 3)
    await mine.set("c", 3)
    await mine.finish(commit=True)
    assert await sessions.stored(face) == {"a": 1, "b": 2, "c": 3}


async def test_other_sessions_may_be_ended_by_who_only_reads_this_one(sessions: Sessions) -> None:
    face, other = await sessions.saved(a=1), await sessions.saved(a=1)
    with face.session.readonly():
        await face.delete(other.key)
    assert await sessions.stored(other) is None


def test_a_session_store_is_freed_at_once() -> None:
    """Nothing in it refers back to it, unless a lock or a context was asked for."""
    session = SessionStore(SessionKey(make()))
    reference = weakref.ref(session)
    del session
    assert reference() is None
