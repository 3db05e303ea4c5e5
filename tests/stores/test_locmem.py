"""The store of a LocMemCache: the contract, and what a cache that throws things out does to it."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import caches
from time_machine import TimeMachineFixture

from django_header_sessions.fields import Changes
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Commit, ContextChange, Draft, Memory

from .bench import LocMemBench, open_store
from .contract import (
    TERMS,
    ListContract,
    ListRaceContract,
    RaceContract,
    StoreContract,
    Verbs,
)
from .sharing import ContextContract, LockContract


def locmem(location: str, **more: Any) -> dict[str, Any]:
    backend = "django.core.cache.backends.locmem.LocMemCache"
    return {"BACKEND": backend, "LOCATION": location} | more


class TestLocMem(
    StoreContract, ListContract, RaceContract, ListRaceContract, LockContract, ContextContract
):
    @pytest.fixture
    def bench(
        self, request: pytest.FixtureRequest, settings: Any, time_machine: TimeMachineFixture
    ) -> LocMemBench:
        # What is remembered of a location is remembered for as long as the process lives.
        options = {"MAX_ENTRIES": 100_000}
        settings.CACHES = {"default": locmem(request.node.nodeid, OPTIONS=options)}
        return LocMemBench(open_store(), time_machine)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_what_was_culled_is_never_shown(
    mode: str, settings: Any, time_machine: TimeMachineFixture
) -> None:
    settings.CACHES = {"default": locmem(f"culling {mode}", OPTIONS={"MAX_ENTRIES": 30})}
    verbs = Verbs(LocMemBench(open_store(), time_machine), mode)
    keys = [await verbs.create({"a": b"1"}, user=f"{n % 4}") for n in range(100)]
    there = {key.id for key in keys if await verbs.exists(key)}
    assert 0 < len(there) <= 30
    # Before anybody came upon what is gone.
    assert await verbs.total() == len(there)
    assert {session.id for session in await verbs.of_user("1")} <= there
    assert set(await verbs.walk(7)) == there
    assert await verbs.total() == len(there)
    for n in range(4):
        await verbs.of_user(f"{n}")
    # Nor is anything remembered of it.
    dump = verbs.bench.dump()
    for key in keys:
        assert (key.id.encode() in dump) is (key.id in there)
        assert await verbs.end(key.id) is (key.id in there)
    caches["default"].clear()


def test_contexts_of_a_session_that_expired_while_they_were_stored_take_no_room(
    settings: Any, time_machine: TimeMachineFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHES = {"default": locmem("stalled")}
    time_machine.move_to(2_000_000_000, tick=False)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    cache = caches["default"]
    put = cache.set

    def stalling(name: str, *args: Any) -> None:
        put(name, *args)
        if name == f"hs:c:{key.id}":
            time_machine.shift(86_400)
            assert store.sweep() == 1

    monkeypatch.setattr(cache, "set", stalling)
    made = ContextChange("tool", Changes(set={"n": b"1"}), idle=60_000)
    store.commit(key, "header", TERMS, Commit(contexts=[made], most=9))
    assert store.memory() == Memory(0)


def test_stores_are_one_a_location_and_prefix(settings: Any) -> None:
    settings.CACHES = {
        "default": locmem("one"),
        "same": locmem("one"),
        "other": locmem("two"),
        "prefixed": locmem("one", KEY_PREFIX="p"),
    }
    key, _ = get_store("default").create(Draft("header", {"a": b"1"}), TERMS)
    assert get_store("same").open(key, "header", TERMS)
    assert [session.id for session in get_store("same").page(10).sessions] == [key.id]
    for alias in ("other", "prefixed"):
        assert get_store(alias).open(key, "header", TERMS) is None
        assert get_store(alias).end(key.id) is False
        assert get_store(alias).page(10).sessions == []
    # A store that is made anew over the same cache lists what is in it.
    settings.CACHES = {"default": locmem("one")}
    assert [session.id for session in get_store("default").page(10).sessions] == [key.id]
    assert get_store("default").end(key.id)


def test_what_else_is_in_the_cache_is_no_session_and_stays(settings: Any) -> None:
    settings.CACHES = {"default": locmem("shared")}
    caches["default"].set("mine", {"a": 1})
    key, _ = get_store("default").create(Draft("header", {}), TERMS)
    assert len(get_store("default").page(10).sessions) == 1
    assert get_store("default").end(key.id)
    assert caches["default"].get("mine") == {"a": 1}
    caches["default"].clear()
