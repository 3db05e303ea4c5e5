"""The README says what is so: its settings are the settings, its snippets run.

What holds for every page of the documentation is in ``test_docs``.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory

from django_header_sessions import engine
from django_header_sessions.conf import Settings, conf
from django_header_sessions.middleware import PROBLEMS
from django_header_sessions.problems import MALFORMED, UNKNOWN

from .clients.example import Example
from .pages import Page
from .processes import ROOT, Process, free_port
from .readme import README, snippets, wire
from .transcripts import Terminal, steps

PAGE = Page.named("README.md")


def table_of(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in README.split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0].splitlines()
        if line.startswith("|")
    ]
    return rows[2:]


def test_the_settings_are_the_settings() -> None:
    """Those of the tests are the defaults."""
    told = {
        row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in table_of("## Settings")
    }
    names = [name for name in dir(Settings) if name.startswith("HEADER_SESSIONS_")]
    assert told == {name: getattr(conf, name) for name in names}


def answers() -> list[list[str]]:
    """The rows of the table of answers, which has three columns; that of headers has two."""
    return [row for row in table_of("### What a client is told") if len(row) == 3]


def test_the_answers_are_the_answers() -> None:
    told = {row[2].strip("`"): int(row[1][:3]) for row in answers()}
    problems = [MALFORMED, UNKNOWN, *PROBLEMS.values()]
    assert told == {problem.name: problem.status for problem in problems}


def test_the_view_runs() -> None:
    view: dict[str, Any] = {}
    exec(snippets("python")[0], view)
    request = RequestFactory().get("/", {"q": "lamps"})
    request.session = engine.SessionStore(transport="header")
    assert view["search"](request).content == b'{"visits": 1}'
    assert view["search"](request).content == b'{"visits": 2}'
    assert request.session["query"] == "lamps"


def test_the_views_that_share_a_session_run() -> None:
    views: dict[str, Any] = {}
    exec(snippets("python")[0] + next(s for s in snippets("python") if "def buy" in s), views)

    def ask(name: str, **query: str) -> Any:
        request = RequestFactory().get("/", query)
        request.session = session
        answer = json.loads(views[name](request).content)
        session.read_only = False
        session.finish(commit=True)
        return answer

    session = engine.SessionStore(transport="header")
    session.create()
    assert ask("buy", item="lamp") == {"basket": ["lamp"]}
    assert ask("buy", item="vase") == ask("basket") == {"basket": ["lamp", "vase"]}
    assert ask("draft", draft="one", line="a lamp") == {"lines": ["a lamp"]}
    assert ask("draft", draft="one", line="a vase") == {"lines": ["a lamp", "a vase"]}
    assert ask("draft", draft="two", line="a rug") == {"lines": ["a rug"]}


def test_the_typed_view_runs() -> None:
    (snippet,) = [each for each in snippets("python") if "import HttpRequest" in each]
    view: dict[str, Any] = {}
    exec(snippet, view)
    request = RequestFactory().get("/")
    request.session = engine.SessionStore(transport="header")
    assert view["visit"](request).content == b"visit 1"


class Project:
    """A fresh project, set up by what the chapter on installing says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        start = [sys.executable, "-m", "django", "startproject", "site1", str(folder)]
        subprocess.run(start, check=True)
        wire(folder / "site1" / "settings.py")

    @property
    def env(self) -> dict[str, str]:
        return {
            "PYTHONPATH": f"{self.folder}:{ROOT}",
            "DJANGO_SETTINGS_MODULE": "site1.settings",
            "PYTHONUNBUFFERED": "1",
        }

    def append(self, name: str, text: str) -> None:
        """Add to the end of one of its modules."""
        path = self.folder / "site1" / name
        path.write_text(f"{path.read_text()}\n{text}")

    def manage(self, *args: str, **env: str) -> str:
        command = [sys.executable, "-W", "error", "manage.py", *args]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.env | env,
            capture_output=True,
            check=True,
            text=True,
        ).stdout


def test_a_fresh_project_wired_by_the_diff_passes_its_checks(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert "no issues" in project.manage("check", "--fail-level", "DEBUG")
    assert "No changes detected" in project.manage("makemigrations", "--check")


def test_the_chapter_on_drf_does_what_it_says_and_needs_nothing_else(tmp_path: Path) -> None:
    told = PAGE.chapter("## Django REST framework")
    project = Project(tmp_path)
    settings, urls = told.snippets("python")
    project.append("settings.py", settings)
    project.append("urls.py", urls)
    assert "no issues" in project.manage("check", "--fail-level", "DEBUG")

    install, prepare, sign_in, use = map(steps, told.snippets("console"))
    assert [step.command for step in install] == [
        'pip install "django-header-sessions[rest-framework]"'
    ]
    env: dict[str, str] = {}
    for step in prepare[:-1]:
        verb, *words = shlex.split(step.command)
        if verb == "export":
            env |= dict(word.split("=", 1) for word in words)
        else:
            assert (verb, words[0]) == ("python", "manage.py")
            project.manage(*words[1:], **env)
    assert prepare[-1].command == "python manage.py runserver"
    with Runserver(project) as server:
        terminal = Terminal(server.port)
        for step in [*sign_in, *use]:
            terminal.run(step)
        # In a browser there is a page of DRF's, which needs its app.
        page = terminal.curl('curl -H "Accept: text/html" localhost:8000/api/whoami/')
        assert page[0] == 401


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    """The example server, as make serve starts it."""
    env = {
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "EXAMPLE_DB": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": f"{ROOT / 'example_project'}:{ROOT}",
    }
    manage = [sys.executable, str(ROOT / "example_project" / "manage.py"), "setup"]
    subprocess.run(manage, env=os.environ | env, check=True, capture_output=True)
    with Example(env) as server:
        server.ready()
        yield server


def test_the_transcript_is_what_the_example_answers(example: Example) -> None:
    terminal = Terminal(example.port)
    told = PAGE.chapter("## A session, seen from outside")
    for step in [step for console in told.snippets("console") for step in steps(console)]:
        terminal.run(step)


def test_the_client_does_what_it_says(example: Example) -> None:
    (told,) = PAGE.chapter("## The client").snippets("python")
    url = f"http://127.0.0.1:{example.port}"
    assert "https://tools.example.com" in told
    names: dict[str, Any] = {}
    exec(told.replace("https://tools.example.com", url), names)
    assert names["client"].post("/api/tools/next/").json()["query"] == "pump"
    names["client"].close()


@dataclass(frozen=True)
class Measured:
    """One row of the client benchmark's table, in milliseconds."""

    scheme: str
    work: int
    place: str
    new: float
    pooled: float
    session: float
    handshake: float
    password: float

    def cut(self, other: float) -> int:
        """Percent of the overhead of another way to call that a session over a pool saves."""
        return round(100 * (1 - (self.session - self.work) / (other - self.work)))


MEASURED = [
    Measured(row[1], 20 if row[2] == "20 ms" else 0, row[3], *map(float, row[4:9]))
    for row in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "benchmarks/client/results.md").read_text("utf-8").splitlines()
        if line.startswith(("| httpx", "| aiohttp"))
    )
]


def test_the_reading_of_the_client_benchmark_is_that_of_its_table() -> None:
    ways: list[Callable[[Measured], float]] = [
        lambda row: row.handshake,
        lambda row: row.password,
        lambda row: row.new,
    ]
    for way, told in zip(ways, table_of("### What it saves"), strict=True):
        for scheme, shown in zip(("http", "https"), told[1:], strict=True):
            cuts = [row.cut(way(row)) for row in MEASURED if row.scheme == scheme]
            assert shown == f"{min(cuts)} to {max(cuts)} %"
    plain = [row for row in MEASURED if row.scheme == "http"]
    secure = [row for row in MEASURED if row.scheme == "https"]
    assert all(row.cut(row.new) >= 50 for row in secure if row.place != "loopback")
    assert all(row.cut(row.new) <= 50 for row in plain)
    here = [row for row in plain if row.place == "loopback" and row.work == 20]
    sooner = [round(100 * (1 - row.session / row.handshake)) for row in here]
    assert f"{min(sooner)} to {max(sooner)} % sooner" in README
    # About a millisecond: that is what "about" covers.
    assert all(-2 < row.session - row.pooled < 2 for row in MEASURED)


class Runserver(Process):
    """The project's own server."""

    def __init__(self, project: Project) -> None:
        self.port = free_port()
        at = f"127.0.0.1:{self.port}"
        command = (sys.executable, "manage.py", "runserver", "--noreload", at)
        super().__init__(*command, env=project.env, cwd=project.folder)
        self.wait_until(self._listens)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def test_what_is_supported_is_what_is_declared_and_run() -> None:
    support = README.split("\n## Support\n", 1)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    classifiers = "\n".join(project["classifiers"])
    pythons = re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    djangos = re.findall(r"Django :: (\d\.\d)$", classifiers, re.MULTILINE)
    assert f"Python {pythons[0]} to {pythons[-1]}," in support
    assert f"Django {djangos[0]} LTS, {', '.join(djangos[1:-1])} and {djangos[-1]}," in support
    bounds = dict(
        each.split(">=") for some in project["optional-dependencies"].values() for each in some
    )
    assert f"DRF {bounds['djangorestframework']} or later" in support
    assert f"redis-py {bounds['redis[hiredis]']} or later" in support
    assert f"django-redis {bounds['django-redis'].split('.')[0]} " in support
