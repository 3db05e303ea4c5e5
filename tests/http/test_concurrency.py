"""Many requests on one session at once, over real HTTP: nothing is lost, nothing is mixed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, cycle, islice
from typing import TypeVar
from uuid import uuid4

import pytest

from tests.processes import Server, Valkey

from .site import Action, Answer, Site

T = TypeVar("T")

WRITERS = 50
ROUNDS = 3


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """What these answer, a thread each, let go at the same moment."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        start.wait(20)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


@pytest.fixture(params=["two processes on Redis", "one process on LocMem"])
def sites(request: pytest.FixtureRequest) -> list[Site]:
    names = ["locmem_gunicorn"]
    if request.param == "two processes on Redis":
        names = ["gunicorn", "second_gunicorn"]
    return [Site(request.getfixturevalue(name)) for name in names]


def test_fifty_writers_of_one_session_lose_nothing(sites: list[Site]) -> None:
    key = sites[0].start(["set", "counter", 0], ["set", "mine", []])

    def write(number: int) -> list[int]:
        one, other = sites[number % len(sites)], sites[number % len(sites) - 1]
        totals = []
        for turn in range(ROUNDS):
            assert one.do(["set", f"field {number}", turn], key=key).status == 200
            totals += other.do(["increment", "counter"], key=key).did
        return totals

    totals = at_once([partial(write, number) for number in range(WRITERS)])
    # Every total was told to one caller, and to one only: no two saw the same counter.
    assert sorted(chain(*totals)) == list(range(1, WRITERS * ROUNDS + 1))
    expected = {f"field {number}": ROUNDS - 1 for number in range(WRITERS)}
    for site in sites:
        assert site.fields(key) == {"counter": WRITERS * ROUNDS, "mine": [], **expected}


def test_writers_that_are_within_their_views_at_once_lose_nothing(sites: list[Site]) -> None:
    """Both have read the session before either writes to it."""
    key, both_read = sites[0].start(["set", "n", 0]), str(uuid4())

    def write(name: str) -> Answer:
        return sites[0].do(["fields"], ["meet", both_read], ["set", name, 1], key=key)

    for answer in at_once([partial(write, "mine"), partial(write, "yours")]):
        assert answer.did[0] == {"n": 0}, "neither saw the other's"
    assert sites[0].fields(key) == {"n": 0, "mine": 1, "yours": 1}


def test_a_search_that_assigns_the_same_page_again_while_another_changes_it_stands(
    sites: list[Site],
) -> None:
    site = sites[0]
    key, was_read, was_changed = site.start(["set", "page", 1]), str(uuid4()), str(uuid4())

    def search() -> Answer:
        waits: list[Action] = [["meet", was_read], ["meet", was_changed]]
        return site.do(["get", "page"], *waits, ["set", "page", 1], key=key)

    def go_on() -> Answer:
        changes: list[Action] = [["set", "page", 2], ["save"]]
        return site.do(["meet", was_read], *changes, ["meet", was_changed], key=key)

    for answer in at_once([search, go_on]):
        assert answer.status == 200
    assert site.fields(key) == {"page": 1}


def test_a_field_that_was_only_read_is_not_written_back(sites: list[Site]) -> None:
    site = sites[0]
    key = site.start(["set", "page", 1], ["set", "other", [1]])
    was_read, was_changed = str(uuid4()), str(uuid4())

    def read() -> Answer:
        waits: list[Action] = [["meet", was_read], ["meet", was_changed]]
        return site.do(["fields"], *waits, ["append", "other", 2], key=key)

    def write() -> Answer:
        changes: list[Action] = [["set", "page", 2], ["save"]]
        return site.do(["meet", was_read], *changes, ["meet", was_changed], key=key)

    at_once([read, write])
    assert site.fields(key) == {"page": 2, "other": [1, 2]}


AUTH = ["_auth_user_id", "_auth_user_backend", "_auth_user_hash"]


def signed_in(site: Site) -> dict[str, dict[str, str]]:
    """What Django keeps in the sessions of ann and bob."""
    return {name: site.fields(site.do(["login", name]).key) for name in ("ann", "bob")}


@pytest.mark.parametrize("by_hand", [False, True], ids=["login", "by hand"])
def test_two_sign_ins_on_one_anonymous_session_leave_one_users(
    sites: list[Site], by_hand: bool
) -> None:
    """By hand, without ``cycle_key``, the commits alone must see to it."""
    site = sites[0]
    users = signed_in(site)
    for _ in range(5):
        key, both_read = site.start(["set", "basket", 1]), str(uuid4())

        def sign_in(name: str, key: str = key, both_read: str = both_read) -> Answer:
            actions: list[Action] = [["meet", both_read], ["login", name]]
            if by_hand:
                fields: list[Action] = [["set", field, users[name][field]] for field in AUTH]
                actions = [*fields, ["meet", both_read]]
            return site.do(["fields"], *actions, key=key)

        anns, bobs = at_once([partial(sign_in, "ann"), partial(sign_in, "bob")])
        assert {anns.status, bobs.status} == {200, 409}, "one wins, the other is told"
        winner, name = (anns, "ann") if anns.status == 200 else (bobs, "bob")
        assert site.fields(winner.key) == {"basket": 1, **users[name]}
        assert site.do(["user"], key=winner.key).did == [name]


def test_a_sign_in_as_another_that_races_one_that_renews_leaves_no_mixture(
    sites: list[Site],
) -> None:
    site = sites[0]
    users = signed_in(site)
    renewal: list[Action] = [["set", field, users["ann"][field]] for field in AUTH]
    for _ in range(5):
        key = site.do(["login", "ann"]).key
        first: list[Action] = [["fields"], ["meet", str(uuid4())]]
        anns, bobs = at_once(
            [
                partial(site.do, *first, *renewal, key=key),
                partial(site.do, *first, ["login", "bob"], key=key),
            ]
        )
        assert bobs.status == 200
        assert site.fields(bobs.key) == users["bob"]
        assert anns.status in (200, 401), "before it was ended, or after"
        assert site.do(key=key).status == 401, "and it does not come back"


def test_of_many_rotations_at_once_one_wins_and_the_others_are_told(sites: list[Site]) -> None:
    for _ in range(5):
        key = sites[0].start(["set", "n", 1])
        answers = at_once([partial(site.do, ["cycle_key"], key=key) for site in many(sites)])
        assert sorted(answer.status for answer in answers) == [200] + [409] * 7
        (winner,) = [answer for answer in answers if answer.status == 200]
        assert sites[-1].fields(winner.key) == {"n": 1}


def test_a_session_that_ends_amid_writers_stays_ended(sites: list[Site], valkey: Valkey) -> None:
    for _ in range(5):
        key = sites[0].start(["set", "n", 1])
        writes: list[Action] = [["increment", "n"], ["set", "m", 1]]
        calls = [partial(site.do, *writes, key=key) for site in many(sites)]
        answers = at_once([*calls, partial(sites[0].do, ["flush"], key=key)])
        assert {answer.status for answer in answers} <= {200, 401}
        assert sites[-1].do(key=key).status == 401
        assert not valkey.client.keys(f"*{key[:15]}*")


def many(sites: list[Site]) -> list[Site]:
    """Eight of them, by turns."""
    return [*islice(cycle(sites), 8)]


def test_a_key_announced_by_one_process_opens_on_the_other(
    gunicorn: Server, second_gunicorn: Server
) -> None:
    one, other = Site(gunicorn), Site(second_gunicorn)
    key = one.start(["set", "n", 1])
    new = other.do(["item", "n"], ["cycle_key"], key=key).key
    assert one.fields(new) == {"n": 1}
    assert one.do(key=key).status == 409
