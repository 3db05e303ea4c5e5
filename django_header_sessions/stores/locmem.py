"""Sessions in Django's LocMemCache: one process, where locks are real and the list is exact."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

from django.core.cache import caches

from ..fields import size
from .base import ASK_AGAIN, HOUR, KINDS, Activity, Cursor, Kind, LiveSession, Memory, Page, Places
from .cache import CacheStore, Context, Record, _key, _now
from .turns import Turns

_locks = [threading.RLock() for _ in range(64)]


class LocMemStore(CacheStore):
    """Merges under a lock of this process, and keeps its list beside the cache."""

    lists = True

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        # One list for each of Django's LocMem caches, which are one a location, for as long as
        # the process lives: settings may come and go over it.
        location = caches.settings[alias].get("LOCATION", "")
        name = f"{location} {caches[alias].make_key('')}"
        self._index, self._taken = _indexes.setdefault(name, _Index()), _turns.setdefault(name, {})

    def count(self) -> dict[Kind, int]:
        # LocMemCache throws entries out when there are more than MAX_ENTRIES, and tells nobody.
        cache: Any = self._cache
        for session_id in self._index.live(_now()):
            if cache.make_key(_key(session_id)) not in cache._cache:
                self._there(session_id)
        return self._index.count(_now())

    def page(
        self,
        limit: int,
        after: Cursor | None = None,
        kinds: Collection[Kind] = (),
        backward: bool = False,
    ) -> Page:
        entries = self._index.page(limit, after, kinds or KINDS, _now(), backward)
        there = [
            (Cursor(expires, session_id), found)
            for expires, session_id in entries
            if (found := self._there(session_id))
        ]
        return Page(
            [session for _, session in there],
            Cursor(*entries[-1]) if len(entries) == limit else None,
            tuple(place for place, _ in there),
        )

    def page_each(
        self, limit: int, after: Mapping[Kind, Cursor], kinds: Collection[Kind], backward: bool
    ) -> dict[Kind, Page]:
        return {kind: self.page(limit, after.get(kind), [kind], backward) for kind in kinds}

    def of_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        sessions: list[LiveSession] = []
        after: str | None = ""
        while after is not None and len(sessions) < limit:
            part = self.places_of_user(user, limit, after)
            found = [self._there(place.session_id) for place in part.places]
            # Between the two questions somebody else may have signed in.
            sessions += [one for one in found if one is not None and one.user == user]
            after = part.next
        return sorted(sessions[:limit], key=lambda session: (session.created_ms, session.id))

    def places_of_user(self, user: str, limit: int = 1000, after: str = "") -> Places:
        places = self._index.of_user(user, after, _now())
        return Places(places[:limit], places[limit - 1].session_id if places[limit:] else None)

    def get_many(self, session_ids: Collection[str], user: str = "") -> list[LiveSession]:
        found = [self._there(session_id) for session_id in session_ids]
        return [session for session in found if session is not None]

    def sweep(self, limit: int = 200) -> int:
        for session_id in list(self._taken):
            # Of holders that never came back, whose sessions nobody asks for either.
            with self._locked(session_id):
                now = _now()
                self._write_turns(session_id, self._turns(session_id).at(now), now)
        return self._index.sweep(limit, _now())

    def activity(self) -> list[Activity]:
        return self._index.activity(_now())

    def memory(self) -> Memory | None:
        return Memory(self._index.size)

    def _there(self, session_id: str) -> LiveSession | None:
        record = self._read(session_id)
        if record is not None:
            return self._seen(session_id, record)
        with self._locked(session_id):
            if self._read(session_id) is None and self._index.remove(session_id):
                self._index.tally(_now(), expired=1)
        return None

    def _write(
        self, session_id: str, record: Record, seen: int, idle: int, *, new: bool = False
    ) -> bool:
        with self._locked(session_id):
            written = False
            try:
                written = super()._write(session_id, record, seen, idle, new=new)
            except BaseException:
                # Whoever is stopped in the midst of it leaves the list as true as the cache.
                written = self._read(session_id) == record
                raise
            finally:
                if written:
                    _, gone = record.lifetime(seen, idle)
                    kind = Kind(record.transport, record.user is not None)
                    self._index.put(session_id, kind, gone, record.user, size(record.fields))
                    if new:
                        self._index.tally(_now(), created=1)
            return written

    def _store_contexts(
        self, session_id: str, contexts: dict[str, Context], now: int, session_gone: int
    ) -> None:
        super()._store_contexts(session_id, contexts, now, session_gone)
        self._index.put_contexts(session_id, sum(size(one.fields) for one in contexts.values()))

    def _answers(self) -> bool:
        return True

    _longest_sleep = ASK_AGAIN  # all who wait are in this process, so the bell wakes them

    def _turns(self, session_id: str) -> Turns:
        return self._taken.get(session_id, Turns())

    def _write_turns(self, session_id: str, turns: Turns, now: int) -> None:
        # Not into the cache, which throws entries out when it is full.
        if turns.holder or turns.waiting:
            self._taken[session_id] = turns
        else:
            self._taken.pop(session_id, None)

    def _delete(self, session_id: str) -> bool:
        self._taken.pop(session_id, None)
        # The list last: an entry without a session is dropped on sight.
        there = super()._delete(session_id)
        if self._index.remove(session_id):
            self._index.tally(_now(), ended=int(there), expired=int(not there))
        return there

    def _locked(self, session_id: str) -> AbstractContextManager[bool]:  # type: ignore[override]
        return _locks[hash(session_id) % len(_locks)]


class _Index:
    """Sessions by kind in the order of their expiry, and by user; and what happened to them."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of all fields of all sessions and their contexts. Those of a context that is
        over, or was thrown out, go when another of the session is stored, or with the session."""
        self._lock = threading.Lock()
        self._minutes: dict[int, Activity] = {}
        self._entries: dict[str, tuple[Kind, int, str | None, int]] = {}
        self._contexts: dict[str, int] = {}
        self._by_expiry: dict[Kind, list[tuple[int, str]]] = {kind: [] for kind in KINDS}
        self._by_user: dict[str, set[str]] = {}

    def put(self, session_id: str, kind: Kind, expires: int, user: str | None, size: int) -> None:
        with self._lock:
            self._forget(session_id)
            self._entries[session_id] = (kind, expires, user, size)
            self.size += size
            insort(self._by_expiry[kind], (expires, session_id))
            if user is not None:
                self._by_user.setdefault(user, set()).add(session_id)

    def remove(self, session_id: str) -> bool:
        with self._lock:
            return self._remove(session_id)

    def put_contexts(self, session_id: str, size: int) -> None:
        with self._lock:
            self.size -= self._contexts.pop(session_id, 0)
            if session_id in self._entries:
                self._contexts[session_id] = size
                self.size += size

    def _remove(self, session_id: str) -> bool:
        self.size -= self._contexts.pop(session_id, 0)
        return self._forget(session_id)

    def _forget(self, session_id: str) -> bool:
        entry = self._entries.pop(session_id, None)
        if entry is None:
            return False
        kind, expires, user, size = entry
        self.size -= size
        ordered = self._by_expiry[kind]
        del ordered[bisect_left(ordered, (expires, session_id))]
        if user is not None:
            self._by_user[user].discard(session_id)
            if not self._by_user[user]:
                del self._by_user[user]
        return True

    def tally(self, now: int, *, created: int = 0, ended: int = 0, expired: int = 0) -> None:
        start = now - now % 60_000
        with self._lock:
            was = self._minutes.get(start, Activity(start))
            self._minutes[start] = Activity(
                start, was.created + created, was.ended + ended, was.expired + expired
            )
            for old in [old for old in self._minutes if old <= start - HOUR * 60_000]:
                del self._minutes[old]

    def activity(self, now: int) -> list[Activity]:
        last = now - now % 60_000
        with self._lock:
            return [
                self._minutes.get(start, Activity(start))
                for start in range(last - (HOUR - 1) * 60_000, last + 1, 60_000)
            ]

    def live(self, now: int) -> list[str]:
        with self._lock:
            return [
                session_id
                for ordered in self._by_expiry.values()
                for _, session_id in ordered[_first_live(ordered, now) :]
            ]

    def count(self, now: int) -> dict[Kind, int]:
        with self._lock:
            return {
                kind: len(ordered) - _first_live(ordered, now)
                for kind, ordered in self._by_expiry.items()
            }

    def page(
        self,
        limit: int,
        after: Cursor | None,
        kinds: Collection[Kind],
        now: int,
        backward: bool = False,
    ) -> list[tuple[int, str]]:
        with self._lock:
            parts = []
            for kind in kinds:
                ordered = self._by_expiry[kind]
                if backward:
                    start = _first_live(ordered, now)
                    if after is not None:
                        start = max(start, bisect_right(ordered, (after.expires, after.session_id)))
                    parts.append(ordered[start : start + limit])
                    continue
                end = len(ordered)
                if after is not None:
                    end = bisect_left(ordered, (after.expires, after.session_id))
                start = max(_first_live(ordered, now), end - limit)
                parts.append(ordered[start:end])
        return sorted(chain(*parts), reverse=not backward)[:limit]

    def of_user(self, user: str, after: str, now: int) -> list[Cursor]:
        with self._lock:
            places = [
                Cursor(self._entries[session_id][1], session_id)
                for session_id in self._by_user.get(user, ())
                if session_id > after
            ]
        places.sort(key=lambda place: place.session_id)
        return [place for place in places if place.expires > now]

    def sweep(self, limit: int, now: int) -> int:
        with self._lock:
            stale = [
                session_id
                for ordered in self._by_expiry.values()
                for _, session_id in ordered[: min(limit, _first_live(ordered, now))]
            ][:limit]
            for session_id in stale:
                self._remove(session_id)
        if stale:
            self.tally(now, expired=len(stale))
        return len(stale)


def _first_live(ordered: list[tuple[int, str]], now: int) -> int:
    return bisect_right(ordered, (now, "\uffff"))


_indexes: dict[str, _Index] = {}
_turns: dict[str, dict[str, Turns]] = {}
