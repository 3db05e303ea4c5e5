from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import ROOT, Server, Valkey

from .site import Project

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.neighbours.settings"}


@pytest.fixture(scope="package")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all apps' tables and the users ann, bob, cy and root."""
    path: Path = tmp_path_factory.mktemp("neighbours") / "db.sqlite3"
    subprocess.run(
        [sys.executable, "-m", "tests.served"],
        env=os.environ | SETTINGS | {"TEST_DB": str(path)},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return path


@pytest.fixture(scope="package")
def server(valkey: Valkey, database: Path) -> Iterator[Server]:
    env = SETTINGS | {"REDIS_URL": valkey.url, "TEST_DB": str(database)}
    with Server("gunicorn", threads=8, **env) as server:
        yield server


@pytest.fixture
def project(server: Server, valkey: Valkey, database: Path) -> Iterator[Project]:
    """The project beside allauth and django-cors-headers, in which nobody has a session."""
    yield from started(server, valkey, database)


def started(server: Server, valkey: Valkey, database: Path) -> Iterator[Project]:
    valkey.client.flushall()
    with sqlite3.connect(database) as tables:
        tables.execute("DELETE FROM usersessions_usersession")
    tables.close()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as anybody:
        yield Project(server, anybody, database)


@pytest.fixture
def ann(project: Project) -> Iterator[Any]:
    """Ann's browser, in which she is signed in."""
    with project.browser("ann") as browser:
        yield browser
