"""What a view or a block of code does about others that use its session at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.urls import Resolver404, resolve

from .conf import conf
from .exceptions import SessionBusy, SessionError, SessionUnavailable
from .fields import USER_ID
from .resolvers import HEADER, Transport
from .steps import Sleep, Steps, Verb
from .stores.base import Opened, Queued

if TYPE_CHECKING:
    from .engine import SessionStore


class Lock:
    """The lock of one session, as far as one request has to do with it."""

    def __init__(self, session: SessionStore) -> None:
        self._session = session
        self._at: tuple[str, str] | None = None  # session id and ticket
        self.held = False

    @property
    def ticket(self) -> str:
        """What a commit shows the store; empty where nothing is locked. A session that took the
        place of the one that was locked is nobody else's yet."""
        key = self._session.session_key
        return self._at[1] if self._at and key and self._at[0] == key.id else ""

    def take(self, wait: float | None, lease: float | None) -> Steps[Opened | None]:
        """The session as it is once nobody else has it locked; None where there is none."""
        session, key = self._session, self._session.session_key
        assert key is not None  # nobody else knows a session that has none
        wait = conf.HEADER_SESSIONS_LOCK_WAIT if wait is None else wait
        lease = conf.HEADER_SESSIONS_LOCK_LEASE if lease is None else lease
        waiter = session._store.waiter()
        self._at = key.id, waiter.ticket
        asked = (key, session.transport, session._terms(), waiter.ticket, int(lease * 1000))
        give_up = time.monotonic() + wait
        try:
            while isinstance(answer := (yield Verb("lock", asked)), Queued):
                left = give_up - time.monotonic()
                if left <= 0:
                    raise SessionBusy(f"Session {key.id} is in use; it was waited for {wait} s.")
                yield Sleep(waiter, min(left, answer.ask_again / 1000))
        except SessionError:
            yield from self.give_back()
            raise
        finally:
            waiter.close()
        self.held = answer is not None
        opened: Opened | None = answer
        return opened

    def give_back(self) -> Steps[None]:
        """Let the next one have the session, or leave the queue."""
        at, session = self._at, self._session
        self.given_back()
        fault = session.fault
        if at is None or isinstance(fault, SessionUnavailable):
            return
        try:
            yield Verb("unlock", at)
        except SessionUnavailable:
            # What was stored is stored; whoever waits has to until the lease ends.
            session.fault = fault

    def given_back(self) -> None:
        """A commit has unlocked the session."""
        self._at, self.held = None, False


class Serialized:
    """``with session.serialized():`` has the session to itself, and stores it at the end.

    Works with ``async with`` too. An exception stores nothing. Inside another such block it adds
    nothing: the outermost one locks, stores and unlocks.
    """

    def __init__(self, session: SessionStore, wait: float | None, lease: float | None) -> None:
        self._session = session
        self._terms = wait, lease
        self._outermost = False

    def __enter__(self) -> SessionStore:
        self._outermost = not self._session.locked
        if self._outermost:
            self._session.lock(*self._terms)
        return self._session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._outermost:
            self._session.finish(commit=error is None)

    async def __aenter__(self) -> SessionStore:
        self._outermost = not self._session.locked
        if self._outermost:
            await self._session.alock(*self._terms)
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._outermost:
            await self._session.afinish(commit=error is None)


class ReadOnly:
    """``with session.readonly():`` raises ``SessionReadOnly`` at whatever writes to it."""

    def __init__(self, session: SessionStore) -> None:
        self._session = session
        self._before = False

    def __enter__(self) -> SessionStore:
        self._before = self._session.read_only
        self._session.read_only = True
        return self._session

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.read_only = self._before


@dataclass(frozen=True, slots=True)
class Policy:
    """What one view does about others. ``wait`` and ``lease`` in seconds, None as the settings."""

    name: Literal["merge", "serialized", "readonly"]
    wait: float | None = None
    lease: float | None = None

    def begin(self, request: Any) -> None:
        """Have the session of a request, Django's or DRF's, ready for its view."""
        session = session_of(request)
        session.read_only = False
        if self.name == "serialized":
            try:
                session.lock(self.wait, self.lease)
            except SessionError as error:
                error.executed = False
                raise
        elif self.name == "readonly":
            if USER_ID in session and hasattr(request, "user"):
                # To verify who is signed in may end the session or give it a new key.
                request.user.is_authenticated  # noqa: B018  evaluates what is lazy
            if session.modified:
                session.finish(commit=True, unlock=False)
            session.read_only = True

    async def abegin(self, request: Any) -> None:
        session = session_of(request)
        session.read_only = False
        if self.name == "serialized":
            try:
                await session.alock(self.wait, self.lease)
            except SessionError as error:
                error.executed = False
                raise
        elif self.name == "readonly":
            if USER_ID in session and hasattr(request, "auser"):
                await request.auser()
            if session.modified:
                await session.afinish(commit=True, unlock=False)
            session.read_only = True


def session_of(request: Any) -> SessionStore:
    session: Any = getattr(request, "session", None)
    if not hasattr(session, "read_only"):
        raise ImproperlyConfigured(
            "A policy for sessions needs HeaderSessionMiddleware, and SESSION_ENGINE = "
            "'django_header_sessions.engine'."
        )
    return session  # type: ignore[no-any-return]


MARK = "header_session_policy"
"""The attribute of a view that names its own policy."""


def policy_of(view: Callable[..., Any], transport: Transport) -> Policy | None:
    """The policy of a view; None where it says nothing and the settings have nothing to add.

    Cookie sessions are Django's, and Django locks nothing.
    """
    own: Policy | None = getattr(view, MARK, None)
    if own is not None:
        return own
    name = conf.HEADER_SESSIONS_POLICY
    return None if name == "merge" or transport != HEADER else Policy(name)


serialized_views: set[str] = set()
"""Names of the views that were decorated in this process: where there are none, and the setting
says nothing, no request needs to be looked at before its session is opened."""


def foreseen(request: HttpRequest, transport: Transport) -> Policy | None:
    """The policy, if it is to serialise, of the view that a request will most likely come to.

    Then its session is locked and opened in one round trip. Where another view is called in the
    end, or a single method names the policy, it is locked when that is known.
    """
    if not serialized_views and conf.HEADER_SESSIONS_POLICY != "serialized":
        return None
    try:
        view = resolve(request.path_info, getattr(request, "urlconf", None)).func
    except Resolver404:
        return None  # Django's to answer, or to be found by a middleware that comes later
    policy = policy_of(view, transport)
    return policy if policy is not None and policy.name == "serialized" else None
