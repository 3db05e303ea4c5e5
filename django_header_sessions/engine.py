"""The session engine: Django's session API over a store. ``SESSION_ENGINE`` names this module.

What touches the store is written once, as steps (``steps.py``), so that ``save`` and ``asave``
cannot drift apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import SynchronousOnlyOperation
from django.utils import timezone

from . import keys
from .conf import conf
from .context import Context, Contexts
from .exceptions import (
    KeyAlreadySent,
    SessionEnded,
    SessionError,
    SessionReadOnly,
    SessionSuperseded,
    SessionUnavailable,
    TooManyContexts,
)
from .fields import EXPIRY, INT64, USER_ID, Changes, Codec, Fields, added, field_name
from .keys import SessionKey
from .origin import Origin
from .policies import Lock, Policy, ReadOnly, Serialized
from .resolvers import COOKIE, HEADER, Transport
from .signals import session_created, session_ended
from .steps import Send, Steps, Verb, Wait, adrive, drive, in_event_loop
from .stores import get_store
from .stores.base import (
    Commit,
    Committed,
    Draft,
    Expiry,
    LiveContext,
    LiveSession,
    Opened,
    Places,
    Terms,
)
from .stores.bell import Sleep
from .turn import Turn, in_turn

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

LONGEST = 100 * 365 * 86400
"""Seconds that ``set_expiry`` may ask for; what is beyond is cut to it."""

LONGEST_TURN = 60
"""Seconds that a thread waits for the others of its request: longer than any store takes. Where
they need this very thread to be done, it is an error, and no wait without end."""

MANY = 1000
"""Sessions of a user that the store is asked for at once."""


_finishing: ContextVar[SessionStore | None] = ContextVar("_finishing", default=None)


class Noted(NamedTuple):
    """What a session was when a block began that may fail."""

    key: SessionKey | None
    modified: bool
    fields: Fields | None
    contexts: list[tuple[Context, Fields]]


class SessionStore(SessionBase):
    """A session of one transport.

    Without arguments it is a new cookie session, as Django's test client and scripts expect. The
    middleware says more: the transport, what tells the origin of a session that is created, the
    error to raise where a header session is to be and none may, and the context that the request
    names.
    """

    _modified = False
    _read_only = False
    _unknown = False
    """Whether the key was found to open nothing, and nobody looked into the session since."""
    # Most sessions need neither, and each would keep its session from being freed at once.
    _lock: Lock | None = None
    _contexts: Contexts | None = None
    _block: Serialized | None = None
    """The innermost ``serialized()`` that has begun."""

    def __init__(
        self,
        session_key: str | None = None,
        *,
        transport: Transport = COOKIE,
        origin: Callable[[], Origin] = Origin,
        refusal: SessionError | None = None,
        context_name: str | None = None,
    ) -> None:
        self.transport = transport
        self.fault: SessionError | None = None
        """What was learned of the session while the view ran: it ended, it was given a newer key,
        the store was down. Kept because whoever called may have swallowed the exception."""
        self.sealed = False
        """Whether the answer's headers are decided, so that a new key could not be announced."""
        self.deleted = False
        """Whether ``delete`` ended this session. It keeps its key then, as in Django, so that a
        later ``save`` fails instead of making a new one."""
        self.live: LiveSession | None = None
        """What people may see of the session, as it was opened; None where none was."""
        self._origin = origin
        self._refusal = refusal
        self._context_name = context_name
        self._expires_in: int | None = None
        self._user: str | None = None
        self._opened_key: SessionKey | None = None
        self.for_one_request = False
        """Whether the event loop lives for this request alone, as inside a WSGI server."""
        self.turn = Turn()
        """What stores the session, or has its key sent, takes it."""
        super().__init__(session_key)
        self._codec = Codec(self.serializer)
        self._store = get_store(settings.SESSION_CACHE_ALIAS)

    def _get_session_key(self) -> SessionKey | None:
        return self.__session_key

    def _set_session_key(self, value: object) -> None:
        # What is not well formed cannot be a key of ours, so no store is asked for it.
        self.__session_key = keys.parse(value)

    @property
    def session_key(self) -> SessionKey | None:
        """What the client sends, a password; its ``id`` is the session's public name."""
        return self.__session_key

    _session_key = property(_get_session_key, _set_session_key)

    @property
    def expires_in(self) -> int | None:
        """Whole seconds until the session is over if it is not used; None where there is none."""
        if self.session_key is None or self._expires_in is None:
            return None
        return self._expires_in // 1000

    @property
    def is_sync(self) -> bool:
        """Whether the async methods ask in sync, too: a connection that is made in a loop for one
        request would die with it."""
        return self.for_one_request and not self._store.in_own_thread

    @property
    def user_id(self) -> str | None:
        """Who is signed in, as the store knows it."""
        return self._user

    @property
    def last_commit(self) -> bool:
        """Whether the next commit is the last of its request, and unlocks what that has locked:
        that of the running code, and not that of another task which comes before it."""
        return _finishing.get() is self

    @last_commit.setter
    def last_commit(self, value: bool) -> None:
        _finishing.set(self if value else None)

    def another(self, transport: Transport) -> SessionStore:
        """A new session of this request, which a view may put in the place of this one: of the
        other transport, for who is to be handed a key for the cookie that was sent."""
        session = type(self)(transport=transport, origin=self._origin, refusal=self._refusal)
        session.for_one_request = self.for_one_request
        return session

    # Opening.

    def open(self, policy: Policy | None = None) -> bool:
        """Open the session whose key was presented; False where there is none. With a ``policy``
        that serialises it is locked in the same round trip, if nobody else has it; where somebody
        has, ``lock`` has a place in the queue from here on.

        A cookie that opens nothing is kept until somebody looks into the session, as in Django: an
        answer to a browser that has signed in meanwhile must not have it forget its cookie.
        """
        return self._run(self._open(policy, early=True))

    async def aopen(self, policy: Policy | None = None) -> bool:
        return await self._arun(self._open(policy, early=True))

    def _nothing(self) -> None:
        self._session_key = None
        self._fields = Fields(self._codec)

    def load(self) -> Fields:  # type: ignore[override]
        """The fields as they are stored. What was changed here and not saved yet stays as it is."""
        return self._run(self._load())

    async def aload(self) -> Fields:  # type: ignore[override]
        return await self._arun(self._load())

    @in_turn
    def _load(self) -> Steps[Fields]:
        key, changed = self.session_key, getattr(self, "_session_cache", None)
        there = yield from self._open()
        stored = self._fields
        if changed is not None and (there or key is None):
            self._fields = changed
        return stored

    def _open(self, policy: Policy | None = None, *, early: bool = False) -> Steps[bool]:
        opened = yield from self._looked_up(policy)
        if opened is not None:
            self._fields = Fields(self._codec, opened.fields, session_id=opened.session.id)
        elif early and self.transport == COOKIE and self.session_key is not None:
            self._unknown = True
        else:
            self._nothing()
        return opened is not None

    def _looked_up(self, policy: Policy | None = None) -> Steps[Opened | None]:
        key = self.session_key
        if key is None:
            return None
        opened: Opened | None
        try:
            if policy is not None:
                opened = yield from self._own_lock().open(policy.lease)
            else:
                opened = yield Verb("open", (key, self.transport, self._terms()))
        except SessionSuperseded:
            # A browser cannot be told to take its newer cookie: to it, the old one is unknown.
            if self.transport == HEADER:
                raise
            return None
        if opened is not None:
            self._know(opened)
            self._opened_key = key
        return opened

    def _know(self, opened: Opened) -> None:
        self.live = opened.session
        self._expires_in, self._user = opened.session.expires_in, opened.session.user

    @property
    def _fields(self) -> Fields:
        return self._session_cache

    @_fields.setter
    def _fields(self, fields: Fields) -> None:
        fields.read_only = self._read_only
        self._session_cache = fields

    def _loaded(self) -> Steps[Fields]:
        """The fields, opened first where they were not yet. A session that is gone is an error
        here: there is something to do to it."""
        self._face_the_unknown()
        key = self.session_key
        there = yield from self._open_once()
        if key is not None and not there:
            raise SessionEnded(f"Session {key.id} has ended.")
        return self._fields

    @in_turn
    def _open_once(self) -> Steps[bool]:
        """Open it where nobody did; False where there is none."""
        return True if hasattr(self, "_session_cache") else (yield from self._open())

    def _get_session(self, no_load: bool = False) -> Fields:
        self.accessed = True
        if self._unopened(no_load):
            self._run(self._open_once())
        return self._fields

    async def _aget_session(self, no_load: bool = False) -> Fields:
        self.accessed = True
        if self._unopened(no_load):
            await self._arun(self._open_once())
        return self._fields

    def _unopened(self, no_load: bool) -> bool:
        """Whether the store is to be asked, now that somebody looks into the session."""
        self._face_the_unknown()
        if hasattr(self, "_session_cache"):
            return False
        if self.session_key is not None and not no_load:
            return True
        self._fields = Fields(self._codec)
        return False

    def _face_the_unknown(self) -> None:
        """Somebody looks into the session: where its cookie opens nothing, there is none."""
        if self._unknown and not hasattr(self, "_session_cache"):
            self._nothing()

    _session = property(_get_session)

    # Changing.

    def clear(self) -> None:
        """Remove all fields, those that others added meanwhile too."""
        self._check_writable()
        known = self._fields if hasattr(self, "_session_cache") else Fields(self._codec)
        self._fields = known.emptied(self.session_key.id if self.session_key else "")
        self.accessed = True
        self.modified = True

    def delete_test_cookie(self) -> None:
        super().delete_test_cookie()

    async def adelete_test_cookie(self) -> None:
        await super().adelete_test_cookie()
        # Django's own does not say so, up to 6.1 at least, and so the test cookie stays.
        self.modified = True

    def increment(self, field: str, by: int = 1) -> int:
        """Raise a counter at once, in one round trip, and return its new value.

        Exact, however many requests do so at the same time; done even if the request fails later.
        A field that is not there counts from 0. Raises ``TypeError`` where it holds no integer,
        ``OverflowError`` where the total would not fit 64 bits. Needs Django's JSON serializer.
        """
        return self._run(self._increment(field, by))

    async def aincrement(self, field: str, by: int = 1) -> int:
        return await self._arun(self._increment(field, by))

    @in_turn
    def _increment(self, field: str, by: int) -> Steps[int]:
        if isinstance(by, bool) or not isinstance(by, int):
            raise TypeError(f"a counter is raised by an int, not by {type(by).__name__}")
        by = int(by)  # a range searches itself for what is of a class of its own
        if by not in INT64:
            raise OverflowError("a counter is raised by an int of at most 64 bits")
        if not self._codec.bare:
            raise TypeError(
                "Counters need SESSION_SERIALIZER to be Django's JSONSerializer: the store cannot "
                "count with what another serializer wrote."
            )
        self._check_writable()
        self.accessed = True
        fields, name = (yield from self._loaded()), field_name(field)
        if name.startswith("_"):
            raise TypeError(f"the field {name!r} is Django's own, and no counter")
        fields.begin_sending()
        if self.session_key is None or fields.touched(name):
            # Assigned here and not stored yet: nobody else can have counted on it.
            raw = self._codec.encode(name, fields[name]) if name in fields else None
            total = added(name, raw, by)
            counter = {name: b"%d" % total}
            if self.session_key is None:
                yield from self._create(counter)
            elif fields.cleared:
                yield from self._commit(Changes(clear=True, set=fields.encoded() | counter))
            else:
                yield from self._commit(Changes(set=counter))
        else:
            total = (yield from self._commit(Changes(add=(name, by)))).total or 0
        # Now that it is stored: one that failed must not be stored by a later save.
        self._fields.counted(name, total)
        return total

    def set_expiry(self, value: datetime | timedelta | int | None) -> None:
        """As Django's. On a header session an int is its own idle timeout in seconds, 0 stands for
        the default one, and a negative value ends the session; the absolute timeout caps all."""
        super().set_expiry(value)

    async def aset_expiry(self, value: datetime | timedelta | int | None) -> None:
        await super().aset_expiry(value)

    def get_session_cookie_age(self) -> int:
        if self.transport == HEADER:
            return conf.HEADER_SESSIONS_IDLE_TIMEOUT
        return super().get_session_cookie_age()

    # Storing.

    def create(self) -> None:
        """Store a new session under a new key, with the fields that were assigned so far."""
        self._run(self._create())

    async def acreate(self) -> None:
        await self._arun(self._create())

    @in_turn
    def _create(self, counter: dict[str, bytes] | None = None) -> Steps[None]:
        self._check_writable()
        if self._refusal is not None and self.transport == HEADER:
            raise self._refusal
        self._check_unsealed()
        if not hasattr(self, "_session_cache"):
            self._fields = Fields(self._codec)
        fields = self._fields
        if self._is_over():
            raise SessionEnded("The session was set to be over at once, so it was not made.")
        fields.begin_sending()
        changes = Changes(set=fields.encoded() | (counter or {}))
        Fields(self._codec).check_size(changes, conf.HEADER_SESSIONS_MAX_BYTES)
        user = self._signed_in_user()
        draft = Draft(self.transport, changes.set, user, self._expiry(), self._origin())
        key, self._expires_in = yield Verb("create", (draft, self._terms()))
        self._session_key, self._opened_key = key, None
        self._fields.committed(Changes(clear=True, set=changes.set))
        self._fields.session_id = key.id
        self.modified = True
        self.deleted = False
        self.live = self._user = None
        yield Send(session_created, self.transport, {"session_id": key.id})
        yield from self._signed(user)

    def save(self, must_create: bool = False) -> None:
        """Send what was assigned and what was changed in place; create the session if it has none.

        Raises ``SessionEnded`` or ``SessionSuperseded`` (Django's ``UpdateError``),
        ``SessionTooLarge`` or ``SessionUnavailable``.
        """
        self._run(self._save(must_create))

    async def asave(self, must_create: bool = False) -> None:
        await self._arun(self._save(must_create))

    @in_turn
    def _save(self, must_create: bool) -> Steps[None]:
        if must_create or self.session_key is None:
            if not self._is_over():
                self._check_contexts(self._changed_contexts)
                yield from self._create()
                yield from self._save_contexts(self._changed_contexts)
            elif self.transport == COOKIE:
                # Django sends a cookie that expired long ago; it needs a value, and no session.
                self._session_key = keys.make()
            return
        if self._unknown and not hasattr(self, "_session_cache"):
            raise SessionEnded(f"Session {self.session_key.id} has ended.")
        fields = yield from self._loaded()
        if fields.touched(EXPIRY) and self._is_over():
            yield from self._end("expiry")
            return
        # What was changed in place where it was only to be read is not sent. A cookie session that
        # is saved at every request still gets its age anew.
        fields.begin_sending()
        changes = Changes() if self._read_only else fields.changes()
        contexts = self._changed_contexts
        if changes or contexts or self.transport == COOKIE:
            yield from self._commit(changes, contexts)

    @in_turn
    def _save_contexts(self, contexts: Sequence[Context], *, promote: bool = False) -> Steps[None]:
        """Store contexts, and nothing else of the session, which is made where there is none."""
        if not contexts:
            return
        self._face_the_unknown()
        if self.session_key is None:
            self._check_contexts(contexts)
            yield from self._create()
        yield from self._send(Commit(), contexts, promote=promote)

    def _check_contexts(self, contexts: Sequence[Context]) -> None:
        """Raises what would be refused of a new session's contexts: it is not made in vain."""
        for context in contexts:
            context.change(promote=False)
        if len(contexts) > conf.HEADER_SESSIONS_MAX_CONTEXTS:
            raise TooManyContexts("The new session would have more contexts than it may have.")

    def _commit(self, changes: Changes, contexts: Sequence[Context] = ()) -> Steps[Committed]:
        key, fields = self.session_key, self._fields
        fields.check_size(changes, conf.HEADER_SESSIONS_MAX_BYTES)
        if changes.clear and self._expires_in is None:
            # Cleared before it was opened: only the store knows who was signed in.
            yield from self._looked_up()
        user, signed, rotate_to = self._user, False, None
        if _touches(changes, USER_ID):
            user = self._signed_in_user()
            # The same user may sign in again; a new password hash alone is no sign-in.
            again = user is not None and not fields.cleared and fields.touched(USER_ID)
            signed = user != self._user or again
        if signed and key and key == self._opened_key:
            # Whoever knew the key before must not be signed in by it.
            self._check_unsealed()
            rotate_to = keys.make(key.id)
        moves = _touches(changes, EXPIRY) or (self.transport == COOKIE and not self._has_deadline())
        commit = Commit(changes, signed, user, self._expiry() if moves else None, rotate_to)
        committed = yield from self._send(commit, contexts)
        if changes.add is None:
            # Which may be others by now, made of those that were sent.
            self._fields.committed(changes)
        if signed:
            yield from self._signed(user)
        return committed

    def _send(
        self, commit: Commit, contexts: Sequence[Context] = (), *, promote: bool = False
    ) -> Steps[Committed]:
        """Have the store make one commit, of what contexts there are too, and give back the lock if
        it is the last one."""
        ticket = self._ticket
        commit = replace(
            commit,
            ticket=ticket,
            unlock=self.last_commit and ticket != "",
            contexts=[context.change(promote=promote) for context in contexts],
            most=conf.HEADER_SESSIONS_MAX_CONTEXTS,
        )
        asked = (self.session_key, self.transport, self._terms(), commit)
        committed: Committed = yield Verb("commit", asked)
        if self._lock is not None and commit.unlock:
            self._lock.given_back()
        if commit.rotate_to is not None:
            self._session_key = commit.rotate_to
        if committed.expires_in is not None:
            self._expires_in = committed.expires_in
        for context, change in zip(contexts, commit.contexts, strict=True):
            context.committed(change)
        if committed.promoted and hasattr(self, "_session_cache"):
            self._fields.merged(committed.promoted)
        return committed

    def _signed(self, user: str | None) -> Steps[None]:
        """The store now knows that ``user`` is signed in: end what that makes too many."""
        self._user = user
        most = conf.HEADER_SESSIONS_MAX_PER_USER
        if user is None or most is None or self.transport != HEADER or not self._store.lists:
            return
        found = yield from self._of_user(user)
        # In the order of their signing in, which is the same to all: of two at once, only the later
        # one ends the other.
        ids = [one.id for one in sorted(found, key=_by_sign_in) if one.transport == HEADER]
        key = self.session_key
        older = ids[: ids.index(key.id)] if key and key.id in ids else []
        too_many = older[: max(len(ids) - most, 0)]
        if too_many:
            ended = yield Verb("end_many", (too_many,))
            for session_id, there in zip(too_many, ended, strict=True):
                if there:
                    yield self._ended(session_id, "limit")

    def _of_user(self, user: str) -> Steps[list[LiveSession]]:
        """All of a user's sessions, however many; in one round trip for nearly everybody."""
        found: list[LiveSession] = yield Verb("of_user", (user, MANY))
        if len(found) < MANY:
            return found
        found = []
        after: str | None = ""
        while after is not None:
            part: Places = yield Verb("places_of_user", (user, MANY, after))
            found += yield Verb("get_many", ([place.session_id for place in part.places], user))
            after = part.next
        return found

    # Rotating and ending.

    def cycle_key(self) -> None:
        """Give the session a new secret, at once: the old key is dead. Id and data stay."""
        self._run(self._cycle_key())

    async def acycle_key(self) -> None:
        await self._arun(self._cycle_key())

    @in_turn
    def _cycle_key(self) -> Steps[None]:
        self._check_writable()
        self.accessed = True
        yield from self._loaded()
        key = self.session_key
        if key is None:
            yield from self._create()
            return
        self._check_unsealed()
        yield from self._send(Commit(rotate_to=keys.make(key.id), user=self._user))
        # So that Django's middleware sends the new cookie.
        self.modified = True

    def flush(self) -> None:
        """End the session, and go on with an empty one that has no key yet."""
        self._run(self._flush())

    async def aflush(self) -> None:
        await self._arun(self._flush())

    @in_turn
    def _flush(self) -> Steps[None]:
        self._check_writable()
        yield from self._end("logout")
        self.clear()
        self._session_key = None

    def delete(self, session_key: str | None = None) -> None:
        """End the session of ``session_key``, or this one, for ever and on whichever transport."""
        self._run(self._delete(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        await self._arun(self._delete(session_key))

    @in_turn
    def _delete(self, session_key: str | None) -> Steps[None]:
        key = self.session_key if session_key is None else keys.parse(session_key)
        if key is None:
            return
        own = self.session_key is not None and self.session_key.id == key.id
        if own:
            self._check_writable()
            self._check_unsealed()
        yield from self._end_by_id(key.id, "logout")
        if own:
            self._expires_in = self.live = None
            self.deleted = True

    def _end(self, reason: str) -> Steps[None]:
        self._check_unsealed()
        if self.session_key is not None:
            yield from self._end_by_id(self.session_key.id, reason)
        if self._contexts is not None:
            self._contexts.forget()
            self._contexts = None
        self._expires_in = self._user = self.live = self._opened_key = None
        if self.transport == HEADER:
            self._session_key = None

    def _end_by_id(self, session_id: str, reason: str) -> Steps[None]:
        if (yield Verb("end", (session_id,))):
            yield self._ended(session_id, reason)

    def _ended(self, session_id: str, reason: str) -> Send:
        return Send(session_ended, type(self), {"session_id": session_id, "reason": reason})

    def exists(self, session_key: str | None) -> bool:
        """Whether ``session_key`` opens a session, on whichever transport."""
        return self._run(self._exists(session_key))

    async def aexists(self, session_key: str | None) -> bool:
        return await self._arun(self._exists(session_key))

    def _exists(self, session_key: str | None) -> Steps[bool]:
        key = keys.parse(session_key)
        return key is not None and (yield Verb("exists", (key,)))

    @classmethod
    def clear_expired(cls) -> None:
        """Sweep what expired sessions left in the index, in bounded steps."""
        store = get_store(settings.SESSION_CACHE_ALIAS)
        while store.sweep():
            pass

    @classmethod
    async def aclear_expired(cls) -> None:
        store = get_store(settings.SESSION_CACHE_ALIAS)
        while await store.asweep():
            pass

    # Beside others that use the session at the same time.

    def serialized(self, wait: float | None = None, lease: float | None = None) -> Serialized:
        """``with`` or ``async with`` this, the session is nobody else's who asks likewise.

        It is locked, opened as it is then, stored at the end of the block and unlocked. Raises
        ``SessionBusy`` if that is not to be had within ``wait`` seconds, and at the end
        ``LeaseExpired``, with nothing stored, if it took longer than ``lease`` seconds. Both are
        settings where they are not given.
        """
        return Serialized(self, wait, lease)

    def readonly(self) -> ReadOnly:
        """``with`` this, whatever writes to the session raises ``SessionReadOnly``."""
        return ReadOnly(self)

    @property
    def read_only(self) -> bool:
        """Whether whatever writes to the session raises ``SessionReadOnly``, and nothing that was
        changed is stored."""
        return self._read_only

    @read_only.setter
    def read_only(self, value: bool) -> None:
        self._read_only = value
        if hasattr(self, "_session_cache"):
            self._fields.read_only = value
        if self._contexts is not None:
            self._contexts.set_read_only(value)

    @property
    def modified(self) -> bool:
        """Whether there is something to store at the end of the request, as in Django."""
        return self._modified or bool(self._changed_contexts)

    @modified.setter
    def modified(self, value: bool) -> None:
        if value and not self._modified:
            self._check_writable()
        self._modified = value

    def is_empty(self) -> bool:
        """Whether there is neither a session nor anything to store in one."""
        return super().is_empty() and not self._changed_contexts

    def _check_writable(self) -> None:
        if self._read_only:
            raise SessionReadOnly("The session is only to be read here: nothing would be stored.")

    @property
    def locked(self) -> bool:
        """Whether this request has the session to itself, as far as it knows."""
        return self._lock is not None and self._lock.held

    def lock(self, wait: float | None = None, lease: float | None = None) -> None:
        """Wait until nobody else has the session locked, lock it, and open it as it is then.

        What was assigned before stays; what was only read is read anew. Locked already, and where
        there is no session yet that others could know, this does nothing. The threads and tasks of
        one request share the lock.
        """
        self._check_may_wait()
        self._run(self._locked(wait, lease))

    async def alock(self, wait: float | None = None, lease: float | None = None) -> None:
        await self._arun(self._locked(wait, lease))

    def _check_may_wait(self) -> None:
        if not self.is_sync and in_event_loop():
            raise SynchronousOnlyOperation(
                "To wait for the session here would hold up all requests of this event loop. Use "
                '"async with session.serialized()", or await session.alock().'
            )

    def unlock(self, *, only_foreseen: bool = False) -> None:
        """Let others have the session; nothing is stored. Nothing to do where it is not locked.

        ``only_foreseen`` leaves a lock that somebody has asked for since it was foreseen.
        """
        if self._lock is not None and (self._lock.foreseen or not only_foreseen):
            self._run(self._lock.give_back())

    async def aunlock(self, *, only_foreseen: bool = False) -> None:
        if self._lock is not None and (self._lock.foreseen or not only_foreseen):
            await self._arun(self._lock.give_back())

    def _own_lock(self) -> Lock:
        if self._lock is None:
            self._lock = Lock(self)
        return self._lock

    @property
    def _ticket(self) -> str:
        return "" if self._lock is None else self._lock.ticket

    def _locked(self, wait: float | None, lease: float | None) -> Steps[None]:
        self._face_the_unknown()
        key = self.session_key
        if key is None:
            return
        lock = self._own_lock()
        if lock.held:
            lock.foreseen = False
            return
        opened = yield from lock.take(wait, lease)
        if opened is None:
            raise self._learn(SessionEnded(f"Session {key.id} has ended."))
        if self._expires_in is None:
            self._opened_key = key  # it was not opened before, nor made here
        self._know(opened)
        try:
            if hasattr(self, "_session_cache"):
                self._fields = self._fields.rebased(opened.fields)
            else:
                self._fields = Fields(self._codec, opened.fields, session_id=key.id)
            if self._contexts is not None:
                yield from self._contexts.reread()
        except BaseException:
            # Something was assigned that cannot be stored, or the store has gone.
            yield from lock.give_back()
            raise

    def _noted(self) -> Noted:
        """What there is by now, for ``_undo``."""
        fields = self._fields.copy() if hasattr(self, "_session_cache") else None
        contexts = [] if self._contexts is None else self._contexts.copies()
        return Noted(self.session_key, self._modified, fields, contexts)

    def _undo(self, noted: Noted) -> None:
        """Forget what was changed since, but for what was stored already."""
        if hasattr(self, "_session_cache"):
            if self.session_key is not None:
                self._fields = self._fields.undone(noted.fields)
            elif noted.key is None and noted.fields is not None:
                self._fields = noted.fields
            else:
                self._fields = Fields(self._codec)
        if self._contexts is not None:
            self._contexts.undo(noted.contexts)
        # A browser has to be told of another key, whatever else there was.
        self._modified = noted.modified or self.session_key != noted.key

    def finish(self, *, commit: bool, unlock: bool = True) -> None:
        """What is done at the end of a request or of a block that has the session to itself.

        Stores the session if it was modified, and the contexts that were changed, unless
        ``commit`` is False; then unlocks it, in the same round trip where something is stored.
        """
        try:
            if commit and self.modified and not self.is_empty():
                self.last_commit = unlock
                if self._modified:
                    self.save()
                else:
                    self._run(self._save_contexts(self._changed_contexts))
        finally:
            self.last_commit = False
            if unlock:
                self.unlock()

    async def afinish(self, *, commit: bool, unlock: bool = True) -> None:
        try:
            if commit and self.modified and not self.is_empty():
                self.last_commit = unlock
                if self._modified:
                    await self.asave()
                else:
                    await self._arun(self._save_contexts(self._changed_contexts))
        finally:
            self.last_commit = False
            if unlock:
                await self.aunlock()

    # Contexts.

    def context(self, name: str | None = None, *, idle_timeout: float | None = None) -> Context:
        """The context of this name, opened in one round trip; made when it is stored first.

        Without a name it is the one that the request names in the header of
        ``HEADER_SESSIONS_CONTEXT_HEADER``. ``idle_timeout`` is that of a new one, in seconds; by
        default that of the session, which it cannot outlive.

        Raises ``ContextNameInvalid``; and ``ContextUnknown`` for a handle that is not one of this
        session's, or is over.
        """
        return self._run(self._own_contexts().open(name, idle_timeout))

    async def acontext(
        self, name: str | None = None, *, idle_timeout: float | None = None
    ) -> Context:
        return await self._arun(self._own_contexts().open(name, idle_timeout))

    def new_context(self, *, idle_timeout: float | None = None) -> str:
        """Make an empty context at once, and the session too if there is none; its handle.

        The handle is what a client passes from call to call, for ``context(handle)``. It opens
        nothing but in its own session. Raises ``TooManyContexts``.
        """
        return self._run(self._own_contexts().make(idle_timeout))

    async def anew_context(self, *, idle_timeout: float | None = None) -> str:
        return await self._arun(self._own_contexts().make(idle_timeout))

    def _own_contexts(self) -> Contexts:
        if self._contexts is None:
            self._contexts = Contexts(self, self._context_name)
        return self._contexts

    @property
    def _changed_contexts(self) -> list[Context]:
        return [] if self._contexts is None else self._contexts.changed

    def contexts(self) -> list[LiveContext]:
        """The contexts of this session that are stored, by name."""
        return self._run(self._own_contexts().stored())

    async def acontexts(self) -> list[LiveContext]:
        return await self._arun(self._own_contexts().stored())

    def end_context(self, name: str) -> bool:
        """End one context; False where there is none of this name."""
        return self._run(self._own_contexts().end(name))

    async def aend_context(self, name: str) -> bool:
        return await self._arun(self._own_contexts().end(name))

    # Rules.

    def _terms(self) -> Terms:
        # Which Django lets a class that derives from this one say.
        idle = self.get_session_cookie_age()
        absolute = None if self.transport == COOKIE else conf.HEADER_SESSIONS_ABSOLUTE_TIMEOUT
        return Terms(_ms(idle), None if absolute is None else _ms(absolute))

    def _expiry(self) -> Expiry | None:
        """The lifetime that ``set_expiry`` asked for, or a cookie's age."""
        value = self._fields.get(EXPIRY)
        if self.transport == COOKIE:
            return Expiry("deadline", _ms(self.get_expiry_age(expiry=value)))
        if not value:
            return Expiry("default")
        if isinstance(value, int | float):
            return Expiry("idle", _ms(value))
        return Expiry("deadline", _ms_until(value))

    def _idle_ms(self, of_context: float | None) -> int:
        """The idle timeout of a context: in seconds, or by default the session's, as far as it is
        known here."""
        if of_context is not None:
            return max(_ms(of_context), 1)
        own = self._fields.get(EXPIRY) if hasattr(self, "_session_cache") else None
        return _ms(own) if own and isinstance(own, int | float) else self._terms().idle

    def _has_deadline(self) -> bool:
        """Whether the session is over at a moment that was set once. Only the store tells how far
        off that is by now; any other age Django sets anew whenever it saves a cookie session."""
        value = self._fields.get(EXPIRY)
        return value is not None and not isinstance(value, int | float)

    def _is_over(self) -> bool:
        """Whether ``set_expiry`` asked for a lifetime that is over already."""
        value = self._fields.get(EXPIRY) if hasattr(self, "_session_cache") else None
        if not value:
            return False
        return (value if isinstance(value, int | float) else _ms_until(value)) <= 0

    def _signed_in_user(self) -> str | None:
        user = self._fields.get(USER_ID)
        return None if user is None else str(user)

    def _check_unsealed(self) -> None:
        if self.sealed:
            raise KeyAlreadySent(
                "The session's key cannot change any more: the headers of the answer were sent. "
                "Sign in and out, and write to a new session, before the body is streamed."
            )

    # Doing.

    def _run(self, steps: Steps[T]) -> T:
        return drive(steps, self._do)

    def _arun(self, steps: Steps[T]) -> Coroutine[None, None, T]:
        return adrive(steps, self._ado)

    def _do(self, step: Verb | Send | Sleep | Wait) -> Any:
        try:
            match step:
                case Verb():
                    return step.ask(self._store)
                case Send():
                    return step.send()
                case Wait():
                    return _wait(step.until)
                case _:
                    return step.waiter.wait(step.seconds)
        except BaseException as error:
            self._learn(error)
            raise

    async def _ado(self, step: Verb | Send | Sleep | Wait) -> Any:
        try:
            match step:
                case Verb():
                    return step.ask(self._store) if self.is_sync else await step.aask(self._store)
                case Send():
                    return await step.asend()
                case Wait():
                    return await asyncio.wrap_future(step.until)
                case _:
                    return await step.waiter.await_(step.seconds)
        except BaseException as error:
            self._learn(error)
            raise

    def _learn(self, error: E) -> E:
        # That a cookie session is gone is Django's business: an UpdateError, if anything.
        if isinstance(error, SessionUnavailable) or (
            isinstance(error, SessionEnded | SessionSuperseded) and self.transport == HEADER
        ):
            self.fault = error
        return error


def _wait(until: Future[None]) -> None:
    if in_event_loop():
        raise SynchronousOnlyOperation(
            "Another task or thread of this request is storing the session, and would never be "
            "done if the event loop waited for it here. Use the async method: await "
            "session.asave()."
        )
    try:
        until.result(LONGEST_TURN)
    except TimeoutError as error:
        raise RuntimeError(
            f"Another task of this request has been storing the session for {LONGEST_TURN} s. It "
            "may be waiting for this very thread: use the async methods, and no sync ones beside."
        ) from error


def _touches(changes: Changes, name: str) -> bool:
    return changes.clear or name in changes.set or name in changes.delete


def _by_sign_in(session: LiveSession) -> tuple[int, str]:
    return session.signed_in_ms or session.created_ms, session.id


def _ms(seconds: float) -> int:
    # Lua counts in doubles, so no lifetime is longer than they can tell to the millisecond.
    return int(min(seconds, LONGEST) * 1000)


def _ms_until(moment: datetime | str) -> int:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return min(int((moment - timezone.now()) / timedelta(milliseconds=1)), LONGEST * 1000)
