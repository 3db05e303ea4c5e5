"""The session resource, on every store that can list."""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import login
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.core.signals import got_request_exception
from django.db import connection
from django.http import HttpRequest
from django.urls import include, path
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter
from django.views.decorators.debug import sensitive_variables
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.test import APIClient
from rest_framework.throttling import BaseThrottle

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.keys import ID_LENGTH
from django_header_sessions.rest_framework.serializers import shown, shown_text
from django_header_sessions.rest_framework.testing import HeaderSessionAPIClient
from django_header_sessions.rest_framework.views import SessionList
from django_header_sessions.signals import session_created
from django_header_sessions.stores.base import Store

from .conftest import PASSWORD, by_cookie, signed_in
from .urls import Whoami

SESSIONS = "/api/sessions/"
CURRENT = "/api/sessions/current/"
MEMBERS = {
    *("id", "transport", "user", "created", "last_seen", "expires", "absolute_expires"),
    *("ip", "user_agent", "current"),
}

pytestmark = pytest.mark.usefixtures("db")


def sign_in(client: APIClient, name: str = "ann", password: str = PASSWORD) -> Any:
    return client.post(SESSIONS, {"username": name, "password": password}, format="json")


def problem(response: Any, *, executed: bool = False) -> str:
    """The name of the problem that the response tells, and whether anything was done."""
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    assert response.json()["executed"] is executed
    assert response.json()["title"]
    return str(response.json()["type"]).removeprefix("urn:django-header-sessions:")


# Starting.


def test_starting_without_credentials_announces_a_key_in_the_header_alone(
    listing_store: Store,
) -> None:
    response = APIClient().post(SESSIONS)
    assert response.status_code == 201
    key = response["X-Session-Key"]
    assert set(response.data) == MEMBERS
    assert (response.data["id"], response.data["user"]) == (key[:ID_LENGTH], None)
    assert response.data["current"] is True
    assert key[ID_LENGTH:] not in response.content.decode() + str(response["Location"])
    assert response["Cache-Control"] == "private, no-store"
    assert not response.cookies


def test_signing_in_announces_a_key_that_signs_in(listing_store: Store, ann: User) -> None:
    client = HeaderSessionAPIClient()
    response = sign_in(client)
    assert (response.status_code, response.data["user"]) == (201, "ann")
    assert response["Location"] == "http://testserver/api/sessions/current/"
    assert PASSWORD not in response.content.decode()
    assert not response.cookies
    assert client.get("/api/whoami/").data["user"] == "ann"


def test_the_first_call_may_come_without_the_header(ann: User) -> None:
    response = sign_in(APIClient(enforce_csrf_checks=True))
    assert response.status_code == 201
    assert len(response["X-Session-Key"]) == 40


@pytest.mark.parametrize("format_", ["json", "multipart"])
def test_credentials_come_in_whatever_the_project_parses(format_: str, ann: User) -> None:
    credentials = {"username": "ann", "password": PASSWORD}
    assert APIClient().post(SESSIONS, credentials, format=format_).status_code == 201


def test_signing_in_keeps_id_and_data_of_an_anonymous_session_and_rotates_its_key(
    listing_store: Store, ann: User
) -> None:
    client = HeaderSessionAPIClient()
    client.post("/api/write/", {"cart": [1]}, format="json")
    before = client.session_key
    assert before is not None
    sign_in(client)
    after = client.session_key
    assert after is not None
    assert after.id == before.id
    assert after != before
    assert client.session["cart"] == [1]
    assert APIClient().get(CURRENT, headers={"X-Session-Key": str(before)}).status_code == 409


def test_signing_in_again_rotates_the_key(listing_store: Store, ann: User) -> None:
    client = signed_in(ann)
    before = client.session_key
    assert sign_in(client).status_code == 201
    assert client.session_key != before
    assert client.get("/api/whoami/").status_code == 200


def test_signing_in_as_somebody_else_leaves_nothing_of_the_first(
    listing_store: Store, ann: User, bob: User
) -> None:
    client = signed_in(ann)
    client.post("/api/write/", {"cart": [1]}, format="json")
    before = client.session_key
    assert before is not None
    sign_in(client, "bob")
    assert registry.get(before.id) is None
    assert "cart" not in client.session
    assert client.get("/api/whoami/").data["user"] == "bob"


def test_starting_where_there_is_a_session_changes_nothing(listing_store: Store) -> None:
    client = HeaderSessionAPIClient()
    started = client.post(SESSIONS)
    again = client.post(SESSIONS, {}, format="json")
    assert (started.status_code, again.status_code) == (201, 200)
    assert started.data["id"] == again.data["id"]
    assert "X-Session-Key" not in again.headers


def test_starting_where_somebody_is_signed_in_tells_who(listing_store: Store, ann: User) -> None:
    client = signed_in(ann)
    assert client.post(SESSIONS).data["user"] == "ann"
    ann.is_active = False
    ann.save()
    response = client.post(SESSIONS)
    assert (response.status_code, problem(response)) == (401, "signed-out")


@pytest.mark.parametrize(
    "body",
    [
        {"username": "ann"},
        {"password": PASSWORD},
        {"username": "ann", "password": ""},
        {"username": ["ann"], "password": PASSWORD},
        {"username": "ann", "password": {"$ne": ""}},
        {"username": "ann\0", "password": PASSWORD},
        {"user": "ann"},
        ["ann"],
        [],
        "ann",
        "",
        None,
        0,
        False,
    ],
)
def test_half_of_the_credentials_start_nothing(body: Any, ann: User, listing_store: Store) -> None:
    response = APIClient().generic("POST", SESSIONS, json.dumps(body), "application/json")
    assert response.status_code == 400
    assert problem(response) == "invalid"
    assert response.json()["errors"]
    assert "X-Session-Key" not in response.headers
    assert sum(listing_store.count().values()) == 0


DEEP = [b"[" * 100_000, b'{"username":' * 3000]


@pytest.mark.parametrize("body", [b"{", b'{"username": "\xff"}', b'{"username": "\\ud800"', *DEEP])
def test_a_body_that_cannot_be_read_is_the_clients_mistake(body: bytes) -> None:
    response = APIClient().generic("POST", SESSIONS, body, "application/json")  # type: ignore[arg-type]
    assert response.status_code == 400
    assert problem(response) == "about:blank"


@pytest.mark.parametrize("body", DEEP)
@pytest.mark.parametrize("mount", ["/api/", "/admin/api/"])
def test_no_call_fails_over_such_a_body(body: bytes, mount: str, ann: User) -> None:
    headers = {"X-Session-Key": str(signed_in(ann).session_key), "Accept": "text/html"}
    for name in ("", "current/", "current/rotate/", "end-others/", "abcdefghijklmno/"):
        for method in ("POST", "DELETE", "PUT"):
            response = APIClient().generic(
                method,
                f"{mount}sessions/{name}",
                body,  # type: ignore[arg-type]
                "application/json",
                headers=headers,
            )
            assert response.status_code < 500
            headers["X-Session-Key"] = response.headers.get("X-Session-Key") or str(
                signed_in(ann).session_key
            )


@pytest.mark.parametrize("body", DEEP)
def test_no_call_of_a_browser_fails_over_such_a_body(body: bytes, ann: User) -> None:
    """The CSRF check reads it first."""
    browser = by_cookie(ann)
    looked_at(browser, COOKIE)
    for token in ({}, {"X-CSRFToken": browser.cookies["csrftoken"].value}):
        for name in ("", "current/rotate/", "end-others/"):
            response: Any = browser.generic(
                "POST",
                COOKIE + name,
                body,  # type: ignore[arg-type]
                "application/json",
                headers=token,
            )
            # Whom no header session is started for is told so before.
            refused = (400, "about:blank") if name else (403, "header-needed")
            assert (response.status_code, problem(response)) == refused


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_a_body_that_is_larger_than_django_takes_is_refused_as_all_else_is(
    accept: str, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE, settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000, 4
    credentials = {"username": "ann", "password": "x" * 1001}
    many = {str(number): "" for number in range(5)}
    headers = {"X-Session-Key": "new", "Accept": accept}
    for mount in (SESSIONS, COOKIE):
        for format_, body in (
            ("multipart", credentials),
            ("multipart", many),
        ):
            response = APIClient().post(mount, body, format=format_, headers=headers)
            assert response.status_code == 400
            assert "X-Session-Key" not in response.headers
            if accept == "application/json":
                assert problem(response) == "about:blank"
    # Where Django itself tells of it.
    assert {record.name for record in caplog.records} >= {
        "django.security.RequestDataTooBig",
        "django.security.TooManyFieldsSent",
    }


def test_half_of_a_surrogate_pair_is_no_name() -> None:
    response = APIClient().generic(
        "POST", SESSIONS, '{"username": "\\ud800", "password": "\\ud800"}', "application/json"
    )
    assert response.status_code == 400


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("nobody", PASSWORD)])
def test_wrong_credentials_are_401_in_the_same_words(name: str, password: str, ann: User) -> None:
    response = sign_in(APIClient(), name, password)
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
    assert problem(response) == "credentials"
    assert response.json() == sign_in(APIClient(), "x", "y").json()
    assert "X-Session-Key" not in response.headers


def test_a_deactivated_user_cannot_sign_in(ann: User, settings: Any) -> None:
    User.objects.update(is_active=False)
    assert problem(sign_in(APIClient())) == "credentials"
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.AllowAllUsersModelBackend"]
    assert problem(sign_in(APIClient())) == "credentials"


def test_a_name_may_be_as_long_as_a_model_has_it(settings: Any) -> None:
    assert sign_in(APIClient(), name="a" * 1024).status_code == 401
    assert sign_in(APIClient(), name="a" * 1025).status_code == 400


class Down:
    """A directory that cannot be reached, and says nothing of its own variables."""

    @sensitive_variables()
    def authenticate(self, request: Any, username: str, password: str) -> Any:
        raise OSError("The directory cannot be reached.")


@pytest.fixture
def reports() -> Iterator[list[str]]:
    """What is reported of each failure, as a page and as an e-mail."""
    written: list[str] = []

    def report(request: Any, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        written.append(reporter.get_traceback_html() + reporter.get_traceback_text())

    got_request_exception.connect(report)
    yield written
    got_request_exception.disconnect(report)


@pytest.mark.parametrize("format_", ["json", "multipart"])
def test_a_sign_in_that_fails_tells_the_password_to_no_report(
    format_: str, settings: Any, reports: list[str]
) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Down"]
    client = APIClient(raise_request_exception=False)
    password = uuid.uuid4().hex
    credentials = {"username": "ann", "password": password}
    assert client.post(SESSIONS, credentials, format=format_).status_code == 500
    (report,) = reports
    assert "The directory cannot be reached." in report
    assert password not in report


def fails(request: HttpRequest) -> str:
    raise OSError("Nobody knows where it came from.")


def test_nor_does_one_whose_origin_cannot_be_told(settings: Any, reports: list[str]) -> None:
    settings.HEADER_SESSIONS_CLIENT_IP = f"{__name__}.fails"
    client = APIClient(raise_request_exception=False)
    password = uuid.uuid4().hex
    assert sign_in(client, password=password).status_code == 500
    (report,) = reports
    assert "Nobody knows where it came from." in report
    assert password not in report


@pytest.mark.django_db(transaction=True)
def test_what_is_noted_of_a_failed_attempt_is_kept(settings: Any) -> None:
    """DRF rolls back what a refused request did, where requests are transactions."""
    connection.settings_dict["ATOMIC_REQUESTS"] = True

    def note(**kwargs: Any) -> None:
        User.objects.create_user("somebody tried")

    user_login_failed.connect(note)
    try:
        response = sign_in(APIClient(), password="wrong")
    finally:
        user_login_failed.disconnect(note)
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert (response.status_code, problem(response)) == (401, "credentials")
    assert response["WWW-Authenticate"] == "Session"
    assert User.objects.filter(username="somebody tried").exists()


def test_a_failed_sign_in_leaves_the_session_as_it_was(ann: User, bob: User) -> None:
    client = signed_in(ann)
    key = client.session_key
    assert sign_in(client, "bob", "wrong").status_code == 401
    assert client.session_key == key
    assert client.get("/api/whoami/").data["user"] == "ann"


def test_djangos_signals_are_sent(ann: User) -> None:
    heard = []

    def hear(signal: Any, **kwargs: Any) -> None:
        heard.append(signal)

    signals = (user_logged_in, user_login_failed, user_logged_out)
    for each in signals:
        each.connect(hear)
    try:
        client = HeaderSessionAPIClient()
        sign_in(client, password="wrong")
        sign_in(client)
        client.delete(CURRENT)
    finally:
        for each in signals:
            each.disconnect(hear)
    assert heard == [user_login_failed, user_logged_in, user_logged_out]


class Door:
    """A backend that takes something else than a name and a password."""

    def authenticate(self, request: HttpRequest | None, badge: str) -> User | None:
        return User.objects.filter(username=badge).first()

    def get_user(self, pk: Any) -> User | None:
        return User.objects.filter(pk=pk).first()


class Badge(serializers.Serializer[Any]):
    badge = serializers.CharField()


def test_any_backend_signs_in_with_its_own_credentials(ann: User, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend",
        f"{__name__}.Door",
    ]
    settings.ROOT_URLCONF = f"{__name__}"
    client = HeaderSessionAPIClient()
    assert client.post("/badges/", {"badge": "nobody"}, format="json").status_code == 401
    assert client.post("/badges/", {"badge": "ann"}, format="json").status_code == 201
    assert client.session["_auth_user_backend"] == f"{__name__}.Door"
    assert client.get("/whoami/").data["user"] == "ann"


def test_a_backend_that_believes_its_caller_is_not_reachable_by_default(
    ann: User, settings: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.RemoteUserBackend"]
    response = APIClient().post(
        SESSIONS, {"remote_user": "ann", "username": "ann", "password": "x"}, format="json"
    )
    assert response.status_code == 401


class Hasher(PBKDF2PasswordHasher):
    """Counts the work it is made to do."""

    iterations = 1000
    work = 0

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        Hasher.work += iterations or self.iterations
        return super().encode(password, salt, iterations)


def test_a_wrong_password_and_an_unknown_user_take_the_same_work(settings: Any, db: None) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.Hasher"]
    User.objects.create_user("ann", password=PASSWORD)
    User.objects.create_user("gone", password=PASSWORD, is_active=False)
    User.objects.create_user("machine")  # has no usable password
    old = User.objects.create_user("old")
    old.password = Hasher().encode(PASSWORD, "salt", 400)
    old.save()
    work = {}
    for name in ("ann", "nobody", "gone", "machine", "old"):
        Hasher.work = 0
        assert sign_in(APIClient(), name, "wrong").status_code == 401
        work[name] = Hasher.work
    Hasher.work = 0
    assert sign_in(APIClient(), "gone").status_code == 401
    work["gone, right password"] = Hasher.work
    assert set(work.values()) == {1000}, work


def test_a_user_has_no_more_sessions_than_allowed(
    listing_store: Store, ann: User, settings: Any
) -> None:
    settings.HEADER_SESSIONS_MAX_PER_USER = 2
    first, second, third = (HeaderSessionAPIClient() for _ in range(3))
    for client in (first, second, third):
        assert sign_in(client).status_code == 201
    answer = first.get(CURRENT)
    assert (answer.status_code, problem(answer)) == (401, "unknown")
    assert second.get(CURRENT).status_code == third.get(CURRENT).status_code == 200


def test_over_plain_http_nothing_is_started_where_only_https_is_allowed(
    ann: User, settings: Any
) -> None:
    settings.HEADER_SESSIONS_SECURE = True
    response = sign_in(APIClient())
    assert (response.status_code, problem(response, executed=True)) == (403, "insecure")
    assert APIClient().post(SESSIONS, secure=True).status_code == 201


# The current session.


def test_the_current_session_shows_what_it_is_and_no_values(
    listing_store: Store, ann: User, settings: Any
) -> None:
    client = signed_in(ann)
    client.post("/api/write/", {"cart": [1], "ü": "x"}, format="json")
    response = client.get(CURRENT)
    assert response.status_code == 200
    data = response.json()
    assert set(data) == MEMBERS | {"bytes", "fields_bytes", "values"}
    assert data["values"] is None
    assert data["fields_bytes"].keys() == {
        *("cart", "ü", "_auth_user_id", "_auth_user_hash", "_auth_user_backend")
    }
    assert data["fields_bytes"]["ü"] == 3
    assert data["bytes"] == sum(data["fields_bytes"].values())
    assert "[1]" not in response.content.decode().replace(" ", "")
    assert client.session["_auth_user_hash"] not in response.content.decode()
    live = registry.get(data["id"])
    assert live is not None
    assert live.deadline is not None
    assert abs(live.deadline - live.created - timedelta(seconds=43200)) < timedelta(seconds=1)
    assert datetime.fromisoformat(data["absolute_expires"]) == live.deadline


def test_without_an_absolute_timeout_there_is_no_absolute_expiry(
    listing_store: Store, settings: Any
) -> None:
    settings.HEADER_SESSIONS_ABSOLUTE_TIMEOUT = None
    client = HeaderSessionAPIClient()
    client.post(SESSIONS)
    assert client.get(CURRENT).json()["absolute_expires"] is None


def test_values_are_shown_to_who_asks_and_secrets_to_nobody(
    listing_store: Store, ann: User
) -> None:
    client = signed_in(ann)
    stored = {
        "cart": [1, {"n": 2.5}],
        "api_token": "hunter2",
        "nested": {"password": "hunter2", "name": "x"},
    }
    client.post("/api/write/", stored, format="json")
    values = client.get(CURRENT, {"values": "true"}).json()["values"]
    assert values["cart"] == [1, {"n": 2.5}]
    assert values["nested"]["name"] == "x"
    assert "hunter2" not in str(values)
    assert not any(name.startswith("_") for name in values)


@pytest.mark.usefixtures("shy_filter")
def test_a_project_may_say_what_is_a_secret(ann: User) -> None:
    client = signed_in(ann)
    client.post("/api/write/", {"birthday": "1 May", "token": "open"}, format="json")
    values = client.get(CURRENT, {"values": "true"}).json()["values"]
    assert values["birthday"] == SafeExceptionReporterFilter.cleansed_substitute
    assert values["token"] == "open"


def test_whatever_json_stored_can_be_shown(listing_store: Store) -> None:
    client = HeaderSessionAPIClient()
    session = client.session
    deep: Any = 0
    for _ in range(600):
        deep = [deep, {"x": deep}] if _ < 3 else [deep]
    session.update(
        {
            "nan": float("nan"),
            "inf": [float("-inf")],
            "half": "\ud800",
            "\udfff": {"\udfff": 1},
            "deep": deep,
            "big": 10**300,
        }
    )
    session.save()
    response = client.get(CURRENT, {"values": "true"})
    assert response.status_code == 200
    values = response.json()["values"]
    assert (values["nan"], values["inf"], values["half"]) == ("nan", ["-inf"], "\\ud800")
    assert values["\\udfff"] == {"\\udfff": 1}
    assert values["big"] == 10**300
    assert "…" in str(values["deep"])


def test_anything_else_a_serializer_brings_back_is_shown_as_text() -> None:
    name = uuid.uuid4()
    stored = {name: {1, 2}, "b": b"\xff", "t": (1,), "n": None, "y": True}
    assert shown(stored) == {str(name): [1, 2], "b": "b'\\xff'", "t": [1], "n": None, "y": True}
    assert shown({"a": {"b": {}}}, 2) == {"a": {"b": "…"}}
    assert shown_text("a\ud800") == "a\\ud800"


@pytest.mark.parametrize("values", ["", "1", "yes", "True"])
def test_a_query_that_is_not_understood_is_refused(values: str) -> None:
    client = HeaderSessionAPIClient()
    client.post(SESSIONS)
    response = client.get(CURRENT, {"values": values})
    assert (response.status_code, problem(response)) == (400, "invalid")


def test_signing_out_ends_the_session_and_is_401_the_second_time(
    listing_store: Store, ann: User
) -> None:
    client = signed_in(ann)
    key = client.session_key
    assert key is not None
    response = client.delete(CURRENT)
    assert (response.status_code, response["X-Session-Key"]) == (204, "")
    assert registry.get(key.id) is None
    again = APIClient().delete(CURRENT, headers={"X-Session-Key": str(key)})
    assert (again.status_code, problem(again)) == (401, "unknown")
    assert again["WWW-Authenticate"] == "Session"


@pytest.mark.parametrize(
    ("gone", "status"),
    # Of another password Django takes note before the call is served, and ends the session itself.
    [("deactivated", 204), ("deleted", 204), ("other password", 401)],
)
def test_a_session_that_signs_nobody_in_any_more_is_ended_by_who_holds_it(
    gone: str, status: int, listing_store: Store, ann: User
) -> None:
    client = signed_in(ann)
    key = client.session_key
    assert key is not None
    if gone == "deleted":
        ann.delete()
    else:
        ann.is_active = gone != "deactivated"
        ann.set_password("another")
        ann.save()
    if status == 204:
        # For anything else but its end it is no good.
        refused = client.get(CURRENT)
        assert (refused.status_code, problem(refused)) == (401, "signed-out")
    response = client.delete(CURRENT)
    assert (response.status_code, response["X-Session-Key"]) == (status, "")
    assert registry.get(key.id) is None


def test_an_anonymous_session_can_be_ended_too(listing_store: Store) -> None:
    client = HeaderSessionAPIClient()
    client.post(SESSIONS)
    assert client.delete(CURRENT).status_code == 204
    assert sum(listing_store.count().values()) == 0


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("get", "current/", "no-session"),
        ("delete", "current/", "no-session"),
        ("post", "current/rotate/", "no-session"),
        ("get", "", "no-session"),
        ("post", "end-others/", "no-session"),
        ("delete", "abcdefghijklmno/", "no-session"),
    ],
)
def test_without_a_session_the_answer_is_401(method: str, path: str, name: str) -> None:
    for client in (APIClient(), HeaderSessionAPIClient()):
        response = getattr(client, method)(SESSIONS + path)
        assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
        assert problem(response) == name


@pytest.mark.parametrize(
    ("method", "path"), [("get", ""), ("post", "end-others/"), ("delete", "abcdefghijklmno/")]
)
def test_with_an_anonymous_session_nobody_has_sessions(method: str, path: str) -> None:
    client = HeaderSessionAPIClient()
    client.post(SESSIONS)
    response = getattr(client, method)(SESSIONS + path)
    assert (response.status_code, problem(response)) == (401, "not-signed-in")


@pytest.mark.parametrize("mount", [SESSIONS, "/admin/api/sessions/"])
def test_a_user_whom_a_middleware_put_there_is_signed_in_by_no_session(
    mount: str, bob: User, settings: Any
) -> None:
    """Whoever that is may come with ambient credentials, and the header exempts from CSRF."""
    bobs = signed_in(bob)
    assert bobs.session_key is not None
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "tests.rest_framework.test_authentication.SomebodyElse",
    ]
    with_session, with_cookie = HeaderSessionAPIClient(), APIClient()
    with_session.post(SESSIONS)
    with_cookie.session["x"] = 1
    for client, headers in (
        (APIClient(), {}),
        (APIClient(), {"X-Session-Key": "new"}),
        (with_session, {}),
        (with_cookie, {}),
    ):
        for method, name in (
            ("get", ""),
            ("post", "end-others/"),
            ("delete", f"{bobs.session_key.id}/"),
        ):
            response = getattr(client, method)(mount + name, headers=headers)
            assert (response.status_code, response["WWW-Authenticate"]) == (401, "Session")
    assert registry.get(bobs.session_key.id) is not None


def test_a_user_who_is_forced_upon_a_test_client_needs_a_session_as_well(bob: User) -> None:
    client = HeaderSessionAPIClient()
    client.force_authenticate(bob)
    for response in (
        client.get(SESSIONS),
        client.post(SESSIONS + "end-others/"),
        client.delete(SESSIONS + "abcdefghijklmno/"),
    ):
        assert (response.status_code, problem(response)) == (401, "no-session")


# Rotating.


def test_rotating_gives_a_new_key_to_the_same_session(listing_store: Store, ann: User) -> None:
    client = signed_in(ann)
    client.post("/api/write/", {"cart": [1]}, format="json")
    before = client.session_key
    response = client.post(CURRENT + "rotate/")
    after = client.session_key
    assert before is not None
    assert after is not None
    assert response.status_code == 200
    assert set(response.data) == MEMBERS
    assert response.data["id"] == before.id == after.id
    assert after != before
    assert client.get("/api/whoami/").data["user"] == "ann"
    old = APIClient().get(CURRENT, headers={"X-Session-Key": str(before)})
    assert (old.status_code, problem(old)) == (409, "superseded")


def test_of_two_rotations_at_once_one_wins(listing_store: Store, ann: User) -> None:
    key = str(signed_in(ann).session_key)
    barrier, answers = threading.Barrier(2), []

    def rotate() -> None:
        client = APIClient()
        barrier.wait(10)
        answers.append(client.post(CURRENT + "rotate/", headers={"X-Session-Key": key}).status_code)

    # An anonymous session's: the tests' database is another in another thread.
    client = HeaderSessionAPIClient()
    client.post(SESSIONS)
    key = str(client.session_key)
    threads = [threading.Thread(target=rotate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409]


# The list.


def test_the_list_holds_ones_own_live_sessions_newest_first(
    listing_store: Store, ann: User, bob: User
) -> None:
    clients = [signed_in(ann) for _ in range(3)]
    signed_in(bob)
    HeaderSessionAPIClient().post(SESSIONS)
    clients[1].logout()
    browser = by_cookie(ann)
    response = clients[0].get(SESSIONS)
    assert response.status_code == 200
    results = response.data["results"]
    assert response.data["count"] == len(results) == 3
    assert set(results[0]) == MEMBERS
    created = [one["created"] for one in results]
    assert created == sorted(created, reverse=True)
    ids = {client.session_key.id for client in (clients[0], clients[2]) if client.session_key}
    assert ids < {one["id"] for one in results}
    assert [one["id"] for one in results if one["current"]] == [
        clients[0].session_key.id if clients[0].session_key else ""
    ]
    assert {one["transport"] for one in results} == {"header", "cookie"}
    browser.logout()


def test_the_list_is_paged(
    listing_store: Store, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "django_header_sessions.rest_framework.views.SessionPagination.page_size", 2
    )
    clients = [signed_in(ann) for _ in range(5)]
    seen, url = [], SESSIONS
    while url:
        page = clients[0].get(url).data
        assert page["count"] == 5
        assert len(page["results"]) <= 2
        seen += [one["id"] for one in page["results"]]
        url = page["next"]
    assert len(seen) == len(set(seen)) == 5


@pytest.mark.parametrize("page", ["0", "2", "-1", "x", ""])
def test_a_page_that_is_not_there_is_404(page: str, ann: User) -> None:
    response = signed_in(ann).get(SESSIONS, {"page": page})
    assert (response.status_code, problem(response)) == (404, "about:blank")


def test_a_project_may_have_nobody_in_the_place_of_an_anonymous_user(settings: Any) -> None:
    settings.REST_FRAMEWORK = {"UNAUTHENTICATED_USER": None}
    anonymous = HeaderSessionAPIClient()
    anonymous.post(SESSIONS)
    for client, name in ((APIClient(), "no-session"), (anonymous, "not-signed-in")):
        for method, url in (
            ("get", SESSIONS),
            ("post", SESSIONS + "end-others/"),
            ("delete", SESSIONS + "abcdefghijklmno/"),
        ):
            response = getattr(client, method)(url)
            assert (response.status_code, problem(response)) == (401, name)
    assert anonymous.get(CURRENT).data["user"] is None


def test_a_cookie_that_opens_nothing_is_no_session() -> None:
    browser = APIClient()
    browser.cookies["sessionid"] = "a" * 40
    response = browser.get(COOKIE)
    assert (response.status_code, problem(response)) == (401, "no-session")


def test_the_path_it_is_mounted_under_may_name_something(ann: User, settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    mount = "/tenants/acme/sessions/"
    client, other = signed_in(ann), signed_in(ann)
    assert client.post(mount).status_code == 200
    assert client.get(mount).status_code == 200
    assert client.get(f"{mount}current/").status_code == 200
    assert client.post(f"{mount}current/rotate/").status_code == 200
    assert client.delete(f"{mount}{other.session_key.id}/").status_code == 204  # type: ignore[union-attr]
    assert client.post(f"{mount}end-others/").status_code == 200
    assert client.delete(f"{mount}current/").status_code == 204


@pytest.mark.parametrize("policy", ["readonly", "serialized", "merge"])
def test_it_writes_whatever_the_policy_is_for_views_that_say_nothing(
    policy: str, listing_store: Store, ann: User, settings: Any
) -> None:
    settings.HEADER_SESSIONS_POLICY = policy
    client = HeaderSessionAPIClient()
    assert client.post(SESSIONS).status_code == 201
    assert sign_in(client).status_code == 201
    assert client.post(SESSIONS + "current/rotate/").status_code == 200
    assert client.post(SESSIONS + "end-others/").status_code == 200
    assert client.delete(CURRENT).status_code == 204


def test_a_users_name_is_text_whatever_the_model_has(
    ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = signed_in(ann)
    monkeypatch.setattr(User, "get_username", lambda user: 4711)
    assert client.get(CURRENT).data["user"] == "4711"


def test_where_the_cache_cannot_list_the_answer_says_so_and_names_the_remedy(
    ann: User, settings: Any, tmp_path: Any
) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    client = HeaderSessionAPIClient()
    assert sign_in(client).status_code == 201
    for response in (client.get(SESSIONS), client.post(SESSIONS + "end-others/")):
        assert (response.status_code, problem(response)) == (501, "no-list")
        assert "Redis" in response.json()["detail"]
    assert client.get(CURRENT).status_code == 200
    assert client.delete(CURRENT).status_code == 204


# Ending.


def test_one_of_ones_own_sessions_can_be_ended_by_its_id(listing_store: Store, ann: User) -> None:
    here, there = signed_in(ann), signed_in(ann)
    assert there.session_key is not None
    path = f"{SESSIONS}{there.session_key.id}/"
    assert here.delete(path).status_code == 204
    answer = there.get("/api/whoami/")
    assert (answer.status_code, problem(answer)) == (401, "unknown")
    again = here.delete(path)
    assert (again.status_code, problem(again)) == (404, "no-such-session")
    assert here.get("/api/whoami/").status_code == 200


def test_somebody_elses_session_is_404_and_lives_on(
    listing_store: Store, ann: User, bob: User
) -> None:
    anns, bobs, nobodys = signed_in(ann), signed_in(bob), HeaderSessionAPIClient()
    nobodys.post(SESSIONS)
    for other in (bobs, nobodys):
        assert other.session_key is not None
        response = anns.delete(f"{SESSIONS}{other.session_key.id}/")
        assert (response.status_code, problem(response)) == (404, "no-such-session")
        assert other.get(CURRENT).status_code == 200


@pytest.mark.parametrize("name", ["a" * 15, "a" * 40, "A" * 15, "-", "%84", "%0A"])
def test_an_id_that_is_none_is_404(name: str, ann: User) -> None:
    response = signed_in(ann).delete(f"{SESSIONS}{name}/")
    assert (response.status_code, problem(response)) == (404, "no-such-session")


def test_ending_the_current_one_by_its_id_is_signing_out(listing_store: Store, ann: User) -> None:
    client = signed_in(ann)
    assert client.session_key is not None
    response = client.delete(f"{SESSIONS}{client.session_key.id}/")
    assert (response.status_code, response["X-Session-Key"]) == (204, "")
    assert client.session_key is None


def test_all_others_are_ended_at_once_and_the_current_one_stays(
    listing_store: Store, ann: User, bob: User
) -> None:
    here, others, bobs = signed_in(ann), [signed_in(ann) for _ in range(3)], signed_in(bob)
    browser = by_cookie(ann)
    response = here.post(SESSIONS + "end-others/")
    assert (response.status_code, response.data) == (200, {"ended": 4})
    assert all(other.get(CURRENT).status_code == 401 for other in others)
    assert browser.get("/admin/api/header-first/").status_code == 401
    assert here.get("/api/whoami/").status_code == bobs.get("/api/whoami/").status_code == 200
    assert here.post(SESSIONS + "end-others/").data == {"ended": 0}


def test_of_very_many_the_current_one_is_listed_and_all_others_are_ended(
    listing_store: Store, ann: User
) -> None:
    """Of one user's sessions a store tells 1,000 at a time."""
    request = HttpRequest()
    for _ in range(1050):
        request.session = SessionStore(transport="header")
        login(request, ann, "django.contrib.auth.backends.ModelBackend")
        request.session.save()
    client = signed_in(ann)
    assert client.session_key is not None
    results, url = [], SESSIONS
    while url:
        page = client.get(url).data
        results += page["results"]
        url = page["next"]
    assert len(results) == len({one["id"] for one in results}) == page["count"] >= 1000
    assert [one["id"] for one in results if one["current"]] == [client.session_key.id]
    created = [one["created"] for one in results]
    assert created == sorted(created, reverse=True)
    assert client.post(SESSIONS + "end-others/").data == {"ended": 1050}
    assert sum(listing_store.count().values()) == 1


# How it speaks.


@pytest.mark.parametrize(
    ("method", "path"), [("put", ""), ("patch", "current/"), ("get", "current/rotate/")]
)
def test_a_method_that_is_not_there_is_405(method: str, path: str, ann: User) -> None:
    # Nobody is asked to sign in for it.
    for client in (signed_in(ann), APIClient()):
        response = getattr(client, method)(SESSIONS + path)
        assert (response.status_code, problem(response)) == (405, "about:blank")
        assert response["Allow"]


def test_problems_of_http_itself_say_no_more_than_their_status(ann: User) -> None:
    client = signed_in(ann)
    unsupported = client.post(SESSIONS, "x", content_type="text/csv")
    assert (unsupported.status_code, problem(unsupported)) == (415, "about:blank")
    unacceptable = client.get(CURRENT, headers={"Accept": "image/png"})
    assert (unacceptable.status_code, problem(unacceptable)) == (406, "about:blank")


def test_no_answer_may_be_kept_by_a_cache(ann: User) -> None:
    client = signed_in(ann)
    for response in (client.get(SESSIONS), client.get(CURRENT), client.get(SESSIONS + "x/")):
        assert response["Cache-Control"] == "no-store"
        assert "X-Session-Key" in response["Vary"]


def test_an_outage_of_the_store_is_503(
    ann: User, settings: Any, redis_cache: dict[str, Any]
) -> None:
    settings.CACHES = {"default": redis_cache}
    key = str(signed_in(ann).session_key)
    settings.CACHES = {"default": redis_cache | {"LOCATION": "redis://127.0.0.1:1/0"}}
    # The attempts are counted in the cache that is down as well, and first of all.
    for response, name, executed in (
        (sign_in(APIClient()), "not-counted", False),
        (APIClient().post(SESSIONS), "unavailable", True),
        (APIClient().get(CURRENT, headers={"X-Session-Key": key}), "unavailable", False),
    ):
        assert (response.status_code, problem(response, executed=executed)) == (503, name)
        assert response["Retry-After"]


class Refuses(BaseThrottle):
    detail: Any

    def allow_request(self, request: Any, view: Any) -> bool:
        raise APIException(self.detail)


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        ("no", {"detail": "no"}),
        ({"why": "x"}, {"errors": {"why": "x"}}),
        ({"detail": ["x"]}, {"errors": {"detail": ["x"]}}),
        (["x"], {"errors": {"non_field_errors": ["x"]}}),
    ],
)
def test_what_a_project_refuses_is_a_problem_document_whatever_it_says(
    detail: Any, told: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ROOT_URLCONF = __name__
    monkeypatch.setattr(Refuses, "detail", detail, raising=False)
    response = APIClient().post("/refused/")
    assert (response.status_code, problem(response)) == (500, "about:blank")
    assert response.json().items() >= told.items()


def test_attempts_that_cannot_be_counted_are_not_made(
    ann: User, settings: Any, redis_cache: dict[str, Any]
) -> None:
    """The cache of the throttles is down, that of the sessions is not."""
    settings.CACHES = {
        "default": redis_cache | {"LOCATION": "redis://127.0.0.1:1/0"},
        "sessions": redis_cache,
    }
    settings.SESSION_CACHE_ALIAS = "sessions"
    response = sign_in(APIClient())
    assert (response.status_code, problem(response)) == (503, "not-counted")
    assert response["Retry-After"] == "1"
    assert "X-Session-Key" not in response.headers
    assert APIClient().post(SESSIONS).status_code == 201


def test_drfs_own_handler_is_left_to_the_projects_views(ann: User) -> None:
    response = APIClient().get("/api/whoami/")
    assert response["Content-Type"] == "application/json"
    assert set(response.json()) == {"detail"}


class Ends:
    """A middleware that ends the session before the view runs: an admin was quicker."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        registry.end(request.session.session_key.id)
        return self.get_response(request)


def test_a_session_that_ends_before_it_is_shown_is_401(listing_store: Store, settings: Any) -> None:
    client = HeaderSessionAPIClient()
    client.post(SESSIONS)
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.Ends"]
    # Another client, since one loads the middleware once.
    response = APIClient().get(CURRENT, headers={"X-Session-Key": str(client.session_key)})
    assert (response.status_code, problem(response)) == (401, "no-session")


def test_a_session_that_ends_as_it_begins_is_401(listing_store: Store) -> None:
    def end(session_id: str, **kwargs: Any) -> None:
        registry.end(session_id)

    session_created.connect(end)
    try:
        response = APIClient().post(SESSIONS)
    finally:
        session_created.disconnect(end)
    assert (response.status_code, problem(response)) == (401, "no-session")


# In a browser.

COOKIE = "/admin/api/sessions/"


def looked_at(browser: APIClient, path: str) -> Any:
    return browser.get(path, headers={"Accept": "text/html"})


def test_under_a_cookie_path_the_browsable_api_works_for_who_is_signed_in_there(
    listing_store: Store, ann: User
) -> None:
    browser, other = by_cookie(ann), signed_in(ann)
    assert other.session_key is not None
    for url in (COOKIE, COOKIE + "current/", COOKIE + "current/?values=true"):
        response = looked_at(browser, url)
        assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "ann" in response.content.decode()
    assert other.session_key.id in looked_at(browser, COOKIE).content.decode()


def test_under_a_cookie_path_changes_are_csrf_checked(listing_store: Store, ann: User) -> None:
    browser, other = by_cookie(ann), signed_in(ann)
    assert browser.post(COOKIE + "end-others/").status_code == 403
    assert other.get(CURRENT).status_code == 200
    looked_at(browser, COOKIE)
    token = {"X-CSRFToken": browser.cookies["csrftoken"].value}
    assert browser.post(COOKIE + "current/rotate/", headers=token).status_code == 200
    assert browser.get(COOKIE + "current/").data["current"] is True
    assert browser.post(COOKIE + "end-others/", headers=token).data == {"ended": 1}
    assert browser.delete(COOKIE + "current/", headers=token).status_code == 204
    assert browser.get(COOKIE + "current/").status_code == 401


def test_an_anonymous_cookie_session_is_csrf_checked_too() -> None:
    browser = APIClient(enforce_csrf_checks=True)
    browser.session["x"] = 1
    assert browser.delete(COOKIE + "current/").status_code == 403


def test_under_a_cookie_path_a_header_session_is_started_by_who_says_so_alone(ann: User) -> None:
    browser = by_cookie(ann)
    credentials = {"username": "ann", "password": PASSWORD}
    refused = browser.post(COOKIE, credentials, format="json")
    assert (refused.status_code, problem(refused)) == (403, "header-needed")
    started = browser.post(COOKIE, credentials, format="json", headers={"X-Session-Key": "new"})
    assert started.status_code == 201
    assert started.data["transport"] == "header"
    assert not started.cookies


def test_a_cookie_session_of_a_deactivated_user_is_nobodys(ann: User) -> None:
    browser = by_cookie(ann)
    assert browser.get(COOKIE + "current/").data["user"] == "ann"
    User.objects.update(is_active=False)
    assert browser.get(COOKIE + "current/").data["user"] is None
    assert browser.get(COOKIE).status_code == 401


def test_a_refusal_shows_in_the_browsable_api_as_a_page(ann: User) -> None:
    response = looked_at(APIClient(), COOKIE)
    assert (response.status_code, response["Content-Type"]) == (401, "text/html; charset=utf-8")


urlpatterns = [
    path("badges/", SessionList.as_view(credentials=Badge)),
    path("refused/", SessionList.as_view(throttle_classes=[Refuses])),
    path("whoami/", Whoami.as_view()),
    path("tenants/<slug:tenant>/sessions/", include("django_header_sessions.rest_framework.urls")),
]
