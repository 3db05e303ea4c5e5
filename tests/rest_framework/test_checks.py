"""The checks on a project that uses DRF, or that serves scripts of other origins."""

from __future__ import annotations

from typing import Any

import pytest
from corsheaders.defaults import default_headers
from django.core.checks import run_checks

from django_header_sessions.rest_framework.authentication import HeaderSessionAuthentication

CORS = "corsheaders.middleware.CorsMiddleware"
OURS = "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication"
DRFS = "rest_framework.authentication.SessionAuthentication"


class Subclass(HeaderSessionAuthentication):
    pass


@pytest.fixture(autouse=True)
def _ours(settings: Any) -> None:
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [OURS]}


@pytest.fixture
def cors(settings: Any) -> Any:
    """A project that does all that scripts of other origins need."""
    settings.MIDDLEWARE = [CORS, *settings.MIDDLEWARE]
    settings.CORS_ALLOW_HEADERS = (*default_headers, "x-session-key")
    settings.CORS_EXPOSE_HEADERS = ["X-Session-Key", "X-Session-Expires-In", "Retry-After"]
    return settings


def found() -> dict[str, str]:
    """The hints of the checks of this chapter, by the number of the check."""
    return {
        str(each.id).removeprefix("header_sessions."): str(each.hint)
        for each in run_checks()
        if str(each.id).startswith("header_sessions.W01")
    }


def test_a_project_that_does_not_use_cors_is_asked_nothing() -> None:
    assert found() == {}


def test_a_project_that_does_all_is_told_nothing(cors: Any) -> None:
    assert found() == {}
    cors.CORS_ALLOW_HEADERS = cors.CORS_EXPOSE_HEADERS = ["*"]
    assert found() == {}


def test_w010_the_header_is_not_allowed(cors: Any) -> None:
    del cors.CORS_ALLOW_HEADERS
    hints = found()
    assert hints.keys() == {"W010"}
    namespace: dict[str, Any] = {}
    exec(hints["W010"], namespace)
    assert namespace["CORS_ALLOW_HEADERS"] == (*default_headers, "x-session-key")
    cors.CORS_ALLOW_HEADERS = namespace["CORS_ALLOW_HEADERS"]
    assert found() == {}


def test_w010_keeps_the_headers_that_the_project_allows(cors: Any) -> None:
    cors.CORS_ALLOW_HEADERS = ("accept", "x-mine")
    namespace: dict[str, Any] = {}
    exec(found()["W010"], namespace)
    assert namespace["CORS_ALLOW_HEADERS"] == ["accept", "x-mine", "x-session-key"]


def test_all_headers_are_none_to_a_browser_that_sends_credentials(cors: Any) -> None:
    cors.CORS_ALLOW_HEADERS = cors.CORS_EXPOSE_HEADERS = ["*"]
    cors.CORS_ALLOW_CREDENTIALS = True
    cors.CORS_ALLOWED_ORIGINS = ["https://a.example"]
    hints = found()
    assert hints.keys() == {"W010", "W011"}
    for hint in hints.values():
        namespace: dict[str, Any] = {}
        exec(hint, namespace)
        for name in ("CORS_ALLOW_HEADERS", "CORS_EXPOSE_HEADERS"):
            if name in namespace:
                setattr(cors, name, namespace[name])
    assert found() == {}
    assert cors.CORS_ALLOW_HEADERS == ["*", "x-session-key"]


def test_w010_knows_the_header_of_contexts(cors: Any) -> None:
    cors.HEADER_SESSIONS_CONTEXT_HEADER = "X-Session-Context"
    hints = found()
    assert hints.keys() == {"W010"}
    namespace: dict[str, Any] = {}
    exec(hints["W010"], namespace)
    assert namespace["CORS_ALLOW_HEADERS"] == [*cors.CORS_ALLOW_HEADERS, "x-session-context"]


def test_w010_follows_the_headers_name(cors: Any) -> None:
    cors.HEADER_SESSIONS_HEADER = "X-Other-Key"
    assert found().keys() == {"W010", "W011"}


@pytest.mark.parametrize("name", ["X-Session-Key", "X-Session-Expires-In", "Retry-After"])
def test_w011_a_header_is_not_exposed(name: str, cors: Any) -> None:
    cors.CORS_EXPOSE_HEADERS = [
        each
        for each in ("x-session-key", "x-session-expires-in", "retry-after", "x-mine")
        if each != name.lower()
    ]
    hints = found()
    assert hints.keys() == {"W011"}
    namespace: dict[str, Any] = {}
    exec(hints["W011"], namespace)
    assert namespace["CORS_EXPOSE_HEADERS"] == [*cors.CORS_EXPOSE_HEADERS, name]
    cors.CORS_EXPOSE_HEADERS = namespace["CORS_EXPOSE_HEADERS"]
    assert found() == {}


def test_w012_the_cors_middleware_stands_after_ours(cors: Any) -> None:
    cors.MIDDLEWARE = [*cors.MIDDLEWARE[1:], CORS]
    assert found().keys() == {"W012"}


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([DRFS, OURS], True),
        ([DRFS, f"{__name__}.Subclass"], True),
        ([OURS, DRFS], False),
        ([OURS], False),
        ([DRFS], False),
        ([], False),
    ],
)
def test_w013_drfs_own_is_listed_first(classes: list[Any], told: bool, settings: Any) -> None:
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": classes}
    assert ("W013" in found()) is told
