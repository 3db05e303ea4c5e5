"""Header sessions sign in their user, cookie sessions theirs, and neither the other's."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from django.contrib.auth.models import User
from django.middleware.csrf import _get_new_csrf_string
from pytest_django import DjangoAssertNumQueries
from redis.connection import AbstractConnection
from rest_framework.test import APIClient

from django_header_sessions import registry
from django_header_sessions.keys import ID_LENGTH
from django_header_sessions.registry import LiveSession
from django_header_sessions.rest_framework.request import Request
from django_header_sessions.rest_framework.testing import HeaderSessionAPIClient

from .conftest import PASSWORD, by_cookie, signed_in

EVERY_ORDER = ["whoami", "header-first", "cookie-first"]


def test_a_header_session_signs_its_user_in(ann: User) -> None:
    client = signed_in(ann)
    response = client.get("/api/whoami/")
    assert response.status_code == 200
    assert response.data["user"] == "ann"
    assert response.data["authenticator"] == "HeaderSessionAuthentication"


def test_request_auth_is_the_public_face_of_the_session_without_its_key(ann: User) -> None:
    client = signed_in(ann)
    assert client.session_key is not None
    live = registry.get(client.session_key.id)
    response = client.get("/api/whoami/")
    assert live is not None
    assert response.data["auth"] == "LiveSession"
    assert live.id in response.data["face"]
    assert client.session_key[ID_LENGTH:] not in response.data["face"]


def test_a_request_is_what_the_annotation_says(ann: User) -> None:
    hints = get_type_hints(Request)
    for client, kind in ((signed_in(ann), LiveSession), (HeaderSessionAPIClient(), type(None))):
        response: Any = client.get("/api/anyone/")
        request = response.renderer_context["request"]
        assert isinstance(request.session, hints["session"])
        assert isinstance(request.auth, hints["auth"])
        assert isinstance(request.auth, kind)


@pytest.mark.parametrize("path", EVERY_ORDER)
def test_without_credentials_nobody_gets_in(path: str, db: None) -> None:
    for client in (APIClient(), HeaderSessionAPIClient()):
        assert client.get(f"/api/{path}/").status_code in (401, 403)


@pytest.mark.parametrize("path", ["whoami", "header-first"])
def test_a_caller_without_credentials_is_told_401_and_how(path: str, db: None) -> None:
    response = APIClient().get(f"/api/{path}/")
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Session"


def test_an_anonymous_session_is_401_and_lives_on(db: None) -> None:
    client = HeaderSessionAPIClient()
    client.post("/api/write/", {"cart": 1}, format="json")
    key = client.session_key
    response = client.get("/api/whoami/")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
    assert "X-Session-Expires-In" in response.headers
    assert client.session_key == key is not None


@pytest.mark.parametrize("mount", ["api", "admin/api"])
def test_a_cookie_session_does_not_pass_as_a_header_session(mount: str, ann: User) -> None:
    response = by_cookie(ann).get(f"/{mount}/whoami/")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")


@pytest.mark.parametrize("path", ["header-first", "cookie-first"])
def test_beside_drfs_own_each_signs_in_on_its_own_paths(path: str, ann: User, bob: User) -> None:
    browser, client = by_cookie(ann), signed_in(bob)
    assert browser.get(f"/admin/api/{path}/").data["user"] == "ann"
    assert browser.get(f"/api/{path}/").status_code in (401, 403)
    assert client.get(f"/api/{path}/").data["user"] == "bob"
    assert client.get(f"/admin/api/{path}/").data["user"] == "bob"


@pytest.mark.parametrize("path", ["header-first", "cookie-first"])
def test_a_cookie_session_is_csrf_checked_in_either_order(path: str, ann: User) -> None:
    browser = by_cookie(ann)
    assert browser.post(f"/admin/api/{path}/").status_code == 403
    token = _get_new_csrf_string()
    browser.cookies["csrftoken"] = token
    response = browser.post(f"/admin/api/{path}/", headers={"X-CSRFToken": token})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["header-first", "cookie-first"])
def test_a_header_does_not_lend_a_cookie_its_csrf_exemption(path: str, ann: User) -> None:
    """The header decides alone: with it the cookie is not read, so there is nobody to forge."""
    browser = by_cookie(ann)
    response = browser.post(f"/admin/api/{path}/", headers={"X-Session-Key": "new"})
    assert response.status_code in (401, 403)


def test_a_header_and_another_users_cookie_are_the_headers_user(ann: User, bob: User) -> None:
    browser, client = by_cookie(ann), signed_in(bob)
    response = browser.get(
        "/admin/api/header-first/", headers={"X-Session-Key": str(client.session_key)}
    )
    assert response.data["user"] == "bob"


@pytest.mark.parametrize("path", EVERY_ORDER)
def test_a_deactivated_user_is_401(path: str, ann: User) -> None:
    client = signed_in(ann)
    User.objects.update(is_active=False)
    assert client.get(f"/api/{path}/").status_code == (403 if path == "cookie-first" else 401)
    User.objects.update(is_active=True)
    assert client.get(f"/api/{path}/").status_code == 200


def test_a_deactivated_user_is_401_whatever_the_backend_lets_in(ann: User, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]
    client = signed_in(ann)
    User.objects.update(is_active=False)
    response = client.get("/api/anyone/")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")


def test_a_deleted_user_is_401(ann: User) -> None:
    client = signed_in(ann)
    ann.delete()
    response = client.get("/api/anyone/")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")


def test_a_changed_password_ends_the_session_and_tells_the_client_to_forget_its_key(
    ann: User,
) -> None:
    client = signed_in(ann)
    key = client.session_key
    assert key is not None
    ann.set_password("another")
    ann.save()
    response = client.get("/api/whoami/")
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
    assert response["X-Session-Key"] == ""
    assert registry.get(key.id) is None
    assert client.session_key is None
    assert client.post(
        "/api/sessions/", {"username": "ann", "password": "another"}, format="json"
    ).data["user"] == ("ann")


def test_a_session_whose_user_was_deactivated_may_be_signed_in_by_another(
    ann: User, bob: User
) -> None:
    client = signed_in(ann)
    old = client.session_key
    assert old is not None
    ann.is_active = False
    ann.save()
    response = client.post(
        "/api/sessions/", {"username": "bob", "password": PASSWORD}, format="json"
    )
    assert response.status_code == 201
    assert client.get("/api/whoami/").data["user"] == "bob"
    assert registry.get(old.id) is None


def test_a_user_another_middleware_put_there_is_not_signed_in_by_the_session(
    ann: User, bob: User, settings: Any
) -> None:
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        f"{__name__}.SomebodyElse",
    ]
    assert APIClient().get("/api/whoami/").status_code == 401
    assert signed_in(ann).get("/api/whoami/").data["user"] == "ann"


class SomebodyElse:
    """A middleware that takes everybody for bob."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.user = User.objects.get(username="bob")
        return self.get_response(request)


class LooksAtUser:
    """A middleware that wants to know who calls."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.user.is_authenticated  # noqa: B018  asks the database
        return self.get_response(request)


def test_who_was_asked_for_before_is_not_asked_for_again(
    ann: User, settings: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.LooksAtUser"]
    client = signed_in(ann)
    with django_assert_num_queries(1):
        assert client.get("/api/whoami/").data["user"] == "ann"


def test_a_signed_in_call_costs_one_query_and_one_round_trip(
    ann: User,
    settings: Any,
    redis_cache: object,
    django_assert_num_queries: DjangoAssertNumQueries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.CACHES = {"default": redis_cache}
    client = signed_in(ann)
    client.get("/api/whoami/")
    sent: list[Any] = []
    send: Any = AbstractConnection.send_packed_command

    def trip(connection: Any, command: Any, **how: Any) -> None:
        sent.append(command)
        send(connection, command, **how)

    # Whatever is asked of the server, in however many commands at once.
    monkeypatch.setattr(AbstractConnection, "send_packed_command", trip)
    with django_assert_num_queries(1):
        assert client.get("/api/whoami/").status_code == 200
    assert len(sent) == 1
