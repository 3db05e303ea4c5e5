"""What the schema says is what the resource does, whatever is sent to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..processes import Server
from .test_testing import root

# Cases of each operation. Few in a run of all tests; make schemathesis asks for many.
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "8"))
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.rest_framework.served_settings"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    env = SETTINGS | {"TEST_DB": str(tmp_path / "db.sqlite3")}
    subprocess.run(
        [sys.executable, "-m", "tests.served"], check=True, cwd=root(), env=os.environ | env
    )
    with Server("gunicorn", threads=8, **env) as server:
        yield server


def test_schemathesis_finds_nothing(server: Server, tmp_path: Path) -> None:
    """All of its checks; its cases follow links, too: list the sessions, then end one of them."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run"),
            f"http://127.0.0.1:{server.port}/schema/",
            *("--include-path-regex", "^/api/(sessions|whoami)/", "--checks", "all"),
            *("--max-examples", str(EXAMPLES), "--generation-database", "none"),
            # The same cases in each run of all tests, others whenever many are asked for.
            *(("--seed", "1") if EXAMPLES == 8 else ()),
            *("--continue-on-failure", "--no-shrink", "--no-color"),
            *("--report-har-path", str(tmp_path / "sent.har")),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(root()),
            "SCHEMATHESIS_HOOKS": "tests.rest_framework.schemathesis_hooks",
        },
    )
    # For who runs it with -s.
    print(run.stdout)  # noqa: T201
    assert run.returncode == 0, run.stdout + run.stderr
    assert "No issues found" in run.stdout
    # That it got past the door: were no sign-in to succeed, all its cases would be 401.
    sent = json.loads((tmp_path / "sent.har").read_bytes())["log"]["entries"]
    answers = {(one["request"]["method"], one["response"]["status"]) for one in sent}
    assert answers >= {("GET", 200), ("POST", 200), ("POST", 201), ("DELETE", 204), ("GET", 401)}
    assert len(sent) > max(200, 10 * EXAMPLES)
    # And that links were followed: what one call was answered with is in the path of another.
    ended = [
        one["response"]["status"]
        for one in sent
        if one["request"]["method"] == "DELETE"
        and re.search("/api/sessions/[a-z0-9]{15}/$", one["request"]["url"])
    ]
    assert {204, 404} <= set(ended)
