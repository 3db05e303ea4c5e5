"""One request of a session at a time, and sessions that are only to be read."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from django_header_sessions import policies, registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import (
    ContextUnknown,
    LeaseExpired,
    SessionBusy,
    SessionEnded,
    SessionReadOnly,
    SessionSuperseded,
    SessionUnavailable,
)
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.policies import Policy
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
    # What the inner one did before it failed is forgotten, and that alone.
    assert await shared.stored(face) == {"n": 2}


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
    mine = await shared.opened(face.key)
    # In a second block too, though the first one has unlocked with its last commit.
    for count in (1, 2):
        async with Serialized(mine):
            await mine.set("n", 2)
            await mine.save()
            assert await mine.increment("count") == count
            assert await shared.stored(face) == {"n": 2, "count": count}
            with pytest.raises(SessionBusy):
                async with Serialized(await shared.opened(face.key), wait=0):
                    raise AssertionError("it was locked")
            await mine.set("n", 3)
        assert await shared.stored(face) == {"n": 3, "count": count}


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
        drive(job(), half)

    async def all_of_them() -> None:
        await asyncio.gather(*[job() for job in jobs])

    if half == "async":
        asyncio.run(all_of_them())
        return
    barrier = threading.Barrier(len(jobs))
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(run, job) for job in jobs]:
            done.result()


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


async def test_a_session_that_ends_while_it_is_asked_for_early_leaves_nobody_waiting(
    local_sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = await local_sessions.saved(n=1)
    other = await local_sessions.opened(face.key)
    await other.lock()
    late = local_sessions.new(face.key)
    store: Any = late.session._store
    lock = store.lock  # which its async twin calls in a thread

    def queued(*args: Any) -> Any:
        answer = lock(*args)
        assert registry.end(face.key.id)
        return answer

    monkeypatch.setattr(store, "lock", queued)
    assert not await late.open(Policy("serialized"))
    assert not bell_of(late.session).awaited


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
        assert await reader.pop("missing", None) is None
        with pytest.raises(KeyError):
            await reader.pop("missing")
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


@pytest.mark.parametrize("block", ["readonly", "failed"])
async def test_what_was_handed_out_before_a_block_may_be_changed_after_it(
    sessions: Sessions, block: str
) -> None:
    face = await sessions.saved(old=["a"], torn=["a"])
    mine = await sessions.opened(face.key)
    new: list[str] = []
    await mine.set("new", new)
    context = await mine.context("tool")
    context["old"] = ["a"]
    async with Serialized(mine):
        handed_out = [await mine.get("old"), await mine.get("new"), context["old"]]
        torn = await mine.get("torn")
        if block == "readonly":
            with mine.session.readonly():
                torn.append("b")
        else:
            with suppress(ZeroDivisionError):
                async with Serialized(mine):
                    # What cannot be stored was changed, too.
                    torn.append(object())
                    raise ZeroDivisionError
        for each in handed_out:
            each.append("b")
        mine.session.modified = True
    again = await sessions.opened(face.key)
    assert dict(await again.items()) == {"old": ["a", "b"], "new": ["b"], "torn": ["a"]}
    assert dict(await again.context("tool")) == {"old": ["a", "b"]}


async def test_a_session_that_nobody_has_looked_at_can_be_only_read_too(sessions: Sessions) -> None:
    face = await sessions.saved(a=1)
    mine = sessions.again(face)
    with mine.session.readonly():
        pass
    with mine.session.readonly():
        assert await mine.get("a") == 1
        with pytest.raises(SessionReadOnly):
            await mine.set("a", 2)
    await mine.set("a", 3)
    await mine.save()
    assert await sessions.stored(face) == {"a": 3}


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


# What can go wrong within a block, and around it.


async def test_what_a_block_changed_that_failed_is_not_stored_by_its_request(
    shared: Sessions,
) -> None:
    face = await shared.saved(n=1, gone=1, cart=[1])
    mine = await shared.opened(face.key)
    await mine.set("before", 1)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.set("n", -1)
            await mine.pop("gone")
            (await mine.get("cart")).append(2)
            await mine.set("before", 2)
            raise ZeroDivisionError
    assert dict(await mine.items()) == {"n": 1, "gone": 1, "cart": [1], "before": 1}
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"n": 1, "gone": 1, "cart": [1], "before": 1}


async def test_a_block_that_failed_leaves_nothing_to_store(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            mine.session.clear()
            (await mine.context("tool"))["n"] = 1
            raise ZeroDivisionError
    assert not mine.session.modified
    assert dict(await mine.items()) == {"n": 1}
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"n": 1}
    assert await (await shared.opened(face.key)).contexts() == []


async def test_what_a_block_stored_before_it_failed_stays(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    await mine.set("before", 1)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.set("n", 2)
            await mine.save()
            assert await mine.increment("count") == 1
            await mine.set("n", 3)
            raise ZeroDivisionError
    assert dict(await mine.items()) == {"n": 2, "before": 1, "count": 1}
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"n": 2, "before": 1, "count": 1}


async def test_a_field_that_a_block_deleted_before_it_failed_does_not_come_back(
    shared: Sessions,
) -> None:
    face = await shared.saved(n=1, a=1)
    mine = await shared.opened(face.key)
    await mine.set("n", 2)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.pop("n")
            await mine.save()
            raise ZeroDivisionError
    assert dict(await mine.items()) == {"a": 1}
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"a": 1}


async def test_what_a_block_promoted_before_it_failed_stays(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    mine = await shared.opened(face.key)
    await mine.update({"n": 1, "before": 1})
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            context = await mine.context("tool")
            context["n"] = 2
            if mine.half == "async":
                await context.apromote()
            else:
                context.promote()
            raise ZeroDivisionError
    assert dict(await mine.items()) == {"a": 1, "n": 2, "before": 1}
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"a": 1, "n": 2, "before": 1}


async def test_a_counter_that_a_failed_block_raised_is_known_with_what_was_assigned_before(
    shared: Sessions,
) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    await mine.set("before", 1)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.increment("n")
            raise ZeroDivisionError
    assert dict(await mine.items()) == {"n": 2, "before": 1}


async def test_a_failed_block_that_ended_or_made_or_renamed_its_session(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.flush()
            await mine.set("n", 2)
            raise ZeroDivisionError
    assert dict(await mine.items()) == {}
    assert mine.session.modified, "a browser's cookie is to be deleted"
    await mine.finish(commit=True)
    assert await shared.stored(face) is None

    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.cycle_key()
            await mine.set("n", 2)
            raise ZeroDivisionError
    assert mine.session.modified, "a browser has to be told of its new key"
    await mine.finish(commit=True)
    assert await shared.stored(mine) == {"n": 1}

    new = shared.new()
    await new.set("before", 1)
    with suppress(ZeroDivisionError):
        async with Serialized(new):
            await new.set("n", 2)
            raise ZeroDivisionError
    assert dict(await new.items()) == {"before": 1}
    with suppress(ZeroDivisionError):
        async with Serialized(new):
            await new.set("n", 2)
            await new.save()
            await new.set("n", 3)
            raise ZeroDivisionError
    assert dict(await new.items()) == {"before": 1, "n": 2}
    assert await shared.stored(new) == {"before": 1, "n": 2}


async def test_contexts_that_were_changed_before_a_failed_block_are_not_lost(
    shared: Sessions,
) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    context = await mine.context("tool")
    context["before"] = [1]
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            context["before"].append(2)
            context["n"] = 1
            (await mine.context("other"))["n"] = 1
            raise ZeroDivisionError
    assert dict(context) == {"before": [1]}
    await mine.finish(commit=True)
    reader = await shared.opened(face.key)
    assert [each.name for each in await reader.contexts()] == ["tool"]
    assert dict(await reader.context("tool")) == {"before": [1]}


async def test_who_outlived_its_lease_begins_again_with_the_session_as_it_is(
    clocked: None, time_machine: Any, half: Half
) -> None:
    time_machine.move_to(1_800_000_000, tick=False)
    sessions = Sessions("header", half)
    face = await sessions.saved(n=1)
    mine = await sessions.opened(face.key)

    async def add(*, late: bool) -> None:
        async with Serialized(mine, lease=5):
            n = await mine.get("n")
            await mine.set("n", n + 1)
            if late:
                time_machine.shift(6)
                async with Serialized(await sessions.opened(face.key), wait=0) as other:
                    await other.set("n", 100)

    with pytest.raises(LeaseExpired):
        await add(late=True)
    assert await sessions.stored(face) == {"n": 100}
    # Neither at the end of the request nor in a second attempt is what was refused stored.
    await mine.finish(commit=True)
    assert await sessions.stored(face) == {"n": 100}
    await add(late=False)
    assert await sessions.stored(face) == {"n": 101}


async def test_a_context_that_was_only_read_before_the_lock_is_read_anew(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    (await face.context("tool"))["n"] = 1
    await face.finish(commit=True)
    mine = await shared.opened(face.key)
    assert (await mine.context("tool"))["n"] == 1
    async with Serialized(await shared.opened(face.key)) as other:
        (await other.context("tool"))["n"] = 2
    async with Serialized(mine):
        context = await mine.context("tool")
        context["n"] = context["n"] + 1
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 3}


@pytest.mark.parametrize("there", [True, False])
async def test_a_context_that_was_opened_before_the_block_is_the_same_within_it(
    shared: Sessions, *, there: bool
) -> None:
    face = await shared.saved(a=1)
    if there:
        (await face.context("tool"))["n"] = 1
        await face.finish(commit=True)
    mine = await shared.opened(face.key)
    context = await mine.context("tool")
    assert context.get("n", 0) == int(there)
    context["mine"] = [1]
    async with Serialized(await shared.opened(face.key)) as other:
        (await other.context("tool"))["n"] = 2
    async with Serialized(mine):
        context["n"] = context["n"] + 1
        context["mine"].append(2)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 3, "mine": [1, 2]}
    context["n"] = 4
    await mine.finish(commit=True)
    assert (await (await shared.opened(face.key)).context("tool"))["n"] == 4


async def test_a_context_that_was_ended_before_the_lock(shared: Sessions) -> None:
    """One that has a name is made anew; a handle is for ever what it was made for."""
    face = await shared.saved(a=1)
    handle = await face.new_context()
    (await face.context("tool"))["n"] = 1
    await face.finish(commit=True)
    mine = await shared.opened(face.key)
    named, handled = await mine.context("tool"), await mine.context(handle)
    for name in ("tool", handle):
        assert await face.end_context(name)
    async with Serialized(mine):
        assert dict(named) == {}
        named["n"] = 2
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 2}
    handled["n"] = 2
    with pytest.raises(ContextUnknown):
        await mine.finish(commit=True)


async def test_a_context_that_a_failed_block_opened_first_can_be_used_after_it(
    shared: Sessions,
) -> None:
    face = await shared.saved(a=1)
    with suppress(ZeroDivisionError):
        async with Serialized(face):
            context = await face.context("tool")
            context["n"] = 1
            raise ZeroDivisionError
    assert dict(context) == {}
    context["m"] = 2
    await face.finish(commit=True)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"m": 2}


async def test_what_was_promoted_into_a_session_that_was_cleared_outlives_a_failed_block(
    shared: Sessions,
) -> None:
    face = await shared.saved(a=1, b=1)
    mine = await shared.opened(face.key)
    mine.session.clear()
    context = await mine.context("tool")
    context["c"] = 1
    if mine.half == "async":
        await context.apromote()
    else:
        context.promote()
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.set("d", 1)
            raise ZeroDivisionError
    assert dict(await mine.items()) == {"c": 1}
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"c": 1}


async def test_what_a_failed_block_promoted_outlives_that_the_session_was_cleared_before(
    shared: Sessions,
) -> None:
    face = await shared.saved(a=1, b=1)
    mine = await shared.opened(face.key)
    mine.session.clear()
    await mine.update({"c": 0, "d": 0})
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            context = await mine.context("tool")
            context.update({"c": 1, "e": 1})
            if mine.half == "async":
                await context.apromote()
            else:
                context.promote()
            await mine.set("e", 2)
            raise ZeroDivisionError
    assert dict(await mine.items()) == {"c": 1, "d": 0, "e": 1}
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"c": 1, "d": 0, "e": 1}


async def test_a_context_that_follows_one_of_its_name_has_nothing_of_it(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    first = await face.context("tool")
    first["n"] = 1
    with suppress(ZeroDivisionError):
        async with Serialized(face):
            await face.end_context("tool")
            second = await face.context("tool")
            async with Serialized(face):
                pass
            raise ZeroDivisionError
    assert dict(second) == {}
    await face.finish(commit=True)
    assert await (await shared.opened(face.key)).contexts() == []


@pytest.mark.parametrize("cleared", [False, True])
async def test_what_a_failed_block_counted_is_stored_and_what_was_assigned_before_it_still_is(
    shared: Sessions, *, cleared: bool
) -> None:
    face = await shared.saved(n=1, c=7, gone=1)
    mine = await shared.opened(face.key)
    if cleared:
        mine.session.clear()
    else:
        await mine.pop("gone")
    await mine.set("a", 5)
    await mine.set("c", 1)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            await mine.set("c", 10)
            await mine.set("within", 1)
            assert await mine.increment("c") == 11
            raise ZeroDivisionError
    await mine.finish(commit=True)
    stored = await shared.stored(face)
    assert stored is not None
    # A session that was cleared is stored whole by what counts in it.
    stored.pop("within", None) if cleared else None
    assert stored == {"a": 5, "c": 11} | ({} if cleared else {"n": 1})


async def test_what_was_assigned_before_a_block_that_cleared_and_failed(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    await mine.set("a", 5)
    with suppress(ZeroDivisionError):
        async with Serialized(mine):
            mine.session.clear()
            await mine.set("within", 1)
            raise ZeroDivisionError
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"n": 1, "a": 5}


async def test_a_lock_is_not_kept_where_a_context_holds_what_cannot_be_stored(
    shared: Sessions,
) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    (await mine.context("tool"))["n"] = object()
    with pytest.raises(TypeError):
        await mine.lock()
    with pytest.raises(TypeError):
        async with Serialized(mine):
            raise AssertionError("it has no context to begin with")
    async with Serialized(await shared.opened(face.key), wait=0) as other:
        await other.set("n", 2)


async def test_a_place_in_the_queue_of_one_session_is_none_in_anothers(shared: Sessions) -> None:
    holder = await shared.opened((await shared.saved(n=1)).key)
    await holder.lock()
    mine = shared.new(holder.key)
    assert await mine.open(Policy("serialized"))
    await mine.flush()
    await mine.set("n", 2)
    await mine.save()
    await mine.lock(wait=0)
    with pytest.raises(SessionBusy):
        await (await shared.opened(mine.key)).lock(wait=0)
    await mine.set("n", 3)
    await mine.finish(commit=True)
    async with Serialized(await shared.opened(mine.key), wait=0) as other:
        assert await other.get("n") == 3


async def test_what_was_changed_in_place_where_it_was_only_to_be_read(shared: Sessions) -> None:
    face = await shared.saved(cart=["a"])
    (await face.context("tool"))["cart"] = [1]
    await face.finish(commit=True)
    mine = await shared.opened(face.key)
    context = await mine.context("tool")
    await mine.set("mine", [1])
    with mine.session.readonly():
        (await mine.get("cart")).append("stale")
        (await mine.get("mine")).append("stale")
        context["cart"].append("stale")
    await mine.set("seen", 1)
    await mine.finish(commit=True)
    assert await shared.stored(face) == {"cart": ["a"], "mine": [1], "seen": 1}
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"cart": [1]}


async def test_what_cannot_be_stored_was_assigned_before_the_block(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    await mine.set("x", object())
    with pytest.raises(TypeError):
        async with Serialized(mine):
            raise AssertionError("it cannot begin")
    assert not mine.session.locked
    async with Serialized(await shared.opened(face.key), wait=0):
        pass


async def test_a_new_session_that_cannot_be_stored_has_no_block(shared: Sessions) -> None:
    new = shared.new()
    await new.set("x", object())
    with pytest.raises(TypeError):
        async with Serialized(new):
            raise AssertionError("it cannot begin")
    await new.pop("x")
    async with Serialized(new):
        await new.set("n", 1)
    assert await shared.stored(new) == {"n": 1}


async def test_what_cannot_be_stored_was_assigned_while_the_block_began(
    shared: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another task of the request."""
    face = await shared.saved(n=1)
    mine = await shared.opened(face.key)
    await mine.context("tool")
    store: Any = mine.session._store
    open_context, aopen_context = store.open_context, store.aopen_context

    def assigning(*args: Any) -> Any:
        mine.session["x"] = object()
        return open_context(*args)

    async def aassigning(*args: Any) -> Any:
        await mine.session.aset("x", object())
        return await aopen_context(*args)

    monkeypatch.setattr(store, "open_context", assigning)
    monkeypatch.setattr(store, "aopen_context", aassigning)
    with pytest.raises(TypeError):
        async with Serialized(mine):
            raise AssertionError("it cannot begin")
    assert not mine.session.locked
    async with Serialized(await shared.opened(face.key), wait=0):
        pass


async def test_tasks_of_one_request_do_not_mistake_one_anothers_blocks(
    listing_store: Store,
) -> None:
    sessions = Sessions("header", "async")
    face = await sessions.saved(n=0)
    mine = await sessions.opened(face.key)
    inside = asyncio.Event()

    async def first() -> None:
        async with mine.session.serialized():
            n = mine.session["n"]
            inside.set()
            await asyncio.sleep(0.05)
            mine.session["n"] = n + 1

    async def second() -> None:
        await inside.wait()
        with pytest.raises(RuntimeError, match="in another thread or task"):
            async with mine.session.serialized():
                raise AssertionError("both would have read the same")

    await asyncio.gather(first(), second())
    assert await sessions.stored(face) == {"n": 1}
    # A block around them is theirs, too; but theirs are not one another's.
    inside.clear()
    async with mine.session.serialized():
        await asyncio.gather(first(), second())
    assert await sessions.stored(face) == {"n": 2}

    async def waits() -> None:
        await mine.session.alock()

    async with (await sessions.opened(face.key)).session.serialized():
        waiting = asyncio.create_task(waits())
        await asyncio.wait([waiting], timeout=0.05)
        with pytest.raises(RuntimeError, match="waits for its session already"):
            await mine.session.alock()
    await waiting
    await mine.unlock()


async def test_a_block_within_a_thread_that_a_block_calls_is_inside_it(
    listing_store: Store,
) -> None:
    sessions = Sessions("header", "async")
    face = await sessions.saved(n=0)
    mine = (await sessions.opened(face.key)).session

    def add() -> None:
        with mine.serialized():
            mine["n"] = mine["n"] + 1

    async with mine.serialized():
        await sync_to_async(add)()
    assert await sessions.stored(face) == {"n": 1}


async def test_a_block_cannot_begin_within_itself(shared: Sessions) -> None:
    mine = await shared.opened((await shared.saved(n=1)).key)
    block = Serialized(mine)
    async with block:
        with pytest.raises(RuntimeError, match="this very block"):
            async with block:
                raise AssertionError("it would never end")
    assert not mine.session.locked
    async with block:
        await mine.set("n", 2)
    assert await shared.stored(mine) == {"n": 2}
    read_only = mine.session.readonly()
    with read_only, read_only:
        pass
    assert not mine.session.read_only


async def test_a_loop_is_not_held_up_by_who_waits_in_it(listing_store: Store) -> None:
    mine = SessionStore((await Sessions("header", "async").saved(n=1)).key, transport="header")
    await mine.aopen()
    for begin in (mine.lock, mine.serialized().__enter__):
        with pytest.raises(SynchronousOnlyOperation, match="async with"):
            begin()
    assert not mine.locked


@pytest.mark.parametrize("terms", [{"wait": -1}, {"wait": float("nan")}, {"wait": float("inf")}])
@pytest.mark.parametrize("more", [{}, {"lease": 0}, {"lease": float("inf")}, {"lease": -1}])
async def test_terms_that_make_no_sense_are_refused_and_nothing_is_left(
    local_sessions: Sessions, terms: dict[str, float], more: dict[str, float]
) -> None:
    mine = await local_sessions.opened((await local_sessions.saved(n=1)).key)
    for each in (terms, more) if more else (terms,):
        with pytest.raises(ValueError, match="is a number of seconds"):
            await mine.lock(**each)
    assert not bell_of(mine.session).awaited
    await mine.lock(wait=0, lease=0.0001)


async def test_a_cookie_that_opens_nothing_is_no_session_to_wait_for(
    any_store: Store, half: Half
) -> None:
    """As in Django, whose sessions are new then."""
    sessions = Sessions("cookie", half)
    late = sessions.new(make())
    assert not await late.open()
    async with Serialized(late):
        await late.set("n", 1)
    assert await sessions.stored(late) == {"n": 1}


async def test_a_sign_in_under_a_lock_gives_the_session_a_new_key(shared: Sessions) -> None:
    """Also where to lock it was the first thing that was done to it."""
    face = await shared.saved(n=1)
    mine = shared.new(face.key)
    await mine.lock()
    await mine.update({"_auth_user_id": "7", "_auth_user_backend": "b", "_auth_user_hash": "h"})
    await mine.finish(commit=True)
    assert mine.key != face.key
    assert mine.key.id == face.key.id
    assert (await shared.opened(mine.key)).session["_auth_user_id"] == "7"


# A task that is cancelled, at every question that it asks.


def bell_of(session: SessionStore) -> Any:
    store: Any = session._store
    return store._bell


class Interrupted:
    """Cancels the current task at one of the questions to the store: before it is asked, or when
    it was answered and the answer is on its way."""

    def __init__(self, store: Any, at: int, *, answered: bool) -> None:
        self._store, self._at, self._answered = store, at, answered
        self.asked: list[str] = []
        self._verbs = "aopen alock acommit aunlock aopen_context acontexts aend_context".split()

    def __enter__(self) -> Interrupted:
        for verb in self._verbs:
            setattr(self._store, verb, self._wrapped(verb, getattr(self._store, verb)))
        return self

    def __exit__(self, *error: object) -> None:
        for verb in self._verbs:
            delattr(self._store, verb)

    def _wrapped(self, verb: str, ask: Any) -> Any:
        async def asked(*args: Any) -> Any:
            self.asked.append(verb)
            mine = len(self.asked) == self._at
            if mine and not self._answered:
                await self._cancel()
            answer = await ask(*args)
            if mine:
                await self._cancel()
            return answer

        return asked

    async def _cancel(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


async def block(session: SessionStore) -> None:
    async with session.serialized():
        session["n"] = 2
        (await session.acontext("tool"))["n"] = 1
        await session.aincrement("count")


async def whole_request(session: SessionStore) -> None:
    """What the middleware does for a view that serialises."""
    try:
        await session.aopen(Policy("serialized"))
        assert session["n"] == 1
        session["n"] = 2
        await session.afinish(commit=True)
    except BaseException:
        await session.aunlock()
        raise


async def whole_read(session: SessionStore) -> None:
    """The same of one that stores nothing; and nothing is left for others to give back."""
    try:
        await session.aopen(Policy("serialized"))
        assert session["n"] == 1
        await session.afinish(commit=True)
    except BaseException:
        await session.aunlock()
        policies._owed.clear()
        raise


async def reads(session: SessionStore) -> None:
    await session.alock()
    await session.aunlock()


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("work", [block, whole_request, whole_read, reads])
@pytest.mark.parametrize("store_of", ["redis", "locmem"])
async def test_who_is_cancelled_at_any_question_leaves_the_session_to_others(
    work: Callable[[SessionStore], Coroutine[Any, Any, None]],
    store_of: str,
    request: pytest.FixtureRequest,
    settings: Any,
    *,
    answered: bool,
) -> None:
    if store_of == "redis":
        settings.CACHES = {"default": request.getfixturevalue("redis_cache")}
    sessions = Sessions("header", "async")
    at = 1
    while True:
        face = await sessions.saved(n=1)
        session = SessionStore(face.key, transport="header")
        with Interrupted(session._store, at, answered=answered) as interrupted:
            task = asyncio.create_task(work(session))
            await asyncio.wait([task])
        assert not bell_of(session).awaited
        other = (await sessions.opened(face.key)).session
        await other.alock(wait=0)
        await other.aunlock()
        if len(interrupted.asked) < at:
            assert task.exception() is None
            break
        assert task.cancelled()
        at += 1
    assert at > 1


def test_the_whole_process_stops_in_the_middle_of_a_block(listing_store: Store) -> None:
    """As a server does whose worker has taken too long, by an exception that is no error."""
    session = SessionStore(transport="header")
    session["n"] = 1
    session.save()

    def work() -> None:
        with session.serialized():
            session["n"] = 2
            raise SystemExit

    with pytest.raises(SystemExit):
        work()
    other = SessionStore(session.session_key, transport="header")
    with other.serialized(wait=0):
        assert other["n"] == 1
