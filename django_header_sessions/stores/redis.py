"""Sessions in Redis: a hash each, changed by one Lua script a verb.

====================================  ==========  ================================================
key                                   type        holds
====================================  ==========  ================================================
``…hs{b}:s:<id>``                     hash        the fields, and the meta values that
                                                  ``scripts/session.lua`` lists
``…hs{b}:i:<transport><signed in>``   sorted set  ids of bucket ``b``, scored by when their keys
                                                  expire; those of signed-in sessions with the user
``…hs{b}:u``                          sorted set  ``<user>`` NUL ``<id>``, all of score 0: one
                                                  user's sessions, read by range of names
``…hs{b}:n``                          hash        how many were created, were ended and expired in
                                                  each minute of the last hour
``…hs{b}:l:<id>``                     string      the ticket that holds the session's lock, for as
                                                  long as its lease
``…hs{b}:q:<id>``                     sorted set  tickets that wait for it, by when they first asked
``…hs{b}:w:<id>``                     sorted set  the same, by when they are passed over
``…hs{b}:c:<id>:<name>``              hash        the fields of a context, and its idle timeout
``…hs{b}:m:<id>``                     sorted set  the names of the session's contexts, by when they
                                                  expire
====================================  ==========  ================================================

``…`` is what the cache alias puts in front of its keys, and ``b`` a bucket taken from the id. The
braces put a session and its indexes into one slot of a cluster, so that one script changes them
together or not at all.

Each verb is written once, as steps: a generator that yields scripts and is sent their answers.
``_run`` and ``_arun`` take it through them, and differ only at the ``await``.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections.abc import Collection, Generator, Iterable
from typing import Any, TypeVar

from django.core.cache import BaseCache, caches

from ..conf import conf
from ..exceptions import (
    ContextUnknown,
    LeaseExpired,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
    TooManyContexts,
)
from ..fields import Changes
from ..keys import ID_LENGTH, SessionKey, make
from .base import (
    ASK_AGAIN,
    CREATE_TRIES,
    HOUR,
    KINDS,
    PATIENCE,
    Activity,
    Commit,
    Committed,
    ContextCommit,
    Cursor,
    Draft,
    Finding,
    Kind,
    LiveContext,
    LiveSession,
    Memory,
    Opened,
    Outage,
    Page,
    Queued,
    Terms,
)
from .bell import Waiter
from .servers import Call, Script, servers_of

T = TypeVar("T")
Steps = Generator[Call | list[Call], Any, T]

OPEN, CREATE, COMMIT, END, LOOK, PAGE, COUNT, USER, SWEEP, ACTIVITY = (
    Script.load(name)
    for name in "open create commit end look page count user sweep activity".split()
)

LOCK, UNLOCK, OPEN_CONTEXT, COMMIT_CONTEXT, PROMOTE, CONTEXTS, END_CONTEXT = (
    Script.load(name)
    for name in "lock unlock open_context commit_context promote contexts end_context".split()
)

NOT_THERE, SUPERSEDED, NO_CONTEXT, TAKEN = 0, 1, 3, -1
META = b"\xff"
_HEAD = struct.Struct(">15sqq")
_LETTER = {"header": "h", "cookie": "c"}
_TRANSPORT = {b"h": "header", b"c": "cookie"}
_TALLIED = b"+-x"


class RedisStore:
    """Keeps the sessions of one alias whose cache is django-redis's, or Django's own for Redis."""

    lists = True

    def __init__(self, alias: str) -> None:
        cache = caches[alias]
        self._servers = servers_of(alias, cache)
        buckets = conf.HEADER_SESSIONS_BUCKETS or self._servers.buckets
        self._buckets = [_Bucket(cache, self._servers.tag(b, buckets)) for b in range(buckets)]
        self._channels = str(cache.make_key("hs:w:"))
        self._bell = self._servers.bell(self._channels)

    # The verbs, in pairs.

    def open(self, key: SessionKey, transport: str, terms: Terms) -> Opened | None:
        return self._run(self._open(key, transport, terms))

    async def aopen(self, key: SessionKey, transport: str, terms: Terms) -> Opened | None:
        return await self._arun(self._open(key, transport, terms))

    def create(self, draft: Draft, terms: Terms) -> tuple[SessionKey, int]:
        return self._run(self._create(draft, terms))

    async def acreate(self, draft: Draft, terms: Terms) -> tuple[SessionKey, int]:
        return await self._arun(self._create(draft, terms))

    def commit(self, key: SessionKey, transport: str, terms: Terms, commit: Commit) -> Committed:
        return self._run(self._commit(key, transport, terms, commit))

    async def acommit(
        self, key: SessionKey, transport: str, terms: Terms, commit: Commit
    ) -> Committed:
        return await self._arun(self._commit(key, transport, terms, commit))

    def waiter(self) -> Waiter:
        return self._bell.waiter()

    def lock(
        self, key: SessionKey, transport: str, terms: Terms, ticket: str, lease: int
    ) -> Opened | Queued | None:
        return self._run(self._lock(key, transport, terms, ticket, lease))

    async def alock(
        self, key: SessionKey, transport: str, terms: Terms, ticket: str, lease: int
    ) -> Opened | Queued | None:
        return await self._arun(self._lock(key, transport, terms, ticket, lease))

    def unlock(self, session_id: str, ticket: str) -> None:
        self._run(self._unlock(session_id, ticket))

    async def aunlock(self, session_id: str, ticket: str) -> None:
        await self._arun(self._unlock(session_id, ticket))

    def open_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str
    ) -> dict[str, bytes] | None:
        return self._run(self._open_context(key, transport, name))

    async def aopen_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str
    ) -> dict[str, bytes] | None:
        return await self._arun(self._open_context(key, transport, name))

    def commit_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str, commit: ContextCommit
    ) -> None:
        self._run(self._commit_context(key, transport, name, commit))

    async def acommit_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str, commit: ContextCommit
    ) -> None:
        await self._arun(self._commit_context(key, transport, name, commit))

    def promote(
        self,
        key: SessionKey,
        transport: str,
        terms: Terms,
        name: str,
        changes: Changes,
        ticket: str,
    ) -> dict[str, bytes]:
        return self._run(self._promote(key, transport, name, changes, ticket))

    async def apromote(
        self,
        key: SessionKey,
        transport: str,
        terms: Terms,
        name: str,
        changes: Changes,
        ticket: str,
    ) -> dict[str, bytes]:
        return await self._arun(self._promote(key, transport, name, changes, ticket))

    def contexts(self, session_id: str) -> list[LiveContext]:
        return self._run(self._contexts(session_id))

    async def acontexts(self, session_id: str) -> list[LiveContext]:
        return await self._arun(self._contexts(session_id))

    def end_context(self, session_id: str, name: str) -> bool:
        return self._run(self._end_context(session_id, name))

    async def aend_context(self, session_id: str, name: str) -> bool:
        return await self._arun(self._end_context(session_id, name))

    def end(self, session_id: str) -> bool:
        return self._run(self._end(session_id))

    async def aend(self, session_id: str) -> bool:
        return await self._arun(self._end(session_id))

    def end_many(self, session_ids: Collection[str]) -> list[bool]:
        return self._run(self._end_many(session_ids))

    async def aend_many(self, session_ids: Collection[str]) -> list[bool]:
        return await self._arun(self._end_many(session_ids))

    def exists(self, key: SessionKey) -> bool:
        return self._run(self._exists(key))

    async def aexists(self, key: SessionKey) -> bool:
        return await self._arun(self._exists(key))

    def get(self, session_id: str) -> Opened | None:
        return self._run(self._get(session_id))

    async def aget(self, session_id: str) -> Opened | None:
        return await self._arun(self._get(session_id))

    def get_many(self, session_ids: Collection[str]) -> list[LiveSession]:
        return self._run(self._get_many(session_ids))

    async def aget_many(self, session_ids: Collection[str]) -> list[LiveSession]:
        return await self._arun(self._get_many(session_ids))

    def count(self) -> dict[Kind, int]:
        return self._run(self._count())

    async def acount(self) -> dict[Kind, int]:
        return await self._arun(self._count())

    def page(
        self,
        limit: int,
        after: Cursor | None = None,
        kinds: Collection[Kind] = (),
        backward: bool = False,
    ) -> Page:
        return self._run(self._page(limit, after, kinds, backward))

    async def apage(
        self,
        limit: int,
        after: Cursor | None = None,
        kinds: Collection[Kind] = (),
        backward: bool = False,
    ) -> Page:
        return await self._arun(self._page(limit, after, kinds, backward))

    def of_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        return self._run(self._of_user(user, limit))

    async def aof_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        return await self._arun(self._of_user(user, limit))

    def sweep(self, limit: int = 200) -> int:
        return self._run(self._sweep(limit))

    async def asweep(self, limit: int = 200) -> int:
        return await self._arun(self._sweep(limit))

    def activity(self) -> list[Activity]:
        return self._run(self._activity())

    async def aactivity(self) -> list[Activity]:
        return await self._arun(self._activity())

    def memory(self) -> Memory | None:
        return self._servers.memory()

    async def amemory(self) -> Memory | None:
        return await self._servers.amemory()

    def outages(self) -> list[Outage]:
        return self._servers.outages()

    def examine(self) -> list[Finding]:
        return self._servers.examine()

    def _run(self, steps: Steps[T]) -> T:
        try:
            call = next(steps)
            while True:
                if isinstance(call, Call):
                    call = steps.send(self._servers.run(call))
                else:
                    call = steps.send(self._servers.run_all(call))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _arun(self, steps: Steps[T]) -> T:
        try:
            call = next(steps)
            while True:
                if isinstance(call, Call):
                    call = steps.send(await self._servers.arun(call))
                else:
                    call = steps.send(await self._servers.arun_all(call))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    # What each verb asks, and what it makes of the answers.

    def _open(self, key: SessionKey, transport: str, terms: Terms) -> Steps[Opened | None]:
        bucket = self._bucket(key.id)
        answer = yield Call(
            OPEN,
            bucket.session(key.id, transport),
            (key.id, key.secret_hash, _LETTER[transport], terms.idle),
        )
        if answer == SUPERSEDED:
            raise _superseded(key)
        return None if answer == NOT_THERE else _opened(key.id, answer)

    def _create(self, draft: Draft, terms: Terms) -> Steps[tuple[SessionKey, int]]:
        expiry = draft.expiry
        for tries_left in reversed(range(CREATE_TRIES)):
            key = make()
            expires_in = yield Call(
                CREATE,
                self._bucket(key.id).session_user_and_counters(key.id, draft.transport),
                (
                    key.id,
                    key.secret_hash,
                    _LETTER[draft.transport],
                    terms.idle,
                    _optional(terms.absolute),
                    draft.user or "",
                    expiry.ms if expiry and expiry.kind == "idle" else "",
                    expiry.ms if expiry and expiry.kind == "deadline" else "",
                    draft.origin.ip,
                    draft.origin.user_agent,
                    *_flat(draft.fields),
                ),
                moving=TAKEN if tries_left else None,
            )
            if expires_in != TAKEN:
                return key, expires_in
        raise SessionUnavailable(f"No free session id was drawn in {CREATE_TRIES} tries.")

    def _commit(
        self, key: SessionKey, transport: str, terms: Terms, commit: Commit
    ) -> Steps[Committed]:
        changes, expiry = commit.changes, commit.expiry
        bucket = self._bucket(key.id)
        answer = yield Call(
            COMMIT,
            bucket.commit(key.id, transport, commit),
            (
                key.id,
                key.secret_hash,
                _LETTER[transport],
                terms.idle,
                _optional(terms.absolute),
                commit.rotate_to.secret_hash if commit.rotate_to else "",
                "+" + (commit.user or "") if commit.signed else "=",
                expiry.kind if expiry else "=",
                expiry.ms if expiry else 0,
                int(changes.clear),
                len(changes.set),
                len(changes.delete),
                commit.ticket,
                self._channels if commit.unlock else "",
                bucket.contexts_of(key.id),
                *_flat(changes.set),
                *map(_name, changes.delete),
                *((_name(changes.add[0]), changes.add[1]) if changes.add else ()),
            ),
        )
        _refused(answer, key)
        if isinstance(answer, bytes):
            raise _not_counted(answer, changes.add)
        expires_in, total, next_one = answer
        self._bell.ring(next_one.decode())
        return Committed(None if expires_in < 0 else expires_in, int(total) if total else None)

    def _lock(
        self, key: SessionKey, transport: str, terms: Terms, ticket: str, lease: int
    ) -> Steps[Opened | Queued | None]:
        bucket = self._bucket(key.id)
        answer = yield Call(
            LOCK,
            [*bucket.session(key.id, transport), *bucket.lock(key.id)],
            (key.id, key.secret_hash, _LETTER[transport], terms.idle, ticket, lease, PATIENCE),
        )
        if isinstance(answer, list):
            # Who is next knows when to ask, should the holder never give the lock back.
            return Queued(ASK_AGAIN if answer[0] < 0 else min(answer[0] + 1, ASK_AGAIN))
        if answer == SUPERSEDED:
            raise _superseded(key)
        return None if answer == NOT_THERE else _opened(key.id, answer)

    def _unlock(self, session_id: str, ticket: str) -> Steps[None]:
        keys = self._bucket(session_id).lock(session_id)
        next_one = yield Call(UNLOCK, keys, (ticket, self._channels))
        self._bell.ring(next_one.decode())

    def _open_context(
        self, key: SessionKey, transport: str, name: str
    ) -> Steps[dict[str, bytes] | None]:
        answer = yield Call(
            OPEN_CONTEXT,
            self._bucket(key.id).context(key.id, name),
            (key.id, key.secret_hash, _LETTER[transport], name),
        )
        if answer == NO_CONTEXT:
            return None
        _refused(answer, key)
        return _context_fields(key.id, name, answer)

    def _commit_context(
        self, key: SessionKey, transport: str, name: str, commit: ContextCommit
    ) -> Steps[None]:
        changes, bucket = commit.changes, self._bucket(key.id)
        answer = yield Call(
            COMMIT_CONTEXT,
            [*bucket.context(key.id, name), bucket.lock(key.id)[0]],
            (
                key.id,
                key.secret_hash,
                _LETTER[transport],
                name,
                commit.ticket,
                commit.idle if commit.new else "",
                commit.most,
                *_context_changes(changes),
            ),
        )
        _refused(answer, key)

    def _promote(
        self, key: SessionKey, transport: str, name: str, changes: Changes, ticket: str
    ) -> Steps[dict[str, bytes]]:
        bucket = self._bucket(key.id)
        answer = yield Call(
            PROMOTE,
            [*bucket.context(key.id, name), bucket.lock(key.id)[0]],
            (
                key.id,
                key.secret_hash,
                _LETTER[transport],
                name,
                ticket,
                *_context_changes(changes),
            ),
        )
        _refused(answer, key)
        return _context_fields(key.id, name, answer)

    def _contexts(self, session_id: str) -> Steps[list[LiveContext]]:
        bucket = self._bucket(session_id)
        session, _, contexts = bucket.context(session_id, "")
        found = yield Call(CONTEXTS, [session, contexts], (bucket.contexts_of(session_id),))
        return sorted(
            (
                LiveContext(name.decode(), size, fields, expires_in)
                for name, expires_in, fields, size in found
            ),
            key=lambda context: context.name,
        )

    def _end_context(self, session_id: str, name: str) -> Steps[bool]:
        _, *keys = self._bucket(session_id).context(session_id, name)
        return bool((yield Call(END_CONTEXT, keys, (name,))))

    def _end(self, session_id: str) -> Steps[bool]:
        return bool((yield self._ending(session_id)))

    def _end_many(self, session_ids: Collection[str]) -> Steps[list[bool]]:
        answers = yield [self._ending(session_id) for session_id in session_ids]
        return [bool(answer) for answer in answers]

    def _ending(self, session_id: str) -> Call:
        bucket = self._bucket(session_id)
        keys = [*bucket.everything(session_id), bucket.context(session_id, "")[2]]
        return Call(END, keys, (session_id, bucket.contexts_of(session_id)))

    def _exists(self, key: SessionKey) -> Steps[bool]:
        # Through a script, which counts as a write, so that a replica refuses to answer.
        answer = yield self._look(key.id, what="secret")
        return bool(answer == key.secret_hash)

    def _get(self, session_id: str) -> Steps[Opened | None]:
        answer = yield self._look(session_id, what="fields")
        return None if answer == NOT_THERE else _opened(session_id, answer)

    def _get_many(self, session_ids: Collection[str]) -> Steps[list[LiveSession]]:
        found = yield [self._look(session_id) for session_id in session_ids]
        return [
            _opened(session_id, answer).session
            for session_id, answer in zip(session_ids, found, strict=True)
            if answer != NOT_THERE
        ]

    def _count(self) -> Steps[dict[Kind, int]]:
        counts = yield [Call(COUNT, bucket.indexes, ()) for bucket in self._buckets]
        return dict(zip(KINDS, map(sum, zip(*counts, strict=True)), strict=True))

    def _page(
        self, limit: int, after: Cursor | None, kinds: Collection[Kind], backward: bool
    ) -> Steps[Page]:
        wanted = [at for at, kind in enumerate(KINDS) if not kinds or kind in kinds]
        position = (after.expires, after.session_id) if after else ("", "")
        parts = yield [
            Call(PAGE, [bucket.indexes[at] for at in wanted], (limit, *position, int(backward)))
            for bucket in self._buckets
        ]
        first = heapq.nsmallest if backward else heapq.nlargest
        entries = first(
            limit,
            (
                (int(expires), entry[:ID_LENGTH].decode(), entry[ID_LENGTH + 1 :])
                for part in parts
                for index in part
                for entry, expires in zip(index[::2], index[1::2], strict=True)
            ),
        )
        found = yield [self._look(session_id, user) for _, session_id, user in entries]
        there = [
            (Cursor(expires, session_id), _opened(session_id, answer).session)
            for (expires, session_id, _), answer in zip(entries, found, strict=True)
            if answer != NOT_THERE
        ]
        return Page(
            [session for _, session in there],
            Cursor(*entries[-1][:2]) if len(entries) == limit else None,
            tuple(place for place, _ in there),
        )

    def _of_user(self, user: str, limit: int) -> Steps[list[LiveSession]]:
        name = user.encode()
        parts = yield [Call(USER, [bucket.users], (name, limit)) for bucket in self._buckets]
        ids = [
            entry[-ID_LENGTH:].decode()
            for part in parts
            for entry in part
            # A user id that goes on with a NUL is another user's.
            if len(entry) == len(name) + 1 + ID_LENGTH
        ][:limit]
        found = yield [self._look(session_id, name) for session_id in ids]
        sessions = [
            _opened(session_id, answer).session
            for session_id, answer in zip(ids, found, strict=True)
            if answer != NOT_THERE
        ]
        # Between the two questions somebody else may have signed in.
        sessions = [session for session in sessions if session.user == user]
        return sorted(sessions, key=lambda session: (session.created_ms, session.id))

    def _sweep(self, limit: int) -> Steps[int]:
        each = -(-limit // len(self._buckets))
        dropped = yield [
            Call(SWEEP, [*bucket.indexes, bucket.users, bucket.counters], (each,))
            for bucket in self._buckets
        ]
        return sum(dropped)

    def _activity(self) -> Steps[list[Activity]]:
        parts = yield [Call(ACTIVITY, [bucket.counters], ()) for bucket in self._buckets]
        # Servers of a cluster have a clock each.
        last = max(minute for minute, _ in parts)
        counts = {minute: [0, 0, 0] for minute in range(last - HOUR + 1, last + 1)}
        for _, flat in parts:
            for name, count in zip(flat[::2], flat[1::2], strict=True):
                if (minute := int(name[:-1])) in counts:
                    counts[minute][_TALLIED.index(name[-1:])] += int(count)
        return [Activity(minute * 60_000, *three) for minute, three in counts.items()]

    def _look(self, session_id: str, user: bytes = b"", what: str = "meta") -> Call:
        keys = self._bucket(session_id).everything(session_id)
        return Call(LOOK, keys, (session_id, conf.HEADER_SESSIONS_IDLE_TIMEOUT * 1000, user, what))

    def _bucket(self, session_id: str) -> _Bucket:
        if len(self._buckets) == 1:
            return self._buckets[0]
        return self._buckets[zlib.crc32(session_id.encode()) % len(self._buckets)]


class _Bucket:
    """The names of the keys that one bucket's scripts use."""

    __slots__ = ("_context", "_contexts", "_lock", "_prefix", "counters", "indexes", "users")

    def __init__(self, cache: BaseCache, tag: str) -> None:
        prefix = str(cache.make_key(f"hs{{{tag}}}"))
        self._prefix = f"{prefix}:s:"
        self.indexes = [f"{prefix}:i:{_LETTER[kind.transport]}{kind.signed_in:d}" for kind in KINDS]
        self.users = f"{prefix}:u"
        self.counters = f"{prefix}:n"
        self._lock = (f"{prefix}:l:", f"{prefix}:q:", f"{prefix}:w:")
        self._context, self._contexts = f"{prefix}:c:", f"{prefix}:m:"

    def session(self, session_id: str, transport: str) -> list[str]:
        anonymous, signed_in = self.indexes[:2] if transport == "cookie" else self.indexes[2:]
        return [self._prefix + session_id, anonymous, signed_in]

    def session_user_and_counters(self, session_id: str, transport: str) -> list[str]:
        return [*self.session(session_id, transport), self.users, self.counters]

    def commit(self, session_id: str, transport: str, commit: Commit) -> list[str]:
        keys = [*self.session(session_id, transport), self.users]
        if commit.ticket:
            return [*keys, self._contexts + session_id, *self.lock(session_id)]
        if commit.signed or commit.expiry:
            return [*keys, self._contexts + session_id]
        return keys

    def lock(self, session_id: str) -> list[str]:
        return [part + session_id for part in self._lock]

    def context(self, session_id: str, name: str) -> list[str]:
        return [
            self._prefix + session_id,
            self.contexts_of(session_id) + name,
            self._contexts + session_id,
        ]

    def contexts_of(self, session_id: str) -> str:
        """What the keys of a session's contexts begin with."""
        return f"{self._context}{session_id}:"

    def everything(self, session_id: str) -> list[str]:
        return [self._prefix + session_id, *self.indexes, self.users, self.counters]


def _opened(session_id: str, answer: object) -> Opened:
    """What an answer holds, as ``packed`` in ``scripts/session.lua`` puts it."""
    if not isinstance(answer, bytes) or answer[:ID_LENGTH] != session_id.encode():
        # The answer to another question: left on a connection that somebody did not read to its
        # end. Nobody is to be handed somebody else's session.
        raise SessionUnavailable("The session store answered for another session.")
    _, expires_in, now = _HEAD.unpack_from(answer)
    strings = _strings(answer, _HEAD.size)
    fields, meta = {}, {}
    for name, value in zip(strings[::2], strings[1::2], strict=True):
        if name[:1] == META:
            meta[name[1:]] = value
        else:
            fields[name.decode("utf-8", "surrogatepass")] = value
    user = meta.get(b"u")
    return Opened(
        fields,
        LiveSession(
            id=session_id,
            transport=_TRANSPORT[meta[b"t"]],
            user=user.decode() if user else None,
            created_ms=int(meta[b"c"]),
            last_seen_ms=int(meta[b"s"]),
            expires_ms=now + expires_in,
            expires_in=expires_in,
            ip=meta.get(b"i", b"").decode(),
            user_agent=meta.get(b"a", b"").decode(),
            deadline_ms=int(meta[b"d"]) if b"d" in meta else None,
            signed_in_ms=int(meta[b"g"]) if b"g" in meta else None,
            size=int(meta[b"z"]) if b"z" in meta else None,
            fields=int(meta[b"n"]) if b"n" in meta else None,
        ),
    )


def _context_fields(session_id: str, name: str, answer: object) -> dict[str, bytes]:
    """What ``packed_context`` in ``scripts/session.lua`` puts into an answer."""
    fields: dict[str, bytes] = {}
    answered_for = b""
    if isinstance(answer, bytes) and answer[:ID_LENGTH] == session_id.encode():
        strings = _strings(answer, _HEAD.size)
        for field, value in zip(strings[::2], strings[1::2], strict=True):
            if field[:1] != META:
                fields[field.decode("utf-8", "surrogatepass")] = value
            elif field[1:] == b"k":
                answered_for = value
    if answered_for != name.encode():
        raise SessionUnavailable("The session store answered for another context.")
    return fields


def _strings(packed: bytes, at: int) -> list[bytes]:
    """The strings of the MessagePack array that begins ``at`` and ends with ``packed``.

    https://github.com/msgpack/msgpack/blob/master/spec.md
    """
    head = packed[at]
    at += 1 if head < 0xA0 else 1 + (2 << head - 0xDC)
    strings = []
    while at < len(packed):
        head = packed[at]
        if head < 0xC0:
            start, at = at + 1, at + 1 + (head & 0x1F)
        else:
            start = at + 1 + (1 << head - 0xD9)
            at = start + int.from_bytes(packed[at + 1 : start], "big")
        strings.append(packed[start:at])
    return strings


def _name(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _flat(fields: dict[str, bytes]) -> Iterable[bytes]:
    for name, value in fields.items():
        yield _name(name)
        yield value


def _context_changes(changes: Changes) -> Iterable[bytes | int]:
    yield from (int(changes.clear), len(changes.set), len(changes.delete))
    yield from _flat(changes.set)
    yield from map(_name, changes.delete)


def _optional(ms: int | None) -> int | str:
    return "" if ms is None else ms


def _refused(answer: object, key: SessionKey) -> None:
    """Raises what the scripts that change things answer by a number."""
    match answer:
        case 0:
            raise SessionEnded(f"Session {key.id} has ended.")
        case 1:
            raise _superseded(key)
        case 2:
            raise LeaseExpired(
                f"Session {key.id} was locked for longer than its lease: others may have it now."
            )
        case 3:
            raise ContextUnknown(f"Session {key.id} has no such context.")
        case 4:
            raise TooManyContexts(f"Session {key.id} has as many contexts as it may have.")


def _superseded(key: SessionKey) -> SessionSuperseded:
    return SessionSuperseded(f"Session {key.id} was given a newer key.")


def _not_counted(answer: bytes, add: tuple[str, int] | None) -> Exception:
    name = add[0] if add else ""
    if answer == b"integer":
        return TypeError(f"the field {name!r} holds no integer, so it cannot be incremented")
    return OverflowError(f"the counter {name!r} would exceed 64 bits")
