"""One request in any order of what it may do: its session and contexts against a model of them.

The model is a savepoint a block, and for each mapping what the store has, what the request knows of
it, and what it has yet to send.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from django.core.cache import caches
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_header_sessions.engine import SessionStore
from django_header_sessions.stores.base import Store

GONE = None
NAMES, LISTS, COUNTERS, CONTEXTS = ["a", "b", "c"], ["l", "m"], ["n", "k"], ["x", "y"]
Pending = dict[str, Any]


def overlaid(under: dict[str, Any], pending: Pending) -> dict[str, Any]:
    found = {name: deepcopy(value) for name, value in (under | pending).items()}
    return {name: value for name, value in found.items() if value is not GONE}


class Part:
    """A session's fields, or a context's."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.stored = stored
        self.known = deepcopy(stored)
        self.pending: Pending = {}
        self.cleared = False
        self.sent: list[tuple[bool, set[str], Pending]] = []
        """Whether a clear was sent, which fields, and those of them that were promoted."""

    def view(self) -> dict[str, Any]:
        return overlaid({} if self.cleared else self.known, self.pending)

    @property
    def changed(self) -> bool:
        return self.cleared or bool(self.pending)

    def commit(self) -> None:
        for each in (self.stored, self.known):
            if self.cleared:
                each.clear()
            left = overlaid(each, self.pending)
            each.clear()
            each.update(left)
        self.sent.append((self.cleared, set(self.pending), {}))
        self.cleared, self.pending = False, {}

    def noted(self) -> tuple[bool, Pending, int]:
        return self.cleared, deepcopy(self.pending), len(self.sent)

    def undo(self, noted: tuple[bool, Pending, int] | None) -> None:
        if noted is None:
            self.cleared, self.pending = False, {}
            return
        cleared, pending, before = noted
        sent = self.sent[before:]
        whole = any(all_of_it for all_of_it, _, _ in sent)
        names = set().union(*(names for _, names, _ in sent))
        self.cleared = cleared and not whole
        self.pending = {
            name: value for name, value in pending.items() if name not in names and not whole
        }
        if self.cleared:
            # Or the clear would take them along.
            for _, _, promoted in sent:
                self.pending |= deepcopy(promoted)


class Request(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        first = SessionStore(transport="header")
        first.update({"a": 1, "l": [0]})
        first.save()
        self.key = first.session_key
        self.part = Part({"a": 1, "l": [0]})
        self.contexts: dict[str, dict[str, Any]] = {}  # as they are stored
        self.used: dict[str, tuple[Any, Part, bool]] = {}  # and whether it is new
        self.blocks: list[tuple[Any, Any]] = []
        self.session = self.other()
        self.session.open()

    def other(self) -> SessionStore:
        return SessionStore(self.key, transport="header")

    def commit(self) -> None:
        self.part.commit()
        for name, (_, part, _) in self.used.items():
            if part.changed:
                self.commit_context(name)

    def commit_context(self, name: str) -> None:
        context, part, _ = self.used[name]
        self.contexts.setdefault(name, part.stored)
        part.commit()
        self.used[name] = context, part, False

    # The session's fields.

    @rule(name=st.sampled_from(NAMES), value=st.integers(0, 99))
    def assign(self, name: str, value: int) -> None:
        self.session[name] = self.part.pending[name] = value

    @rule(name=st.sampled_from(LISTS), value=st.integers(0, 9))
    def append(self, name: str, value: int) -> None:
        self.session.setdefault(name, []).append(value)
        self.session.modified = True
        self.part.pending[name] = [*self.part.view().get(name, []), value]

    @rule(name=st.sampled_from(NAMES + LISTS))
    def delete(self, name: str) -> None:
        if name in self.session:
            del self.session[name]
            self.part.pending[name] = GONE

    @rule()
    def clear(self) -> None:
        self.session.clear()
        self.part.cleared, self.part.pending = True, {}

    @rule(name=st.sampled_from(COUNTERS))
    def increment(self, name: str) -> None:
        part = self.part
        if part.cleared:
            part.pending[name] = part.view().get(name, 0) + 1
            part.commit()
        else:
            part.stored[name] = part.known[name] = part.stored.get(name, 0) + 1
        assert self.session.increment(name) == part.known[name]

    @rule()
    def save(self) -> None:
        self.session.save()
        self.commit()

    @rule(name=st.sampled_from(NAMES), value=st.integers(100, 199))
    def somebody_else_writes(self, name: str, value: int) -> None:
        other = self.other()
        other[name] = self.part.stored[name] = value
        other.save()

    @rule()
    def read_only(self) -> None:
        with self.session.readonly() as session:
            assert dict(session.items()) == self.part.view()

    # Blocks.

    @precondition(lambda self: len(self.blocks) < 3)
    @rule()
    def enter(self) -> None:
        block = self.session.serialized()
        block.__enter__()
        if not self.blocks:
            self.part.known = deepcopy(self.part.stored)
            for name, (context, part, _) in list(self.used.items()):
                part.stored = self.contexts.get(name, {})
                part.known = deepcopy(part.stored)
                self.used[name] = context, part, name not in self.contexts
        contexts = [(context, part.noted()) for context, part, _ in self.used.values()]
        self.blocks.append((block, (self.part.noted(), contexts)))

    @precondition(lambda self: self.blocks)
    @rule(failed=st.booleans())
    def leave(self, *, failed: bool) -> None:
        block, (noted, contexts) = self.blocks.pop()
        if failed:
            block.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
            self.part.undo(noted)
            for context, part, _ in self.used.values():
                part.undo(next((before for one, before in contexts if one is context), None))
        else:
            block.__exit__(None, None, None)
            if not self.blocks:
                self.commit()

    # Contexts.

    def context(self, name: str) -> tuple[Any, Part]:
        if name not in self.used:
            new = name not in self.contexts
            self.used[name] = self.session.context(name), Part(self.contexts.get(name, {})), new
        return self.used[name][:2]

    @rule(name=st.sampled_from(CONTEXTS), field=st.sampled_from(NAMES), value=st.integers(0, 99))
    def assign_in_context(self, name: str, field: str, value: int) -> None:
        context, part = self.context(name)
        context[field] = part.pending[field] = value

    @rule(name=st.sampled_from(CONTEXTS))
    def save_context(self, name: str) -> None:
        context, _ = self.context(name)
        context.save()
        if self.used[name][1].changed or self.used[name][2]:
            self.commit_context(name)

    @rule(name=st.sampled_from(CONTEXTS))
    def promote(self, name: str) -> None:
        context, part = self.context(name)
        context.promote()
        part.commit()
        fields = deepcopy(part.stored)
        session = self.part
        for each in (session.stored, session.known):
            each.update(deepcopy(fields))
        for field, value in fields.items():
            session.pending.pop(field, None)
            if session.cleared:
                session.pending[field] = value
        session.sent.append((False, set(fields), fields))
        self.contexts.pop(name, None)
        del self.used[name]

    @rule(name=st.sampled_from(CONTEXTS))
    def end_context(self, name: str) -> None:
        assert self.session.end_context(name) is (name in self.contexts)
        self.contexts.pop(name, None)
        self.used.pop(name, None)

    # What holds.

    @invariant()
    def the_request_sees_what_it_did(self) -> None:
        assert dict(self.session.items()) == self.part.view()
        for context, part, _ in self.used.values():
            assert dict(context) == part.view()

    def teardown(self) -> None:
        while self.blocks:
            self.leave(failed=False)
        self.session.finish(commit=True)
        self.commit()
        after = self.other()
        assert dict(after.items()) == self.part.stored
        found = {one.name: dict(after.context(one.name)) for one in after.contexts()}
        assert found == self.contexts
        caches["default"].clear()


def test_a_request_is_as_its_model(listing_store: Store) -> None:
    run_state_machine_as_test(
        Request,
        settings=settings(
            max_examples=400,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
