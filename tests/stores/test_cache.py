"""The store of any other Django cache: what of the contract such a cache allows."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends.filebased import FileBasedCache
from django.core.management import call_command
from time_machine import TimeMachineFixture

from django_header_sessions.exceptions import (
    ListingNotSupported,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
)
from django_header_sessions.fields import Changes
from django_header_sessions.keys import make
from django_header_sessions.stores import cache as cache_module
from django_header_sessions.stores.base import Commit, Draft, Expiry

from .bench import FileBench, open_store
from .contract import HOUR, TERMS, RaceContract, StoreContract, Verbs, near
from .sharing import ContextContract, ContextRaceContract, LockContract

FILES = "django.core.cache.backends.filebased.FileBasedCache"


class AtomicFileCache(FileBasedCache):
    """Files with an ``add`` that is atomic, as memcached's is; Django's own here is not."""

    def add(self, key: Any, value: Any, timeout: Any = 300, version: int | None = None) -> bool:
        os.makedirs(self._dir, 0o700, exist_ok=True)  # type: ignore[attr-defined]
        with open(os.path.join(self._dir, "lock"), "w") as lock:  # type: ignore[attr-defined]
            fcntl.flock(lock, fcntl.LOCK_EX)
            added: bool = super().add(key, value, timeout, version)
            return added


def files(folder: Path, backend: str = FILES) -> dict[str, dict[str, Any]]:
    return {"default": {"BACKEND": backend, "LOCATION": str(folder)}}


class TestFiles(StoreContract, LockContract, ContextContract):
    @pytest.fixture
    def bench(self, time_machine: TimeMachineFixture, settings: Any, tmp_path: Path) -> FileBench:
        settings.CACHES = files(tmp_path)
        return FileBench(open_store(), time_machine, tmp_path)


class TestFilesTogether(RaceContract, ContextRaceContract):
    """That changes are merged under a lock, on a cache whose ``add`` can serve as one."""

    many = 8
    rounds = rotations = 10

    @pytest.fixture
    def bench(self, time_machine: TimeMachineFixture, settings: Any, tmp_path: Path) -> FileBench:
        settings.CACHES = files(tmp_path, "tests.stores.test_cache.AtomicFileCache")
        return FileBench(open_store(), time_machine, tmp_path)


@pytest.fixture(params=["sync", "async"])
def verbs(
    request: pytest.FixtureRequest, time_machine: TimeMachineFixture, settings: Any, tmp_path: Path
) -> Verbs:
    settings.CACHES = files(tmp_path)
    return Verbs(FileBench(open_store(), time_machine, tmp_path), request.param)


async def test_what_needs_a_list_says_that_there_is_none_and_names_the_remedy(
    verbs: Verbs,
) -> None:
    await verbs.create(user="7")
    assert verbs.bench.store.lists is False
    for ask in (
        verbs.count,
        verbs.page,
        lambda: verbs.page_each(5),
        lambda: verbs.of_user("7"),
        lambda: verbs.places_of_user("7"),
        verbs.activity,
    ):
        with pytest.raises(ListingNotSupported, match=r"'default'.*SESSION_CACHE_ALIAS on Redis"):
            await ask()
    # There is nothing to sweep: the cache lets its entries expire by itself.
    assert await verbs.sweep() == 0
    assert await verbs.memory() is None


async def test_a_cache_that_cannot_be_reached_is_unavailable(verbs: Verbs, tmp_path: Path) -> None:
    key = await verbs.create({"a": b"1"})
    shutil.rmtree(tmp_path)
    os.mknod(tmp_path)  # a file where the folder was
    for ask in (
        lambda: verbs.open(key),
        lambda: verbs.create(),
        lambda: verbs.commit(key, Changes(set={"a": b"2"})),
        lambda: verbs.end(key.id),
        lambda: verbs.exists(key),
        lambda: verbs.get(key.id),
    ):
        with pytest.raises(SessionUnavailable):
            await ask()


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_cache_that_keeps_nothing_is_unavailable(
    mode: str, settings: Any, time_machine: TimeMachineFixture, tmp_path: Path
) -> None:
    """As one of Django's is that ignores the errors of its server: else all were signed out."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    verbs = Verbs(FileBench(open_store(), time_machine, tmp_path), mode)
    with pytest.raises(SessionUnavailable, match="keeps nothing"):
        await verbs.open(make())


def damage(folder: Path) -> None:
    (path,) = folder.glob("*.djcache")
    path.write_bytes(b"\x80\x05garbage")


async def test_a_bug_of_the_cache_is_not_taken_for_an_outage(verbs: Verbs, tmp_path: Path) -> None:
    key = await verbs.create({"a": b"1"})
    damage(tmp_path)
    with pytest.raises(UnpicklingError):
        await verbs.open(key)


# The lock. Its lease is shortened for the tests.


def held(session_id: str, lease: float) -> None:
    """The lock of a session, held by a server that died."""
    assert caches["default"].add(f"hs:l:{session_id}", "somebody else", lease)


@pytest.fixture
def lease(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(cache_module, "LEASE", 0.3)
    return 0.3


def test_a_lock_is_waited_for(settings: Any, tmp_path: Path) -> None:
    settings.CACHES = files(tmp_path)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    held(key.id, 60)
    commit = threading.Thread(
        target=store.commit, args=(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))
    )
    commit.start()
    # Who only reads does not wait.
    opened = store.open(key, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"a": b"1"}
    assert commit.is_alive()
    caches["default"].delete(f"hs:l:{key.id}")
    commit.join()
    opened = store.open(key, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"a": b"2"}
    assert caches["default"].get(f"hs:l:{key.id}") is None


def test_a_server_that_died_does_not_lock_a_session_for_ever(settings: Any, tmp_path: Path) -> None:
    settings.CACHES = files(tmp_path)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    held(key.id, 0.05)
    store.commit(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))
    assert store.end(key.id)


def test_a_lock_that_cannot_be_had_is_unavailable_and_changes_nothing(
    settings: Any, tmp_path: Path, lease: float
) -> None:
    settings.CACHES = files(tmp_path)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    held(key.id, 60)
    with pytest.raises(SessionUnavailable, match="lock"):
        store.commit(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))
    with pytest.raises(SessionUnavailable, match="lock"):
        store.end(key.id)
    # Nobody else's lock was taken away.
    assert caches["default"].get(f"hs:l:{key.id}") == "somebody else"
    opened = store.open(key, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"a": b"1"}


def test_who_stalled_beyond_the_lease_does_not_take_the_lock_of_the_next(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CACHES = files(tmp_path)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    read = store._read  # type: ignore[attr-defined]
    lock = f"hs:l:{key.id}"

    def stall(session_id: str) -> Any:
        # Meanwhile the lease runs out, and another server takes the lock.
        assert caches["default"].get(lock)
        caches["default"].set(lock, "the next", 60)
        return read(session_id)

    monkeypatch.setattr(store, "_read", stall)
    store.commit(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))
    assert caches["default"].get(lock) == "the next"


# A database.


@pytest.fixture
def database(settings: Any, transactional_db: None) -> str:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "sessions_in_a_table",
        }
    }
    call_command("createcachetable")
    return "sessions_in_a_table"


def test_a_table_in_the_database_keeps_sessions(database: str) -> None:
    store = open_store()
    key, expires_in = store.create(Draft("header", {"a": b"\xff1", "é": b""}, "7"), TERMS)
    assert near(expires_in, TERMS.idle)
    opened = store.open(key, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"a": b"\xff1", "é": b""}
    assert opened.session.user == "7"
    new = make(key.id)
    changes = Changes(set={"b": b"2"}, delete=["a"], add=("n", 3))
    committed = store.commit(
        key, "header", TERMS, Commit(changes, True, "8", Expiry("idle", HOUR), new)
    )
    assert committed.total == 3
    assert near(committed.expires_in, HOUR)
    opened = store.open(new, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"é": b"", "b": b"2", "n": b"3"}
    assert opened.session.user == "8"
    with pytest.raises(SessionSuperseded):
        store.open(key, "header", TERMS)
    assert store.open(new, "cookie", TERMS) is None
    assert store.exists(new)
    assert store.get(key.id) is not None
    assert store.end(key.id) is True
    assert store.end(key.id) is False
    assert store.open(new, "header", TERMS) is None
    with pytest.raises(SessionEnded):
        store.commit(new, "header", TERMS, Commit())
    with pytest.raises(ListingNotSupported):
        store.count()


def test_a_database_that_fails_is_unavailable(database: str) -> None:
    from django.db import connection

    store = open_store()
    key, _ = store.create(Draft("header", {}), TERMS)
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {database}")
    with pytest.raises(SessionUnavailable):
        store.open(key, "header", TERMS)
    with pytest.raises(SessionUnavailable):
        store.create(Draft("header", {}), TERMS)
