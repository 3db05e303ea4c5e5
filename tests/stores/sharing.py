"""What every store promises to those who share one session: locks, in order of arrival and with a
lease, and contexts. Written once, for every store, sync and async."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from django_header_sessions.exceptions import (
    ContextUnknown,
    LeaseExpired,
    SessionEnded,
    SessionSuperseded,
    TooManyContexts,
)
from django_header_sessions.fields import Changes
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores.base import (
    ASK_AGAIN,
    PATIENCE,
    ContextChange,
    Expiry,
    LiveContext,
    Opened,
    Queued,
)

from .contract import HOUR, IDLE, SECOND, SLACK, Base, Verbs, forged

LEASE = 60 * SECOND


async def holds(verbs: Verbs, key: SessionKey, ticket: str, lease: int = LEASE) -> Opened:
    """The session, which ``ticket`` has to get the lock of."""
    answer = await verbs.lock(key, ticket, lease)
    assert isinstance(answer, Opened)
    return answer


async def waits(verbs: Verbs, key: SessionKey, ticket: str) -> int:
    """Milliseconds after which ``ticket`` is to ask again; it must not get the lock."""
    answer = await verbs.lock(key, ticket, LEASE)
    assert isinstance(answer, Queued)
    assert 0 < answer.ask_again <= ASK_AGAIN
    return answer.ask_again


class LockContract(Base):
    async def test_a_free_lock_is_had_at_once_with_the_session_as_it_is(self, verbs: Verbs) -> None:
        key = await verbs.create({"a": b"1"}, user="7")
        await verbs.commit(key, Changes(set={"a": b"2"}))
        opened = await holds(verbs, key, "p.1")
        assert opened.fields == {"a": b"2"}
        assert opened.session.user == "7"

    async def test_one_at_a_time_in_the_order_of_arrival(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        for ticket in ("q.1", "p.2", "q.2"):
            await waits(verbs, key, ticket)
        for ticket, after in (("p.1", "q.1"), ("q.1", "p.2"), ("p.2", "q.2")):
            for other in {"q.1", "p.2", "q.2"} - {ticket}:
                await waits(verbs, key, other)
            await verbs.unlock(key.id, ticket)
            # Free as it is, nobody but the next one gets it, and nobody who comes later.
            for other in {"q.2", "r.9"} - {after}:
                await waits(verbs, key, other)
            await holds(verbs, key, after)
            await verbs.unlock(key.id, "r.9")

    async def test_who_has_the_lock_may_ask_again(self, verbs: Verbs) -> None:
        """As one does whose first answer was lost."""
        key = await verbs.create()
        await holds(verbs, key, "p.1", 10 * SECOND)
        await waits(verbs, key, "p.2")
        verbs.bench.forward(9 * SECOND)
        await holds(verbs, key, "p.1", 10 * SECOND)
        await waits(verbs, key, "p.2")
        verbs.bench.forward(SECOND + 1)
        # Which did not make the lease any longer.
        await holds(verbs, key, "p.2")

    async def test_a_lease_that_ended_lets_the_next_one_in(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1", 10 * SECOND)
        verbs.bench.forward(10 * SECOND - ASK_AGAIN // 2)
        # Who is next knows when to ask.
        assert await waits(verbs, key, "p.2") <= ASK_AGAIN // 2 + 1
        verbs.bench.forward(ASK_AGAIN // 2 + 1)
        await holds(verbs, key, "p.2")

    async def test_who_had_waited_for_it_leaves_the_lock_when_its_lease_ends_too(
        self, verbs: Verbs
    ) -> None:
        """Its place ended with its turn, and is in nobody's way."""
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        await waits(verbs, key, "p.2")
        await verbs.unlock(key.id, "p.1")
        await holds(verbs, key, "p.2", PATIENCE // 2)
        await waits(verbs, key, "p.3")
        verbs.bench.forward(PATIENCE // 2 + 1)
        await holds(verbs, key, "p.3")

    async def test_a_holder_past_its_lease_changes_nothing(self, verbs: Verbs) -> None:
        key = await verbs.create({"n": b"1"})
        await verbs.commit_context(key, "c", Changes(set={"a": b"1"}), new=True)
        await holds(verbs, key, "p.1", 10 * SECOND)
        verbs.bench.forward(10 * SECOND + 1)
        refused: list[Callable[[], Awaitable[Any]]] = [
            lambda: verbs.commit(key, Changes(set={"n": b"2"}), ticket="p.1"),
            lambda: verbs.commit(key, Changes(set={"n": b"2"}), ticket="p.1", unlock=True),
            lambda: verbs.commit(key, Changes(add=("n", 1)), ticket="p.1"),
            lambda: verbs.commit(key, rotate_to=make(key.id), ticket="p.1"),
            lambda: verbs.commit_context(key, "c", Changes(set={"a": b"2"}), ticket="p.1"),
            lambda: verbs.promote(key, "c", ticket="p.1"),
        ]
        # Whether somebody else has the lock by then, or nobody.
        for ticket in ("", "p.2"):
            if ticket:
                await holds(verbs, key, ticket)
            for refuse in refused:
                with pytest.raises(LeaseExpired) as raised:
                    await refuse()
                assert key not in str(raised.value)
        assert (await verbs.there(key)).fields == {"n": b"1"}
        assert await verbs.open_context(key, "c") == {"a": b"1"}
        # Nor does it take the lock from whoever has it now.
        await verbs.unlock(key.id, "p.1")
        await waits(verbs, key, "p.3")
        await verbs.commit(key, Changes(set={"n": b"3"}), ticket="p.2")

    async def test_a_commit_may_keep_the_lock_or_give_it_back(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        await waits(verbs, key, "p.2")
        await verbs.commit(key, Changes(set={"a": b"1"}), ticket="p.1")
        await waits(verbs, key, "p.2")
        await verbs.commit(key, Changes(set={"b": b"2"}), ticket="p.1", unlock=True)
        assert (await holds(verbs, key, "p.2")).fields == {"a": b"1", "b": b"2"}
        with pytest.raises(LeaseExpired):
            await verbs.commit(key, Changes(set={"b": b"3"}), ticket="p.1")

    async def test_a_commit_that_is_refused_keeps_the_lock(self, verbs: Verbs) -> None:
        key = await verbs.create({"a": b"no number"})
        await holds(verbs, key, "p.1")
        with pytest.raises(TypeError):
            await verbs.commit(key, Changes(add=("a", 1)), ticket="p.1", unlock=True)
        await waits(verbs, key, "p.2")

    async def test_who_takes_no_lock_is_not_held_up_by_one(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        await verbs.there(key)
        await verbs.commit(key, Changes(set={"a": b"1"}))
        assert (await verbs.commit(key, Changes(add=("n", 1)))).total == 1

    async def test_who_gives_up_leaves_its_place(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        for ticket in ("p.2", "p.3"):
            await waits(verbs, key, ticket)
        await verbs.unlock(key.id, "p.2")
        await verbs.unlock(key.id, "p.1")
        await holds(verbs, key, "p.3")

    async def test_who_does_not_ask_again_is_passed_over(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        for ticket in ("p.2", "p.3", "p.4"):
            await waits(verbs, key, ticket)
        verbs.bench.forward(PATIENCE // 2)
        await waits(verbs, key, "p.4")
        verbs.bench.forward(PATIENCE // 2 + 2)
        await verbs.unlock(key.id, "p.1")
        await holds(verbs, key, "p.4")
        # Who comes back after that has to wait like everybody else.
        await waits(verbs, key, "p.5")
        await waits(verbs, key, "p.2")
        await verbs.unlock(key.id, "p.4")
        await holds(verbs, key, "p.5")

    async def test_the_bell_rings_for_the_next_one_and_for_nobody_else(self, verbs: Verbs) -> None:
        key = await verbs.create()
        store = verbs.bench.store
        waiters = [store.waiter() for _ in range(3)]
        try:
            first, second, third = (waiter.ticket for waiter in waiters)
            assert len({first, second, third}) == 3
            await holds(verbs, key, first)
            for ticket in (second, third):
                await waits(verbs, key, ticket)
            # The first sleep may end at once: from then on there is somebody who hears the bell.
            for waiter in waiters[1:]:
                await self._slept(verbs, waiter, 0.2)
                await self._slept(verbs, waiter, 0.2)
            await verbs.unlock(key.id, first)
            assert await self._slept(verbs, waiters[1], 10) < 5
            assert await self._slept(verbs, waiters[2], 0.2) >= 0.2
        finally:
            for waiter in waiters:
                waiter.close()

    async def _slept(self, verbs: Verbs, waiter: Any, seconds: float) -> float:
        """How long one waited who was ready to for so many seconds."""
        began = time.perf_counter()  # which no test sets
        if verbs.mode == "async":
            await waiter.await_(seconds)
        else:
            waiter.wait(seconds)
        return time.perf_counter() - began

    async def test_what_opens_nothing_locks_nothing(self, verbs: Verbs) -> None:
        key = await verbs.create()
        assert await verbs.lock(make(), "p.1") is None
        assert await verbs.lock(forged(key), "p.1") is None
        assert await verbs.lock(key, "p.1", transport="cookie") is None
        new = await verbs.rotate(key)
        with pytest.raises(SessionSuperseded):
            await verbs.lock(key, "p.1")
        await holds(verbs, new, "p.2")

    async def test_the_lock_is_the_sessions_whatever_its_key_is(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        new = make(key.id)
        await verbs.commit(key, rotate_to=new, ticket="p.1")
        await waits(verbs, new, "p.2")
        await verbs.commit(new, Changes(set={"a": b"1"}), ticket="p.1", unlock=True)
        await holds(verbs, new, "p.2")

    @pytest.mark.parametrize("user", [None, "7"])
    async def test_a_lock_is_a_use_of_the_session(self, verbs: Verbs, user: str | None) -> None:
        key = await verbs.create(user=user)
        for ticket in ("p.1", "p.2"):
            verbs.bench.forward(IDLE - SLACK)
            opened = await holds(verbs, key, ticket)
            assert IDLE - SLACK < opened.session.expires_in <= IDLE
            verbs.bench.check()
            await verbs.unlock(key.id, ticket)

    async def test_a_session_that_ended_leaves_no_lock_and_comes_back_by_none(
        self, verbs: Verbs
    ) -> None:
        key = await verbs.create()
        await holds(verbs, key, "p.1")
        await waits(verbs, key, "p.2")
        assert await verbs.end(key.id)
        assert await verbs.lock(key, "p.2") is None
        with pytest.raises(SessionEnded):
            await verbs.commit(key, Changes(set={"a": b"1"}), ticket="p.1", unlock=True)
        await verbs.unlock(key.id, "p.1")
        await verbs.unlock(key.id, "p.2")
        assert key.id.encode() not in verbs.bench.dump()

    async def test_nothing_is_left_of_a_lock_that_was_given_back(self, verbs: Verbs) -> None:
        key = await verbs.create()
        before = verbs.bench.dump()
        await holds(verbs, key, "p.one")
        await waits(verbs, key, "p.two")
        await verbs.unlock(key.id, "p.two")
        await verbs.unlock(key.id, "p.one")
        await verbs.unlock(key.id, "p.one")
        assert verbs.bench.dump() == before

    async def test_nothing_is_left_of_those_who_never_came_back(self, verbs: Verbs) -> None:
        key = await verbs.create()
        before = verbs.bench.dump()
        await holds(verbs, key, "p.one", 10 * SECOND)
        await waits(verbs, key, "q.two")
        verbs.bench.forward(10 * SECOND + PATIENCE + 2)
        await verbs.sweep()
        assert b"p.one" not in verbs.bench.dump()
        assert b"q.two" not in verbs.bench.dump()
        assert len(verbs.bench.dump()) == len(before)


class ContextContract(Base):
    async def test_a_context_has_fields_of_its_own(self, verbs: Verbs) -> None:
        key = await verbs.create({"a": b"0"})
        assert await verbs.open_context(key, "one") is None
        for name in ("one", "two"):
            await verbs.commit_context(key, name, Changes(set={"a": name.encode()}), new=True)
        assert await verbs.open_context(key, "one") == {"a": b"one"}
        assert await verbs.open_context(key, "two") == {"a": b"two"}
        assert (await verbs.there(key)).fields == {"a": b"0"}

    async def test_an_empty_context_is_a_context(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await verbs.commit_context(key, "one", new=True)
        assert await verbs.open_context(key, "one") == {}
        assert await verbs.contexts(key.id) == [LiveContext("one", 0, 0, self._left(verbs, IDLE))]

    def _left(self, verbs: Verbs, ms: int) -> Any:
        class About(int):
            def __eq__(self, other: object) -> bool:
                return isinstance(other, int) and ms - SLACK <= other <= ms

            __hash__ = int.__hash__

        return About(ms)

    async def test_changes_are_merged_and_made_in_order(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await verbs.commit_context(key, "one", Changes(set={"a": b"1", "b": b"1"}), new=True)
        await verbs.commit_context(key, "one", Changes(set={"c": b"2"}, delete=["b", "never"]))
        assert await verbs.open_context(key, "one") == {"a": b"1", "c": b"2"}
        # Made by two calls at the same time, it is one.
        await verbs.commit_context(key, "one", Changes(set={"d": b"3"}), new=True)
        assert await verbs.open_context(key, "one") == {"a": b"1", "c": b"2", "d": b"3"}
        await verbs.commit_context(key, "one", Changes(set={"e": b"4"}, delete=["a", "c", "d"]))
        assert await verbs.open_context(key, "one") == {"e": b"4"}
        # What is deleted and set in turn has its place at the end, once.
        await verbs.commit_context(key, "one", Changes(delete=["e"]))
        await verbs.commit_context(key, "one", Changes(set={"e": b"5", "f": b""}))
        assert await verbs.open_context(key, "one") == {"e": b"5", "f": b""}

    async def test_names_and_values_of_any_bytes_are_kept(self, verbs: Verbs) -> None:
        key = await verbs.create()
        fields = {"é": b"\x00\xff\n", "": b"", "x" * 300: b"y" * 70_000, "\ud800": b"half"}
        for name in ("!", "a/b:c", "x" * 64, "~" + "a" * 20):
            await verbs.commit_context(key, name, Changes(set=fields), new=True)
            assert await verbs.open_context(key, name) == fields
        assert [context.name for context in await verbs.contexts(key.id)] == sorted(
            ["!", "a/b:c", "x" * 64, "~" + "a" * 20]
        )

    async def test_a_context_is_there_for_its_session_alone(self, verbs: Verbs) -> None:
        key, other = await verbs.create(), await verbs.create()
        await verbs.commit_context(key, "one", Changes(set={"a": b"1"}), new=True)
        assert await verbs.open_context(other, "one") is None
        with pytest.raises(ContextUnknown):
            await verbs.commit_context(other, "one", Changes(set={"a": b"2"}))
        with pytest.raises(ContextUnknown):
            await verbs.promote(other, "one")
        assert not await verbs.end_context(other.id, "one")
        assert await verbs.open_context(key, "one") == {"a": b"1"}

    async def test_who_may_not_open_the_session_opens_no_context_of_it(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await verbs.commit_context(key, "one", Changes(set={"a": b"1"}), new=True)
        new = await verbs.rotate(key)
        for wrong, transport, error in (
            (make(), "header", SessionEnded),
            (forged(key), "header", SessionEnded),
            (new, "cookie", SessionEnded),
            (key, "header", SessionSuperseded),
        ):
            with pytest.raises(error):
                await verbs.open_context(wrong, "one", transport)
            with pytest.raises(error):
                await verbs.commit_context(wrong, "one", Changes(set={"a": b"2"}), transport)
            with pytest.raises(error):
                await verbs.promote(wrong, "one", transport=transport)
        assert await verbs.open_context(new, "one") == {"a": b"1"}

    async def test_there_are_no_more_than_there_may_be(self, verbs: Verbs) -> None:
        key = await verbs.create()
        for n in range(3):
            await verbs.commit_context(key, f"{n}", new=True, most=3)
        with pytest.raises(TooManyContexts):
            await verbs.commit_context(key, "one more", new=True, most=3)
        # Those that are there may go on.
        await verbs.commit_context(key, "0", Changes(set={"a": b"1"}), most=3)
        assert await verbs.open_context(key, "one more") is None
        assert await verbs.end_context(key.id, "1")
        await verbs.commit_context(key, "one more", new=True, most=3)
        # What was idle for too long takes no place.
        verbs.bench.forward(IDLE - SLACK)
        await verbs.there(key)
        await verbs.open_context(key, "0")
        verbs.bench.forward(2 * SLACK)
        await verbs.commit_context(key, "and another", new=True, most=3)
        assert [one.name for one in await verbs.contexts(key.id)] == ["0", "and another"]

    async def test_an_idle_context_goes_alone_from_the_store_too(self, verbs: Verbs) -> None:
        key = await verbs.create({"of": b"the session"})
        await verbs.commit_context(key, "s", Changes(set={"a": b"short"}), new=True, idle=HOUR // 6)
        await verbs.commit_context(key, "l", Changes(set={"a": b"long"}), new=True)
        for _ in range(3):
            verbs.bench.forward(HOUR // 12)
            assert await verbs.open_context(key, "s") == {"a": b"short"}
        verbs.bench.forward(HOUR // 6 + SLACK)
        assert await verbs.open_context(key, "s") is None
        assert await verbs.open_context(key, "l") == {"a": b"long"}
        with pytest.raises(ContextUnknown):
            await verbs.commit_context(key, "s", Changes(set={"a": b"again"}))
        await verbs.commit_context(key, "l", Changes(set={"a": b"longer"}))
        assert b"short" not in verbs.bench.dump()
        assert (await verbs.there(key)).fields == {"of": b"the session"}

    async def test_a_use_of_a_context_is_none_of_another(self, verbs: Verbs) -> None:
        key = await verbs.create()
        for name in ("one", "two"):
            await verbs.commit_context(key, name, new=True, idle=IDLE // 2)
        verbs.bench.forward(IDLE // 3)
        await verbs.there(key)
        assert await verbs.open_context(key, "one") == {}
        verbs.bench.forward(IDLE // 3)
        assert await verbs.open_context(key, "one") == {}
        assert await verbs.open_context(key, "two") is None

    async def test_a_commit_is_of_the_session_and_its_contexts_together_or_of_none(
        self, verbs: Verbs
    ) -> None:
        key = await verbs.create({"n": b"no number"})
        await verbs.commit_context(key, "one", Changes(set={"a": b"1"}), new=True)

        def all_of(*more: ContextChange, **what: Any) -> Awaitable[Any]:
            mine = [ContextChange("one", Changes(set={"a": b"2"})), *more]
            return verbs.commit(key, contexts=mine, most=2, **({"changes": changes} | what))

        changes = Changes(set={"b": b"2"})
        new = ContextChange("two", Changes(set={"a": b"2"}), IDLE)
        refused: list[tuple[type[Exception], Awaitable[Any]]] = [
            (ContextUnknown, all_of(ContextChange("two", Changes(set={"a": b"2"})))),
            (TooManyContexts, all_of(new, ContextChange("three", Changes(), IDLE))),
            (TypeError, all_of(new, changes=Changes(set={"b": b"2"}, add=("n", 1)))),
            (LeaseExpired, all_of(new, ticket="p.1")),
        ]
        for error, asked in refused:
            with pytest.raises(error):
                await asked
            assert (await verbs.there(key)).fields == {"n": b"no number"}
            assert await verbs.open_context(key, "one") == {"a": b"1"}
            assert await verbs.open_context(key, "two") is None
        await all_of(new, changes=Changes(set={"b": b"2"}, add=("c", 3)))
        fields = {"n": b"no number", "b": b"2", "c": b"3"}
        assert (await verbs.there(key)).fields == fields
        assert await verbs.open_context(key, "one") == {"a": b"2"}
        assert await verbs.open_context(key, "two") == {"a": b"2"}

    async def test_a_new_one_that_is_promoted_at_once_takes_no_place(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await verbs.commit_context(key, "one", new=True, most=1)
        change = ContextChange("two", Changes(set={"a": b"2"}), IDLE, promote=True)
        committed = await verbs.commit(key, contexts=[change], most=1)
        assert committed.promoted == {"a": b"2"}
        assert [one.name for one in await verbs.contexts(key.id)] == ["one"]
        # Nor where there are more already than there may be by now.
        assert (await verbs.commit(key, contexts=[change], most=0)).promoted == {"a": b"2"}

    async def test_a_lifetime_that_was_shortened_and_lengthened_again(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await verbs.commit_context(key, "one", new=True)
        await verbs.commit(key, expiry=Expiry("deadline", 60 * SECOND))
        (context,) = await verbs.contexts(key.id)
        assert context.expires_in <= 60 * SECOND
        await verbs.commit(key, expiry=Expiry("deadline", HOUR))
        await verbs.commit_context(key, "two", new=True)
        verbs.bench.forward(60 * SECOND + SLACK)
        assert await verbs.open_context(key, "one") == {}
        assert await verbs.open_context(key, "two") == {}

    @pytest.mark.parametrize("how", ["end", "expire", "shorten"])
    async def test_contexts_are_gone_with_their_session_from_the_store_too(
        self, verbs: Verbs, how: str
    ) -> None:
        key = await verbs.create()
        for name in ("one", "two"):
            changes = Changes(set={"a": b"of the context"})
            await verbs.commit_context(key, name, changes, new=True, idle=10 * HOUR)
        if how == "end":
            assert await verbs.end(key.id)
        elif how == "shorten":
            await verbs.commit(key, expiry=Expiry("deadline", 60 * SECOND))
            verbs.bench.forward(60 * SECOND + SLACK)
        else:
            verbs.bench.forward(IDLE + IDLE // 2)
        assert await verbs.contexts(key.id) == []
        for ask in (
            verbs.open_context(key, "one"),
            verbs.commit_context(key, "one", Changes(set={"a": b"2"}), new=True),
            verbs.promote(key, "one"),
        ):
            with pytest.raises(SessionEnded):
                await ask
        assert not await verbs.end_context(key.id, "one")
        assert b"of the context" not in verbs.bench.dump()

    async def test_a_context_outlives_no_session(self, verbs: Verbs) -> None:
        key = await verbs.create()
        await verbs.commit_context(key, "one", new=True, idle=100 * HOUR)
        for _ in range(2):
            (context,) = await verbs.contexts(key.id)
            assert context.expires_in <= IDLE + IDLE // 32
            assert await verbs.open_context(key, "one") == {}

    async def test_a_context_that_idles_for_longer_than_its_session_is_there_while_that_is_used(
        self, verbs: Verbs
    ) -> None:
        key = await verbs.create()
        changes = Changes(set={"a": b"of the context"})
        await verbs.commit_context(key, "one", changes, new=True, idle=3 * IDLE)
        await verbs.commit_context(key, "two", changes, new=True, idle=IDLE // 8)
        for _ in range(4):
            verbs.bench.forward(IDLE // 2)
            assert (await verbs.there(key)).session.id == key.id
        assert [one.name for one in await verbs.contexts(key.id)] == ["one"]
        # A lock is a use of the session, too.
        await verbs.lock(key, "a.1")
        verbs.bench.forward(IDLE // 2)
        assert await verbs.open_context(key, "one") == {"a": b"of the context"}
        # And so is a longer lifetime.
        await verbs.commit(key, expiry=Expiry("idle", 2 * IDLE))
        verbs.bench.forward(IDLE + IDLE // 2)
        assert await verbs.open_context(key, "one") == {"a": b"of the context"}

    async def test_one_is_ended_alone(self, verbs: Verbs) -> None:
        key = await verbs.create()
        for name in ("one", "two"):
            await verbs.commit_context(key, name, Changes(set={"a": name.encode()}), new=True)
        assert await verbs.end_context(key.id, "one") is True
        assert await verbs.end_context(key.id, "one") is False
        assert await verbs.open_context(key, "one") is None
        # A commit that was on its way does not bring it back.
        with pytest.raises(ContextUnknown):
            await verbs.commit_context(key, "one", Changes(set={"a": b"2"}))
        assert [context.name for context in await verbs.contexts(key.id)] == ["two"]
        assert await verbs.open_context(key, "two") == {"a": b"two"}

    async def test_to_list_is_not_to_use(self, verbs: Verbs) -> None:
        key = await verbs.create()
        fields = {"a": b"12345", "bc": b"\x00\xff"}
        await verbs.commit_context(key, "one", Changes(set=fields), new=True, idle=IDLE // 2)
        verbs.bench.forward(IDLE // 4)
        for _ in range(2):
            assert await verbs.contexts(key.id) == [
                LiveContext("one", 10, 2, self._left(verbs, IDLE // 4))
            ]
        assert await verbs.contexts(make().id) == []

    async def test_a_promotion_makes_the_fields_the_sessions_and_ends_the_context(
        self, verbs: Verbs
    ) -> None:
        key = await verbs.create({"a": b"session's", "b": b"session's"}, user="7")
        changes = Changes(set={"a": b"context's", "c": b"context's", "d": b"context's"})
        await verbs.commit_context(key, "one", changes, new=True)
        promoted = await verbs.promote(key, "one", Changes(set={"e": b"at once"}, delete=["d"]))
        assert promoted == {"a": b"context's", "c": b"context's", "e": b"at once"}
        opened = await verbs.there(key)
        assert opened.fields == {"b": b"session's", **promoted}
        assert opened.session.user == "7"
        assert await verbs.open_context(key, "one") is None
        assert await verbs.contexts(key.id) == []
        with pytest.raises(ContextUnknown):
            await verbs.promote(key, "one")

    async def test_a_promotion_of_many_fields(self, verbs: Verbs) -> None:
        key = await verbs.create()
        fields = {f"{n}": b"%d" % n for n in range(1000)}
        await verbs.commit_context(key, "one", Changes(set=fields), new=True)
        changes = Changes(set={"a": b"1"}, delete=list(fields))
        assert await verbs.promote(key, "one", changes) == {"a": b"1"}
        await verbs.commit_context(key, "one", Changes(set=fields), new=True)
        assert await verbs.promote(key, "one") == fields
        assert (await verbs.there(key)).fields == {"a": b"1", **fields}


class ContextRaceContract(Base):
    """What contexts promise that are used at the same time."""

    async def test_contexts_of_many_calls_at_once_are_kept_apart(self, verbs: Verbs) -> None:
        key = await verbs.create()

        def call(n: int) -> Callable[[], Any]:
            async def work() -> None:
                name = f"call {n}".replace(" ", "-")
                await verbs.commit_context(key, name, Changes(set={"n": b"%d" % n}), new=True)
                for step in range(5):
                    changes = Changes(set={f"{step}": b"%d" % n})
                    await verbs.commit_context(key, name, changes)
                assert await verbs.open_context(key, name) == {"n": b"%d" % n} | {
                    f"{step}": b"%d" % n for step in range(5)
                }

            return work

        await verbs.together(*map(call, range(self.many)))
        assert len(await verbs.contexts(key.id)) == self.many
        assert (await verbs.there(key)).fields == {}

    many = 50
    """How many calls there are at once."""
