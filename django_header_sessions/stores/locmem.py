"""Sessions in Django's LocMemCache: one process, where locks are real and the list is exact."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Collection
from contextlib import AbstractContextManager
from itertools import chain

from django.core.cache import caches

from .base import KINDS, Cursor, Kind, LiveSession, Page
from .cache import CacheStore, Record, _now

_locks = [threading.RLock() for _ in range(64)]


class LocMemStore(CacheStore):
    """Merges under a lock of this process, and keeps its list beside the cache."""

    lists = True

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        # One list for each of Django's LocMem caches, which are one a location, for as long as
        # the process lives: settings may come and go over it.
        location = caches.settings[alias].get("LOCATION", "")
        self._index = _indexes[f"{location} {caches[alias].make_key('')}"]

    def count(self) -> dict[Kind, int]:
        return self._index.count(_now())

    def page(self, limit: int, after: Cursor | None = None, kinds: Collection[Kind] = ()) -> Page:
        entries = self._index.page(limit, after, kinds or KINDS, _now())
        sessions = [found for _, session_id in entries if (found := self._there(session_id))]
        return Page(sessions, Cursor(*entries[-1]) if len(entries) == limit else None)

    def of_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        found = [self._there(session_id) for session_id in self._index.of_user(user)]
        sessions = [session for session in found if session is not None]
        return sorted(sessions, key=lambda session: (session.created_ms, session.id))[:limit]

    def sweep(self, limit: int = 200) -> int:
        return self._index.sweep(limit, _now())

    def _there(self, session_id: str) -> LiveSession | None:
        record = self._read(session_id)
        if record is not None:
            return self._seen(session_id, record)
        # LocMemCache throws entries out when there are more than MAX_ENTRIES.
        with self._locked(session_id):
            if self._read(session_id) is None:
                self._index.remove(session_id)
        return None

    def _write(
        self, session_id: str, record: Record, seen: int, idle: int, *, new: bool = False
    ) -> bool:
        with self._locked(session_id):
            if not super()._write(session_id, record, seen, idle, new=new):
                return False
            _, gone = record.lifetime(seen, idle)
            kind = Kind(record.transport, record.user is not None)
            self._index.put(session_id, kind, gone, record.user)
            return True

    def _delete(self, session_id: str) -> bool:
        self._index.remove(session_id)
        return super()._delete(session_id)

    def _locked(self, session_id: str) -> AbstractContextManager[bool]:  # type: ignore[override]
        return _locks[hash(session_id) % len(_locks)]


class _Index:
    """Sessions by kind in the order of their expiry, and by user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[Kind, int, str | None]] = {}
        self._by_expiry: dict[Kind, list[tuple[int, str]]] = {kind: [] for kind in KINDS}
        self._by_user: dict[str, set[str]] = {}

    def put(self, session_id: str, kind: Kind, expires: int, user: str | None) -> None:
        with self._lock:
            self._remove(session_id)
            self._entries[session_id] = (kind, expires, user)
            insort(self._by_expiry[kind], (expires, session_id))
            if user is not None:
                self._by_user.setdefault(user, set()).add(session_id)

    def remove(self, session_id: str) -> None:
        with self._lock:
            self._remove(session_id)

    def _remove(self, session_id: str) -> None:
        entry = self._entries.pop(session_id, None)
        if entry is None:
            return
        kind, expires, user = entry
        ordered = self._by_expiry[kind]
        del ordered[bisect_left(ordered, (expires, session_id))]
        if user is not None:
            self._by_user[user].discard(session_id)
            if not self._by_user[user]:
                del self._by_user[user]

    def count(self, now: int) -> dict[Kind, int]:
        with self._lock:
            return {
                kind: len(ordered) - _first_live(ordered, now)
                for kind, ordered in self._by_expiry.items()
            }

    def page(
        self, limit: int, after: Cursor | None, kinds: Collection[Kind], now: int
    ) -> list[tuple[int, str]]:
        with self._lock:
            parts = []
            for kind in kinds:
                ordered = self._by_expiry[kind]
                end = len(ordered)
                if after is not None:
                    end = bisect_left(ordered, (after.expires, after.session_id))
                start = max(_first_live(ordered, now), end - limit)
                parts.append(ordered[start:end])
        return sorted(chain(*parts), reverse=True)[:limit]

    def of_user(self, user: str) -> list[str]:
        with self._lock:
            return list(self._by_user.get(user, ()))

    def sweep(self, limit: int, now: int) -> int:
        with self._lock:
            stale = [
                session_id
                for ordered in self._by_expiry.values()
                for _, session_id in ordered[: min(limit, _first_live(ordered, now))]
            ]
            for session_id in stale:
                self._remove(session_id)
        return len(stale)


def _first_live(ordered: list[tuple[int, str]], now: int) -> int:
    return bisect_right(ordered, (now, "\uffff"))


_indexes: defaultdict[str, _Index] = defaultdict(_Index)
