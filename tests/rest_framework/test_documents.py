"""What the document on DRF shows runs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.urls import path
from django.utils.module_loading import import_string
from rest_framework.test import APIClient

from django_header_sessions.rest_framework.testing import HeaderSessionAPIClient
from django_header_sessions.rest_framework.throttling import SignInByName, SignInByOrigin
from django_header_sessions.testing import HeaderSessionClient
from tests.pages import Page

OURS = "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication"
DOCUMENT = Page.named("docs/rest-framework.md")

pytestmark = pytest.mark.usefixtures("db")


def shown(heading: str, **names: Any) -> dict[str, Any]:
    """What the snippets of a chapter define, one after the other."""
    for snippet in DOCUMENT.chapter(heading).snippets("python"):
        exec(snippet, names)
    return names


@pytest.fixture
def urlconf(settings: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module whose ``urlpatterns`` the project serves."""
    module = ModuleType("documented_urls")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings.ROOT_URLCONF = module.__name__
    return module


@pytest.fixture
def whoami(urlconf: ModuleType) -> None:
    """The README's view, where it is mounted there."""
    told = Page.named("README.md").chapter("## Django REST framework")
    urls = next(text for text in told.snippets("python") if "urlpatterns" in text)
    vars(urlconf)["urlpatterns"] = []
    exec(urls, vars(urlconf))
    vars(urlconf)["Whoami"].authentication_classes = [
        import_string(
            "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication"
        )
    ]
    vars(urlconf)["Whoami"].permission_classes = [
        import_string("rest_framework.permissions.IsAuthenticated")
    ]


def test_the_rates_are_the_defaults_and_credentials_may_be_others(urlconf: ModuleType) -> None:
    names = shown("### Signing in", __name__=urlconf.__name__)
    assert names["REST_FRAMEWORK"]["DEFAULT_THROTTLE_RATES"] == {
        throttle.scope: throttle.default_rate for throttle in (SignInByName, SignInByOrigin)
    }
    vars(urlconf)["urlpatterns"] = names["urlpatterns"]
    answer = APIClient().post("/api/sessions/", {"username": "ann"}, format="json")
    assert (answer.status_code, answer.json()["errors"].keys()) == (400, {"badge"})
    assert APIClient().post("/api/sessions/").status_code == 201


def test_the_resource_is_mounted_for_browsers(
    urlconf: ModuleType, settings: Any, ann: User
) -> None:
    from django.urls import include

    names = shown("### In a browser", urlpatterns=[], path=path, include=include)
    settings.HEADER_SESSIONS_COOKIE_PATHS = names["HEADER_SESSIONS_COOKIE_PATHS"]
    vars(urlconf)["urlpatterns"] = names["urlpatterns"]
    browser = APIClient()
    browser.force_login(ann)
    page = browser.get("/browse/sessions/current/", headers={"Accept": "text/html"})
    assert (page.status_code, page["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_the_cors_settings_satisfy_the_checks(settings: Any) -> None:
    heading = "## Single-page apps on another origin"
    before = {"INSTALLED_APPS": [], "MIDDLEWARE": settings.MIDDLEWARE}
    for name, value in shown(heading, **before).items():
        if name == "MIDDLEWARE" or name.startswith("CORS_"):
            setattr(settings, name, value)
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [OURS]}
    assert not [each for each in run_checks() if str(each.id).startswith("header_sessions.W01")]


def test_the_hooks_of_the_schema_are_there() -> None:
    names = shown("## OpenAPI", REST_FRAMEWORK={})
    for hook in names["SPECTACULAR_SETTINGS"]["POSTPROCESSING_HOOKS"]:
        assert callable(import_string(hook))
    assert import_string(names["REST_FRAMEWORK"]["DEFAULT_SCHEMA_CLASS"])


@pytest.mark.usefixtures("whoami")
def test_the_tests_pass(
    header_session_api_client: HeaderSessionAPIClient, django_user_model: type[User]
) -> None:
    names = shown("## In your tests")
    names["test_a_call_is_counted"](header_session_api_client, django_user_model)
    case = names["WhoamiTests"]("test_nobody_is_signed_in_yet")
    case.client = names["WhoamiTests"].client_class()
    assert isinstance(case.client, HeaderSessionClient)
    case.test_nobody_is_signed_in_yet()
