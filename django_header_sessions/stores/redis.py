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
====================================  ==========  ================================================

``…`` is what the cache alias puts in front of its keys, and ``b`` a bucket taken from the id. The
braces put a session and its indexes into one slot of a cluster, so that one script changes them
together or not at all.

Each verb is written once, as steps: a generator that yields scripts and is sent their answers.
``_run`` and ``_arun`` take it through them, and differ only at the ``await``.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Collection, Generator, Iterable
from typing import Any, TypeVar

from django.core.cache import BaseCache, caches

from ..conf import conf
from ..exceptions import SessionEnded, SessionSuperseded, SessionUnavailable
from ..keys import ID_LENGTH, SessionKey, make
from .base import (
    CREATE_TRIES,
    KINDS,
    Commit,
    Committed,
    Cursor,
    Draft,
    Kind,
    LiveSession,
    Opened,
    Page,
    Terms,
)
from .servers import Call, Script, Servers

T = TypeVar("T")
Steps = Generator[Call | list[Call], Any, T]

OPEN, CREATE, COMMIT, END, LOOK, PAGE, COUNT, USER, SWEEP = (
    Script.load(name)
    for name in ("open", "create", "commit", "end", "look", "page", "count", "user", "sweep")
)

NOT_THERE, SUPERSEDED, TAKEN = 0, 1, -1
META = b"\xff"
_LETTER = {"header": "h", "cookie": "c"}
_TRANSPORT = {b"h": "header", b"c": "cookie"}


class RedisStore:
    """Keeps the sessions of one alias whose cache is django-redis's, or Django's own for Redis."""

    lists = True

    def __init__(self, alias: str) -> None:
        cache = caches[alias]
        self._servers = Servers(cache)
        self._buckets = [_Bucket(cache, str(b)) for b in range(conf.HEADER_SESSIONS_BUCKETS or 1)]

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

    def end(self, session_id: str) -> bool:
        return self._run(self._end(session_id))

    async def aend(self, session_id: str) -> bool:
        return await self._arun(self._end(session_id))

    def exists(self, key: SessionKey) -> bool:
        return self._run(self._exists(key))

    async def aexists(self, key: SessionKey) -> bool:
        return await self._arun(self._exists(key))

    def get(self, session_id: str) -> Opened | None:
        return self._run(self._get(session_id))

    async def aget(self, session_id: str) -> Opened | None:
        return await self._arun(self._get(session_id))

    def count(self) -> dict[Kind, int]:
        return self._run(self._count())

    async def acount(self) -> dict[Kind, int]:
        return await self._arun(self._count())

    def page(self, limit: int, after: Cursor | None = None, kinds: Collection[Kind] = ()) -> Page:
        return self._run(self._page(limit, after, kinds))

    async def apage(
        self, limit: int, after: Cursor | None = None, kinds: Collection[Kind] = ()
    ) -> Page:
        return await self._arun(self._page(limit, after, kinds))

    def of_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        return self._run(self._of_user(user, limit))

    async def aof_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        return await self._arun(self._of_user(user, limit))

    def sweep(self, limit: int = 200) -> int:
        return self._run(self._sweep(limit))

    async def asweep(self, limit: int = 200) -> int:
        return await self._arun(self._sweep(limit))

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
        return None if answer == NOT_THERE else _opened(key.id, *answer)

    def _create(self, draft: Draft, terms: Terms) -> Steps[tuple[SessionKey, int]]:
        expiry = draft.expiry
        for _ in range(CREATE_TRIES):
            key = make()
            expires_in = yield Call(
                CREATE,
                self._bucket(key.id).session_and_user(key.id, draft.transport),
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
            )
            if expires_in != TAKEN:
                return key, expires_in
        raise SessionUnavailable(f"No free session id was drawn in {CREATE_TRIES} tries.")

    def _commit(
        self, key: SessionKey, transport: str, terms: Terms, commit: Commit
    ) -> Steps[Committed]:
        changes, expiry = commit.changes, commit.expiry
        answer = yield Call(
            COMMIT,
            self._bucket(key.id).session_and_user(key.id, transport),
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
                *_flat(changes.set),
                *map(_name, changes.delete),
                *((_name(changes.add[0]), changes.add[1]) if changes.add else ()),
            ),
        )
        match answer:
            case 0:
                raise _ended(key)
            case 1:
                raise _superseded(key)
            case b"integer" | b"overflow":
                raise _not_counted(answer, changes.add)
        expires_in, total = answer
        return Committed(None if expires_in < 0 else expires_in, int(total) if total else None)

    def _end(self, session_id: str) -> Steps[bool]:
        answer = yield Call(END, self._bucket(session_id).everything(session_id), (session_id,))
        return bool(answer)

    def _exists(self, key: SessionKey) -> Steps[bool]:
        # Through a script, which counts as a write, so that a replica refuses to answer.
        answer = yield self._look(key.id, what="secret")
        return bool(answer == key.secret_hash)

    def _get(self, session_id: str) -> Steps[Opened | None]:
        answer = yield self._look(session_id, what="fields")
        return None if answer == NOT_THERE else _opened(session_id, *answer)

    def _count(self) -> Steps[dict[Kind, int]]:
        counts = yield [Call(COUNT, bucket.indexes, ()) for bucket in self._buckets]
        return dict(zip(KINDS, map(sum, zip(*counts, strict=True)), strict=True))

    def _page(self, limit: int, after: Cursor | None, kinds: Collection[Kind]) -> Steps[Page]:
        wanted = [at for at, kind in enumerate(KINDS) if not kinds or kind in kinds]
        position = (after.expires, after.session_id) if after else ("", "")
        parts = yield [
            Call(PAGE, [bucket.indexes[at] for at in wanted], (limit, *position))
            for bucket in self._buckets
        ]
        entries = heapq.nlargest(
            limit,
            (
                (int(expires), entry[:ID_LENGTH].decode(), entry[ID_LENGTH + 1 :])
                for part in parts
                for index in part
                for entry, expires in zip(index[::2], index[1::2], strict=True)
            ),
        )
        found = yield [self._look(session_id, user) for _, session_id, user in entries]
        sessions = [
            _live(session_id, *answer)
            for (_, session_id, _), answer in zip(entries, found, strict=True)
            if answer != NOT_THERE
        ]
        return Page(sessions, Cursor(*entries[-1][:2]) if len(entries) == limit else None)

    def _of_user(self, user: str, limit: int) -> Steps[list[LiveSession]]:
        name = user.encode()
        parts = yield [Call(USER, [bucket.users], (name, limit)) for bucket in self._buckets]
        ids = [
            entry[-ID_LENGTH:].decode()
            for part in parts
            for entry in part
            # A user id that goes on with a NUL is another user's.
            if len(entry) == len(name) + 1 + ID_LENGTH
        ]
        found = yield [self._look(session_id, name) for session_id in ids]
        sessions = [
            _live(session_id, *answer)
            for session_id, answer in zip(ids, found, strict=True)
            if answer != NOT_THERE
        ]
        return sorted(sessions, key=lambda session: (session.created, session.id))[:limit]

    def _sweep(self, limit: int) -> Steps[int]:
        dropped = yield [
            Call(SWEEP, [*bucket.indexes, bucket.users], (limit,)) for bucket in self._buckets
        ]
        return sum(dropped)

    def _look(self, session_id: str, user: bytes = b"", what: str = "meta") -> Call:
        keys = self._bucket(session_id).everything(session_id)
        return Call(LOOK, keys, (session_id, conf.HEADER_SESSIONS_IDLE_TIMEOUT * 1000, user, what))

    def _bucket(self, session_id: str) -> _Bucket:
        if len(self._buckets) == 1:
            return self._buckets[0]
        return self._buckets[zlib.crc32(session_id.encode()) % len(self._buckets)]


class _Bucket:
    """The names of the keys that one bucket's scripts use."""

    __slots__ = ("_prefix", "indexes", "users")

    def __init__(self, cache: BaseCache, tag: str) -> None:
        prefix = str(cache.make_key(f"hs{{{tag}}}"))
        self._prefix = f"{prefix}:s:"
        self.indexes = [f"{prefix}:i:{_LETTER[kind.transport]}{kind.signed_in:d}" for kind in KINDS]
        self.users = f"{prefix}:u"

    def session(self, session_id: str, transport: str) -> list[str]:
        anonymous, signed_in = self.indexes[:2] if transport == "cookie" else self.indexes[2:]
        return [self._prefix + session_id, anonymous, signed_in]

    def session_and_user(self, session_id: str, transport: str) -> list[str]:
        return [*self.session(session_id, transport), self.users]

    def everything(self, session_id: str) -> list[str]:
        return [self._prefix + session_id, *self.indexes, self.users]


def _opened(session_id: str, expires_in: int, now: int, flat: list[bytes]) -> Opened:
    fields = {
        name.decode("utf-8", "surrogatepass"): value
        for name, value in zip(flat[::2], flat[1::2], strict=True)
        if name[:1] != META
    }
    return Opened(fields, _live(session_id, expires_in, now, flat))


def _live(session_id: str, expires_in: int, now: int, flat: list[bytes]) -> LiveSession:
    meta = {
        name[1:]: value
        for name, value in zip(flat[::2], flat[1::2], strict=True)
        if name[:1] == META
    }
    user = meta.get(b"u")
    return LiveSession(
        id=session_id,
        transport=_TRANSPORT[meta[b"t"]],
        user=user.decode() if user else None,
        created_ms=int(meta[b"c"]),
        last_seen_ms=int(meta[b"s"]),
        expires_ms=now + expires_in,
        expires_in=expires_in,
        ip=meta.get(b"i", b"").decode(),
        user_agent=meta.get(b"a", b"").decode(),
    )


def _name(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _flat(fields: dict[str, bytes]) -> Iterable[bytes]:
    for name, value in fields.items():
        yield _name(name)
        yield value


def _optional(ms: int | None) -> int | str:
    return "" if ms is None else ms


def _ended(key: SessionKey) -> SessionEnded:
    return SessionEnded(f"Session {key.id} has ended.")


def _superseded(key: SessionKey) -> SessionSuperseded:
    return SessionSuperseded(f"Session {key.id} was given a newer key.")


def _not_counted(answer: bytes, add: tuple[str, int] | None) -> Exception:
    name = add[0] if add else ""
    if answer == b"integer":
        return TypeError(f"the field {name!r} holds no integer, so it cannot be incremented")
    return OverflowError(f"the counter {name!r} would exceed 64 bits")
