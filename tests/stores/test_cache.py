"""The store of any other Django cache: what of the contract such a cache allows."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytest
from django.core.cache import BaseCache, caches
from django.core.cache.backends.filebased import FileBasedCache
from django.core.management import call_command
from time_machine import TimeMachineFixture

from django_header_sessions.exceptions import (
    LeaseExpired,
    ListingNotSupported,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
)
from django_header_sessions.fields import Changes
from django_header_sessions.keys import SessionKey, make
from django_header_sessions.stores import cache as cache_module
from django_header_sessions.stores.base import Commit, Draft, Expiry, Opened

from .bench import FileBench, open_store
from .contract import HOUR, TERMS, RaceContract, StoreContract, Verbs, near
from .sharing import ContextContract, ContextRaceContract, LockContract

FILES = "django.core.cache.backends.filebased.FileBasedCache"


class Elsewhere(BaseCache):
    """A cache of another kind, as memcached is: ``add`` is atomic, and times are cut to seconds."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._folder = location
        self._files = FileBasedCache(location, params)

    def add(self, key: Any, value: Any, timeout: Any = 300, version: int | None = None) -> bool:
        os.makedirs(self._folder, 0o700, exist_ok=True)
        with open(os.path.join(self._folder, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            added: bool = self._files.add(key, value, _whole(timeout), version)
            return added

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self._files.get(key, default, version)

    def set(self, key: Any, value: Any, timeout: Any = 300, version: int | None = None) -> None:
        self._files.set(key, value, _whole(timeout), version)

    def delete(self, key: Any, version: int | None = None) -> bool:
        return bool(self._files.delete(key, version))


def _whole(timeout: float) -> float:
    return timeout if timeout < 1 else int(timeout)


def files(folder: Path, backend: str = FILES) -> dict[str, dict[str, Any]]:
    return {"default": {"BACKEND": backend, "LOCATION": str(folder)}}


class TestFiles(StoreContract, LockContract, ContextContract):
    @pytest.fixture
    def bench(self, time_machine: TimeMachineFixture, settings: Any, tmp_path: Path) -> FileBench:
        settings.CACHES = files(tmp_path)
        return FileBench(open_store(), time_machine, tmp_path)


ELSEWHERE = "tests.stores.test_cache.Elsewhere"


class TestTogether(RaceContract, ContextRaceContract):
    """That changes are merged under a lock: one on a file, and one that is an entry of a cache."""

    many = 8
    rounds = rotations = 10

    @pytest.fixture(params=[FILES, ELSEWHERE])
    def bench(
        self,
        request: pytest.FixtureRequest,
        time_machine: TimeMachineFixture,
        settings: Any,
        tmp_path: Path,
    ) -> FileBench:
        settings.CACHES = files(tmp_path, request.param)
        return FileBench(open_store(), time_machine, tmp_path)


@pytest.mark.parametrize("backend", [FILES, ELSEWHERE])
def test_a_session_that_was_ended_beside_a_commit_does_not_come_back(
    backend: str, settings: Any, tmp_path: Path
) -> None:
    settings.CACHES = files(tmp_path, backend)
    store = open_store()
    for _ in range(40):
        key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
        barrier = threading.Barrier(2)

        def commit(key: SessionKey = key, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            with suppress(SessionEnded):
                store.commit(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))

        thread = threading.Thread(target=commit)
        thread.start()
        barrier.wait(10)
        assert store.end(key.id)
        thread.join()
        assert store.get(key.id) is None
    assert not list(tmp_path.glob("*.lock*"))


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


async def test_what_a_cache_did_not_keep_is_not_said_to_be(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Django's database cache does not tell where the database refused."""
    settings.CACHES = files(tmp_path, ELSEWHERE)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    with monkeypatch.context() as patch:
        patch.setattr(Elsewhere, "set", lambda *args, **kwargs: None)
        with pytest.raises(SessionUnavailable, match="has not kept"):
            store.commit(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))
        with pytest.raises(SessionUnavailable, match="has not kept"):
            store.lock(key, "header", TERMS, "other.1", 60_000)
    opened = store.open(key, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"a": b"1"}


def test_what_lives_for_less_than_a_second_does_not_end_before_its_time(
    settings: Any, tmp_path: Path, time_machine: TimeMachineFixture
) -> None:
    settings.CACHES = files(tmp_path, ELSEWHERE)
    store = open_store()
    time_machine.move_to(datetime(2030, 1, 1, 12, 0, 0, 900_000, tzinfo=UTC), tick=False)
    draft = Draft("header", {"a": b"1"}, expiry=Expiry("idle", 900))
    key, _ = store.create(draft, TERMS)
    assert isinstance(store.lock(key, "header", TERMS, "other.1", 900), Opened)
    time_machine.shift(timedelta(seconds=0.8))
    commit = Commit(Changes(set={"a": b"2"}), ticket="other.1")
    store.commit(key, "header", TERMS, commit)
    time_machine.shift(timedelta(seconds=0.2))
    with pytest.raises(LeaseExpired):
        store.commit(key, "header", TERMS, commit)


# The lock. Its lease is shortened for the tests.


def held(session_id: str, lease: float) -> None:
    """The lock of a session, held by a server that died."""
    assert caches["default"].add(f"hs:l:{session_id}", "somebody else", lease)


@pytest.fixture
def lease(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(cache_module, "LEASE", 0.3)
    return 0.3


def test_a_lock_is_waited_for(settings: Any, tmp_path: Path) -> None:
    settings.CACHES = files(tmp_path, ELSEWHERE)
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
    settings.CACHES = files(tmp_path, ELSEWHERE)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    held(key.id, 0.05)
    store.commit(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))
    assert store.end(key.id)


def test_a_lock_that_cannot_be_had_is_unavailable_and_changes_nothing(
    settings: Any, tmp_path: Path, lease: float
) -> None:
    settings.CACHES = files(tmp_path, ELSEWHERE)
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
    settings.CACHES = files(tmp_path, ELSEWHERE)
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


@contextmanager
def file_held(folder: Path, session_id: str) -> Iterator[Path]:
    cache: Any = caches["default"]
    path = Path(f"{cache._key_to_file(f'hs:l:{session_id}')}.lock")
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_a_lock_on_a_file_is_waited_for_and_no_lease_takes_it_away(
    settings: Any, tmp_path: Path, lease: float
) -> None:
    settings.CACHES = files(tmp_path)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    with file_held(tmp_path, key.id) as path:
        with pytest.raises(SessionUnavailable, match="lock"):
            store.end(key.id)
        assert path.exists()
        thread = threading.Thread(
            target=store.commit, args=(key, "header", TERMS, Commit(Changes(set={"a": b"2"})))
        )
        thread.start()
        # Its holder lets go of it as others do, and they come to it anew.
        path.unlink()
    thread.join()
    opened = store.open(key, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"a": b"2"}
    # One that was left by a process that is no more is nobody's.
    path.touch()
    assert store.end(key.id)
    assert not path.exists()


def test_a_lock_whose_file_stays_is_given_back_all_the_same(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where open files cannot be removed, or somebody has removed it."""
    settings.CACHES = files(tmp_path)
    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)

    def refuse(path: str) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        for value in (b"2", b"3"):
            store.commit(key, "header", TERMS, Commit(Changes(set={"a": value})))
    assert len(list(tmp_path.glob("*.lock"))) == 1
    assert store.end(key.id)


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


def test_a_write_that_the_database_refused_is_not_said_to_be_done(database: str) -> None:
    """As SQLite does where two write at once; Django's cache tells nobody."""
    from django.db import OperationalError, connection

    def refuse(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise OperationalError("database is locked")
        return execute(sql, *args)

    store = open_store()
    key, _ = store.create(Draft("header", {"a": b"1"}), TERMS)
    new = Commit(Changes(set={"a": b"2"}), rotate_to=make(key.id))
    with connection.execute_wrapper(refuse), pytest.raises(SessionUnavailable):
        store.commit(key, "header", TERMS, new)
    opened = store.open(key, "header", TERMS)
    assert opened is not None
    assert opened.fields == {"a": b"1"}


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
