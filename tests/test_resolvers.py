"""How a request carries its session, decided from the request alone."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from django_header_sessions import keys
from django_header_sessions.resolvers import Claim, announcement, meta_name, resolve

# Fixed, since they are part of the names of tests.
KEY, OTHER = keys.SessionKey("k3y" + "0" * 37), keys.SessionKey("0ther" + "1" * 35)


def claim_of(path: str, header: str | None = None, cookie: str | None = None) -> Claim:
    headers = {} if header is None else {"X-Session-Key": header}
    factory = RequestFactory()
    if cookie is not None:
        factory.cookies["sessionid"] = cookie
    return resolve(factory.get(path, headers=headers))


@pytest.mark.parametrize(
    ("path", "header", "cookie", "claim"),
    [
        # The header is there: it decides alone.
        ("/api/", KEY, None, Claim("header", KEY, carries_header=True)),
        ("/api/", KEY, OTHER, Claim("header", KEY, carries_header=True)),
        ("/admin/", KEY, None, Claim("header", KEY, carries_header=True)),
        ("/admin/", KEY, OTHER, Claim("header", KEY, carries_header=True)),
        ("/api/", "new", None, Claim("header", carries_header=True)),
        ("/admin/", "new", OTHER, Claim("header", carries_header=True)),
        ("/api/", "", None, Claim("header", carries_header=True, malformed=True)),
        ("/admin/", "", OTHER, Claim("header", carries_header=True, malformed=True)),
        ("/admin/", "NEW", OTHER, Claim("header", carries_header=True, malformed=True)),
        ("/api/", "new,new", None, Claim("header", carries_header=True, malformed=True)),
        ("/api/", KEY.upper(), None, Claim("header", carries_header=True, malformed=True)),
        ("/api/", f"{KEY},{KEY}", None, Claim("header", carries_header=True, malformed=True)),
        # It is not, on a cookie path.
        ("/admin/", None, None, Claim("cookie")),
        ("/admin/x/", None, OTHER, Claim("cookie", OTHER)),
        ("/admin/", None, "malformed", Claim("cookie")),
        ("/admin/", None, "new", Claim("cookie")),
        # It is not, on a header path.
        ("/api/", None, None, Claim("header")),
        ("/api/", None, OTHER, Claim("header")),
        ("/administration/", None, OTHER, Claim("header")),
        ("/admin", None, OTHER, Claim("header")),
        ("/api/admin/", None, OTHER, Claim("header")),
    ],
)
def test_a_request_is_resolved_by_the_table(
    path: str, header: str | None, cookie: str | None, claim: Claim
) -> None:
    assert claim_of(path, header, cookie) == claim


def test_cookie_paths_are_beginnings_of_the_path_within_the_project(settings: Any) -> None:
    settings.HEADER_SESSIONS_COOKIE_PATHS = ["/site/", "/accounts/"]
    for path, transport in (
        ("/site/", "cookie"),
        ("/accounts/login/", "cookie"),
        ("/admin/", "header"),
        ("/", "header"),
    ):
        assert claim_of(path, None, OTHER).transport == transport
    mounted = RequestFactory(SCRIPT_NAME="/site").get("/api/")
    assert mounted.path == "/site/api/"
    assert resolve(mounted).transport == "header"


def test_the_names_of_header_and_cookie_are_settings(settings: Any) -> None:
    settings.HEADER_SESSIONS_HEADER = "My-Sid"
    settings.SESSION_COOKIE_NAME = "mine"
    factory = RequestFactory()
    factory.cookies["mine"] = OTHER
    assert resolve(factory.get("/api/", headers={"My-Sid": KEY})).key == KEY
    assert resolve(factory.get("/admin/", headers={"X-Session-Key": KEY})).key == OTHER


@pytest.mark.parametrize(
    ("header", "name"),
    [("X-Session-Key", "HTTP_X_SESSION_KEY"), ("sid", "HTTP_SID")],
)
def test_the_name_of_a_header_in_meta(header: str, name: str) -> None:
    assert meta_name(header) == name


def test_a_claim_does_not_show_its_key() -> None:
    assert KEY[15:] not in repr(claim_of("/", KEY))
    assert KEY[15:] not in repr(claim_of("/admin/", None, KEY))


@pytest.mark.parametrize(
    ("sent", "stored", "told"),
    [
        (None, None, None),
        ("a", "a", None),
        (None, "a", "a"),
        ("a", "b", "b"),
        ("a", None, ""),
    ],
)
def test_what_is_announced_is_what_changed(
    sent: str | None, stored: str | None, told: str | None
) -> None:
    assert announcement(sent, stored) == told
