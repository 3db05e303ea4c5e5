"""Contexts: mappings of their own inside a session, for calls that run side by side."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from django_header_sessions.context import Context
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import (
    ContextNameInvalid,
    ContextUnknown,
    SessionEnded,
    SessionReadOnly,
    SessionTooLarge,
    TooManyContexts,
)
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores.base import Store

from .face import Face, Half, Sessions


@pytest.fixture
def shared(any_store: Store, transport: Any, half: Half) -> Sessions:
    """Sessions of each transport, through each half, on every kind of store."""
    return Sessions(transport, half)


async def finish(face: Face, *, commit: bool = True) -> None:
    """The end of a request."""
    await face.finish(commit=commit)


async def ask(context: Context, half: Half, name: str) -> Any:
    """A method of a context, by the half of the API that is tested."""
    return await getattr(context, "a" + name)() if half == "async" else getattr(context, name)()


async def test_a_context_is_stored_with_its_request_and_found_by_the_next(shared: Sessions) -> None:
    face = await shared.saved(of="session")
    context = await face.context("tool")
    assert dict(context) == {}
    context["n"], context["cart"] = 1, {"x": [1]}
    assert await shared.stored(face) == {"of": "session"}
    await finish(face)

    again = await shared.opened(face.key)
    context = await again.context("tool")
    assert dict(context) == {"n": 1, "cart": {"x": [1]}}
    assert dict(await (await shared.opened(face.key)).context("other")) == {}
    # What is changed in place is found without being told of.
    context["cart"]["x"].append(2)
    del context["n"]
    await finish(again)
    context = await (await shared.opened(face.key)).context("tool")
    assert dict(context) == {"cart": {"x": [1, 2]}}
    assert await shared.stored(face) == {"of": "session"}


async def test_a_request_that_failed_stores_no_context(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    (await face.context("tool"))["n"] = 1
    await finish(face, commit=False)
    assert await (await shared.opened(face.key)).contexts() == []


async def test_one_that_was_only_looked_for_is_not_made(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    context = await face.context("tool")
    assert "n" not in context
    assert len(context) == 0
    await finish(face)
    assert await face.contexts() == []


async def test_the_first_context_makes_the_session_too(shared: Sessions) -> None:
    face = shared.new()
    await face.open()
    (await face.context("tool"))["n"] = 1
    assert face.session.session_key is None
    await finish(face)
    assert await shared.stored(face) == {}
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 1}


async def test_a_request_has_one_context_of_a_name(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    context = await face.context("tool")
    context["n"] = 1
    assert await face.context("tool") is context


async def test_calls_at_the_same_time_do_not_see_each_others_contexts(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    one, two = await shared.opened(face.key), await shared.opened(face.key)
    (await one.context("one"))["n"] = 1
    (await two.context("two"))["n"] = 2
    await finish(one)
    await finish(two)
    reader = await shared.opened(face.key)
    assert dict(await reader.context("one")) == {"n": 1}
    assert dict(await reader.context("two")) == {"n": 2}
    assert [(each.name, each.fields) for each in await reader.contexts()] == [
        ("one", 1),
        ("two", 1),
    ]


async def test_changes_of_one_context_at_the_same_time_are_merged(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    one, two = await shared.opened(face.key), await shared.opened(face.key)
    for each, name in ((one, "x"), (two, "y")):
        (await each.context("tool"))[name] = 1
    await finish(one)
    await finish(two)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"x": 1, "y": 1}


async def test_a_handle_is_passed_from_call_to_call(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    handle = await face.new_context()
    assert handle != await face.new_context()
    # It is there at once, empty as it is.
    context = await (await shared.opened(face.key)).context(handle)
    assert dict(context) == {}
    again = await shared.opened(face.key)
    (await again.context(handle))["n"] = 1
    await finish(again)
    assert dict(await (await shared.opened(face.key)).context(handle)) == {"n": 1}


async def test_a_new_context_makes_the_session_too(shared: Sessions) -> None:
    face = shared.new()
    handle = await face.new_context()
    assert dict(await (await shared.opened(face.key)).context(handle)) == {}


async def test_a_handle_opens_nothing_but_in_its_own_session(shared: Sessions) -> None:
    face, other, new = await shared.saved(a=1), await shared.saved(a=1), shared.new()
    handle = await face.new_context()
    never = "~" + "a" * 20
    said = set()
    for stranger, named in ((other, handle), (new, handle), (face, never), (new, never)):
        with pytest.raises(ContextUnknown) as raised:
            await stranger.context(named)
        assert stranger.session.fault is None
        said.add(str(raised.value))
    # Another's is as unknown as one that was never issued.
    assert len(said) == 1
    assert await face.end_context(handle)
    with pytest.raises(ContextUnknown):
        await (await shared.opened(face.key)).context(handle)


async def test_a_context_that_was_ended_meanwhile_does_not_come_back(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    async_half = shared.half
    (await face.context("tool"))["n"] = 1
    await finish(face)
    slow = await shared.opened(face.key)
    context = await slow.context("tool")
    assert await (await shared.opened(face.key)).end_context("tool") is True
    assert await (await shared.opened(face.key)).end_context("tool") is False
    await ask(context, async_half, "save")  # there is nothing to store
    context["n"] = 2
    with pytest.raises(ContextUnknown):
        await finish(slow)
    with pytest.raises(ContextUnknown):
        await ask(context, async_half, "promote")
    assert await ask(context, async_half, "end") is False
    assert await (await shared.opened(face.key)).contexts() == []


async def test_what_was_written_before_it_was_ended_here_is_not_stored(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    context = await face.context("tool")
    context["n"] = 1
    assert await ask(context, shared.half, "end") is False
    await finish(face)
    assert await face.contexts() == []


async def test_a_context_is_a_block(shared: Sessions) -> None:
    face = await shared.saved(a=1)

    async def write(context: Context, by: int) -> None:
        if shared.half == "async":
            async with context as mine:
                mine["n"] = by
                mine["n"] = 1 // by
        else:
            with context as mine:
                mine["n"] = by
                mine["n"] = 1 // by

    await write(await face.context("tool"), 1)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 1}
    with pytest.raises(ZeroDivisionError):
        await write(await (await shared.opened(face.key)).context("tool"), 0)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 1}


async def test_a_promotion_merges_the_fields_into_the_session(shared: Sessions) -> None:
    face = await shared.saved(a="session's", b="session's")
    (await face.context("tool")).update(a="context's", c="context's")
    await finish(face)

    caller = await shared.opened(face.key)
    assert (await caller.items()) is not None
    context = await caller.context("tool")
    context["d"] = ["unsaved"]
    other = await shared.opened(face.key)
    await other.set("e", "another's")
    await other.save()
    await ask(context, shared.half, "promote")
    expected = {"a": "context's", "b": "session's", "c": "context's", "d": ["unsaved"]}
    assert dict(await caller.items()) == expected
    await finish(caller)
    assert await shared.stored(face) == {**expected, "e": "another's"}
    assert await (await shared.opened(face.key)).contexts() == []
    # What is promoted is done at once, and not undone by a request that fails.
    assert dict(await (await shared.opened(face.key)).context("tool")) == {}


@pytest.mark.parametrize("pending", ["assigned", "deleted"])
async def test_a_promotion_replaces_what_was_to_be_stored_under_the_same_name(
    shared: Sessions, pending: str
) -> None:
    face = await shared.saved(a="session's")
    (await face.context("tool"))["a"] = "context's"
    await finish(face)
    caller = await shared.opened(face.key)
    if pending == "assigned":
        await caller.set("a", "assigned")
    else:
        await caller.pop("a")
    await ask(await caller.context("tool"), shared.half, "promote")
    assert await caller.get("a") == "context's"
    await finish(caller)
    assert await shared.stored(face) == {"a": "context's"}
    # What is assigned afterwards stands.
    caller = await shared.opened(face.key)
    context = await caller.context("tool")
    context["a"] = "context's"
    await ask(context, shared.half, "promote")
    await caller.set("a", "assigned")
    await finish(caller)
    assert await shared.stored(face) == {"a": "assigned"}


async def test_tasks_of_one_request_that_use_the_same_context_have_the_same(
    any_store: Store,
) -> None:
    sessions = Sessions("header", "async")
    face = await sessions.saved(a=1)

    async def use(name: str) -> None:
        (await face.context("tool"))[name] = 1

    await asyncio.gather(use("a"), use("b"))
    await finish(face)
    assert dict(await (await sessions.opened(face.key)).context("tool")) == {"a": 1, "b": 1}


async def test_a_block_of_a_context_that_raises_forgets_what_it_changed(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    context = await face.context("tool")
    context["before"] = [1]

    def change() -> None:
        context["within"] = 1
        context["before"].append(2)
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        if shared.half == "async":
            async with context:
                change()
        else:
            with context:
                change()
    assert dict(context) == {"before": [1]}
    await finish(face)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"before": [1]}


async def test_a_context_of_a_session_that_was_flushed_is_not_the_next_ones(
    shared: Sessions,
) -> None:
    face = await shared.saved(a=1)
    context = await face.context("tool")
    context["n"] = 1
    await face.flush()
    await face.set("b", 2)
    for name in ("save", "promote"):
        with pytest.raises(ContextUnknown):
            await ask(context, shared.half, name)
    await finish(face)
    assert await face.contexts() == []
    assert await shared.stored(face) == {"b": 2}


async def test_a_context_that_was_never_stored_can_be_promoted(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    context = await face.context("tool")
    context["b"] = 2
    await ask(context, shared.half, "promote")
    assert await shared.stored(face) == {"a": 1, "b": 2}
    new = shared.new()
    await new.open()
    context = await new.context("tool")
    context["b"] = 2
    await ask(context, shared.half, "promote")
    assert await shared.stored(new) == {"b": 2}


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a,b", "a\n", "\x00", "é", "x" * 2**20, 7, b"a"]
)
async def test_a_name_that_is_none_is_refused_without_asking_the_store(
    shared: Sessions, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = await shared.saved(a=1)
    monkeypatch.setattr(SessionStore, "_store", None, raising=False)
    for act in (face.context, face.end_context):
        with pytest.raises(ContextNameInvalid) as raised:
            await act(name)
        assert len(str(raised.value)) < 200


@pytest.mark.parametrize("name", ["a", "x" * 64, "!", "~", "a/b:c", "{}", "tool-7/call_3"])
async def test_names_of_all_sorts_are_names(local_sessions: Sessions, name: str) -> None:
    face = await local_sessions.saved(a=1)
    if name == "~":
        with pytest.raises(ContextUnknown):
            await face.context(name)
        return
    (await face.context(name))["n"] = 1
    await finish(face)
    assert [context.name for context in await face.contexts()] == [name]


async def test_without_a_name_it_is_the_one_that_the_request_names(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    mine = shared.new(face.key, context_name="call-7")
    await mine.open()
    (await mine.context())["n"] = 1
    await finish(mine)
    assert dict(await (await shared.opened(face.key)).context("call-7")) == {"n": 1}
    with pytest.raises(ContextNameInvalid, match="names no context"):
        await (await shared.opened(face.key)).context()


async def test_a_field_that_would_be_djangos_is_refused(local_sessions: Sessions) -> None:
    face = await local_sessions.saved(a=1)
    context = await face.context("tool")
    for name in ("_auth_user_id", "_session_expiry", "_"):
        with pytest.raises(ValueError, match="Django's own"):
            context[name] = "1"
        with pytest.raises(ValueError, match="Django's own"):
            context.update({name: "1"})
    assert dict(context) == {}


async def test_each_context_is_held_to_the_limit_of_bytes(shared: Sessions, settings: Any) -> None:
    settings.HEADER_SESSIONS_MAX_BYTES = 100
    face = await shared.saved(a="x" * 60)
    for name in ("one", "two"):
        (await face.context(name))["b"] = "x" * 90
    await finish(face)
    caller = await shared.opened(face.key)
    context = await caller.context("one")
    context["c"] = "x" * 20
    with pytest.raises(SessionTooLarge):
        await finish(caller)
    # Together with the session's own it would be too much.
    with pytest.raises(SessionTooLarge):
        await ask(await (await shared.opened(face.key)).context("two"), shared.half, "promote")
    assert await shared.stored(face) == {"a": "x" * 60}
    assert len(await (await shared.opened(face.key)).contexts()) == 2


async def test_there_are_no_more_than_the_setting_says(shared: Sessions, settings: Any) -> None:
    settings.HEADER_SESSIONS_MAX_CONTEXTS = 2
    face = await shared.saved(a=1)
    await face.new_context()
    (await face.context("tool"))["n"] = 1
    await finish(face)
    with pytest.raises(TooManyContexts):
        await face.new_context()
    caller = await shared.opened(face.key)
    (await caller.context("one-more"))["n"] = 1
    with pytest.raises(TooManyContexts):
        await finish(caller)
    assert len(await caller.contexts()) == 2


async def test_a_context_may_idle_for_less_than_its_session(
    clocked: None, time_machine: Any, half: Half
) -> None:
    sessions = Sessions("header", half)
    time_machine.move_to(1_800_000_000, tick=False)
    face = await sessions.saved(a=1)
    handle = await face.new_context(idle_timeout=60)
    (await face.context("tool", idle_timeout=0.5))["n"] = 1
    await finish(face)
    assert [each.expires_in for each in await face.contexts()] == [500, 60_000]
    for _ in range(3):
        time_machine.shift(50)
        await (await sessions.opened(face.key)).context(handle)
    assert len(await face.contexts()) == 1
    time_machine.shift(61)
    with pytest.raises(ContextUnknown):
        await (await sessions.opened(face.key)).context(handle)
    assert await sessions.stored(face) == {"a": 1}


async def test_a_flush_ends_the_contexts(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    key = face.key
    await face.new_context()
    (await face.context("tool"))["n"] = 1
    await face.flush()
    await finish(face)
    assert face.session.session_key is None
    with pytest.raises(SessionEnded):
        await shared.new(key).context("tool")
    with pytest.raises(SessionEnded):
        await shared.new(key).contexts()


async def test_a_rotation_changes_nothing_about_contexts(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    handle = await face.new_context()
    (await face.context(handle))["n"] = 1
    await face.cycle_key()
    await finish(face)
    assert dict(await (await shared.opened(face.key)).context(handle)) == {"n": 1}


async def test_clearing_the_session_spares_its_contexts(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    (await face.context("tool"))["n"] = 1
    await finish(face)
    caller = await shared.opened(face.key)
    caller.session.clear()
    await finish(caller)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 1}


async def test_where_a_session_is_only_read_so_are_its_contexts(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    context = await face.context("tool")
    context["cart"] = [1]
    await finish(face)
    caller = await shared.opened(face.key)
    before = await caller.context("tool")
    with caller.session.readonly():
        other = await caller.context("other")
        for writable in (before, other):
            with pytest.raises(SessionReadOnly):
                writable["n"] = 1
        with pytest.raises(SessionReadOnly):
            del before["cart"]
        with pytest.raises(SessionReadOnly):
            await caller.new_context()
        with pytest.raises(SessionReadOnly):
            await caller.end_context("tool")
        with pytest.raises(SessionReadOnly):
            await ask(before, shared.half, "promote")
        before["cart"].append(2)
        await finish(caller)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"cart": [1]}


async def test_a_context_shows_no_values(local_sessions: Sessions) -> None:
    context = await (await local_sessions.saved(a=1)).context("tool")
    context["token"] = "a secret"
    assert repr(context) == "<context tool: token>"


async def test_who_knows_only_the_id_of_a_session_has_none_of_its_contexts(
    shared: Sessions,
) -> None:
    face = await shared.saved(a=1)
    (await face.context("tool"))["n"] = 1
    await finish(face)
    forged = SessionKey(face.key[:15] + make()[15:])
    acts: dict[str, tuple[Any, ...]] = {"contexts": (), "end_context": ("tool",)}
    for name, args in acts.items():
        with pytest.raises(SessionEnded):
            await getattr(shared.new(forged), name)(*args)
        # As to Django, a cookie that opens nothing is no session.
        looked = shared.new(forged)
        assert not await looked.open()
        assert not await getattr(looked, name)(*args)
    assert dict(await (await shared.opened(face.key)).context("tool")) == {"n": 1}
    if shared.transport == "header":
        with pytest.raises(SessionEnded):
            await shared.new(forged).context("tool")


async def test_a_promotion_outlives_that_the_session_was_cleared_before(shared: Sessions) -> None:
    face = await shared.saved(a=1, b=1)
    (await face.context("tool")).update(b=2, c=2)
    await finish(face)
    caller = await shared.opened(face.key)
    caller.session.clear()
    await caller.set("mine", 1)
    await ask(await caller.context("tool"), shared.half, "promote")
    assert dict(await caller.items()) == {"mine": 1, "b": 2, "c": 2}
    await finish(caller)
    assert await shared.stored(face) == {"mine": 1, "b": 2, "c": 2}
    # What others do after a promotion is theirs.
    caller, other = await shared.opened(face.key), await shared.opened(face.key)
    caller.session.clear()
    (await caller.context("tool"))["c"] = 3
    await ask(await caller.context("tool"), shared.half, "promote")
    await other.set("c", 4)
    await other.save()
    await finish(caller)
    assert await shared.stored(face) == {"c": 3}


async def test_a_counter_that_was_promoted_counts_on(shared: Sessions) -> None:
    face = await shared.saved(n=1)
    (await face.context("tool")).update(n=10, m=20)
    await finish(face)
    for clear in (False, True):
        caller = await shared.opened(face.key)
        if clear:
            caller.session.clear()
        (await caller.context("again")).update(n=10, m=20)
        await ask(await caller.context("again"), shared.half, "promote")
        assert await caller.increment("n") == 11
        assert await caller.increment("m", 2) == 22
        await finish(caller)
        assert await shared.stored(face) == {"n": 11, "m": 22}


async def test_of_a_request_that_asks_too_much_nothing_is_stored(
    shared: Sessions, settings: Any
) -> None:
    settings.HEADER_SESSIONS_MAX_BYTES = 100
    settings.HEADER_SESSIONS_MAX_CONTEXTS = 2
    face = await shared.saved(a=1)
    small, large = "x" * 10, "x" * 101
    asks: list[tuple[str, list[tuple[str, str]], type[Exception]]] = [
        (large, [("one", small)], SessionTooLarge),
        (small, [("one", small), ("two", large)], SessionTooLarge),
        (small, [("one", small), ("two", small), ("three", small)], TooManyContexts),
    ]
    for value, contexts, refused in asks:
        for known in (True, False):
            caller = await shared.opened(face.key) if known else shared.new()
            await caller.set("a", value)
            for name, text in contexts:
                (await caller.context(name))["n"] = text
            with pytest.raises(refused):
                await finish(caller)
            if not known:
                assert caller.session.session_key is None
        reader = await shared.opened(face.key)
        assert dict(await reader.items()) == {"a": 1}
        assert await reader.contexts() == []


async def test_a_context_idles_for_as_long_as_its_session(
    clocked: None, time_machine: Any, half: Half
) -> None:
    sessions = Sessions("header", half)
    time_machine.move_to(1_800_000_000, tick=False)
    face = sessions.new()
    await face.set("a", 1)
    await face.set_expiry(120)
    await face.save()
    caller = await sessions.opened(face.key)
    (await caller.context("tool"))["n"] = 1
    await finish(caller)
    assert [each.expires_in for each in await caller.contexts()] == [120_000]
    # It goes on for as long as both are used, and no longer.
    for _ in range(3):
        time_machine.shift(100)
        assert dict(await (await sessions.opened(face.key)).context("tool")) == {"n": 1}
    time_machine.shift(122)
    assert await (await sessions.opened(face.key)).contexts() == []


async def test_a_time_that_is_none_is_refused_and_makes_nothing(local_sessions: Sessions) -> None:
    face = await local_sessions.saved(a=1)
    for seconds in (0, -1, float("nan"), float("-inf")):
        for act in (face.new_context, partial(face.context, "tool")):
            with pytest.raises(ValueError, match="positive number of seconds"):
                await act(idle_timeout=seconds)
    await finish(face)
    assert await face.contexts() == []


async def test_a_time_of_any_length_is_a_time(shared: Sessions) -> None:
    face = await shared.saved(a=1)
    for seconds in (1e-9, 1e300, float("inf")):
        handle = await face.new_context(idle_timeout=seconds)
        if seconds > 1:
            assert dict(await (await shared.opened(face.key)).context(handle)) == {}
    # Nor is any of them in the way of the others.
    (await face.context("other"))["n"] = 1
    await finish(face)
    assert "other" in [each.name for each in await face.contexts()]
