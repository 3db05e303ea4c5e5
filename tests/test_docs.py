"""What every page of the documentation names is there: links, settings, checks, code, commands."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class
from django.test import RequestFactory
from django.utils.module_loading import import_string

from django_header_sessions import checks
from django_header_sessions.conf import Settings
from django_header_sessions.engine import SessionStore

from .pages import NAMES, Page
from .processes import ROOT

PACKAGE = "django_header_sessions"
PAGES = [Page.named(name) for name in NAMES]
pages = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def anchor(heading: str) -> str:
    """What a heading is called in a link to it, by the rules of the places that show such pages."""
    text = heading.lstrip("#").strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pages
def test_links_lead_somewhere(page: Page) -> None:
    folder = (ROOT / page.name).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", page.text):
        if re.match(r"https?:", target):
            continue
        file, _, part = target.partition("#")
        path = (folder / file).resolve() if file else ROOT / page.name
        assert path.exists(), target
        if part:
            there = Page.named(str(path.relative_to(ROOT)))
            assert part in map(anchor, there.headings), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    met, left = set(), ["README.md"]
    while left:
        name = left.pop()
        met.add(name)
        folder = (ROOT / name).parent
        for target in re.findall(r"\]\(([^)\s#:]+\.md)", Page.named(name).text):
            found = str((folder / target).resolve().relative_to(ROOT))
            left += [] if found in met else [found]
    assert met >= set(NAMES)


@pages
def test_settings_that_are_named_are_settings(page: Page) -> None:
    named = set(re.findall(r"\bHEADER_SESSIONS_[A-Z_]+\b", page.text)) - {"HEADER_SESSIONS_"}
    assert named <= set(dir(Settings))


@pages
def test_checks_that_are_named_are_checks(page: Page) -> None:
    folder = Path(checks.__file__).parent
    source = "".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    known = set(re.findall(r'id="(header_sessions\.[EWI]\d{3})"', source))
    named = re.findall(r"\bheader_sessions\.[A-Z]+\d+", page.text)
    named += [f"header_sessions.{short}" for short in re.findall(r"`([EWI]\d{3})`", page.text)]
    assert set(named) <= known


@pages
def test_python_snippets_compile_and_import_what_there_is(page: Page) -> None:
    for text in page.snippets("python"):
        # A snippet may be part of a coroutine.
        compile(text, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                exec(ast.unparse(node), {})


@pages
def test_dotted_paths_that_are_named_lead_somewhere(page: Page) -> None:
    for path in re.findall(r"\"(django_header_sessions(?:\.\w+)+)\"", page.text):
        try:
            import_module(path)
        except ModuleNotFoundError:
            import_string(path)


@pages
def test_extras_that_are_named_are_extras(page: Page) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = re.findall(r"django-header-sessions\[([\w,-]+)\]", page.text)
    named += re.findall(r"the extra `([\w-]+)`", page.text)
    assert set(",".join(named).split(",")) - {""} <= set(project["optional-dependencies"])


@pages
def test_commands_that_are_named_are_commands(page: Page) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for line in re.findall(r"(?:^\$ |`)make ([a-z][a-z -]*?)(?:`|  |$)", page.text, re.MULTILINE):
        assert set(line.split()) <= targets, line
    for name in re.findall(r"python (benchmarks/\w+\.py)", page.text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"python -m (benchmarks[\w.]+)", page.text):
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name
    command: Any = load_command_class(PACKAGE, "header_sessions")
    told = command.create_parser("manage.py", "header_sessions").format_help()
    verbs = set(re.findall(r"^    ([a-z]+)  ", told, re.MULTILINE))
    assert "stats" in verbs
    assert set(re.findall(r"(?:manage\.py |`)header_sessions ([a-z]+)", page.text)) <= verbs


def test_the_view_of_the_security_page_gives_strangers_a_short_session() -> None:
    (snippet,) = Page.named("docs/security.md").snippets("python")
    view: dict[str, Any] = {}
    exec(snippet, view)
    request = RequestFactory().get("/", {"q": "lamps"})
    request.session = session = SessionStore(transport="header")

    class Nobody:
        is_authenticated = False

    request.user = Nobody()  # type: ignore[assignment]
    assert view["search"](request).status_code == 200
    session.save()
    assert session.expires_in == 300
    session.set_expiry(None)
    session.save()
    assert session.expires_in == 1800


def test_the_blocks_of_the_page_on_concurrency_run() -> None:
    page = Page.named("docs/concurrency.md")
    (settle,) = [text for text in page.snippets("python") if "def settle" in text]
    found: dict[str, Any] = {}
    exec(settle, found)
    session = SessionStore(transport="header")
    session["basket"] = {"lamp": 1, "vase": 2}
    session.save()
    found["settle"](session)
    stored = SessionStore(session.session_key, transport="header")
    assert stored["total"] == 3
    assert not session.locked
