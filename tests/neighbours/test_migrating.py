"""From cookie sessions, DRF's tokens and allauth's session tokens: each recipe as it is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.pages import Page
from tests.processes import Valkey

from .site import APP, KEY, LOGIN, TOKEN, Project, csrf, did

MIGRATING = Page.named("docs/migrating.md")
WHO = ["user"]
PAGE = "/admin/sync/"
OURS, TOKENS = "LiveSession", "Token"


@pytest.fixture
def old_key(project: Project) -> str:
    """The key of a session of Django's own engine, in which Ann is signed in."""
    return project.client.get("/test/old-session/", params={"name": "ann"}).text


@pytest.fixture
def drf_token(project: Project) -> str:
    return project.client.get("/test/token/", params={"name": "ann"}).text


def whoami(project: Project, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = project.client.get("/api/whoami/", headers=sent)
    return answer.json() if answer.status_code == 200 else answer.status_code


# From cookie sessions


def test_on_cookie_paths_everywhere_browsers_go_on_and_programs_may_use_the_header(
    project: Project,
) -> None:
    paths = MIGRATING.chapter("## From cookie sessions").run("settings.py")[
        "HEADER_SESSIONS_COOKIE_PATHS"
    ]
    with project.settings(HEADER_SESSIONS_COOKIE_PATHS=paths), project.browser("ann") as browser:
        assert did(browser, WHO) == ["ann"]
        key = project.key("bob")
        assert did(browser, WHO, X_Session_Key=key) == ["bob"]
        assert did(browser, WHO) == ["ann"]


def test_a_browser_brings_its_old_session_along(
    project: Project, old_key: str, valkey: Valkey
) -> None:
    with httpx.Client(base_url=project.client.base_url) as browser:
        browser.cookies.set("sessionid", old_key, domain="127.0.0.1")
        # A page that asks for three things at once.
        for _ in range(3):
            sent = {"Cookie": f"sessionid={old_key}"}
            answer = did(project.client, WHO, ["get", "basket"], path=PAGE, **sent)
            assert answer == ["ann", ["a pump"]]
        assert did(browser, WHO, ["get", "basket"], path=PAGE) == ["ann", ["a pump"]]
        assert len(browser.cookies["sessionid"]) == 40
        before = len(valkey.client.keys("*:s:*"))
        assert did(browser, WHO, ["get", "basket"], path=PAGE) == ["ann", ["a pump"]]
        assert len(valkey.client.keys("*:s:*")) == before
    assert expiry_of(project, old_key) <= 60


def expiry_of(project: Project, old_key: str) -> float:
    """Seconds that a session of Django's own engine has left, by its database."""
    tables = sqlite3.connect(project.database)
    query = "SELECT expire_date FROM django_session WHERE session_key = ?"
    (expires,) = tables.execute(query, (old_key,)).fetchone()
    tables.close()
    left = datetime.fromisoformat(expires).replace(tzinfo=UTC) - datetime.now(UTC)
    return left.total_seconds()


def test_an_old_session_is_taken_along_on_cookie_paths_alone(
    project: Project, old_key: str, valkey: Valkey
) -> None:
    cookie = {"Cookie": f"sessionid={old_key}"}
    assert did(project.client, WHO, **cookie) == [""]
    assert did(project.client, WHO, path=PAGE, X_Session_Key="new", **cookie) == [""]
    assert did(project.client, WHO, path=PAGE, Cookie="sessionid=" + "a" * 32) == [""]
    assert valkey.client.keys("*:s:*") == []


def test_a_browser_gets_a_header_session_for_its_cookie(
    project: Project, ann: httpx.Client
) -> None:
    address = "/admin/to-header/"
    assert ann.post(address).status_code == 403, "without a CSRF token"
    assert ann.get(address).status_code == 405
    answer = ann.post(address, headers=csrf(ann))
    assert answer.status_code == 204
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert "set-cookie" not in answer.headers
    assert did(project.client, WHO, X_Session_Key=answer.headers[KEY]) == ["ann"]
    assert did(ann, WHO, path=PAGE) == ["ann"], "the cookie's goes on"


def test_who_is_not_signed_in_gets_none(project: Project) -> None:
    with httpx.Client(base_url=project.client.base_url) as browser:
        browser.get(LOGIN)
        answer = browser.post("/admin/to-header/", headers=csrf(browser))
    assert answer.status_code == 302
    assert KEY not in answer.headers


# From DRF tokens


def test_key_and_token_are_good_in_the_same_view(project: Project, drf_token: str) -> None:
    authorization = {"Authorization": f"Token {drf_token}"}
    assert whoami(project, **authorization) == {"user": "ann", "by": TOKENS}
    key = project.key("bob")
    assert whoami(project, X_Session_Key=key) == {"user": "bob", "by": OURS}
    assert whoami(project, X_Session_Key=key, **authorization) == {"user": "bob", "by": OURS}
    nobody = project.client.get("/api/whoami/")
    assert nobody.status_code == 401
    assert nobody.headers["WWW-Authenticate"] == "Session"


@pytest.mark.parametrize("first", [{}, {KEY: "new"}])
def test_a_token_is_exchanged_for_a_session(
    project: Project, drf_token: str, first: dict[str, str]
) -> None:
    authorization = {"Authorization": f"Token {drf_token}"}
    answer = project.client.post("/api/exchange/", headers=authorization | first)
    assert answer.status_code == 204
    assert whoami(project, X_Session_Key=answer.headers[KEY]) == {"user": "ann", "by": OURS}
    assert "set-cookie" not in answer.headers


def test_who_has_no_token_gets_no_session(project: Project, valkey: Valkey) -> None:
    for authorization in ({}, {"Authorization": "Token nonsense"}):
        answer = project.client.post("/api/exchange/", headers=authorization)
        assert answer.status_code == 401
        assert KEY not in answer.headers
    assert valkey.client.keys("*:s:*") == []


@pytest.fixture
def connected(project: Project, drf_token: str) -> Iterator[httpx.Client]:
    connect = MIGRATING.run("client.py")["connect"]
    client = connect(str(project.client.base_url), drf_token)
    yield client
    client.close()


def test_a_client_exchanges_its_token_again_when_its_session_is_over(
    project: Project, connected: httpx.Client
) -> None:
    assert connected.get("/api/whoami/").json() == {"user": "ann", "by": OURS}
    assert did(connected, ["end_elsewhere"]) == [True]
    assert connected.get("/api/whoami/").json() == {"user": "ann", "by": OURS}


# From allauth's session tokens


def test_a_token_of_the_old_engine_goes_on(project: Project, old_key: str) -> None:
    answer = project.client.get(f"{APP}/session", headers={TOKEN: old_key})
    assert answer.status_code == 200
    assert answer.json()["data"]["user"]["username"] == "ann"
    answer = project.client.delete(f"{APP}/session", headers={TOKEN: old_key})
    assert answer.status_code == 401
    answer = project.client.get(f"{APP}/session", headers={TOKEN: old_key})
    assert answer.status_code == 410


def test_without_the_recipe_it_is_gone(project: Project, old_key: str) -> None:
    theirs = "allauth.headless.tokens.strategies.sessions.SessionTokenStrategy"
    with project.settings(HEADLESS_TOKEN_STRATEGY=theirs):
        answer = project.client.get(f"{APP}/session", headers={TOKEN: old_key})
    assert answer.status_code == 410


@pytest.mark.parametrize("engine", ["ours", "old"])
def test_a_session_token_is_exchanged_for_a_session_with_what_it_holds(
    project: Project, old_key: str, engine: str
) -> None:
    token = old_key if engine == "old" else project.token("ann")
    answer = project.client.post("/api/exchange-session-token/", headers={TOKEN: token})
    assert answer.status_code == 204
    key = answer.headers[KEY]
    held = ["a pump"] if engine == "old" else None
    assert did(project.client, WHO, ["get", "basket"], X_Session_Key=key) == ["ann", held]
    assert whoami(project, X_Session_Key=key) == {"user": "ann", "by": OURS}

    # The token is good until the app says otherwise, and the session does not go with it.
    assert project.client.get(f"{APP}/session", headers={TOKEN: token}).status_code == 200
    project.client.delete(f"{APP}/session", headers={TOKEN: token})
    assert project.client.get(f"{APP}/session", headers={TOKEN: token}).status_code == 410
    assert did(project.client, WHO, X_Session_Key=key) == ["ann"]


def test_who_has_no_session_token_gets_no_session(project: Project) -> None:
    for token in ({}, {TOKEN: "nonsense"}, {TOKEN: project.key("ann")}):
        answer = project.client.post("/api/exchange-session-token/", headers=token)
        assert answer.status_code == 403
        assert KEY not in answer.headers
