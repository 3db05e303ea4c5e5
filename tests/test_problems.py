"""The answers to a request whose session cannot be had, as documents and as pages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import RequestFactory

from django_header_sessions import problems
from django_header_sessions.problems import Problem, respond

TABLE = [
    (problems.MALFORMED, "malformed", 400),
    (problems.UNKNOWN, "unknown", 401),
    (problems.SUPERSEDED, "superseded", 409),
    (problems.ENDED, "ended", 401),
    (problems.TOO_LARGE, "too-large", 413),
    (problems.UNAVAILABLE, "unavailable", 503),
    (problems.INSECURE, "insecure", 403),
    (problems.BUSY, "busy", 409),
    (problems.LEASE_EXPIRED, "lease-expired", 409),
    (problems.UNKNOWN_CONTEXT, "unknown-context", 404),
    (problems.MALFORMED_CONTEXT, "malformed-context", 400),
    (problems.TOO_MANY_CONTEXTS, "too-many-contexts", 409),
]
PASSING = (problems.UNAVAILABLE, problems.BUSY)
each_problem = pytest.mark.parametrize(("problem", "name", "status"), TABLE)


@each_problem
@pytest.mark.parametrize("executed", [False, True])
def test_a_problem_is_a_document_of_its_type_that_says_whether_the_view_ran(
    problem: Problem, name: str, status: int, executed: bool
) -> None:
    answer = respond(RequestFactory().get("/"), problem, executed=executed)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert json.loads(answer.content) == {
        "type": f"urn:django-header-sessions:{name}",
        "title": problem.title,
        "status": status,
        "detail": problem.detail,
        "executed": executed,
    }
    assert answer["Cache-Control"] == "no-store"
    assert answer["Vary"] == "X-Session-Key"
    assert answer.get("WWW-Authenticate") == ("Session" if status == 401 else None)
    assert answer.has_header("Retry-After") is (problem in PASSING)


@each_problem
def test_a_browser_gets_a_plain_page_where_one_is_offered(
    problem: Problem, name: str, status: int
) -> None:
    browser = RequestFactory(headers={"Accept": "text/html,*/*;q=0.8"}).get("/admin/")
    page = respond(browser, problem, executed=False, html=True)
    assert page.status_code == status
    assert page["Content-Type"] == "text/html; charset=utf-8"
    text = page.content.decode()
    assert f"<h1>{problem.title}</h1>" in text
    assert (problem.advice or problem.detail).replace('"', "&quot;") in text
    assert page["Cache-Control"] == "no-store"
    assert page["Vary"] == "X-Session-Key, Accept, Cookie"
    assert page.has_header("Retry-After") is (problem in PASSING)

    program = RequestFactory(headers={"Accept": "application/json"}).get("/admin/")
    document = respond(program, problem, executed=False, html=True)
    assert document["Content-Type"] == "application/problem+json"
    assert document["Vary"] == "X-Session-Key, Accept, Cookie"

    assert respond(browser, problem, executed=False)["Content-Type"] == problems.CONTENT_TYPE


@pytest.mark.parametrize(("status", "asks"), [(401, "Session"), (404, None), (403, None)])
def test_the_status_of_an_unknown_key_is_a_setting_and_of_nothing_else(
    settings: Any, status: int, asks: str | None
) -> None:
    settings.HEADER_SESSIONS_UNKNOWN_STATUS = status
    answer = respond(RequestFactory().get("/"), problems.UNKNOWN, executed=False)
    assert answer.status_code == json.loads(answer.content)["status"] == status
    assert answer.get("WWW-Authenticate") == asks
    for problem, _, other in TABLE:
        if problem is not problems.UNKNOWN:
            answer = respond(RequestFactory().get("/"), problem, executed=True)
            assert answer.status_code == other


def test_an_answer_varies_by_the_header_as_it_is_called(settings: Any) -> None:
    settings.HEADER_SESSIONS_HEADER = "My-Sid"
    answer = respond(RequestFactory().get("/"), problems.MALFORMED, executed=False)
    assert answer["Vary"] == "My-Sid"


def test_every_problem_has_a_type_of_its_own() -> None:
    made = [each for each in vars(problems).values() if isinstance(each, Problem)]
    assert len(made) == len(TABLE) == len({problem.name for problem in made})
