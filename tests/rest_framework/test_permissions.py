"""Views for header sessions only, and for anybody who has a session."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from django_header_sessions.rest_framework.testing import HeaderSessionAPIClient

from .conftest import by_cookie, signed_in


def anonymous() -> HeaderSessionAPIClient:
    client = HeaderSessionAPIClient()
    client.post("/api/write/", {"x": 1}, format="json")
    return client


def test_a_tool_with_a_memory_is_for_anybody_with_a_session(ann: User) -> None:
    for client in (anonymous(), signed_in(ann)):
        assert client.get("/api/notebook/").data == {"calls": 1}
        assert client.get("/api/notebook/").data == {"calls": 2}
    assert by_cookie(ann).get("/admin/api/notebook/").data == {"calls": 1}


def test_without_a_session_such_a_tool_is_401_and_makes_none(db: None) -> None:
    for client in (APIClient(), HeaderSessionAPIClient()):
        response = client.get("/api/notebook/")
        assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
        assert "X-Session-Key" not in response.headers


@pytest.mark.parametrize("path", ["notebook", "open-notebook"])
def test_a_cookie_that_opens_nothing_is_no_session(path: str, db: None) -> None:
    browser = APIClient()
    browser.cookies["sessionid"] = "a" * 40
    response = browser.get(f"/admin/api/{path}/")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
    assert browser.get(f"/admin/api/{path}/").status_code == 401


@pytest.mark.parametrize("path", ["open-notebook", "open-header-only"])
def test_where_nobody_is_signed_in_a_missing_session_is_401_as_well(path: str, db: None) -> None:
    """DRF itself knows 401 only where a view has authentication classes."""
    for mount in ("/api/", "/admin/api/"):
        for client in (APIClient(), HeaderSessionAPIClient()):
            response = client.get(f"{mount}{path}/")
            assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
    assert anonymous().get(f"/api/{path}/").status_code == 200


def test_where_nobody_is_signed_in_a_cookie_is_still_no_header(ann: User) -> None:
    assert by_cookie(ann).get("/admin/api/open-notebook/").status_code == 200
    assert by_cookie(ann).get("/admin/api/open-header-only/").status_code == 403


def test_a_missing_session_is_401_though_the_caller_is_signed_in_otherwise(ann: User) -> None:
    client = HeaderSessionAPIClient()
    client.force_authenticate(ann)
    response = client.get("/api/notebook/")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")


def test_as_a_part_of_another_permission_a_missing_session_is_a_plain_no(db: None) -> None:
    assert APIClient().get("/api/session-or-reading/").status_code == 200
    assert APIClient().post("/api/session-or-reading/").status_code == 403
    assert anonymous().post("/api/session-or-reading/").status_code == 200


def test_a_view_for_header_sessions_is_not_reached_by_cookie(ann: User) -> None:
    assert anonymous().get("/api/header-only/").status_code == 200
    for path in ("/admin/api/header-only/", "/admin/api/header-only-signed-in/"):
        assert signed_in(ann).get(path).status_code == 200
        refused = by_cookie(ann).get(path)
        assert refused.status_code == 403
        assert refused.data["detail"] == "This is for header sessions only."


def test_a_view_for_header_sessions_is_401_for_who_has_none(ann: User) -> None:
    assert APIClient().get("/admin/api/header-only/").status_code == 401
    assert HeaderSessionAPIClient().get("/api/header-only/").status_code == 401
    assert anonymous().get("/api/header-only-signed-in/").status_code == 401
