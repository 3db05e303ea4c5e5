"""The matrix: each supported Python with each Django that supports it, from the built wheel.

``nox`` runs the smoke of every combination that it finds an interpreter for, and once more on the
lowest versions that the package says it works with; ``nox -s full`` runs all tests instead. Which
versions are supported is said in one place, ``pyproject.toml``.
"""

from __future__ import annotations

import shutil
import tarfile
from itertools import chain
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
# Said, and no failure: not everybody has them all.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["smoke", "lowest"]

PACKAGE = "django_header_sessions"
PYPROJECT = nox.project.load_toml("pyproject.toml")
PROJECT = PYPROJECT["project"]
PYTHONS = nox.project.python_versions(PYPROJECT)
DJANGO = "Framework :: Django :: "
DJANGOS = [each.removeprefix(DJANGO) for each in PROJECT["classifiers"] if each.startswith(DJANGO)]
COMBINATIONS = [
    (python, django)
    for python in PYTHONS
    for django in DJANGOS
    if django == "5.2" or python != "3.11"  # Django 6 needs Python 3.12
]

SMOKE = (
    "tests/admin/test_list.py",
    "tests/engine/test_auth.py",
    "tests/engine/test_twins.py",
    "tests/http/test_transports.py",
    "tests/rest_framework/test_authentication.py",
    "tests/rest_framework/test_resource.py",
    "tests/stores/test_locmem.py",
    "tests/stores/test_redis.py::TestRedis",
    "tests/test_checks.py",
    "tests/test_middleware.py",
    "tests/test_models.py",
)
"""Every part of the server's side, in half a minute; what depends on the store, on LocMem and on
Redis."""

LOWEST = (
    *SMOKE,
    "tests/clients/test_libraries.py",
    "tests/faults/test_cluster.py::test_servers_that_send_each_other_on_for_ever_are_an_outage",
    "tests/rest_framework/test_testing.py::test_a_header_given_with_an_async_call_wins_in_the_same_way",
)
"""With what versions below the bounds were found to fail at."""

FULL = ("tests", "--ignore=tests/published")
"""All but the tests of what is published, which build it themselves."""


@nox.session
def build(session: nox.Session) -> None:
    """Build the source distribution, and from it the wheel that the others install."""
    folder = published(session)
    shutil.rmtree(folder, ignore_errors=True)
    session.install("build", *PYPROJECT["build-system"]["requires"])
    session.run("python", "-m", "tests.published.build", str(folder), silent=True)


@nox.session(requires=["build"])
@nox.parametrize("python,django", COMBINATIONS)
def smoke(session: nox.Session, django: str) -> None:
    """Run some tests of each part on one Python and one Django."""
    install(session, "smoke", "redis", "rest-framework", "prometheus", django=f"~={django}.0")
    test(session, *SMOKE)


@nox.session(requires=["build"])
@nox.parametrize("python,django", COMBINATIONS)
def full(session: nox.Session, django: str) -> None:
    """Run all tests on one Python and one Django, or those that are named."""
    install(session, "test", *PROJECT["optional-dependencies"], django=f"~={django}.0")
    test(session, *(session.posargs or FULL))


@nox.session(requires=["build"], python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the smoke, or the tests that are named, on the lowest versions of all that we need."""
    extras = PROJECT["optional-dependencies"]
    required = chain(PROJECT["dependencies"], *extras.values())
    install(session, "test", *extras)
    session.install(*(each.replace(">=", "==") for each in required))
    test(session, *(session.posargs or LOWEST))


def published(session: nox.Session) -> Path:
    return Path(session.cache_dir, "published").absolute()


def install(session: nox.Session, group: str, *extras: str, django: str = "") -> None:
    """Install the wheel, and what the tests need beside it."""
    wheel = next(published(session).glob("*.whl"))
    tools = nox.project.dependency_groups(PYPROJECT, group)
    session.install(f"{wheel}[{','.join(extras)}]", f"django{django}", *tools)


def test(session: nox.Session, *arguments: str) -> None:
    """Run tests where nothing can be imported but them and what is installed."""
    folder = Path(session.virtualenv.location, "source").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(next(published(session).glob("*.tar.gz"))) as source:
        source.extractall(folder, filter="data")
    (project,) = folder.iterdir()
    shutil.rmtree(project / PACKAGE)
    session.chdir(project)
    session.run("python", "-c", SHOWN)
    session.run("python", "-m", "pytest", "-q", "-n", "2", *arguments, env=STRICT)


STRICT = {
    "PYTHONWARNINGS": "error,ignore:StreamingHttpResponse must consume,ignore::ResourceWarning"
}
"""Warnings are errors in the processes of servers and commands too. But for views that stream by
the other kind of iterator than their server's, which is meant; and for what nobody could catch."""

SHOWN = f"""
import sys
from importlib.metadata import version
import {PACKAGE}
assert "site-packages" in {PACKAGE}.__file__, {PACKAGE}.__file__
packages = ("django", "djangorestframework", "django-redis", "redis")
print("python", sys.version.split()[0], *(f"{{name}} {{version(name)}}" for name in packages))
"""
