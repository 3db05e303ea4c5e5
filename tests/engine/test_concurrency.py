"""Requests at once on one session: what was changed in different fields is all there, and what
was changed in the same field is as the last commit left it, whole."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionEnded, SessionSuperseded
from django_header_sessions.resolvers import Transport
from django_header_sessions.stores.base import Store

from .face import Face, Half, Sessions

START: dict[str, Any] = {"a": 0, "n": 1, "cart": [0]}
STEPS = [
    *(("assign", "a"), ("assign", "n"), ("assign", "cart"), ("assign", "new")),
    *(("delete", "a"), ("delete", "cart"), ("clear", ""), ("change", "cart")),
    *(("increment", "n"), ("increment", "new")),
]
Step = tuple[str, str]


class Writer:
    """What one request is promised, in few words and without a store: the model of a session.

    ``shared`` is what is stored. A request knows what was stored when it opened the session, and
    what it stored itself since.
    """

    def __init__(self, shared: dict[str, Any]) -> None:
        self.shared = shared
        self.known = deepcopy(shared)
        self.here = deepcopy(shared)
        self.touched: set[str] = set()
        self.cleared = False

    def assign(self, name: str, value: Any) -> None:
        self.here[name] = value
        self.touched.add(name)

    def delete(self, name: str) -> None:
        if self.here.pop(name, None) is not None:
            self.touched.add(name)

    def clear(self) -> None:
        self.here, self.known, self.touched, self.cleared = {}, {}, set(), True

    def change(self, name: str, value: Any) -> None:
        if isinstance(self.here.get(name), list):
            self.here[name].append(value)

    def increment(self, name: str, by: int) -> None:
        if not self.cleared and name not in self.touched:
            # On what is stored, whatever this request knows of it.
            self.here[name] = self.shared[name] = self.known[name] = self.shared.get(name, 0) + by
            return
        self.here[name] = self.here.get(name, 0) + by
        self.touched.add(name)
        self.store({name} if not self.cleared else set(self.here))

    def save(self) -> None:
        in_place = {name for name in self.here if self.here[name] != self.known.get(name)}
        self.store(self.touched | in_place)

    def store(self, names: set[str]) -> None:
        if self.cleared:
            self.shared.clear()
        for name in names:
            for stored in (self.shared, self.known):
                stored.pop(name, None)
                if name in self.here:
                    stored[name] = deepcopy(self.here[name])
        self.touched -= names
        self.cleared = False


async def do(face: Face, step: Step, value: int) -> None:
    """The same to a session."""
    kind, name = step
    match kind:
        case "assign":
            await face.set(name, [value] if name == "cart" else value)
        case "delete":
            await face.pop(name, None)
        case "clear":
            face.session.clear()
        case "change":
            if isinstance(cart := await face.get(name), list):
                cart.append(value)
        case "increment":
            await face.increment(name, value)
        case _:
            await face.save()


def model(writer: Writer, step: Step, value: int) -> None:
    kind, name = step
    match kind:
        case "assign":
            writer.assign(name, [value] if name == "cart" else value)
        case "delete":
            writer.delete(name)
        case "change" | "increment":
            getattr(writer, kind)(name, value)
        case _:
            getattr(writer, kind)()


def interleavings(one: list[Step], two: list[Step]) -> Iterator[list[tuple[int, Step]]]:
    """All orders in which two programs may run."""
    if not one or not two:
        yield [(0, step) for step in one] + [(1, step) for step in two]
        return
    for rest in interleavings(one[1:], two):
        yield [(0, one[0]), *rest]
    for rest in interleavings(one, two[1:]):
        yield [(1, two[0]), *rest]


async def run(sessions: Sessions, order: list[tuple[int, Step]]) -> None:
    """Run two requests in this order, and compare what is stored and what each of them sees."""
    shared = deepcopy(START)
    first = await sessions.saved(**deepcopy(START))
    faces = [await sessions.opened(first.key) for _ in range(2)]
    writers = [Writer(shared) for _ in range(2)]
    for at, (who, step) in enumerate(order):
        await do(faces[who], step, 10 + at)
        model(writers[who], step, 10 + at)
    assert await sessions.stored(first) == shared, order
    for face, writer in zip(faces, writers, strict=True):
        assert dict(await face.items()) == writer.here, order


@pytest.mark.parametrize("second", STEPS, ids=" ".join)
async def test_two_requests_in_every_order_store_what_they_were_promised(
    half: Half, second: Step
) -> None:
    # On LocMem, as what is sent does not depend on the store.
    save = ("save", "")
    for first in STEPS:
        orders = list(interleavings([first, save], [second, save]))
        # Of the async half, one in which each has done something before the other saves.
        for order in orders if half == "sync" else orders[1:2]:
            await run(Sessions("header", half), order)


@given(
    order=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([*STEPS, ("save", ""), ("save", "")])),
        min_size=3,
        max_size=12,
    )
)
@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_longer_requests_store_what_they_were_promised(
    any_store: Store, transport: Transport, order: list[tuple[int, Step]]
) -> None:
    asyncio.run(run(Sessions(transport, "sync"), order))


WRITES: list[tuple[Step, dict[str, Any]]] = [
    (("assign", "a"), {"a": 7}),
    (("delete", "a"), {"a": None}),
    (("change", "cart"), {"cart": [0, 7]}),
    (("increment", "n"), {"n": 8}),
    (("assign", "new"), {"new": 7}),
]


@pytest.mark.parametrize("order", [[0, 1, 0, 1], [0, 1, 1, 0]])
async def test_nothing_is_lost_of_what_was_done_to_different_fields(
    sessions: Sessions, order: list[int]
) -> None:
    save = ("save", "")
    for (one, left), (two, right) in combinations(WRITES, 2):
        if left.keys() == right.keys():
            continue
        first = await sessions.saved(**deepcopy(START))
        faces = [await sessions.opened(first.key) for _ in range(2)]
        programs = [[one, save], [two, save]]
        for who in order:
            await do(faces[who], programs[who].pop(0), 7)
        both = {**START, **left, **right}.items()
        expected = {name: value for name, value in both if value is not None}
        assert await sessions.stored(first) == expected, (one, two)


async def test_the_last_commit_of_a_field_wins_whole(sessions: Sessions) -> None:
    first = await sessions.saved(cart={"eggs": 1, "milk": 1})
    one, two = [await sessions.opened(first.key) for _ in range(2)]
    (await one.get("cart"))["eggs"] = 2
    (await two.get("cart"))["milk"] = 2
    await two.save()
    await one.save()
    assert await sessions.stored(first) == {"cart": {"eggs": 2, "milk": 1}}


def together(jobs: list[Any]) -> list[Any]:
    """What each job answers or raises that starts when all have come to the barrier."""
    answers: list[Any] = [None] * len(jobs)
    barrier = threading.Barrier(len(jobs))

    def start(at: int) -> None:
        barrier.wait()
        try:
            answers[at] = jobs[at]()
        except Exception as error:
            answers[at] = error

    threads = [threading.Thread(target=start, args=(at,)) for at in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def opened(key: str | None, transport: Transport) -> SessionStore:
    session = SessionStore(key, transport=transport)
    assert session.open()
    return session


def test_of_many_requests_at_once_none_loses_what_it_wrote(
    listing_store: Store, transport: Transport
) -> None:
    first = SessionStore(transport=transport)
    first["carts"] = {}
    first.save()
    for round_ in range(3):
        requests = [opened(first.session_key, transport) for _ in range(16)]
        for at, session in enumerate(requests):
            session[f"{round_} {at}"] = at
        assert together([session.save for session in requests]) == [None] * 16
    found = dict(opened(first.session_key, transport).items())
    assert found == {"carts": {}} | {f"{r} {at}": at for r in range(3) for at in range(16)}


def test_of_many_rotations_at_once_one_wins_and_the_others_are_told(
    listing_store: Store, transport: Transport
) -> None:
    first = SessionStore(transport=transport)
    first["a"] = 1
    first.save()
    for _ in range(5):
        requests = [opened(first.session_key, transport) for _ in range(6)]
        answers = together([session.cycle_key for session in requests])
        [winner] = [at for at, answer in enumerate(answers) if answer is None]
        assert sum(isinstance(answer, SessionSuperseded) for answer in answers) == 5
        assert not first.exists(first.session_key)
        first = requests[winner]
        assert opened(first.session_key, transport)["a"] == 1


def test_an_end_among_writes_is_the_end(listing_store: Store, transport: Transport) -> None:
    for _ in range(10):
        first = SessionStore(transport=transport)
        first.save()
        key = first.session_key
        assert key is not None
        requests = [opened(key, transport) for _ in range(6)]
        for session in requests[1:]:
            session["a"] = 1
        answers = together(
            [
                requests[0].flush,
                *(session.save for session in requests[1:4]),
                requests[4].cycle_key,
                lambda session=requests[5]: session.increment("n"),
            ]
        )
        assert answers[0] is None
        for answer in answers[1:]:
            assert answer in (None, 1) or isinstance(answer, SessionEnded | SessionSuperseded)
        assert listing_store.get(key.id) is None
        assert not first.exists(requests[4].session_key)


async def test_of_many_tasks_at_once_none_loses_what_it_wrote(
    listing_store: Store, transport: Transport
) -> None:
    sessions = Sessions(transport, "async")
    first = await sessions.saved()
    faces = await asyncio.gather(*(sessions.opened(first.key) for _ in range(20)))
    for at, face in enumerate(faces):
        await face.set(f"field {at}", at)
    await asyncio.gather(*(face.save() for face in faces), *(face.increment("n") for face in faces))
    expected = {f"field {at}": at for at in range(20)} | {"n": 20}
    assert await sessions.stored(first) == expected
