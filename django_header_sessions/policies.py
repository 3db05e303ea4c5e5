"""What a view or a block of code does about others that use its session at the same time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import Resolver404, get_urlconf, resolve

from .conf import conf
from .exceptions import SessionBusy, SessionError, SessionUnavailable
from .fields import USER_ID
from .resolvers import HEADER, Transport
from .steps import Steps, Verb
from .stores.base import Opened, Queued
from .stores.bell import Sleep

if TYPE_CHECKING:
    from .engine import Noted, SessionStore
    from .stores.bell import Waiter


_owed: deque[tuple[str, str]] = deque(maxlen=100)
"""Session ids and tickets that the store was not to be told of that they are done with: it may have
given them a lock, in an answer that did not arrive."""


class Lock:
    """The lock of one session, as far as one request has to do with it.

    A request is one holder: its own threads and tasks share the lock.
    """

    def __init__(self, session: SessionStore) -> None:
        self._session = session
        self._waiter: Waiter | None = None  # has a place in the queue
        self._at: tuple[str, str] | None = None  # session id and ticket
        self._waiting = False
        self.held = False
        self.foreseen = False
        """Whether nobody has asked for it yet: it was taken with the opening of the session."""

    @property
    def ticket(self) -> str:
        """What a commit shows the store; empty where nothing is locked. A session that took the
        place of the one that was locked is nobody else's yet."""
        key = self._session.session_key
        return self._at[1] if self.held and self._at and key and self._at[0] == key.id else ""

    def open(self, lease: float | None) -> Steps[Opened | None]:
        """The session, locked if nobody else has it. Where somebody has, a place in the queue is
        kept, until ``take`` or ``give_back``."""
        session, self.foreseen = self._session, True
        try:
            answer = yield from self._ask(lease)
            if isinstance(answer, Queued):
                asked = (session.session_key, session.transport, session._terms())
                opened: Opened | None = yield Verb("open", asked)
                if opened is None:
                    yield from self.give_back()
                return opened
        except BaseException:
            yield from self.give_back()
            raise
        self._stop_waiting(answer)
        return answer

    def take(self, wait: float | None, lease: float | None) -> Steps[Opened | None]:
        """The session as it is once nobody else has it locked; None where there is none."""
        if self._waiting:
            raise RuntimeError(
                "This request waits for its session already, in another thread or task: have it "
                "lock the session once, around them."
            )
        wait = conf.HEADER_SESSIONS_LOCK_WAIT if wait is None else checked("wait", wait)
        give_up = time.monotonic() + wait
        self._waiting = True
        try:
            while isinstance(answer := (yield from self._ask_in_turn(lease)), Queued):
                left = give_up - time.monotonic()
                if left <= 0:
                    session_id = self._session.session_key.id  # type: ignore[union-attr]
                    raise SessionBusy(f"Session {session_id} is in use; waited for it {wait} s.")
                assert self._waiter is not None  # asked by it
                yield Sleep(self._waiter, min(left, answer.ask_again / 1000))
        except BaseException:
            yield from self.give_back()
            raise
        finally:
            self._waiting = False
        self._stop_waiting(answer)
        self.foreseen = False
        return answer

    def _ask_in_turn(self, lease: float | None) -> Steps[Opened | Queued | None]:
        # Or another task of the request might give the session another key meanwhile.
        return self._session.turn.take(self._ask(lease))

    def _ask(self, lease: float | None) -> Steps[Opened | Queued | None]:
        session, key = self._session, self._session.session_key
        assert key is not None  # nobody else knows a session that has none
        lease = conf.HEADER_SESSIONS_LOCK_LEASE if lease is None else checked("lease", lease)
        if self._at is not None and self._at[0] != key.id:
            yield from self.give_back()  # another session took the place of the one that was locked
        if self._waiter is None:
            self._waiter = session._store.waiter()
            self._at = key.id, self._waiter.ticket
        yield from _pay(session, key.id)
        ticket = self._waiter.ticket
        asked = (key, session.transport, session._terms(), ticket, max(int(lease * 1000), 1))
        answer: Opened | Queued | None = yield Verb("lock", asked)
        return answer

    def _stop_waiting(self, answer: Opened | None) -> None:
        if self._waiter is not None:
            self._waiter.close()
        self._waiter, self.held = None, answer is not None
        if answer is None:
            self._at = None

    def give_back(self) -> Steps[None]:
        """Let the next one have the session, or leave the queue."""
        at, session = self._at, self._session
        self.given_back()
        if at is None:
            return
        fault = session.fault
        try:
            yield Verb("unlock", at)
        except SessionUnavailable as error:
            _owe(at, error)
            # What was stored is stored.
            session.fault = fault
        except BaseException as error:
            _owe(at, error)
            self._at = at  # whoever cleans up after this tries again
            raise

    def given_back(self) -> None:
        """A commit has unlocked the session."""
        self._stop_waiting(None)


def _pay(session: SessionStore, session_id: str) -> Steps[None]:
    """Give back what is owed since an outage, of this session first: else the sessions concerned
    could not be had before their leases end.

    What is owed of others may be owed to a server that is down still: no reason to refuse this
    session, and none to ask that server more than once.
    """
    fault = session.fault
    for at in sorted(_owed.copy(), key=lambda at: at[0] != session_id):
        try:
            _owed.remove(at)
        except ValueError:
            continue  # paid by another thread meanwhile
        try:
            yield Verb("unlock", at)
        except BaseException as error:
            _owe(at, error)
            if not isinstance(error, SessionUnavailable) or at[0] == session_id:
                raise
            session.fault = fault
            return


def _owe(at: tuple[str, str], error: BaseException) -> None:
    """The store was not told, because of this; another time it may be."""
    if isinstance(error, SessionUnavailable) or not isinstance(error, Exception):
        _owed.append(at)


def checked(name: str, seconds: float) -> float:
    """``seconds`` to wait or to hold a lock for; raises ``ValueError`` where it cannot be."""
    if not math.isfinite(seconds) or seconds < 0 or (name == "lease" and seconds == 0):
        raise ValueError(f"{name} is a number of seconds, not {seconds!r}")
    return seconds


_around: ContextVar[tuple[Serialized, ...]] = ContextVar("_around", default=())
"""The blocks that the running code stands in, outermost first."""


class Serialized:
    """``with session.serialized():`` has the session to itself, and stores it at the end.

    Works with ``async with`` too. A block that raises stores nothing, and what it changed is
    forgotten. Inside another one, and inside a serialised view, that is all it does: who came first
    locks, stores and unlocks.
    """

    def __init__(self, session: SessionStore, wait: float | None, lease: float | None) -> None:
        self._session = session
        self._terms = wait, lease
        self._entered = False

    def _enter(self) -> Steps[None]:
        session, outer = self._session, self._session._block
        if self._entered or (outer is not None and outer not in _around.get()):
            raise RuntimeError(
                "This request's session is in a serialised block already, in another thread or "
                "task, or this very block: the lock is the request's. Have one block around what "
                "they do, and none in them."
            )
        self._outer, self._first = outer, outer is None and not session.locked
        if outer is None:
            yield from session._locked(*self._terms)
        try:
            self._before = session._noted()
        except BaseException:
            # Something was assigned that cannot be stored.
            if self._first and session.locked:
                yield from session._own_lock().give_back()
            raise
        self._entered, session._block = True, self
        _around.set((*_around.get(), self))

    def _leave(self) -> None:
        self._entered, self._session._block = False, self._outer
        _around.set(tuple(block for block in _around.get() if block is not self))

    def __enter__(self) -> SessionStore:
        self._session._check_may_wait()
        self._session._run(self._enter())
        return self._session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()
        try:
            if self._first:
                self._session.finish(commit=error is None)
        except BaseException as failure:
            error = failure
            raise
        finally:
            if error is not None:
                self._session._undo(self._before)

    async def __aenter__(self) -> SessionStore:
        await self._session._arun(self._enter())
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()
        try:
            if self._first:
                await self._session.afinish(commit=error is None)
        except BaseException as failure:
            error = failure
            raise
        finally:
            if error is not None:
                self._session._undo(self._before)


class ReadOnly:
    """``with session.readonly():`` raises ``SessionReadOnly`` at whatever writes to it."""

    def __init__(self, session: SessionStore) -> None:
        self._session = session
        self._before: list[tuple[bool, Noted]] = []

    def __enter__(self) -> SessionStore:
        self._before.append((self._session.read_only, self._session._noted()))
        self._session.read_only = True
        return self._session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        read_only, noted = self._before.pop()
        self._session._undo(noted)  # what was changed in place
        self._session.read_only = read_only


MARK = "header_session_policy"
"""The attribute of a view that names its own policy."""

serialized_views: set[str] = set()
"""Names of the views that were decorated in this process: where there are none, and the setting
says nothing, no request needs to be looked at before its session is opened."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What one view does about others. ``wait`` and ``lease`` in seconds, None as the settings."""

    name: Literal["merge", "serialized", "readonly"]
    wait: float | None = None
    lease: float | None = None

    def begin(self, request: Any) -> None:
        """Have the session of a request, Django's or DRF's, ready for its view."""
        if self._is_overruled(request):
            return
        session = session_of(request)
        session.read_only = False
        try:
            if self.name == "serialized":
                session.lock(self.wait, self.lease)
            elif self.name == "readonly":
                if USER_ID in session and hasattr(request, "user"):
                    # To verify who is signed in may end the session or give it a new key.
                    request.user.is_authenticated  # noqa: B018  evaluates what is lazy
                if session.modified:
                    session.finish(commit=True, unlock=False)
                session.read_only = True
        except SessionError as error:
            error.executed = error.executed and self not in marks(request)
            raise

    async def abegin(self, request: Any) -> None:
        if self._is_overruled(request):
            return
        session = session_of(request)
        session.read_only = False
        try:
            if self.name == "serialized":
                await session.alock(self.wait, self.lease)
            elif self.name == "readonly":
                if USER_ID in session and hasattr(request, "auser"):
                    await request.auser()
                if session.modified:
                    await session.afinish(commit=True, unlock=False)
                session.read_only = True
        except SessionError as error:
            error.executed = error.executed and self not in marks(request)
            raise

    def _is_overruled(self, request: Any) -> bool:
        """Whether the method that is asked for names another policy than the view does."""
        *others, own = marks(request) or [self]
        return own != self and self in others


def marks(request: Any, view: Callable[..., Any] | None = None) -> list[Policy]:
    """The policies that the view of a request names, and its method's, which counts for more.

    Whatever has one of them comes before all of the view: nothing of it has run.
    """
    if view is None:
        view = getattr(getattr(request, "resolver_match", None), "func", None)
    cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
    method = str(request.method).lower()
    # As viewsets of DRF have it, which name their methods otherwise.
    actions = getattr(view, "actions", None) or {}
    handler = getattr(cls, actions.get(method, method), None)
    if handler is None and method == "head":
        handler = getattr(cls, "get", None)
    found = (getattr(each, MARK, None) for each in (view, handler))
    return [policy for policy in found if policy is not None]


def session_of(request: Any) -> SessionStore:
    session: Any = getattr(request, "session", None)
    if not hasattr(session, "read_only"):
        raise ImproperlyConfigured(
            "A policy for sessions needs HeaderSessionMiddleware, and SESSION_ENGINE = "
            "'django_header_sessions.engine'."
        )
    return session  # type: ignore[no-any-return]


def policy_of(
    request: HttpRequest, view: Callable[..., Any], transport: Transport
) -> Policy | None:
    """The policy of a view; None where it says nothing and the settings have nothing to add.

    Cookie sessions are Django's, and Django locks nothing.
    """
    own = marks(request, view)
    if own:
        return own[-1]
    name = conf.HEADER_SESSIONS_POLICY
    return None if name == "merge" or transport != HEADER else Policy(name)


def foreseen(request: HttpRequest, transport: Transport) -> Policy | None:
    """The policy, if it is to serialise, of the view that a request will most likely come to.

    Then its session is locked and opened in one round trip, if it is free: nobody waits before it
    is known for sure which view is called. What turns out to be wrong is given back then.
    """
    if not serialized_views and conf.HEADER_SESSIONS_POLICY != "serialized":
        return None
    urlconf = getattr(request, "urlconf", None)
    names: Any = urlconf or get_urlconf() or settings.ROOT_URLCONF
    if is_language_prefix_patterns_used(names)[0]:
        return None  # the language is chosen by a middleware that comes later
    try:
        view = resolve(request.path_info, urlconf).func
    except Resolver404:
        return None  # Django's to answer, or to be found by a middleware that comes later
    policy = policy_of(request, view, transport)
    return policy if policy is not None and policy.name == "serialized" else None
