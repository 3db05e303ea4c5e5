"""Tasks and threads of one request that use its session at the same time: what one of them changes
while another stores is not lost, and together they are still one session."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import alogin
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.http import HttpRequest

from django_header_sessions import engine
from django_header_sessions.engine import SessionStore
from django_header_sessions.signals import session_created
from django_header_sessions.stores import get_store

from ..processes import Valkey

pytestmark = pytest.mark.usefixtures("listing_store")

Change = Callable[[SessionStore], None]


def made(**fields: Any) -> SessionStore:
    """A session of one request, opened anew."""
    first = SessionStore(transport="header")
    first.update({"here": 1, **fields})
    first.save()
    return opened(first)


async def opened_in_loop(key: Any) -> SessionStore:
    session = SessionStore(key, transport="header")
    assert await session.aopen()
    return session


def opened(session: SessionStore) -> SessionStore:
    again = SessionStore(session.session_key, transport="header")
    assert again.open()
    return again


def stored(session: SessionStore) -> dict[str, Any]:
    return dict(opened(session).items())


def live() -> int:
    return sum(get_store("default").count().values())


async def begun(steps: Awaitable[Any]) -> asyncio.Task[Any]:
    """A task that has asked the store, and has no answer yet."""
    task = asyncio.ensure_future(steps)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def assign(session: SessionStore) -> None:
    session["x"] = 2


def delete(session: SessionStore) -> None:
    del session["x"]


def change(session: SessionStore) -> None:
    session["list"].append(2)
    session.modified = True


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        (assign, {"x": 2, "list": [1]}),
        (delete, {"list": [1]}),
        (change, {"x": 1, "list": [1, 2]}),
        (SessionStore.clear, {}),
    ],
)
@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("method", ["asave", "acycle_key", "aincrement"])
async def test_what_changes_while_the_session_is_stored_is_stored_next(
    meanwhile: Change, expected: dict[str, Any], new: bool, method: str
) -> None:
    session = SessionStore(transport="header") if new else await opened_in_loop(made().session_key)
    session["x"], session["list"] = 1, [1]
    task = await begun(getattr(session, method)(*["n"] * (method == "aincrement")))
    meanwhile(session)
    await task
    await session.asave()
    found = stored(session)
    assert {name: found[name] for name in found if name in ("x", "list")} == expected
    assert dict(session.items()) == found
    if meanwhile is not SessionStore.clear:
        assert found.get("n") == (1 if method == "aincrement" else None)
    assert live() == 1


async def test_a_counter_that_is_assigned_while_it_is_raised_is_as_it_was_assigned() -> None:
    session = await opened_in_loop(made(n=1).session_key)
    task = await begun(session.aincrement("n"))
    session["n"] = 50
    assert await task == 2
    assert session["n"] == 50
    await session.asave()
    assert stored(session)["n"] == 50


@pytest.mark.parametrize("new", [True, False])
async def test_counters_raised_at_once_are_exact(new: bool) -> None:
    session = SessionStore(transport="header") if new else await opened_in_loop(made().session_key)
    session["m"] = 10
    totals = await asyncio.gather(*(session.aincrement(name) for name in ["n", "m"] * 3))
    assert totals == [1, 11, 2, 12, 3, 13]
    await session.asave()
    found = stored(session)
    assert (found["n"], found["m"]) == (3, 13)
    assert live() == 1


async def test_a_new_session_is_made_once() -> None:
    session = SessionStore(transport="header")
    session["x"] = 1
    handles = await asyncio.gather(session.anew_context(), session.anew_context())
    await asyncio.gather(session.asave(), session.acycle_key(), session.asave())
    assert live() == 1
    for handle in handles:
        assert dict(opened(session).context(handle)) == {}


async def test_contexts_of_a_new_session_are_all_in_it() -> None:
    session = SessionStore(transport="header")
    a, b = await session.acontext("a"), await session.acontext("b")
    a["x"], b["x"] = 1, 2
    task = asyncio.gather(a.asave(), b.asave())
    await asyncio.sleep(0)
    a["x"] = 3
    await task
    await session.afinish(commit=True)
    again = opened(session)
    assert (dict(again.context("a")), dict(again.context("b"))) == ({"x": 3}, {"x": 2})
    assert live() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("new", [True, False])
async def test_who_signs_in_beside_other_tasks_is_signed_in(new: bool) -> None:
    user = await User.objects.acreate_user("ann", password="x")
    session = SessionStore(transport="header") if new else await opened_in_loop(made().session_key)
    request: Any = HttpRequest()
    request.session = session

    async def tool() -> None:
        await asyncio.sleep(0)
        session["x"] = 5
        context = await session.acontext("c")
        context["y"] = 6
        await session.asave()

    backend = "django.contrib.auth.backends.ModelBackend"
    await asyncio.gather(
        alogin(request, user, backend), *(session.aincrement("n") for _ in range(3)), tool()
    )
    await session.afinish(commit=True)
    assert session.fault is None
    found = stored(session)
    assert (found["_auth_user_id"], found["n"], found["x"]) == (str(user.pk), 3, 5)
    assert dict(opened(session).context("c")) == {"y": 6}
    assert live() == 1


async def test_a_task_that_is_cancelled_while_it_waits_is_passed_over() -> None:
    session = await opened_in_loop(made().session_key)
    session["m"] = 0
    first = await begun(session.aincrement("m"))
    given_up = await begun(session.aincrement("m"))
    third = await begun(session.aincrement("m"))
    given_up.cancel()
    assert await first == 1
    assert await third == 2
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await session.aincrement("m") == 3


async def test_a_task_that_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    session = await opened_in_loop(made().session_key)
    first, second, third = [await begun(session.aincrement("n")) for _ in range(3)]
    assert await first == 1
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await third == 2


async def test_a_task_that_fails_holds_up_nobody() -> None:
    session = await opened_in_loop(made(text="a").session_key)
    failing = await begun(session.aincrement("text"))
    next_one = await begun(session.aincrement("n"))
    with pytest.raises(TypeError, match="no integer"):
        await failing
    assert await next_one == 1


async def test_an_event_loop_is_not_held_up_by_a_sync_call_beside_a_task() -> None:
    session = await opened_in_loop(made().session_key)
    task = await begun(session.aincrement("n"))
    with pytest.raises(SynchronousOnlyOperation, match=r"await session\.asave"):
        session.save()
    assert await task == 1
    session["x"] = 1
    session.save()
    assert stored(session) == {"here": 1, "n": 1, "x": 1}


@pytest.fixture(params=["sync", "async"])
def receiver(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Hears of new sessions, as the metrics do; under ASGI Django calls it in a thread."""
    heard: list[str] = []

    def hear(session_id: str, **kwargs: Any) -> None:
        heard.append(session_id)

    async def ahear(session_id: str, **kwargs: Any) -> None:
        heard.append(session_id)

    receiver = hear if request.param == "sync" else ahear
    session_created.connect(receiver)
    yield heard
    session_created.disconnect(receiver)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("method", ["save", "increment"])
async def test_a_task_and_sync_code_in_a_thread_do_not_wait_for_each_other(
    method: str, new: bool, receiver: list[str]
) -> None:
    key = None if new else (await sync_to_async(made)()).session_key
    session = SessionStore(transport="header") if new else await opened_in_loop(key)
    session["x"] = 1
    args = ["n"] * (method == "increment")

    def in_thread() -> None:
        getattr(session, method)(*args)

    both = asyncio.gather(
        getattr(session, f"a{method}")(*args), sync_to_async(in_thread)(), session.asave()
    )
    await asyncio.wait_for(both, 20)
    assert await sync_to_async(stored)(session) == {
        **({} if new else {"here": 1}),
        **({"n": 2} if method == "increment" else {}),
        "x": 1,
    }
    assert receiver == [session.session_key.id]  # type: ignore[union-attr]


async def test_who_hears_of_a_new_session_may_use_it() -> None:
    session = SessionStore(transport="header")
    left: list[asyncio.Task[int]] = []

    async def hear(**kwargs: Any) -> None:
        session["heard"] = True
        await session.asave()
        left.append(asyncio.ensure_future(session.aincrement("n")))

    session_created.connect(hear)
    try:
        session["n"] = 10
        await session.asave()
    finally:
        session_created.disconnect(hear)
    totals = await asyncio.gather(*left, session.aincrement("n"), session.aincrement("n"))
    assert totals == [11, 12, 13]
    assert stored(session) == {"n": 13, "heard": True}


async def test_a_session_that_was_made_is_told_of_even_if_what_follows_fails(
    receiver: list[str], settings: Any
) -> None:
    settings.HEADER_SESSIONS_MAX_PER_USER = "many"  # which it was not checked for
    session = SessionStore(transport="header")
    session["_auth_user_id"] = "7"
    with pytest.raises(TypeError):
        await session.asave()
    assert receiver == [session.session_key.id]  # type: ignore[union-attr]


async def test_the_lock_is_given_back_by_the_last_commit_and_not_by_one_that_waited_before_it() -> (
    None
):
    key = made(x=0).session_key

    async def request() -> None:
        session = await opened_in_loop(key)
        await session.alock()
        x = session["x"]
        left = [asyncio.ensure_future(session.aincrement("n")) for _ in range(2)]
        await asyncio.sleep(0)
        session["x"] = x + 1
        await session.afinish(commit=True)
        await asyncio.gather(*left)

    await asyncio.gather(*(request() for _ in range(10)))
    found = stored(await opened_in_loop(key))
    assert (found["x"], found["n"]) == (10, 20)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("early", [True, False])
async def test_a_block_beside_a_task_that_stores_forgets_nothing_of_either(
    new: bool, early: bool
) -> None:
    session = SessionStore(transport="header") if new else await opened_in_loop(made().session_key)
    session["x"] = 1
    task = await begun(session.asave())
    session["x"], session["y"] = 2, 2
    with session.readonly():
        if not early:
            await task
    await task
    assert (session["x"], session["y"]) == (2, 2)
    await session.asave()
    found = stored(session)
    assert (found["x"], found["y"]) == (2, 2)


async def test_what_was_sent_is_not_sent_again_after_a_block_beside_it() -> None:
    first = made()
    session = await opened_in_loop(first.session_key)
    session["x"] = 1
    task = await begun(session.asave())
    with session.readonly():
        pass
    await task
    first["x"] = 99
    first.save()
    await session.asave()
    assert stored(session)["x"] == 99


async def test_what_is_assigned_beside_a_promotion_stays() -> None:
    session = await opened_in_loop(made(gone=1).session_key)
    context = await session.acontext("c")
    context["x"], context["z"] = 1, 1
    session["z"] = 7
    task = await begun(context.apromote())
    session["x"] = 5
    await task
    assert (session["x"], session["z"]) == (5, 1)
    await session.asave()
    assert (stored(session)["x"], stored(session)["z"]) == (5, 1)


async def test_a_context_that_is_read_anew_beside_its_commit_keeps_what_was_assigned() -> None:
    session = await opened_in_loop(made().session_key)
    context = await session.acontext("c")
    context["x"] = 1
    task = await begun(context.asave())
    context["x"] = 2
    await session.alock()
    await task
    await session.afinish(commit=True)
    assert dict(opened(session).context("c")) == {"x": 2}


async def test_tasks_that_open_a_session_first_open_it_once() -> None:
    session = SessionStore(made().session_key, transport="header")
    await asyncio.gather(session.aset("a", 1), session.aset("b", 2), session.asave())
    await session.asave()
    assert stored(session) == {"here": 1, "a": 1, "b": 2}


async def test_a_request_does_not_supersede_itself() -> None:
    session = await opened_in_loop(made().session_key)

    async def block() -> None:
        async with session.serialized():
            session["x"] = 1

    await asyncio.gather(session.acycle_key(), block(), session.aload(), session.acontext("c"))
    assert session.fault is None
    assert stored(session)["x"] == 1


def test_fields_may_be_assigned_while_others_go_through_them() -> None:
    session = made()
    for name in session.keys():  # noqa: SIM118  a view, as Django has it
        session[f"{name} and more"] = 1
    assert len(session.keys()) == 2


@contextmanager
def held_up(valkey: Valkey) -> Iterator[Callable[[int], None]]:
    """Until its end the server lets writes wait; gives what waits until so many do."""

    def until(count: int) -> None:
        clients = valkey.client.client_list
        valkey.wait_until(lambda: sum("b" in one["flags"] for one in clients()) >= count)

    valkey.client.client_pause(30_000, all=False)
    try:
        yield until
    finally:
        valkey.client.client_unpause()


@pytest.mark.parametrize("new", [True, False])
def test_threads_lose_nothing_either(
    new: bool, valkey: Valkey, redis_cache: dict[str, Any], settings: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    session = SessionStore(transport="header") if new else made()
    session["x"], session["m"] = 1, 10
    totals: list[int] = []

    def raise_it() -> None:
        totals.append(session.increment("m"))

    threads = [threading.Thread(target=raise_it) for _ in range(3)]
    with held_up(valkey) as until:
        for thread in threads:
            thread.start()
        until(1)
        session["x"] = 2
    for thread in threads:
        thread.join()
    session.save()
    found = stored(session)
    assert (sorted(totals), found["x"], found["m"]) == ([11, 12, 13], 2, 13)
    assert live() == 1


def test_a_thread_that_would_wait_without_end_is_told(
    valkey: Valkey, redis_cache: dict[str, Any], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHES = {"default": redis_cache}
    monkeypatch.setattr(engine, "LONGEST_TURN", 0.05)
    session = made()
    session["x"] = 1
    other = threading.Thread(target=session.increment, args=["n"])
    with held_up(valkey) as until:
        other.start()
        until(1)
        with pytest.raises(RuntimeError, match="this very thread"):
            session.save()
    other.join()
    session.save()
    assert stored(session) == {"here": 1, "n": 1, "x": 1}
