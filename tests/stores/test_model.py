"""A store against a model of it: whatever is done in whatever order, both agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from django.core.cache import caches
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from time_machine import TimeMachineFixture

from django_header_sessions.exceptions import SessionEnded, SessionSuperseded
from django_header_sessions.fields import Changes
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores.base import KINDS, Expiry, Kind, Terms

from ..processes import Valkey
from .bench import LocMemBench, RedisBench, open_store
from .contract import GRAIN, HOUR, Bench, Verbs
from .test_locmem import locmem

T = TypeVar("T")

FOREVER = Terms(1000 * HOUR, None)

names = st.text(max_size=3)
values = st.binary(max_size=70) | st.integers(-3, 3).map(lambda number: b"%d" % number)
data = st.dictionaries(names, values, max_size=4)
users = st.sampled_from([None, "1", "12", "1\x00", "é"])
transports = st.sampled_from(["header", "cookie"])


@dataclass
class Modelled:
    """What a session should be."""

    keys: list[SessionKey]
    """The newest last."""
    transport: str
    user: str | None
    fields: dict[str, bytes]
    ended: bool = False

    @property
    def kind(self) -> Kind:
        return Kind(self.transport, self.user is not None)


@dataclass
class Model:
    sessions: dict[str, Modelled] = field(default_factory=dict)

    def live(self) -> dict[str, Modelled]:
        return {id_: session for id_, session in self.sessions.items() if not session.ended}

    def expects(self, key: SessionKey, transport: str) -> type[Exception] | None:
        """What a commit with this key has to raise."""
        session = self.sessions.get(key.id)
        if session is None or session.ended or session.transport != transport:
            return SessionEnded
        if key == session.keys[-1]:
            return None
        return SessionSuperseded if key in session.keys[-5:] else SessionEnded


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to a model of it."""

    verbs: Verbs
    do: Callable[[Coroutine[Any, Any, Any]], Any]
    keys: Bundle[SessionKey] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    @initialize(target=keys)
    def foreign(self) -> SessionKey:
        """A well-formed key that was never issued."""
        return make()

    @rule(target=keys, transport=transports, user=users, fields=data)
    def create(self, transport: str, user: str | None, fields: dict[str, bytes]) -> SessionKey:
        key: SessionKey = self.do(self.verbs.create(fields, transport, user, terms=FOREVER))
        assert key.id not in self.model.sessions
        self.model.sessions[key.id] = Modelled([key], transport, user, fields)
        return key

    @rule(target=keys, key=keys)
    def guess(self, key: SessionKey) -> SessionKey:
        """A wrong secret for an id that may be right."""
        return make(key.id)

    @rule(key=keys, transport=transports)
    def open(self, key: SessionKey, transport: str) -> None:
        expected = self.model.expects(key, transport)
        if expected is SessionSuperseded:
            with pytest.raises(SessionSuperseded):
                self.do(self.verbs.open(key, transport, FOREVER))
            return
        opened = self.do(self.verbs.open(key, transport, FOREVER))
        if expected is SessionEnded:
            assert opened is None
            return
        session = self.model.sessions[key.id]
        assert opened.fields == session.fields
        assert (opened.session.id, opened.session.user) == (key.id, session.user)

    @rule(
        key=keys,
        transport=transports,
        clear=st.booleans(),
        changed=data,
        deleted=st.sets(names, max_size=3),
        added=st.none() | st.tuples(names, st.integers(-2, 2) | st.just(2**63 - 1)),
    )
    def commit(
        self,
        key: SessionKey,
        transport: str,
        clear: bool,
        changed: dict[str, bytes],
        deleted: set[str],
        added: tuple[str, int] | None,
    ) -> None:
        if added and (added[0] in changed or added[0] in deleted):
            added = None
        changes = Changes(clear, changed, sorted(deleted), added)
        expected = self.model.expects(key, transport)
        after = None
        if expected is None:
            session = self.model.sessions[key.id]
            try:
                after = changes.applied_to(session.fields)
            except (TypeError, OverflowError) as error:
                expected = type(error)
        if expected is not None:
            with pytest.raises(expected):
                self.do(self.verbs.commit(key, changes, transport, FOREVER))
            return
        committed = self.do(self.verbs.commit(key, changes, transport, FOREVER))
        assert after is not None
        session.fields = after
        assert committed.total == (int(after[added[0]]) if added else None)

    @rule(target=keys, key=keys, transport=transports, signed=st.booleans(), user=users)
    def rotate(self, key: SessionKey, transport: str, signed: bool, user: str | None) -> Any:
        new = make(key.id)
        what: dict[str, Any] = {"rotate_to": new}
        if signed:
            what |= {"signed": True, "user": user}
        expected = self.model.expects(key, transport)
        if expected is not None:
            with pytest.raises(expected):
                self.do(self.verbs.commit(key, None, transport, FOREVER, **what))
            return multiple()
        self.do(self.verbs.commit(key, None, transport, FOREVER, **what))
        session = self.model.sessions[key.id]
        session.keys.append(new)
        if signed:
            session.user = user
        return new

    @rule(key=keys, transport=transports, user=users, hours=st.integers(900, 1100))
    def sign_in_or_out(self, key: SessionKey, transport: str, user: str | None, hours: int) -> None:
        what: dict[str, Any] = {"signed": True, "user": user}
        if hours % 3:
            what["expiry"] = Expiry("idle" if hours % 3 == 1 else "deadline", hours * HOUR)
        expected = self.model.expects(key, transport)
        if expected is not None:
            with pytest.raises(expected):
                self.do(self.verbs.commit(key, None, transport, FOREVER, **what))
            return
        self.do(self.verbs.commit(key, None, transport, FOREVER, **what))
        self.model.sessions[key.id].user = user

    @rule(key=keys)
    def end(self, key: SessionKey) -> None:
        session = self.model.sessions.get(key.id)
        was_there = session is not None and not session.ended
        assert self.do(self.verbs.end(key.id)) is was_there
        if session is not None:
            session.ended = True

    @rule(grains=st.integers(1, 3))
    def wait(self, grains: int) -> None:
        self.verbs.bench.forward(grains * GRAIN)

    @rule()
    def sweep(self) -> None:
        assert self.do(self.verbs.sweep()) == 0

    @rule(key=keys)
    def look(self, key: SessionKey) -> None:
        session = self.model.live().get(key.id)
        looked = self.do(self.verbs.get(key.id))
        assert (looked and looked.fields) == (session.fields if session else None)
        exists = self.do(self.verbs.exists(key))
        assert exists is (session is not None and session.keys[-1] == key)

    @rule(
        limit=st.integers(1, 12),
        kinds=st.sets(st.sampled_from(KINDS)),
        level=st.booleans(),
        backward=st.booleans(),
    )
    def walk(self, limit: int, kinds: set[Kind], level: bool, backward: bool) -> None:
        if level:
            self.verbs.bench.level()
        expected = [
            id_ for id_, session in self.model.live().items() if not kinds or session.kind in kinds
        ]
        walked = self.do(self.verbs.walk(limit, kinds, backward=backward))
        assert sorted(walked) == sorted(expected)

    @rule(user=users.filter(bool))
    def of_user(self, user: str) -> None:
        expected = [id_ for id_, session in self.model.live().items() if session.user == user]
        sessions = self.do(self.verbs.of_user(user))
        assert sorted(session.id for session in sessions) == sorted(expected)

    @invariant()
    def counts_agree(self) -> None:
        expected = dict.fromkeys(KINDS, 0)
        for session in self.model.live().values():
            expected[session.kind] += 1
        assert self.do(self.verbs.count()) == expected


@pytest.fixture(params=["locmem", "redis", "redis in 4 buckets"])
def fresh(request: pytest.FixtureRequest, settings: Any) -> Callable[[], Bench]:
    """Makes an empty store, again and again."""
    if request.param == "locmem":
        time_machine: TimeMachineFixture = request.getfixturevalue("time_machine")
        settings.CACHES = {"default": locmem("model", OPTIONS={"MAX_ENTRIES": 10_000})}

        def fresh_locmem() -> Bench:
            store = open_store()
            for session in store.page(10_000).sessions:
                store.end(session.id)
            caches["default"].clear()
            return LocMemBench(store, time_machine)

        return fresh_locmem

    valkey: Valkey = request.getfixturevalue("valkey")
    settings.CACHES = {"default": request.getfixturevalue("redis_cache")}
    if request.param == "redis in 4 buckets":
        settings.HEADER_SESSIONS_BUCKETS = 4

    def fresh_redis() -> Bench:
        valkey.client.flushall()
        return RedisBench(open_store(), valkey.client)

    return fresh_redis


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_store_agrees_with_its_model(mode: str, fresh: Callable[[], Bench]) -> None:
    with asyncio.Runner() as runner:

        class Machine(StoreMachine):
            def __init__(self) -> None:
                super().__init__()
                self.verbs = Verbs(fresh(), mode)
                self.do = runner.run

        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=25,
                stateful_step_count=40,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
