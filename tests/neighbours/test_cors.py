"""django-cors-headers by the settings of the documentation; a real browser does it elsewhere."""

from __future__ import annotations

import pytest
from corsheaders.defaults import default_headers

from .site import KEY, Project

APP = "https://app.example"


def test_a_script_of_an_allowed_origin_may_send_the_key(project: Project) -> None:
    asked = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-session-key,content-type",
    }
    answer = project.client.options("/api/sessions/", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
    assert {*default_headers, "x-session-key"} == set(allowed)
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert KEY not in answer.headers


@pytest.mark.parametrize(
    ("key", "status"), [("new", 200), ("unkn0wn" + "3" * 33, 401), ("malformed", 400)]
)
def test_it_sees_the_key_and_every_refusal(project: Project, key: str, status: int) -> None:
    query = {"do": '[["set", "n", 1]]'}
    answer = project.client.get("/sync/", params=query, headers={"Origin": APP, KEY: key})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert set(exposed) == {KEY, "X-Session-Expires-In", "Retry-After"}
    varying = {name.strip().lower() for name in answer.headers["Vary"].split(",")}
    assert varying >= {"x-session-key", "origin"}


def test_a_script_of_another_origin_is_allowed_nothing(project: Project) -> None:
    answer = project.client.get("/sync/", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
