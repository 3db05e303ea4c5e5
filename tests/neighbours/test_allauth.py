"""allauth on cookie paths, its list of sessions, and its own session header beside ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes import Server, Valkey

from .conftest import SETTINGS, started
from .site import APP, KEY, LOGIN, TOKEN, Project, csrf, did, password

SESSIONS = "/accounts/sessions/"
WHO = ["user"]


def test_a_browser_signs_in_and_out_by_allauths_pages(project: Project) -> None:
    with project.browser("ann") as browser:
        assert did(browser, WHO, path="/admin/sync/") == ["ann"]
        answer = browser.post("/accounts/logout/", headers=csrf(browser))
        assert answer.status_code == 302
        assert did(browser, WHO, path="/admin/sync/") == [""]


def test_a_browsers_session_is_none_on_header_paths(project: Project, ann: httpx.Client) -> None:
    assert did(ann, WHO) == [""]


def test_off_the_cookie_paths_nobody_can_sign_in_and_each_try_leaves_a_session(
    project: Project, valkey: Valkey
) -> None:
    with (
        project.settings(HEADER_SESSIONS_COOKIE_PATHS=["/admin/"]),
        project.browser("ann") as browser,
    ):
        assert "sessionid" not in browser.cookies
        assert browser.get(SESSIONS).status_code == 302, "to sign in"
    assert len(valkey.client.keys("*:s:*")) == 1


def test_a_program_may_sign_in_by_allauths_form(project: Project) -> None:
    data = {"login": "ann", "password": password("ann")}
    answer = project.client.post(LOGIN, data=data, headers={KEY: "new"})
    assert answer.status_code == 302
    assert "set-cookie" not in answer.headers
    assert did(project.client, WHO, X_Session_Key=answer.headers[KEY]) == ["ann"]
    assert answer.headers["X-Session-Expires-In"] == "1800"


def test_the_session_resource_asks_allauths_backend(project: Project) -> None:
    theirs = "allauth.account.auth_backends.AuthenticationBackend"
    with project.settings(AUTHENTICATION_BACKENDS=[theirs]):
        key = project.key("ann")
        assert did(project.client, ["get", "_auth_user_backend"], WHO, X_Session_Key=key) == [
            theirs,
            "ann",
        ]


# allauth.usersessions


def test_a_users_cookie_sessions_are_listed_and_ended(project: Project, ann: httpx.Client) -> None:
    with project.browser("ann") as other:
        assert project.listed() == [ann.cookies["sessionid"], other.cookies["sessionid"]]
        page = ann.get(SESSIONS).text
        assert page.count("127.0.0.1") == 2
        assert page.count("Current") == 1
        ann.post(SESSIONS, headers=csrf(ann))
        assert did(other, WHO, path="/admin/sync/") == [""]
        assert did(ann, WHO, path="/admin/sync/") == ["ann"]
        assert project.listed() == [ann.cookies["sessionid"]]


def test_a_session_that_we_ended_is_not_listed(project: Project, ann: httpx.Client) -> None:
    with project.browser("ann") as other:
        did(other, ["end_elsewhere"], path="/admin/sync/")
        assert ann.get(SESSIONS).text.count("127.0.0.1") == 1
    assert project.listed() == [ann.cookies["sessionid"]]


def test_a_session_that_was_rotated_is_purged_from_the_list_and_lives_on(
    project: Project, ann: httpx.Client
) -> None:
    assert did(ann, ["cycle_key"], path="/admin/sync/") == [None]
    assert ann.get(SESSIONS).text.count("127.0.0.1") == 0
    assert did(ann, WHO, path="/admin/sync/") == ["ann"]


def test_header_sessions_are_not_in_allauths_list(project: Project, ann: httpx.Client) -> None:
    key = project.key("ann")
    assert did(project.client, WHO, X_Session_Key=key) == ["ann"]
    assert project.listed() == [ann.cookies["sessionid"]]

    # One that signed in through allauth is, until the list is shown.
    data = {"login": "ann", "password": password("ann")}
    by_form = project.client.post(LOGIN, data=data, headers={KEY: "new"}).headers[KEY]
    assert project.listed() == [ann.cookies["sessionid"], by_form]
    assert ann.get(SESSIONS).text.count("127.0.0.1") == 1
    assert project.listed() == [ann.cookies["sessionid"]]

    ann.post(SESSIONS, headers=csrf(ann))
    for each in (key, by_form):
        assert did(project.client, WHO, X_Session_Key=each) == ["ann"]


def test_a_changed_password_ends_header_sessions_too(project: Project) -> None:
    key = project.key("cy")
    with project.browser("cy") as browser:
        assert did(browser, ["change_password", "another"], path="/admin/sync/") == [None]
        assert did(project.client, WHO, X_Session_Key=key) == [""]
        assert did(project.client, WHO, X_Session_Key=key) == 401
        did(browser, ["change_password", password("cy")], path="/admin/sync/")


@pytest.fixture(
    params=[
        "allauth.usersessions.middleware.UserSessionsMiddleware",
        "tests.neighbours.recipes.CookieSessionsOnly",
    ]
)
def tracking(
    request: pytest.FixtureRequest, valkey: Valkey, database: Path
) -> Iterator[tuple[str, Project]]:
    env = SETTINGS | {
        "REDIS_URL": valkey.url,
        "TEST_DB": str(database),
        "TRACKING": request.param,
    }
    with Server("gunicorn", threads=8, **env) as server:
        for project in started(server, valkey, database):
            yield request.param.split(".")[0], project


def test_tracking_keeps_keys_of_header_sessions_unless_it_is_told_not_to(
    tracking: tuple[str, Project],
) -> None:
    whose, project = tracking
    with project.browser("ann") as browser:
        cookie = browser.cookies["sessionid"]
        key = project.key("ann")
        assert did(browser, WHO, path="/admin/sync/") == ["ann"]
        assert did(project.client, WHO, X_Session_Key=key) == ["ann"]
        assert project.listed() == ([cookie, key] if whose == "allauth" else [cookie])


# allauth.headless


def test_an_app_signs_in_with_a_token_that_is_no_key_of_ours(project: Project) -> None:
    token = project.token("ann")
    answer = project.client.get(f"{APP}/session", headers={TOKEN: token})
    assert answer.json()["data"]["user"]["username"] == "ann"
    assert KEY not in answer.headers
    assert did(project.client, WHO, X_Session_Key=token) == 401
    assert did(project.client, WHO, X_Session_Token=token) == [""], "our views do not look at it"
    # It is a cookie session, made without a cookie.
    cookie = {"Cookie": f"sessionid={token}"}
    assert did(project.client, WHO, path="/admin/sync/", **cookie) == ["ann"]

    answer = project.client.delete(f"{APP}/session", headers={TOKEN: token})
    assert answer.status_code == 401, "that is how allauth says signed out"
    answer = project.client.get(f"{APP}/session", headers={TOKEN: token})
    assert answer.status_code == 410
    assert did(project.client, WHO, path="/admin/sync/", **cookie) == [""]


def test_a_key_of_ours_is_no_token(project: Project) -> None:
    key = project.key("ann")
    answer = project.client.get(f"{APP}/session", headers={TOKEN: key})
    assert answer.status_code == 401
    assert not answer.json()["meta"]["is_authenticated"]
    assert did(project.client, WHO, X_Session_Key=key) == ["ann"]


@pytest.mark.parametrize("paths", [["/admin/"], ["/admin/", "/_allauth/"], ["/"]])
def test_key_and_token_in_one_request_do_not_meet(project: Project, paths: list[str]) -> None:
    with project.settings(HEADER_SESSIONS_COOKIE_PATHS=paths):
        key, token = project.key("ann"), project.token("bob")
        both = {KEY: key, TOKEN: token}
        answer = project.client.get(f"{APP}/session", headers=both)
        assert answer.json()["data"]["user"]["username"] == "bob"
        assert KEY not in answer.headers
        assert answer.headers["X-Session-Expires-In"] == "1800", "ours was opened, and slid"
        assert did(project.client, WHO, X_Session_Key=key, X_Session_Token=token) == ["ann"]

        # Signing in by the one, and out, leaves the other alone.
        credentials = {"username": "cy", "password": password("cy")}
        answer = project.client.post(f"{APP}/login", json=credentials, headers={KEY: key})
        assert answer.json()["data"]["user"]["username"] == "cy"
        assert KEY not in answer.headers
        assert did(project.client, WHO, X_Session_Key=key) == ["ann"]
        project.client.delete(f"{APP}/session", headers=both)
        assert did(project.client, WHO, X_Session_Key=key) == ["ann"]


def test_our_header_by_the_name_of_theirs_refuses_their_apps(project: Project) -> None:
    token = project.token("ann")
    with project.settings(HEADER_SESSIONS_HEADER=TOKEN):
        answer = project.client.get(f"{APP}/session", headers={TOKEN: token})
    assert answer.status_code == 401
    assert answer.json()["type"] == "urn:django-header-sessions:unknown"


def test_allauths_browser_client_lives_on_the_cookie(project: Project) -> None:
    browser_api = "/_allauth/browser/v1"
    with httpx.Client(base_url=project.client.base_url) as browser:
        assert browser.get(f"{browser_api}/config").status_code == 200
        credentials = {"username": "ann", "password": password("ann")}
        address = f"{browser_api}/auth/login"
        assert browser.post(address, json=credentials).status_code == 403, "without its token"
        answer = browser.post(address, json=credentials, headers=csrf(browser))
        assert answer.status_code == 200
        assert KEY not in answer.headers
        assert did(browser, WHO, path="/admin/sync/") == ["ann"]


def test_allauths_list_of_sessions_has_the_apps(project: Project) -> None:
    token = project.token("ann")
    answer = project.client.get(f"{APP}/sessions", headers={TOKEN: token})
    (found,) = answer.json()["data"]
    assert found["is_current"]
    assert project.listed() == [token]


def test_no_key_and_no_token_is_in_the_log(project: Project) -> None:
    secrets = [project.key("ann"), project.token("ann")]
    with project.browser("ann") as browser:
        secrets.append(browser.cookies["sessionid"])
        browser.get(SESSIONS)
    log = project.server.output()
    assert [secret for secret in secrets if secret in log] == []
