"""The OpenAPI schema of a project shows the security scheme, and the resource as it is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from rest_framework import serializers

from django_header_sessions.rest_framework import schema as described
from django_header_sessions.rest_framework.serializers import CredentialsSerializer

from . import served_settings
from .test_testing import root


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema as ``manage.py spectacular`` writes it, all warnings being errors."""
    written = subprocess.run(
        [
            *(sys.executable, "-m", "django", "spectacular", "--validate", "--fail-on-warn"),
            *("--settings", "tests.rest_framework.served_settings"),
        ],
        capture_output=True,
        cwd=root(),
        text=True,
    )
    assert written.returncode == 0, written.stderr
    found: dict[str, Any] = yaml.safe_load(written.stdout)
    return found


def test_the_security_scheme_is_the_header(schema: dict[str, Any]) -> None:
    scheme = schema["components"]["securitySchemes"]["headerSession"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-Session-Key")
    security = schema["paths"]["/api/whoami/"]["get"]["security"]
    assert security == [{"headerSession": []}, {"cookieAuth": []}]


def test_the_headers_that_a_session_adds_are_shown_where_it_may_sign_in(
    schema: dict[str, Any],
) -> None:
    headers = {"X-Session-Key", "X-Session-Expires-In"}
    answers = schema["paths"]["/api/whoami/"]["get"]["responses"]
    assert all(answer["headers"].keys() == headers for answer in answers.values())
    answers = schema["paths"]["/api/open/"]["get"]["responses"]
    assert not any("headers" in answer for answer in answers.values())
    for path, operations in schema["paths"].items():
        if path.startswith("/api/sessions/"):
            for operation in operations.values():
                for status, answer in operation["responses"].items():
                    assert answer["headers"].keys() >= headers
                    assert ("Retry-After" in answer["headers"]) == (status in ("429", "503"))


def test_all_calls_of_the_resource_are_there(schema: dict[str, Any]) -> None:
    calls = {
        f"{method.upper()} {path.removeprefix('/api/')}"
        for path, operations in schema["paths"].items()
        for method in operations
        if path.startswith("/api/sessions/")
    }
    assert calls == {
        *("GET sessions/", "POST sessions/", "POST sessions/end-others/"),
        *("GET sessions/current/", "DELETE sessions/current/", "POST sessions/current/rotate/"),
        "DELETE sessions/{session_id}/",
    }


def test_signing_in_needs_no_session_and_no_body(schema: dict[str, Any]) -> None:
    post = schema["paths"]["/api/sessions/"]["post"]
    assert post["security"] == [{}, {"headerSession": []}]
    assert "required" not in post["requestBody"]
    anonymous = {"type": "object", "maxProperties": 0}
    credentials = {"$ref": "#/components/schemas/HeaderSessionCredentials"}
    assert post["requestBody"]["content"] == {
        "application/json": {"schema": {"anyOf": [credentials, anonymous]}}
    }
    key = post["responses"]["201"]["headers"]["X-Session-Key"]["schema"]["pattern"]
    assert key == "^([a-z0-9]{40})?$"


def test_the_list_is_paged(schema: dict[str, Any]) -> None:
    listing = schema["paths"]["/api/sessions/"]["get"]
    assert [parameter["name"] for parameter in listing["parameters"]] == ["page"]


def test_refusals_are_problem_documents(schema: dict[str, Any]) -> None:
    problem = {"$ref": "#/components/schemas/HeaderSessionProblem"}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if path.startswith("/api/sessions/") and status >= "400":
                    assert answer["content"]["application/problem+json"]["schema"] == problem


def test_a_project_may_announce_without_the_command(settings: Any, schema: dict[str, Any]) -> None:
    settings.INSTALLED_APPS = served_settings.INSTALLED_APPS
    settings.REST_FRAMEWORK = served_settings.REST_FRAMEWORK
    generator: Any = SchemaGenerator
    found = generator(urlconf="tests.rest_framework.served_urls").get_schema(public=True)
    found = described.announce(found, None, None, True)
    for path, operations in found["paths"].items():
        if path.startswith("/api/sessions/"):
            for method, operation in operations.items():
                theirs = schema["paths"][path][method]
                assert operation["responses"].keys() == theirs["responses"].keys()
                for status, answer in operation["responses"].items():
                    shown = theirs["responses"][status].get("headers")
                    assert answer.get("headers") == shown


class OtherCredentials(CredentialsSerializer):
    code = serializers.CharField()


def test_other_credentials_are_shown(settings: Any) -> None:
    from django.urls import path

    from django_header_sessions.rest_framework.views import SessionList

    settings.INSTALLED_APPS = served_settings.INSTALLED_APPS
    settings.REST_FRAMEWORK = served_settings.REST_FRAMEWORK
    patterns = [path("in/", SessionList.as_view(credentials=OtherCredentials))]
    generator: Any = SchemaGenerator
    found = generator(patterns=patterns).get_schema(public=True)
    check: Any = validate_schema
    check(found)
    # Without the hook, too.
    started = found["paths"]["/in/"]["post"]["responses"]["201"]
    assert started["headers"].keys() == {"X-Session-Key", "X-Session-Expires-In"}
    assert "code" in found["components"]["schemas"]["OtherCredentials"]["properties"]


class SessionSerializer(serializers.Serializer[Any]):
    """A session of a conference."""

    speaker = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """An exercise."""

    solution = serializers.CharField()


def test_a_project_may_have_sessions_and_problems_of_its_own(settings: Any) -> None:
    from django.urls import include, path
    from rest_framework.generics import ListAPIView

    class Talks(ListAPIView[Any]):
        serializer_class = SessionSerializer

    class Exercises(ListAPIView[Any]):
        serializer_class = ProblemSerializer

    settings.INSTALLED_APPS = served_settings.INSTALLED_APPS
    settings.REST_FRAMEWORK = served_settings.REST_FRAMEWORK
    generator: Any = SchemaGenerator
    found = generator(
        patterns=[
            path("sessions/", include("django_header_sessions.rest_framework.urls")),
            path("talks/", Talks.as_view()),
            path("exercises/", Exercises.as_view()),
        ]
    ).get_schema(public=True)
    schemas = found["components"]["schemas"]
    assert schemas["Session"]["properties"].keys() == {"speaker"}
    assert schemas["Problem"]["properties"].keys() == {"solution"}
    ours = {name for name in schemas if name.startswith(("HeaderSession", "PaginatedHeader"))}
    assert schemas.keys() - ours == {"Session", "Problem", "TransportEnum"}


def test_another_name_of_the_header_is_shown(settings: Any) -> None:
    settings.HEADER_SESSIONS_HEADER = "X-Other-Key"
    assert "X-Other-Key" in described.announced()
    scheme = described.HeaderSessionScheme.get_security_definition(None, None)  # type: ignore[arg-type]
    assert scheme["name"] == "X-Other-Key"
