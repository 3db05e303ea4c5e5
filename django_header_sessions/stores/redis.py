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
``…hs{b}:c:<id>``                     hash        the session's contexts, as
                                                  ``scripts/session.lua`` has them
====================================  ==========  ================================================

``…`` is what the cache alias puts in front of its keys, and ``b`` a bucket taken from the id. The
braces put a session and its indexes into one slot of a cluster, so that one script changes them
together or not at all.

Each verb is written once, as steps that yield a script, or a list of them, and are sent what they
answer; its sync and its async form are made of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Awaitable, Collection, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
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
from ..keys import ID_LENGTH, SessionKey, make
from ..steps import Steps, adrive, drive, twins
from .base import (
    ASK_AGAIN,
    CREATE_TRIES,
    HOUR,
    KINDS,
    PATIENCE,
    Activity,
    Commit,
    Committed,
    ContextChange,
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
    Places,
    Queued,
    Terms,
)
from .bell import Waiter
from .servers import Call, Script, servers_of

T = TypeVar("T")
_Entry = tuple[int, str, bytes]

OPEN, CREATE, COMMIT, END, LOOK, PAGE, COUNT, USER, SWEEP, ACTIVITY = (
    Script.load(name)
    for name in "open create commit end look page count user sweep activity".split()
)

LOCK, UNLOCK, OPEN_CONTEXT, CONTEXTS, END_CONTEXT = (
    Script.load(name) for name in "lock unlock open_context contexts end_context".split()
)

LOOKED = 500
"""Entries of a user that one script looks through, in some 2 ms."""

SPARE = 4
"""Entries that each of many buckets is asked for beyond its share, so that few are asked again."""

NOT_THERE, SUPERSEDED, NO_CONTEXT, TAKEN = 0, 1, 3, -1
META = b"\xff"
_HEAD = struct.Struct(">15sqq")
_PLACE = struct.Struct(">15sq")
_LETTER = {"header": "h", "cookie": "c"}
_TRANSPORT = {b"h": "header", b"c": "cookie"}
_TALLIED = b"+-x"


class RedisStore:
    """Keeps the sessions of one alias whose cache is django-redis's, or Django's own for Redis."""

    lists = True
    in_own_thread = False

    def __init__(self, alias: str) -> None:
        cache = caches[alias]
        self._servers = servers_of(alias, cache)
        buckets = conf.HEADER_SESSIONS_BUCKETS or self._servers.buckets
        self._buckets = [_Bucket(cache, self._servers.tag(b, buckets)) for b in range(buckets)]
        self._channels = str(cache.make_key("hs:w:"))
        self._bell = self._servers.bell(self._channels)

    def waiter(self) -> Waiter:
        return self._bell.waiter()

    def memory(self) -> Memory | None:
        return self._servers.memory()

    async def amemory(self) -> Memory | None:
        return await self._servers.amemory()

    def outages(self) -> list[Outage]:
        return self._servers.outages()

    def examine(self) -> list[Finding]:
        return self._servers.examine()

    def _run(self, steps: Steps[T]) -> T:
        return drive(steps, self._do)

    def _arun(self, steps: Steps[T]) -> Coroutine[None, None, T]:
        return adrive(steps, self._ado)

    def _do(self, asked: Call | list[Call]) -> Any:
        if isinstance(asked, Call):
            return self._servers.run(asked)
        return self._servers.run_all(asked)

    def _ado(self, asked: Call | list[Call]) -> Awaitable[Any]:
        if isinstance(asked, Call):
            return self._servers.arun(asked)
        return self._servers.arun_all(asked)

    # The verbs: what each asks, and what it makes of the answers.

    def _open(self, key: SessionKey, transport: str, terms: Terms) -> Steps[Opened | None]:
        bucket = self._bucket(key.id)
        answer = yield Call(
            OPEN,
            [*bucket.session(key.id, transport), bucket.contexts(key.id)],
            (key.id, key.secret_hash, _LETTER[transport], terms.idle),
        )
        if answer == SUPERSEDED:
            raise _superseded(key)
        return None if answer == NOT_THERE else _opened(key.id, answer)

    open, aopen = twins(_open)

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

    create, acreate = twins(_create)

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
                len(commit.contexts),
                commit.most,
                *_flat(changes.set),
                *map(_name, changes.delete),
                *chain.from_iterable(map(_context_change, commit.contexts)),
                *((_name(changes.add[0]), changes.add[1]) if changes.add else ()),
            ),
        )
        _refused(answer, key)
        if isinstance(answer, bytes):
            raise _not_counted(answer, changes.add)
        expires_in, total, next_one, promoted = answer
        self._bell.ring(next_one.decode())
        return Committed(
            None if expires_in < 0 else expires_in,
            int(total) if total else None,
            _context_fields(promoted) if promoted else {},
        )

    commit, acommit = twins(_commit)

    def _lock(
        self, key: SessionKey, transport: str, terms: Terms, ticket: str, lease: int
    ) -> Steps[Opened | Queued | None]:
        bucket = self._bucket(key.id)
        answer = yield Call(
            LOCK,
            [*bucket.session(key.id, transport), *bucket.lock(key.id), bucket.contexts(key.id)],
            (key.id, key.secret_hash, _LETTER[transport], terms.idle, ticket, lease, PATIENCE),
        )
        if isinstance(answer, list):
            # Who is next knows when to ask, should the holder never give the lock back.
            return Queued(ASK_AGAIN if answer[0] < 0 else min(answer[0] + 1, ASK_AGAIN))
        if answer == SUPERSEDED:
            raise _superseded(key)
        return None if answer == NOT_THERE else _opened(key.id, answer)

    lock, alock = twins(_lock)

    def _unlock(self, session_id: str, ticket: str) -> Steps[None]:
        keys = self._bucket(session_id).lock(session_id)
        next_one = yield Call(UNLOCK, keys, (ticket, self._channels))
        self._bell.ring(next_one.decode())

    unlock, aunlock = twins(_unlock)

    def _open_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str
    ) -> Steps[dict[str, bytes] | None]:
        answer = yield Call(
            OPEN_CONTEXT,
            self._bucket(key.id).session_and_contexts(key.id),
            (key.id, key.secret_hash, _LETTER[transport], name),
        )
        if answer == NO_CONTEXT:
            return None
        _refused(answer, key)
        whose, fields = answer if isinstance(answer, list) else (b"", b"")
        if whose != (key.id + name).encode():
            raise SessionUnavailable("The session store answered for another context.")
        return _context_fields(fields)

    open_context, aopen_context = twins(_open_context)

    def _contexts(self, session_id: str) -> Steps[list[LiveContext]]:
        found = yield Call(CONTEXTS, self._bucket(session_id).session_and_contexts(session_id), ())
        return sorted(
            (
                LiveContext(name.decode(), size, fields, expires_in)
                for name, expires_in, fields, size in found
            ),
            key=lambda context: context.name,
        )

    contexts, acontexts = twins(_contexts)

    def _end_context(self, session_id: str, name: str) -> Steps[bool]:
        contexts = self._bucket(session_id).contexts(session_id)
        return bool((yield Call(END_CONTEXT, [contexts], (name,))))

    end_context, aend_context = twins(_end_context)

    def _end(self, session_id: str) -> Steps[bool]:
        return bool((yield self._ending(session_id)))

    end, aend = twins(_end)

    def _end_many(self, session_ids: Collection[str]) -> Steps[list[bool]]:
        answers = yield [self._ending(session_id) for session_id in session_ids]
        return [bool(answer) for answer in answers]

    end_many, aend_many = twins(_end_many)

    def _ending(self, session_id: str) -> Call:
        bucket = self._bucket(session_id)
        keys = [*bucket.everything(session_id), bucket.contexts(session_id)]
        return Call(END, keys, (session_id,))

    def _exists(self, key: SessionKey) -> Steps[bool]:
        # Through a script, which counts as a write, so that a replica refuses to answer.
        answer = yield self._look(key.id, what="secret")
        return bool(answer == key.secret_hash)

    exists, aexists = twins(_exists)

    def _get(self, session_id: str) -> Steps[Opened | None]:
        answer = yield self._look(session_id, what="fields")
        return None if answer == NOT_THERE else _opened(session_id, answer)

    get, aget = twins(_get)

    def _get_many(self, session_ids: Collection[str], user: str = "") -> Steps[list[LiveSession]]:
        found = yield [self._look(session_id, user.encode()) for session_id in session_ids]
        return [
            _opened(session_id, answer).session
            for session_id, answer in zip(session_ids, found, strict=True)
            if answer != NOT_THERE
        ]

    get_many, aget_many = twins(_get_many)

    def _count(self) -> Steps[dict[Kind, int]]:
        counts = yield [Call(COUNT, bucket.indexes, ()) for bucket in self._buckets]
        return dict(zip(KINDS, map(sum, zip(*counts, strict=True)), strict=True))

    count, acount = twins(_count)

    def _page(
        self,
        limit: int,
        after: Cursor | None = None,
        kinds: Collection[Kind] = (),
        backward: bool = False,
    ) -> Steps[Page]:
        wanted = [kind for kind in KINDS if not kinds or kind in kinds]
        lists = yield from self._listed(limit, [(kind, after) for kind in wanted], backward)
        entries = sorted(chain(*lists), reverse=not backward)[:limit]
        (page,) = yield from self._pages(limit, [entries])
        return page

    page, apage = twins(_page)

    def _page_each(
        self, limit: int, after: Mapping[Kind, Cursor], kinds: Collection[Kind], backward: bool
    ) -> Steps[dict[Kind, Page]]:
        wanted = [(kind, after.get(kind)) for kind in kinds]
        lists = yield from self._listed(limit, wanted, backward)
        pages = yield from self._pages(limit, lists)
        return dict(zip(kinds, pages, strict=True))

    page_each, apage_each = twins(_page_each)

    def _listed(
        self, limit: int, wanted: Sequence[tuple[Kind, Cursor | None]], backward: bool
    ) -> Steps[list[list[_Entry]]]:
        """The first entries of each of some kinds, behind where each of them was left."""
        share = self._share(limit)
        lists: list[list[_Entry]] = [[] for _ in wanted]
        left: dict[int, Cursor | None] = {at: after for at, (_, after) in enumerate(wanted)}
        while left:
            indexes = [KINDS.index(wanted[at][0]) for at in left]
            args: list[str | int] = [share, int(backward)]
            for place in left.values():
                args += (place.expires, place.session_id) if place else ("", "")
            parts = yield [
                Call(PAGE, [bucket.indexes[index] for index in indexes], args)
                for bucket in self._buckets
            ]
            for nth, at in enumerate(list(left)):
                ends = []
                entries: list[_Entry] = []
                for part in parts:
                    flat = part[nth]
                    entries += (
                        (int(expires), entry[:ID_LENGTH].decode(), entry[ID_LENGTH + 1 :])
                        for entry, expires in zip(flat[::2], flat[1::2], strict=True)
                    )
                    if len(flat) == 2 * share:
                        ends.append(entries[-1][:2])
                # As far as all buckets were looked through.
                end = (min if backward else max)(ends) if ends else None
                if end is not None:
                    entries = [
                        one for one in entries if (one[:2] <= end if backward else one[:2] >= end)
                    ]
                lists[at] += sorted(entries, reverse=not backward)
                if end is None or len(lists[at]) >= limit:
                    del left[at], lists[at][limit:]
                else:
                    left[at] = Cursor(*end)
        return lists

    def _pages(self, limit: int, lists: Sequence[Sequence[_Entry]]) -> Steps[list[Page]]:
        """The sessions of some lists, all of them asked for at once."""
        answers = iter((yield [self._look(entry[1], entry[2]) for entry in chain(*lists)]))
        pages = []
        for entries in lists:
            there = [
                (Cursor(expires, session_id), _opened(session_id, answer).session)
                for expires, session_id, _ in entries
                if (answer := next(answers)) != NOT_THERE
            ]
            pages.append(
                Page(
                    [session for _, session in there],
                    Cursor(*entries[-1][:2]) if len(entries) == limit else None,
                    tuple(place for place, _ in there),
                )
            )
        return pages

    def _share(self, limit: int) -> int:
        """How many to ask each bucket for, so that all of them together hold as many: of many
        buckets each holds about as many as the others."""
        return min(limit, 2 * limit // len(self._buckets) + SPARE)

    def _of_user(self, user: str, limit: int = 1000) -> Steps[list[LiveSession]]:
        sessions: list[LiveSession] = []
        after: str | None = ""
        while after is not None and len(sessions) < limit:
            part = yield from self._places_of_user(user, limit, after)
            found = yield from self._get_many([place.session_id for place in part.places], user)
            # Between the two questions somebody else may have signed in.
            sessions += [session for session in found if session.user == user]
            after = part.next
        return sorted(sessions[:limit], key=lambda session: (session.created_ms, session.id))

    of_user, aof_user = twins(_of_user)

    def _places_of_user(self, user: str, limit: int = 1000, after: str = "") -> Steps[Places]:
        share = min(self._share(limit), LOOKED)
        parts = yield [
            Call(
                USER,
                [bucket.users, *bucket.signed_in, bucket.counters],
                (_name(user), share, after),
            )
            for bucket in self._buckets
        ]
        # As far as all of them were looked through.
        end = min((last.decode() for last, _ in parts if last), default=None)
        places = sorted(
            (
                Cursor(expires, session_id.decode())
                for _, live in parts
                for session_id, expires in _PLACE.iter_unpack(live)
            ),
            key=lambda place: place.session_id,
        )
        if end is not None:
            places = [place for place in places if place.session_id <= end]
        if len(places) > limit:
            places, end = places[:limit], places[limit - 1].session_id
        return Places(places, end)

    places_of_user, aplaces_of_user = twins(_places_of_user)

    def _sweep(self, limit: int = 200) -> Steps[int]:
        each = -(-limit // len(self._buckets))
        dropped = yield [
            Call(SWEEP, [*bucket.indexes, bucket.users, bucket.counters], (each,))
            for bucket in self._buckets
        ]
        return sum(dropped)

    sweep, asweep = twins(_sweep)

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

    activity, aactivity = twins(_activity)

    def _look(self, session_id: str, user: bytes = b"", what: str = "meta") -> Call:
        keys = self._bucket(session_id).everything(session_id)
        return Call(LOOK, keys, (session_id, conf.HEADER_SESSIONS_IDLE_TIMEOUT * 1000, user, what))

    def _bucket(self, session_id: str) -> _Bucket:
        if len(self._buckets) == 1:
            return self._buckets[0]
        return self._buckets[zlib.crc32(session_id.encode()) % len(self._buckets)]


class _Bucket:
    """The names of the keys that one bucket's scripts use."""

    __slots__ = ("_contexts", "_lock", "_prefix", "counters", "indexes", "signed_in", "users")

    def __init__(self, cache: BaseCache, tag: str) -> None:
        prefix = str(cache.make_key(f"hs{{{tag}}}"))
        self._prefix = f"{prefix}:s:"
        self.indexes = [f"{prefix}:i:{_LETTER[kind.transport]}{kind.signed_in:d}" for kind in KINDS]
        self.signed_in = [
            index for index, kind in zip(self.indexes, KINDS, strict=True) if kind.signed_in
        ]
        self.users = f"{prefix}:u"
        self.counters = f"{prefix}:n"
        self._lock = (f"{prefix}:l:", f"{prefix}:q:", f"{prefix}:w:")
        self._contexts = f"{prefix}:c:"

    def session(self, session_id: str, transport: str) -> list[str]:
        anonymous, signed_in = self.indexes[:2] if transport == "cookie" else self.indexes[2:]
        return [self._prefix + session_id, anonymous, signed_in]

    def session_user_and_counters(self, session_id: str, transport: str) -> list[str]:
        return [*self.session(session_id, transport), self.users, self.counters]

    def commit(self, session_id: str, transport: str, commit: Commit) -> list[str]:
        keys = [*self.session(session_id, transport), self.users]
        if commit.ticket:
            return [*keys, self.contexts(session_id), *self.lock(session_id)]
        if commit.contexts or commit.signed or commit.expiry:
            return [*keys, self.contexts(session_id)]
        return keys

    def contexts(self, session_id: str) -> str:
        return self._contexts + session_id

    def lock(self, session_id: str) -> list[str]:
        return [part + session_id for part in self._lock]

    def session_and_contexts(self, session_id: str) -> list[str]:
        return [self._prefix + session_id, self.contexts(session_id)]

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


def _context_fields(packed: bytes) -> dict[str, bytes]:
    """The fields of a context, as ``put_context`` in ``scripts/session.lua`` keeps them."""
    strings = _strings(packed, 0)
    names = (name.decode("utf-8", "surrogatepass") for name in strings[::2])
    return dict(zip(names, strings[1::2], strict=True))


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


def _context_change(context: ContextChange) -> Iterable[bytes | int | str]:
    changes = context.changes
    yield from (context.name, _optional(context.idle), "1" if context.promote else "")
    yield from (len(changes.set), len(changes.delete))
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
