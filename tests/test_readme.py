"""The README says what is so: its settings are the settings, its snippets run.

What holds for every page of the documentation is in ``test_docs``.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from django.test import RequestFactory

from django_header_sessions import engine
from django_header_sessions.conf import Settings, conf
from django_header_sessions.middleware import PROBLEMS
from django_header_sessions.problems import MALFORMED, UNKNOWN

from .processes import ROOT
from .readme import README, snippets, wire


def table_of(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in README.split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0].splitlines()
        if line.startswith("|")
    ]
    return rows[2:]


def test_the_settings_are_the_settings(settings: Any) -> None:
    told = {
        row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in table_of("## Settings")
    }
    names = [name for name in dir(Settings) if name.startswith("HEADER_SESSIONS_")]
    for name in names:
        if hasattr(settings, name):
            delattr(settings, name)
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


def test_a_fresh_project_wired_by_the_diff_passes_its_checks(tmp_path: Path) -> None:
    def django(*args: str) -> str:
        command = [sys.executable, "-W", "error", "-m", "django", *args]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "DJANGO_SETTINGS_MODULE": "site1.settings"},
            capture_output=True,
            check=True,
            text=True,
        ).stdout

    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "site1", str(tmp_path)], check=True
    )
    wire(tmp_path / "site1" / "settings.py")

    assert "no issues" in django("check", "--fail-level", "DEBUG")
    assert "No changes detected" in django("makemigrations", "--check")


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
    assert f"redis-py {bounds['redis']} or later" in support
    assert f"django-redis {bounds['django-redis'].split('.')[0]} " in support
