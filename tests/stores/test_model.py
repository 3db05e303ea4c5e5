"""A store against a model of it: whatever is done in whatever order, sessions expiring and servers
dying in between, both agree; and what the registry says of sessions is what really opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
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

from django_header_sessions import registry
from django_header_sessions.exceptions import SessionEnded, SessionSuperseded
from django_header_sessions.fields import Changes
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores.base import KINDS, Commit, Draft, Expiry, Kind, Terms, grain

from ..processes import Valkey
from .bench import LocMemBench, RedisBench, open_store
from .contract import HOUR, SECOND, Bench, Verbs
from .mortal import Cut, Job, MortalCache, MortalProcess

T = TypeVar("T")

# Time passes in steps of ten minutes. No session is over within a grain of such a moment, so that
# the seconds that a test takes change nothing.
STEP = 600 * SECOND
DEADLINE = STEP // 2
TERMS = Terms(HOUR // 2, 5 * HOUR + DEADLINE)

names = st.text(max_size=3)
values = st.binary(max_size=70) | st.integers(-3, 3).map(lambda number: b"%d" % number)
data = st.dictionaries(names, values, max_size=4)
users = st.sampled_from([None, "1", "12", "1\x00", "é"])
transports = st.sampled_from(["header", "cookie"])
expiries = st.sampled_from(
    [
        None,
        Expiry("default"),
        Expiry("idle", 2 * STEP),
        Expiry("idle", 9 * STEP),
        Expiry("deadline", STEP + DEADLINE),
        Expiry("deadline", 20 * STEP + DEADLINE),
    ]
)

drafts = st.builds(Draft, transports, data, users, expiries)
cuts = st.sampled_from(["before", "within", "after"])
# What takes one round trip is cut in it; some things take more, and LocMem asks more often.
soon = st.sampled_from([1, 1, 1, 2, 3])
later = st.integers(1, 4)


@dataclass
class Modelled:
    """What a session should be. Moments are milliseconds since the machine was started."""

    keys: list[SessionKey]
    """The newest last; none of a session whose server died before it told the key."""
    transport: str
    user: str | None
    fields: dict[str, bytes]
    created: int
    seen: int
    deadline: int | None
    own: Expiry = field(default_factory=lambda: Expiry("default"))
    own_deadline: int | None = None
    level: int | None = None
    """When it is over if it was levelled with all others, and not used since."""
    ended: bool = False

    @property
    def kind(self) -> Kind:
        return Kind(self.transport, self.user is not None)

    @property
    def idle(self) -> int:
        return self.own.ms if self.own.kind == "idle" else TERMS.idle

    @property
    def gone(self) -> int:
        if self.level is not None:
            return self.level
        gone = self.seen + self.idle + grain(self.idle)
        if self.own_deadline is not None:
            gone = self.own_deadline
        return gone if self.deadline is None else min(gone, self.deadline)

    def expiring(self, expiry: Expiry | None, now: int) -> Modelled:
        if expiry is None:
            return self
        deadline = now + expiry.ms if expiry.kind == "deadline" else None
        return replace(self, own=expiry, own_deadline=deadline)

    def signed(self, user: str | None, now: int) -> Modelled:
        deadline = self.deadline if user is None else now + (TERMS.absolute or 0)
        return replace(self, user=user, deadline=deadline)

    def written(self, now: int) -> Modelled:
        return replace(self, seen=now, level=None)


@dataclass
class Model:
    sessions: dict[str, Modelled] = field(default_factory=dict)
    now: int = 0

    def live(self) -> dict[str, Modelled]:
        return {
            id_: session
            for id_, session in self.sessions.items()
            if not session.ended and session.gone > self.now
        }

    def expects(self, key: SessionKey, transport: str) -> type[Exception] | None:
        """What a commit with this key has to raise."""
        session = self.live().get(key.id)
        if session is None or session.transport != transport or not session.keys:
            return SessionEnded
        if key == session.keys[-1]:
            return None
        return SessionSuperseded if key in session.keys[-5:] else SessionEnded

    def created(self, draft: Draft, keys: list[SessionKey]) -> Modelled:
        now = self.now
        made = Modelled(
            keys,
            draft.transport,
            draft.user,
            draft.fields,
            created=now,
            seen=now,
            deadline=now + (TERMS.absolute or 0),
        )
        return made.expiring(draft.expiry, now)

    def committed(self, session: Modelled, commit: Commit) -> Modelled:
        """What becomes of a session. Raises what the commit has to raise."""
        after = replace(session, fields=commit.changes.applied_to(session.fields))
        if commit.rotate_to is not None:
            after = replace(after, keys=[*session.keys, commit.rotate_to])
        if commit.signed:
            after = after.signed(commit.user, self.now)
        if commit.signed or commit.expiry is not None:
            after = after.expiring(commit.expiry, self.now).written(self.now)
        return after


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store and to a model of it."""

    verbs: Verbs
    do: Callable[[Coroutine[Any, Any, Any]], Any]
    dies: Callable[[Job], bool]
    """Let somebody else do a job, and die of it; whether they did, or were done before."""
    keys: Bundle[SessionKey] = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The registry, in the one of its two ways."""
        if self.verbs.mode == "sync":
            return getattr(registry, name)(*args, **kwargs)
        return self.do(getattr(registry, f"a{name}")(*args, **kwargs))

    @initialize(target=keys)
    def foreign(self) -> SessionKey:
        """A well-formed key that was never issued."""
        return make()

    @initialize(target=keys, drafts=st.lists(drafts, min_size=4, max_size=8))
    def begin(self, drafts: list[Draft]) -> Any:
        return self.create(drafts)

    @rule(target=keys, drafts=st.lists(drafts, min_size=1, max_size=4))
    def create(self, drafts: list[Draft]) -> Any:
        created = []
        for draft in drafts:
            key, _ = self.do(self.verbs.create_draft(draft, TERMS))
            assert key.id not in self.model.sessions
            self.model.sessions[key.id] = self.model.created(draft, [key])
            created.append(key)
        return multiple(*created)

    @rule(target=keys, key=keys)
    def guess(self, key: SessionKey) -> SessionKey:
        """A wrong secret for an id that may be right."""
        return make(key.id)

    @rule(key=keys, transport=transports)
    def open(self, key: SessionKey, transport: str) -> None:
        expected = self.model.expects(key, transport)
        if expected is SessionSuperseded:
            with pytest.raises(SessionSuperseded):
                self.do(self.verbs.open(key, transport, TERMS))
            return
        opened = self.do(self.verbs.open(key, transport, TERMS))
        if expected is SessionEnded:
            assert opened is None
            return
        session = self.model.sessions[key.id]
        assert opened.fields == session.fields
        assert (opened.session.id, opened.session.user) == (key.id, session.user)
        if self.model.now - session.seen >= grain(session.idle):
            self.model.sessions[key.id] = session.written(self.model.now)

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
        committed = self._commit(key, transport, Commit(changes))
        if committed is not None:
            fields = self.model.sessions[key.id].fields
            assert committed.total == (int(fields[added[0]]) if added else None)

    @rule(target=keys, key=keys, transport=transports, signed=st.booleans(), user=users)
    def rotate(self, key: SessionKey, transport: str, signed: bool, user: str | None) -> Any:
        new = make(key.id)
        commit = Commit(rotate_to=new, signed=signed, user=user if signed else None)
        return new if self._commit(key, transport, commit) else multiple()

    @rule(key=keys, transport=transports, user=users, expiry=expiries)
    def sign_in_or_out(
        self, key: SessionKey, transport: str, user: str | None, expiry: Expiry | None
    ) -> None:
        self._commit(key, transport, Commit(signed=True, user=user, expiry=expiry))

    @rule(key=keys, transport=transports, expiry=expiries)
    def expire_otherwise(self, key: SessionKey, transport: str, expiry: Expiry | None) -> None:
        self._commit(key, transport, Commit(expiry=expiry))

    def _commit(self, key: SessionKey, transport: str, commit: Commit) -> Any:
        """What a commit answers; None where it had to fail, and did."""
        expected, after = self.model.expects(key, transport), None
        if expected is None:
            try:
                after = self.model.committed(self.model.sessions[key.id], commit)
            except (TypeError, OverflowError) as error:
                expected = type(error)
        what = {name: getattr(commit, name) for name in ("signed", "user", "expiry", "rotate_to")}
        if after is None:
            assert expected is not None
            with pytest.raises(expected):
                self.do(self.verbs.commit(key, commit.changes, transport, TERMS, **what))
            return None
        committed = self.do(self.verbs.commit(key, commit.changes, transport, TERMS, **what))
        self.model.sessions[key.id] = after
        return committed

    # Ends.

    @rule(key=keys, by=st.sampled_from(["store", "registry"]))
    def end(self, key: SessionKey, by: str) -> None:
        was_there = key.id in self.model.live()
        if by == "store":
            assert self.do(self.verbs.end(key.id)) is was_there
        else:
            assert self.ask("end", key.id) is was_there
        self._ended(key.id)

    @rule(keys=st.lists(keys, max_size=5))
    def end_many(self, keys: list[SessionKey]) -> None:
        ids = [key.id for key in keys]
        assert set(self.ask("end_many", ids)) == self.model.live().keys() & set(ids)
        self._ended(*ids)

    @rule(user=users.filter(bool))
    def end_user(self, user: str) -> None:
        ids = self._of(user)
        assert {one.id for one in self.ask("end_user", user)} == ids
        self._ended(*ids)

    @rule(steps=st.integers(0, 12))
    def end_anonymous(self, steps: int) -> None:
        age = steps * STEP + DEADLINE
        ids = {
            id_
            for id_, session in self.model.live().items()
            if session.user is None and self.model.now - session.created > age
        }
        assert self.ask("end_anonymous", timedelta(milliseconds=age)) == len(ids)
        self._ended(*ids)

    def _ended(self, *ids: str) -> None:
        for session_id in ids:
            if session_id in self.model.sessions:
                self.model.sessions[session_id].ended = True

    def _of(self, user: str) -> set[str]:
        return {id_ for id_, session in self.model.live().items() if session.user == user}

    # Time.

    @rule(steps=st.integers(1, 4))
    def wait(self, steps: int) -> None:
        """Long enough for some to expire, and not for all."""
        self.verbs.bench.forward(steps * STEP)
        self.model.now += steps * STEP

    @rule()
    def expire(self) -> None:
        """Until the next session expires."""
        if live := self.model.live():
            first = min(session.gone for session in live.values()) - self.model.now
            self.wait(first // STEP + 1)

    @rule()
    def sweep(self) -> None:
        while self.do(self.verbs.sweep(7)):
            pass
        assert self.ask("sweep") == 0

    @rule()
    def level(self) -> None:
        """Let all sessions expire in the same millisecond."""
        self.sweep()
        self.verbs.bench.level()
        if isinstance(self.verbs.bench, RedisBench) and (live := self.model.live()):
            moment = min(session.gone for session in live.values())
            for session in live.values():
                session.level = moment

    # Deaths.

    @rule(draft=drafts, nth=soon, cut=cuts)
    def die_creating(self, draft: Draft, nth: int, cut: Cut) -> None:
        """The session may be there, and nobody has its key."""
        self.dies(Job("create", (draft, TERMS), nth, cut))
        listed = {one.id: one for one in self.ask("page", 1000).sessions}
        for session_id in listed.keys() - self.model.sessions.keys():
            self.model.sessions[session_id] = self.model.created(draft, [])
        assert len(listed) <= len(self.model.live())

    @rule(
        key=keys,
        changed=data,
        signed=st.booleans(),
        user=users,
        rotates=st.booleans(),
        nth=soon,
        cut=cuts,
        target=keys,
    )
    def die_committing(
        self,
        key: SessionKey,
        changed: dict[str, bytes],
        signed: bool,
        user: str | None,
        rotates: bool,
        nth: int,
        cut: Cut,
    ) -> Any:
        """All of the commit is done, or nothing."""
        new = make(key.id)
        commit = Commit(
            Changes(set=changed), signed, user if signed else None, None, new if rotates else None
        )
        session = self.model.sessions.get(key.id)
        transport = session.transport if session else "header"
        expected = self.model.expects(key, transport)
        self.dies(Job("commit", (key, transport, TERMS, commit), nth, cut))
        if expected is not None or session is None:
            return new
        after = self.model.committed(session, commit)
        found = self.do(self.verbs.get(key.id))
        newest = new if rotates and self.do(self.verbs.exists(new)) else key
        told = [(one.fields, one.user, one.keys[-1]) for one in (session, after)]
        was = told.index((found.fields, found.session.user, newest))
        if was or told[0] == told[1]:
            # Where both look the same, a sign-in may still have moved its end.
            moved = found.session.deadline_ms - found.session.created_ms
            if was or abs(moved - ((after.deadline or 0) - after.created)) < DEADLINE:
                self.model.sessions[key.id] = after
        return new

    @rule(
        keys=st.lists(keys, min_size=1, max_size=5),
        user=users,
        of_user=st.booleans(),
        nth=later,
        cut=cuts,
    )
    def die_ending(
        self, keys: list[SessionKey], user: str | None, of_user: bool, nth: int, cut: Cut
    ) -> None:
        """Some are ended, the others are as they were."""
        ids = sorted(self._of(user or "1")) if of_user else [key.id for key in keys]
        name = "registry.end_user" if of_user else "registry.end_many"
        self.dies(Job(name, (user or "1",) if of_user else (ids,), nth, cut))
        for session_id in ids:
            if session_id in self.model.live() and not self.do(self.verbs.get(session_id)):
                self._ended(session_id)

    @rule(
        name=st.sampled_from(["sweep", "page", "of_user", "registry.overview"]),
        nth=later,
        cut=cuts,
    )
    def die_looking(self, name: str, nth: int, cut: Cut) -> None:
        """Whoever looks drops what expired, and nothing else."""
        args = {"sweep": (3,), "page": (3,), "of_user": ("1",)}.get(name, ())
        self.dies(Job(name, args, nth, cut))

    # Looks.

    @rule(key=keys)
    def look(self, key: SessionKey) -> None:
        session = self.model.live().get(key.id)
        looked = self.do(self.verbs.get(key.id))
        assert (looked and looked.fields) == (session.fields if session else None)
        exists = self.do(self.verbs.exists(key))
        assert exists is (session is not None and session.keys[-1:] == [key])

    @rule(limit=st.integers(1, 12), kinds=st.sets(st.sampled_from(KINDS)), backward=st.booleans())
    def walk(self, limit: int, kinds: set[Kind], backward: bool) -> None:
        expected = [
            id_ for id_, session in self.model.live().items() if not kinds or session.kind in kinds
        ]
        walked, after = [], None
        while True:
            page = self.ask("page", limit, after, kinds, backward)
            walked += [session.id for session in page.sessions]
            after = page.next
            if after is None:
                break
        assert sorted(walked) == sorted(expected)

    @rule(user=users.filter(bool), limit=st.integers(1, 5))
    def of_user(self, user: str, limit: int) -> None:
        expected = self._of(user)
        # First what looks at no session, and so would not notice what is gone.
        assert self.ask("count_of_users", [user]) == len(expected)
        places = self.do(self.verbs.walk_user(user, limit))
        assert [place.session_id for place in places] == sorted(expected)
        page = self.ask("page", 1000, users=[user])
        assert {session.id for session in page.sessions} == expected
        assert {session.id for session in self.ask("of_user", user)} == expected

    @rule(steps=st.integers(0, 6), kinds=st.sets(st.sampled_from(KINDS)))
    def idle(self, steps: int, kinds: set[Kind]) -> None:
        longer = steps * STEP + DEADLINE
        expected = {
            id_
            for id_, session in self.model.live().items()
            if self.model.now - session.seen > longer and (not kinds or session.kind in kinds)
        }
        found, after, more = [], None, True
        while more:
            page = self.ask("idle", timedelta(milliseconds=longer), 3, after, kinds)
            found += [session.id for session in page.sessions]
            after, more = page.end, page.more
        assert sorted(found) == sorted(expected)

    @rule()
    def what_is_listed_is_what_opens(self) -> None:
        """Each key that was ever told is tried, on the transport that it was made on."""
        opened = set()
        for session_id, session in self.model.sessions.items():
            for key in session.keys[-1:]:
                found = self.do(self.verbs.open(key, session.transport, TERMS))
                if found is not None:
                    opened.add(session_id)
                    if self.model.now - session.seen >= grain(session.idle):
                        self.model.sessions[session_id] = session.written(self.model.now)
        listed = {session.id for session in self.ask("page", 1000).sessions}
        untold = {id_ for id_, session in self.model.live().items() if not session.keys}
        assert opened == listed - untold == self.model.live().keys() - untold
        figures = self.ask("overview")
        assert figures.live == len(listed)
        assert figures.oldest is None if not listed else figures.oldest.id in listed

    @invariant()
    def counts_agree(self) -> None:
        expected = dict.fromkeys(KINDS, 0)
        for session in self.model.live().values():
            expected[session.kind] += 1
        assert self.ask("count") == expected

    def teardown(self) -> None:
        self.what_is_listed_is_what_opens()


Fresh = Callable[[], Bench]
Stage = tuple[Fresh, Callable[[StoreMachine, Job], bool]]


@pytest.fixture(params=["locmem", "redis", "redis in 4 buckets"])
def stage(request: pytest.FixtureRequest, settings: Any) -> Iterator[Stage]:
    """What makes an empty store, again and again; and who dies of what is done to it."""
    if request.param == "locmem":
        time_machine: TimeMachineFixture = request.getfixturevalue("time_machine")
        backend = "tests.stores.mortal.MortalCache"
        settings.CACHES = {
            "default": {
                "BACKEND": backend,
                "LOCATION": "model",
                "OPTIONS": {"MAX_ENTRIES": 10_000},
            }
        }

        def fresh_locmem() -> Bench:
            store = open_store()
            for session in store.page(10_000).sessions:
                store.end(session.id)
            caches["default"].clear()
            return LocMemBench(store, time_machine)

        def die_at_the_cache(machine: StoreMachine, job: Job) -> bool:
            async def asking() -> Any:
                store: Any = machine.verbs.bench.store
                return await getattr(store, f"a{job.name}")(*job.args)

            name = job.name.removeprefix("registry.")
            if name != job.name:
                return MortalCache.do(job, lambda: machine.ask(name, *job.args))
            if machine.verbs.mode == "async":
                return MortalCache.do(job, lambda: machine.do(asking()))
            store = machine.verbs.bench.store
            return MortalCache.do(job, lambda: getattr(store, name)(*job.args))

        yield fresh_locmem, die_at_the_cache
        return

    valkey: Valkey = request.getfixturevalue("valkey")
    settings.CACHES = {"default": request.getfixturevalue("redis_cache")}
    buckets = 4 if request.param == "redis in 4 buckets" else None
    settings.HEADER_SESSIONS_BUCKETS = buckets

    def fresh_redis() -> Bench:
        valkey.client.flushall()
        return RedisBench(open_store(), valkey.client)

    with MortalProcess(valkey) as mortal:
        yield fresh_redis, lambda machine, job: mortal.do(replace(job, buckets=buckets))


def machine(mode: str, stage: Stage, runner: asyncio.Runner) -> StoreMachine:
    """One on an empty store."""
    fresh, dies = stage
    made = StoreMachine()
    made.verbs = Verbs(fresh(), mode)
    made.do = runner.run
    made.dies = lambda job: dies(made, job)
    return made


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_store_agrees_with_its_model_in_what_is_rarely_drawn(mode: str, stage: Stage) -> None:
    with asyncio.Runner() as runner:
        drawn = machine(mode, stage, runner)
        fields = {"a": b"no number", "b": b"9223372036854775807"}
        created: Any = drawn.create([Draft("header", fields, "1")])
        (key,) = created.values
        for name in fields:
            drawn.commit(key, "header", False, {}, set(), (name, 1))
        drawn.wait(1)
        for _ in range(2):  # the first writes when it was seen
            drawn.open(key, "header")
        # A sign-in that would have moved the end of the session, and nothing else.
        drawn.die_committing(key, {}, True, "1", False, 1, "before")
        drawn.rotate(key, "header", False, None)
        drawn.open(key, "header")
        drawn.counts_agree()
        drawn.teardown()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_store_agrees_with_its_model(mode: str, stage: Stage) -> None:
    with asyncio.Runner() as runner:
        made: Any = lambda: machine(mode, stage, runner)  # noqa: E731  typed as a class
        run_state_machine_as_test(
            made,
            settings=settings(
                max_examples=20,
                stateful_step_count=40,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
