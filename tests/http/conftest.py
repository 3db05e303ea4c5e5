from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, Server, Valkey

from .site import Site, assert_no_key_in


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the users ann, bob, cy and root, for all served sites."""
    path: Path = tmp_path_factory.mktemp("database") / "db.sqlite3"
    subprocess.run(
        [sys.executable, "-m", "tests.served"],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_DB": str(path)},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="session")
def gunicorn(valkey: Valkey, database: Path) -> Iterator[Server]:
    with Server("gunicorn", REDIS_URL=valkey.url, TEST_DB=str(database)) as server:
        yield server
        assert_no_key_in(server.output())


@pytest.fixture(scope="session")
def second_gunicorn(valkey: Valkey, database: Path) -> Iterator[Server]:
    """Another process of the same site, on the same Valkey."""
    with Server("gunicorn", REDIS_URL=valkey.url, TEST_DB=str(database)) as server:
        yield server
        assert_no_key_in(server.output())


@pytest.fixture(scope="session")
def locmem_gunicorn(database: Path) -> Iterator[Server]:
    """One process of threads, whose sessions are in its memory."""
    with Server("gunicorn", TEST_DB=str(database)) as server:
        yield server
        assert_no_key_in(server.output())


@pytest.fixture(scope="session")
def uvicorn(valkey: Valkey, database: Path) -> Iterator[Server]:
    with Server("uvicorn", REDIS_URL=valkey.url, TEST_DB=str(database)) as server:
        yield server
        assert_no_key_in(server.output())


@pytest.fixture(scope="session")
def runserver(valkey: Valkey, database: Path) -> Iterator[Server]:
    with Server("runserver", REDIS_URL=valkey.url, TEST_DB=str(database)) as server:
        yield server
        assert_no_key_in(server.output())


@pytest.fixture(
    params=[
        ("gunicorn", "/sync/"),
        ("gunicorn", "/async/"),
        ("uvicorn", "/sync/"),
        ("uvicorn", "/async/"),
    ],
    ids=" ".join,
)
def site(request: pytest.FixtureRequest) -> Site:
    """Sync and async views under a WSGI and under an ASGI server, with sessions on Redis."""
    server, view = request.param
    return Site(request.getfixturevalue(server), view)


@pytest.fixture
def trouble() -> Iterator[Valkey]:
    """A Valkey of the test's own, to do harm to."""
    with Valkey() as started:
        yield started


@pytest.fixture
def troubled(site: Site, trouble: Valkey) -> Iterator[Site]:
    """A site whose sessions are on that Valkey, and which has little patience with it."""
    cache: dict[str, Any] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": trouble.url,
        "OPTIONS": {"SOCKET_TIMEOUT": 0.5, "SOCKET_CONNECT_TIMEOUT": 0.5},
    }
    # Without the breaker: what the store says is asked each time, so it may recover at once.
    with site.settings(CACHES={"default": cache}, HEADER_SESSIONS_BREAKER_SECONDS=0):
        yield site
