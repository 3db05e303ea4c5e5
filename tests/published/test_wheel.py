"""What is published is what is here: scripts, templates, types and migrations too."""

from __future__ import annotations

import configparser
import importlib
import re
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser

import pytest

from .build import ROOT, files
from .conftest import Published

PACKAGE = "django_header_sessions"
PAGE = ROOT / "docs/pypi.md"
"""What an index of packages shows; the README's links and pictures lead nowhere there."""


@pytest.fixture
def wheel(published: Published) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(published.wheel) as opened:
        yield opened


@pytest.fixture
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    return BytesParser().parsebytes(wheel.read(name))


def test_the_wheel_holds_all_of_the_package(wheel: zipfile.ZipFile) -> None:
    here = {name for name in files() if name.startswith(f"{PACKAGE}/")}
    there = {name for name in wheel.namelist() if not name.startswith(f"{PACKAGE}-")}
    assert there == here
    for name in (
        "py.typed",
        "migrations/0001_initial.py",
        "stores/scripts/open.lua",
        "stores/scripts/session.lua",
    ):
        assert f"{PACKAGE}/{name}" in there


def test_the_wheel_is_small(published: Published) -> None:
    assert published.wheel.stat().st_size < 250_000


def test_the_source_holds_all_of_the_project(published: Published) -> None:
    with tarfile.open(published.source) as source:
        names = {each.name.split("/", 1)[1] for each in source.getmembers() if each.isfile()}
    made = {"PKG-INFO", "setup.cfg"}
    there = {name for name in names if not name.startswith(f"{PACKAGE}.egg-info/")} - made
    # What begins with a dot is the checkout's own: what git ignores, what runs where it is kept.
    assert there == {name for name in files() if not any(p[0] == "." for p in name.split("/"))}


def test_only_django_is_required(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    assert [each for each in required if "extra ==" not in each] == ["django>=5.2"]


def test_the_metadata_say_what_it_is(metadata: Message) -> None:
    assert metadata["Name"] == "django-header-sessions"
    assert metadata["Author"] == "the django-header-sessions authors"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True) == PAGE.read_bytes()


def test_the_page_says_what_the_readme_says() -> None:
    *parts, installed, pointer = PAGE.read_text("utf-8").strip().split("\n\n")
    readme = (ROOT / "README.md").read_text("utf-8").split("\n\n")
    assert [part for part in parts if part not in readme] == []
    assert installed.startswith("Paths that begin with one of")
    assert "source distribution" in pointer


def test_the_page_links_to_nothing_that_is_only_here() -> None:
    assert re.findall(r"\]\((?!https://)[^)]*\)", PAGE.read_text("utf-8")) == []


@pytest.mark.parametrize("name", ["CHANGELOG.md", "SECURITY.md"])
def test_the_version_is_spoken_of(metadata: Message, name: str) -> None:
    assert ".".join(metadata["Version"].split(".")[:2]) in (ROOT / name).read_text("utf-8")


def test_pytest_finds_the_fixtures(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    found = configparser.ConfigParser()
    found.read_string(wheel.read(name).decode())
    plugins = dict(found["pytest11"])
    assert plugins == {PACKAGE: f"{PACKAGE}.pytest_plugin"}
    fixtures = vars(importlib.import_module(plugins[PACKAGE]))
    assert {"header_session_client", "header_session_api_client"} <= fixtures.keys()
