"""Sessions in any Django cache that is neither Redis nor LocMem.

Such a cache promises no more than Django's cache API, so this store promises less than the
others: it lists nothing; a verb takes several round trips; values go through the cache's own
serialiser; and changes are merged under a lock made with ``cache.add``. That lock expires after
``LEASE`` seconds, so that a server which died does not lock a session for ever, and it is no
fence: a server that stalled for longer while it held the lock may undo what others did meanwhile.
The file cache's ``add`` is two steps, so there the lock is the operating system's, on a file.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast

from asgiref.sync import sync_to_async
from django.core.cache import BaseCache, caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.files import locks
from django.db import DatabaseError, InterfaceError

from ..conf import conf
from ..exceptions import (
    ContextUnknown,
    LeaseExpired,
    ListingNotSupported,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
    TooManyContexts,
)
from ..fields import size
from ..keys import SessionKey, make
from ..origin import Origin
from .base import (
    CREATE_TRIES,
    Activity,
    Commit,
    Committed,
    Cursor,
    Draft,
    Expiry,
    Finding,
    Kind,
    LiveContext,
    LiveSession,
    Memory,
    Opened,
    Outage,
    Page,
    Places,
    Queued,
    Terms,
    grain,
)
from .bell import Bell, Waiter
from .turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

LEASE = 10
"""Seconds after which a lock is taken from whoever holds it, and after which a waiter gives up."""


POLL = 50
"""Milliseconds between two questions of one who waits for a session's lock: these caches have no
way to wake somebody in another process."""


@dataclass(frozen=True, slots=True)
class Context:
    """One context as it lies in the cache, with its idle timeout and when it is over."""

    idle: int
    gone: int
    fields: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """One session as it lies in the cache. Moments are milliseconds since 1970."""

    secret_hash: bytes = field(repr=False)
    transport: str
    created: int
    last_seen: int
    deadline: int | None
    previous: tuple[bytes, ...] = field(default=(), repr=False)
    own_idle: int | None = None
    own_deadline: int | None = None
    user: str | None = None
    signed_in: int | None = None
    origin: Origin = field(default_factory=Origin)
    fields: dict[str, bytes] = field(default_factory=dict)

    def lifetime(self, now: int, idle: int) -> tuple[int, int]:
        """When it is over if it is used now and not again, and when its entry expires, which is
        up to a grain later since not every use is written."""
        idle = idle if self.own_idle is None else self.own_idle
        over = now + idle if self.own_deadline is None else self.own_deadline
        gone = over + grain(idle) if self.own_deadline is None else over
        deadline = gone if self.deadline is None else self.deadline
        return min(over, deadline), min(gone, deadline)

    def expiring(self, expiry: Expiry | None, now: int) -> Record:
        """The same with another lifetime of its own."""
        if expiry is None:
            return self
        return replace(
            self,
            own_idle=expiry.ms if expiry.kind == "idle" else None,
            own_deadline=now + expiry.ms if expiry.kind == "deadline" else None,
        )


def _in_thread(
    verb: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[None, None, T]]:
    """The async form of a verb, which has it done in a thread."""

    @wraps(verb)
    async def twin(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # By its name: it may be overridden.
        asked = sync_to_async(getattr(self, verb.__name__), thread_sensitive=self.in_own_thread)
        return cast("T", await asked(*args, **kwargs))

    twin.__name__ = f"a{verb.__name__}"
    return twin


class CacheStore:
    """Keeps the sessions of one alias by reading, merging and writing under a lock."""

    lists = False

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._bell = Bell()
        # Connections to a database belong to the one thread of the request. Any other cache is
        # asked in another: sync code may wait there for what is asked here to be done.
        self.in_own_thread = isinstance(self._cache, BaseDatabaseCache)
        self._is_exact = isinstance(self._cache, FileBasedCache | LocMemCache)

    def open(self, key: SessionKey, transport: str, terms: Terms) -> Opened | None:
        record, now = self._found(key, transport), _now()
        if record is not None and now - record.last_seen >= grain(record.own_idle or terms.idle):
            with self._locked(key.id):
                record = self._found(key, transport)
                if record is not None:
                    record = replace(record, last_seen=now)
                    self._write(key.id, record, now, terms.idle)
                    contexts = self._contexts(key.id, now)
                    if contexts:
                        self._write_contexts(key.id, contexts, record, terms, (), now)
        if record is None:
            return None
        return Opened(dict(record.fields), _live(key.id, record, now, now, terms.idle))

    def create(self, draft: Draft, terms: Terms) -> tuple[SessionKey, int]:
        for _ in range(CREATE_TRIES):
            key, now = make(), _now()
            record = Record(
                key.secret_hash,
                draft.transport,
                created=now,
                last_seen=now,
                deadline=None if terms.absolute is None else now + terms.absolute,
                user=draft.user,
                signed_in=None if draft.user is None else now,
                origin=draft.origin,
                fields=draft.fields,
            ).expiring(draft.expiry, now)
            if self._write(key.id, record, now, terms.idle, new=True):
                return key, record.lifetime(now, terms.idle)[0] - now
        raise SessionUnavailable(f"No free session id was drawn in {CREATE_TRIES} tries.")

    def commit(self, key: SessionKey, transport: str, terms: Terms, commit: Commit) -> Committed:
        with self._locked(key.id):
            now = _now()
            record = self._checked(key, transport, commit.ticket, now)
            contexts, promoted = self._changed_contexts(key.id, commit, now)
            fields = commit.changes.applied_to(record.fields) | promoted
            after = replace(record, fields=fields)
            if commit.rotate_to is not None:
                previous = (record.secret_hash, *record.previous)[:4]
                after = replace(after, secret_hash=commit.rotate_to.secret_hash, previous=previous)
            if commit.signed:
                deadline = record.deadline
                if commit.user is not None:
                    deadline = None if terms.absolute is None else now + terms.absolute
                signed_in = None if commit.user is None else now
                after = replace(after, user=commit.user, signed_in=signed_in, deadline=deadline)
            moved = commit.signed or commit.expiry is not None
            if moved:
                after = replace(after.expiring(commit.expiry, now), last_seen=now)
            self._write(key.id, after, after.last_seen, terms.idle)
            if contexts is not None:
                changed = {context.name for context in commit.contexts}
                self._write_contexts(key.id, contexts, after, terms, changed, now)
            if commit.unlock:
                self._unlock(key.id, commit.ticket, now)

        over, _ = after.lifetime(now, terms.idle)
        add = commit.changes.add
        return Committed(
            over - now if moved else None, int(after.fields[add[0]]) if add else None, promoted
        )

    def waiter(self) -> Waiter:
        return self._bell.waiter()

    def lock(
        self, key: SessionKey, transport: str, terms: Terms, ticket: str, lease: int
    ) -> Opened | Queued | None:
        with self._locked(key.id):
            now = _now()
            if self._found(key, transport) is None:
                return None
            turns = self._turns(key.id).asked(ticket, now, lease)
            self._write_turns(key.id, turns, now)
            if not turns.held_by(ticket, now):
                return Queued(min(turns.ask_again(ticket, now), self._longest_sleep))
        return self.open(key, transport, terms)

    def unlock(self, session_id: str, ticket: str) -> None:
        with self._locked(session_id):
            self._unlock(session_id, ticket, _now())

    def open_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str
    ) -> dict[str, bytes] | None:
        with self._locked(key.id):
            now = _now()
            record = self._checked(key, transport, "", now)
            contexts = self._contexts(key.id, now)
            if name not in contexts:
                return None
            self._write_contexts(key.id, contexts, record, terms, {name}, now)
            return dict(contexts[name].fields)

    def contexts(self, session_id: str) -> list[LiveContext]:
        record, now = self._read(session_id), _now()
        if record is None:
            return []
        gone = now + self._seen(session_id, record).expires_in
        return [
            LiveContext(name, size(one.fields), len(one.fields), min(one.gone, gone) - now)
            for name, one in sorted(self._contexts(session_id, now).items())
        ]

    def end_context(self, session_id: str, name: str) -> bool:
        with self._locked(session_id):
            now = _now()
            record, contexts = self._read(session_id), self._contexts(session_id, now)
            if record is None or contexts.pop(name, None) is None:
                return False
            gone = now + self._seen(session_id, record).expires_in
            self._store_contexts(session_id, contexts, now, gone)
            return True

    def end(self, session_id: str) -> bool:
        with self._locked(session_id):
            return self._delete(session_id)

    def end_many(self, session_ids: Collection[str]) -> list[bool]:
        return [self.end(session_id) for session_id in session_ids]

    def exists(self, key: SessionKey) -> bool:
        record = self._read(key.id)
        return record is not None and secrets.compare_digest(record.secret_hash, key.secret_hash)

    def get(self, session_id: str) -> Opened | None:
        record = self._read(session_id)
        if record is None:
            return None
        return Opened(dict(record.fields), self._seen(session_id, record))

    def get_many(self, session_ids: Collection[str], user: str = "") -> list[LiveSession]:
        found = map(self.get, session_ids)
        return [opened.session for opened in found if opened is not None]

    def count(self) -> dict[Kind, int]:
        self._no_list()

    def page(
        self,
        limit: int,
        after: Cursor | None = None,
        kinds: Collection[Kind] = (),
        backward: bool = False,
    ) -> Page:
        self._no_list()

    def page_each(
        self, limit: int, after: Mapping[Kind, Cursor], kinds: Collection[Kind], backward: bool
    ) -> dict[Kind, Page]:
        self._no_list()

    def of_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        self._no_list()

    def places_of_user(self, user: str, limit: int = 1000, after: str = "") -> Places:
        self._no_list()

    def sweep(self, limit: int = 200) -> int:
        return 0

    def activity(self) -> list[Activity]:
        self._no_list()

    def memory(self) -> Memory | None:
        return None

    # The async twins: one thread hop around the sync verb.

    aopen = _in_thread(open)  # noqa: A003  the verb above
    acreate = _in_thread(create)
    acommit = _in_thread(commit)
    alock = _in_thread(lock)
    aunlock = _in_thread(unlock)
    aopen_context = _in_thread(open_context)
    acontexts = _in_thread(contexts)
    aend_context = _in_thread(end_context)
    aend = _in_thread(end)
    aend_many = _in_thread(end_many)
    aexists = _in_thread(exists)
    aget = _in_thread(get)
    aget_many = _in_thread(get_many)
    acount = _in_thread(count)
    apage = _in_thread(page)
    apage_each = _in_thread(page_each)
    aof_user = _in_thread(of_user)
    aplaces_of_user = _in_thread(places_of_user)
    asweep = _in_thread(sweep)
    aactivity = _in_thread(activity)
    amemory = _in_thread(memory)

    def outages(self) -> list[Outage]:
        return []

    def examine(self) -> list[Finding]:
        self._read(make().id)
        return [Finding("ok", f"The cache {self.alias!r} answers.")]

    def _found(self, key: SessionKey, transport: str) -> Record | None:
        """The session that ``key`` opens; None where there is none."""
        record = self._read(key.id)
        if record is None or record.transport != transport:
            return None
        if key.secret_hash in record.previous:
            raise SessionSuperseded(f"Session {key.id} was given a newer key.")
        return record if secrets.compare_digest(record.secret_hash, key.secret_hash) else None

    def _checked(self, key: SessionKey, transport: str, ticket: str, now: int) -> Record:
        """The session that is to be changed. Raises where the key or the ticket is not good."""
        record = self._found(key, transport)
        if record is None:
            raise SessionEnded(f"Session {key.id} has ended.")
        if ticket and not self._turns(key.id).held_by(ticket, now):
            raise LeaseExpired(
                f"Session {key.id} was locked for longer than its lease: others may have it now."
            )
        return record

    def _unlock(self, session_id: str, ticket: str, now: int) -> None:
        turns = self._turns(session_id).left(ticket, now)
        self._write_turns(session_id, turns, now)
        if not turns.holder:
            self._bell.ring(turns.next)

    def _contexts(self, session_id: str, now: int) -> dict[str, Context]:
        found: dict[str, Context] = _asking(self._cache.get, f"hs:c:{session_id}", {})
        return {name: context for name, context in found.items() if context.gone > now}

    def _changed_contexts(
        self, session_id: str, commit: Commit, now: int
    ) -> tuple[dict[str, Context] | None, dict[str, bytes]]:
        """The contexts after a commit, None where it has nothing to do with them; and what of them
        is the session's now."""
        moved = commit.signed or commit.expiry is not None
        if not commit.contexts and not moved:
            return None, {}
        contexts = self._contexts(session_id, now)
        if not commit.contexts and not contexts:
            return None, {}
        promoted: dict[str, bytes] = {}
        for change in commit.contexts:
            context = contexts.get(change.name)
            if context is None:
                if change.idle is None:
                    raise ContextUnknown(f"Session {session_id} has no such context.")
                if not change.promote and len(contexts) >= commit.most:
                    raise TooManyContexts(
                        f"Session {session_id} has as many contexts as it may have."
                    )
                context = Context(change.idle, 0)
            context = replace(context, fields=change.changes.applied_to(context.fields))
            if change.promote:
                contexts.pop(change.name, None)
                promoted |= context.fields
            else:
                contexts[change.name] = context
        return contexts, promoted

    def _write_contexts(
        self,
        session_id: str,
        contexts: dict[str, Context],
        record: Record,
        terms: Terms,
        used: Collection[str],
        now: int,
    ) -> None:
        """Store the contexts; the idle timeout of those that were used begins now, and all end with
        their session at the latest."""
        timed = contexts | {
            name: replace(contexts[name], gone=now + contexts[name].idle)
            for name in contexts.keys() & set(used)
        }
        session_gone = record.lifetime(record.last_seen, terms.idle)[1]
        self._store_contexts(session_id, timed, now, session_gone)

    def _store_contexts(
        self, session_id: str, contexts: dict[str, Context], now: int, session_gone: int
    ) -> None:
        name = f"hs:c:{session_id}"
        if not contexts:
            _asking(self._cache.delete, name)
            return
        last = max(context.gone for context in contexts.values())
        self._keep(name, contexts, min(last, session_gone) - now)

    # What LocMem does otherwise.

    _longest_sleep = POLL
    """Milliseconds after which one who waits for a lock has to ask again."""

    def _turns(self, session_id: str) -> Turns:
        turns: Turns = _asking(self._cache.get, f"hs:t:{session_id}", Turns())
        return turns

    def _write_turns(self, session_id: str, turns: Turns, now: int) -> None:
        if not turns.holder and not turns.waiting:
            _asking(self._cache.delete, f"hs:t:{session_id}")
            return
        last = max([turns.until, *(alive for _, alive in turns.waiting)])
        self._keep(f"hs:t:{session_id}", turns, last - now)

    @property
    def _cache(self) -> BaseCache:
        # Asked for each time: Django keeps one a thread, as not every client bears sharing.
        return caches[self.alias]

    def _read(self, session_id: str) -> Record | None:
        record: Record | None = _asking(self._cache.get, _key(session_id))
        if record is None and not self._answers():
            raise SessionUnavailable(f"The cache {self.alias!r} keeps nothing at the moment.")
        return record

    def _answers(self) -> bool:
        """Whether the cache is there at all: to some of Django's, a server that is down is one
        that knows no key."""
        token = secrets.token_hex(8)
        name = f"hs:p:{token}"
        _asking(self._cache.set, name, token, LEASE)
        there = bool(_asking(self._cache.get, name) == token)
        _asking(self._cache.delete, name)
        return there

    def _write(
        self, session_id: str, record: Record, seen: int, idle: int, *, new: bool = False
    ) -> bool:
        """Store a session that was last used at ``seen``; False where ``new`` and it was there."""
        _, gone = record.lifetime(seen, idle)
        name, ms = _key(session_id), gone - _now()
        if new:
            return bool(_asking(self._cache.add, name, record, self._seconds(ms)))
        self._keep(name, record, ms)
        return True

    def _keep(self, name: str, value: object, ms: int) -> None:
        """Store ``value`` for so long, under the session's lock.

        Raises ``SessionUnavailable`` where it is not kept: Django's database cache tells nobody
        that the database refused, nor does every client of memcached.
        """
        _asking(self._cache.set, name, value, self._seconds(ms))
        if not self._is_exact and ms > 0 and _asking(self._cache.get, name) != value:
            raise SessionUnavailable(f"The cache {self.alias!r} has not kept what it was given.")

    def _seconds(self, ms: int) -> float:
        """For how long to have the cache keep something: most count in whole seconds, and cut."""
        return ms / 1000 if self._is_exact or ms <= 0 else math.ceil(ms / 1000) + 1

    def _delete(self, session_id: str) -> bool:
        # Some caches keep what expired until it is asked for, and delete it as if it were there.
        there = self._read(session_id) is not None
        _asking(self._cache.delete_many, [f"hs:{kind}:{session_id}" for kind in "ct"])
        _asking(self._cache.delete, _key(session_id))
        return there

    def _locked(self, session_id: str) -> AbstractContextManager[None]:
        cache = self._cache
        lock = _file_lock if isinstance(cache, FileBasedCache) else _cache_lock
        return lock(cache, f"hs:l:{session_id}")

    def _seen(self, session_id: str, record: Record) -> LiveSession:
        idle = conf.HEADER_SESSIONS_IDLE_TIMEOUT * 1000
        live = _live(session_id, record, record.last_seen, _now(), idle)
        return replace(live, size=size(record.fields), fields=len(record.fields))

    def _no_list(self) -> NoReturn:
        raise ListingNotSupported(
            f"The cache {self.alias!r} cannot list its sessions. To see and to end sessions, put "
            "SESSION_CACHE_ALIAS on Redis, or on LocMemCache where there is one process."
        )


def _had(name: str, take: Callable[[], T | None]) -> T:
    """What ``take`` gives once it gives something; the lock of this name."""
    give_up = time.monotonic() + LEASE
    pause = 0.001
    while not (taken := _asking(take)):
        if time.monotonic() > give_up:
            raise SessionUnavailable(f"The lock {name} could not be had in {LEASE} seconds.")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
    return taken


@contextmanager
def _file_lock(cache: Any, name: str) -> Iterator[None]:
    """Beside the cache's files. It is its holder's until that lets go of it, or is no more."""
    _asking(cache._createdir)
    path = f"{cache._key_to_file(name)}.lock"

    def take() -> ExitStack | None:
        with ExitStack() as stack:
            file = stack.enter_context(open(path, "a"))
            if locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
                # Who had it before has removed it: nobody else will come to the same one.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                        return stack.pop_all()
        return None

    with _had(name, take):
        try:
            yield
        finally:
            # Where that is not to be had, the next one to come locks the same file.
            with suppress(OSError):
                os.unlink(path)


@contextmanager
def _cache_lock(cache: BaseCache, name: str) -> Iterator[None]:
    token = secrets.token_hex(8)
    _had(name, lambda: cache.add(name, token, LEASE))
    try:
        yield
    finally:
        if _asking(cache.get, name) == token:
            _asking(cache.delete, name)


def _asking(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Django names no exception for a cache that cannot be reached; these are what its memcached,
    file and database backends raise."""
    try:
        return ask(*args, **kwargs)
    except (OSError, DatabaseError, InterfaceError) as error:
        raise SessionUnavailable(f"The session cache cannot be used: {error}") from error


def _live(session_id: str, record: Record, seen: int, now: int, idle: int) -> LiveSession:
    over, _ = record.lifetime(seen, idle)
    return LiveSession(
        id=session_id,
        transport=record.transport,
        user=record.user,
        created_ms=record.created,
        last_seen_ms=record.last_seen,
        # In its last grain, not written yet, it is over at any moment.
        expires_ms=max(over, now),
        expires_in=max(over - now, 0),
        ip=record.origin.ip,
        user_agent=record.origin.user_agent,
        deadline_ms=record.deadline,
        signed_in_ms=record.signed_in,
    )


def _key(session_id: str) -> str:
    return f"hs:s:{session_id}"


def _now() -> int:
    return time.time_ns() // 1_000_000
