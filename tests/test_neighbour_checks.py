"""The checks on allauth's settings and URLs, most in a project of their own that has allauth."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks.registry import registry
from django.urls import include, path
from django.views.generic import View

from django_header_sessions.checks.header import check_header
from django_header_sessions.checks.neighbours import check_user_sessions
from django_header_sessions.checks.urls import check_urls

from .processes import ROOT

APPS = [
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.github",
]
HEADLESS = [*APPS, "allauth.headless"]
ACCOUNT = "allauth.account.middleware.AccountMiddleware"
TRACKING = "allauth.usersessions.middleware.UserSessionsMiddleware"
URLS = """
from django.contrib import admin
from django.urls import include, path
urlpatterns = [path("admin/", admin.site.urls), {}]
"""
ACCOUNTS = 'path("accounts/", include("allauth.urls"))'
API = 'path("_allauth/", include("allauth.headless.urls"))'


def check(tmp_path: Path, urls: str = "", apps: list[str] = APPS, **overrides: Any) -> str:
    """What ``manage.py check`` prints of a project that has allauth."""
    middleware = [ACCOUNT, *overrides.pop("MIDDLEWARE", [])]
    lines = [f"{name} = {value!r}" for name, value in overrides.items()]
    (tmp_path / "project.py").write_text(
        "\n".join(
            [
                "from tests.settings import *",
                f"INSTALLED_APPS += {apps!r}",
                f"MIDDLEWARE += {middleware!r}",
                'ROOT_URLCONF = "project_urls"',
                *lines,
            ]
        )
    )
    (tmp_path / "project_urls.py").write_text(URLS.format(urls))
    done = subprocess.run(
        [sys.executable, "-m", "django", "check"],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "project", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def raised(output: str) -> list[str]:
    return re.findall(r"\(header_sessions\.(\w+)\)", output)


def test_pages_of_allauth_without_a_cookie_are_named_with_the_one_path_to_set(
    tmp_path: Path,
) -> None:
    output = check(tmp_path, ACCOUNTS)
    assert raised(output) == ["W043"]
    hint = re.search(r"HINT: HEADER_SESSIONS_COOKIE_PATHS = (.*)", output)
    assert hint
    assert ast.literal_eval(hint[1]) == ("/admin/", "/accounts/")
    assert raised(check(tmp_path, ACCOUNTS, HEADER_SESSIONS_COOKIE_PATHS=("/accounts/",))) == [
        "W042"
    ]


@pytest.mark.parametrize("paths", [("/admin/", "/accounts/"), ("/",)])
def test_nothing_is_said_where_all_of_them_have_their_cookie(
    tmp_path: Path, paths: tuple[str, ...]
) -> None:
    output = check(tmp_path, ACCOUNTS, HEADER_SESSIONS_COOKIE_PATHS=paths)
    assert raised(output) == []
    assert "no issues" in output


@pytest.mark.parametrize(
    ("clients", "paths", "numbers"),
    [
        (("app",), ("/admin/",), []),
        (("browser",), ("/admin/",), ["W043"]),
        (("app", "browser"), ("/admin/",), ["W043"]),
        (("app", "browser"), ("/admin/", "/_allauth/browser/"), []),
    ],
)
def test_of_allauths_api_the_client_browser_alone_needs_a_cookie(
    tmp_path: Path, clients: tuple[str, ...], paths: tuple[str, ...], numbers: list[str]
) -> None:
    output = check(
        tmp_path, API, HEADLESS, HEADLESS_CLIENTS=clients, HEADER_SESSIONS_COOKIE_PATHS=paths
    )
    assert raised(output) == numbers


@pytest.mark.parametrize(
    ("header", "apps", "numbers"),
    [
        ("X-Session-Token", HEADLESS, ["E035"]),
        ("x-session-token", HEADLESS, ["E035"]),
        ("X-Session-Token", APPS, []),
        ("X-Session-Key", HEADLESS, []),
    ],
)
def test_e035_a_header_that_is_allauths_own(
    tmp_path: Path, header: str, apps: list[str], numbers: list[str]
) -> None:
    assert raised(check(tmp_path, apps=apps, HEADER_SESSIONS_HEADER=header)) == numbers


@pytest.mark.parametrize(
    ("path", "tracks", "numbers"),
    [
        (TRACKING, True, ["W044"]),
        (TRACKING, False, []),
        ("tests.views.Inner", True, []),
    ],
)
def test_w044_session_keys_in_allauths_table(
    tmp_path: Path, path: str, tracks: bool, numbers: list[str]
) -> None:
    output = check(
        tmp_path,
        apps=[*APPS, "allauth.usersessions"],
        MIDDLEWARE=[path],
        USERSESSIONS_TRACK_ACTIVITY=tracks,
    )
    assert raised(output) == numbers


# The same conditions without allauth's models, which once loaded would stay for all other tests.


@pytest.fixture
def registered() -> Iterator[None]:
    """The checks that an app registers when it is loaded go with it."""
    before = set(registry.registered_checks)
    yield
    registry.registered_checks = before


def test_the_header_of_allauth_is_refused_where_allauth_is(settings: Any, registered: None) -> None:
    settings.HEADER_SESSIONS_HEADER = "X-Session-Token"
    assert list(check_header()) == []
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "allauth.headless"]
    assert [each.id for each in check_header()] == ["header_sessions.E035"]


def test_the_middleware_of_allauth_is_warned_of_where_it_tracks(settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, TRACKING]
    assert list(check_user_sessions()) == []
    settings.USERSESSIONS_TRACK_ACTIVITY = True
    assert [each.id for each in check_user_sessions()] == ["header_sessions.W044"]


@pytest.mark.parametrize(("client", "ids"), [("app", []), ("browser", ["header_sessions.W043"])])
def test_the_api_of_allauth_is_told_by_its_namespaces(
    settings: Any, client: str, ids: list[str]
) -> None:
    view = View.as_view()
    view.__module__ = "allauth.headless.account.views"
    client_urls: Any = ([path("session", view)], "headless")
    api: Any = ([path("it/", include(client_urls, namespace=client))], "headless")
    settings.ROOT_URLCONF = (path("_allauth/", include(api)),)
    assert [each.id for each in check_urls()] == ids
