"""Signing in and out, and all of Django that builds on sessions, over both transports."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.request
from urllib.parse import urlencode

import pytest

from tests.processes import Server

from .site import EXPIRES_IN, KEY, Answer, Site, assert_problem

AUTH = {"_auth_user_id", "_auth_user_backend", "_auth_user_hash"}


def test_signing_in_without_a_session_announces_one(site: Site) -> None:
    answer = site.do(["login", "ann"])
    assert answer.did == [None]
    assert site.do(["user"], key=answer.key).did == ["ann"]
    assert site.fields(answer.key).keys() == AUTH


def test_signing_in_rotates_an_anonymous_session_and_keeps_its_data(site: Site) -> None:
    old = site.start(["set", "basket", [1]])
    answer = site.do(["login", "ann"], key=old)
    assert answer.key[:15] == old[:15]
    assert site.do(["user"], ["get", "basket"], key=answer.key).did == ["ann", [1]]
    assert_problem(site.do(key=old), "superseded", 409, executed=False)


def test_signing_in_again_rotates_and_keeps_the_session(site: Site) -> None:
    old = site.do(["login", "ann"], ["set", "n", 1]).key
    key = site.do(["login", "ann"], key=old).key
    assert key[:15] == old[:15]
    assert site.do(["user"], ["get", "n"], key=key).did == ["ann", 1]
    assert_problem(site.do(key=old), "superseded", 409, executed=False)


def test_signing_in_as_another_starts_afresh_and_ends_what_was(site: Site) -> None:
    anns = site.do(["login", "ann"], ["set", "secret", "ann's"]).key
    bobs = site.do(["login", "bob"], key=anns).key
    assert bobs[:15] != anns[:15]
    assert site.do(["user"], ["get", "secret"], key=bobs).did == ["bob", None]
    assert_problem(site.do(key=anns), "unknown", 401, executed=False)


def test_whoever_becomes_another_user_by_hand_gets_a_new_key_too(site: Site) -> None:
    anns = site.do(["login", "ann"]).key
    bobs = site.do(["login", "bob"]).key
    fields = site.fields(bobs)
    answer = site.do(*(["set", name, fields[name]] for name in AUTH), key=anns)
    assert answer.key[:15] == anns[:15]
    assert site.do(["user"], key=answer.key).did == ["bob"]
    assert_problem(site.do(key=anns), "superseded", 409, executed=False)


def test_what_says_who_is_signed_in_travels_together(site: Site) -> None:
    key = site.do(["login", "ann"]).key
    before = site.fields(key)
    elsewhere = ["write_elsewhere", "_auth_user_backend", "another"]
    site.do(["fields"], elsewhere, ["set", "_auth_user_hash", "mine"], key=key)
    assert site.fields(key) == before | {"_auth_user_hash": "mine"}


def test_signing_out_ends_the_session_and_has_the_client_forget(site: Site) -> None:
    key = site.do(["login", "ann"], ["set", "n", 1]).key
    answer = site.do(["logout"], ["fields"], key=key)
    assert answer.did == [None, {}]
    assert answer.announced == ""
    assert_problem(site.do(key=key), "unknown", 401, executed=False)


def test_signing_in_restarts_the_absolute_timeout(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_ABSOLUTE_TIMEOUT=100):
        key = site.start()
    with site.settings(HEADER_SESSIONS_ABSOLUTE_TIMEOUT=500):
        assert int(site.do(["get", "here"], key=key).headers[EXPIRES_IN]) <= 100
        answer = site.do(["login", "ann"], key=key)
        assert answer.headers[EXPIRES_IN] in ("500", "499")


def test_a_changed_password_keeps_the_session_that_changed_it_and_no_other(site: Site) -> None:
    mine, other = site.do(["login", "cy"]).key, site.do(["login", "cy"]).key
    answer = site.do(["set", "n", 1], ["change_password", "new"], key=mine)
    assert answer.key[:15] == mine[:15]
    assert site.do(["user"], ["get", "n"], key=answer.key).did == ["cy", 1]
    assert_problem(site.do(key=mine), "superseded", 409, executed=False)
    # Django finds that the hash is not of this password any more, and ends the session.
    assert site.do(["user"], key=other).did == [""]


def test_a_changed_password_keeps_the_cookie_session_that_changed_it(site: Site) -> None:
    before = site.do(["login", "cy"], path=site.cookie_view).cookies["sessionid"].value
    answer = site.do(["change_password", "new"], path=site.cookie_view, cookie=before)
    after = answer.cookies["sessionid"].value
    assert after != before
    assert site.do(["user"], path=site.cookie_view, cookie=after).did == ["cy"]
    assert site.do(["user"], path=site.cookie_view, cookie=before).did == [""]


def test_messages_are_kept_in_the_session_until_they_are_read(site: Site) -> None:
    key = site.do(["say", "saved"]).key
    site.do(["say", "and saved again"], key=key)
    assert site.do(["said"], key=key).did == [["saved", "and saved again"]]
    assert site.do(["said"], key=key).did == [[]]

    first = site.do(["say", "saved"], path=site.cookie_view)
    cookie = first.cookies["sessionid"].value
    assert site.do(["said"], path=site.cookie_view, cookie=cookie).did == [["saved"]]
    assert site.do(["said"], path=site.cookie_view, cookie=cookie).did == [[]]


def test_a_session_signed_with_an_old_secret_key_is_signed_anew_and_rotated(site: Site) -> None:
    key = site.do(["login", "ann"], ["set", "n", 1]).key
    cookie = site.do(["login", "ann"], path=site.cookie_view).cookies["sessionid"].value
    settings = {"SECRET_KEY": "a new one", "SECRET_KEY_FALLBACKS": ["only for tests"]}
    with site.settings(**settings):
        answer = site.do(["user"], ["get", "n"], key=key)
        assert answer.did == ["ann", 1]
        assert answer.key[:15] == key[:15]
        assert site.do(["user"], key=answer.key).announced is None
        assert_problem(site.do(key=key), "superseded", 409, executed=False)

        answer_by_cookie = site.do(["user"], path=site.cookie_view, cookie=cookie)
        assert answer_by_cookie.did == ["ann"]
        assert answer_by_cookie.cookies["sessionid"].value != cookie
    with site.settings(SECRET_KEY="a new one"):
        assert site.do(["user"], key=answer.key).did == ["ann"]


def test_a_5xx_after_the_rotation_for_an_old_secret_key_announces_it(site: Site) -> None:
    key = site.do(["login", "ann"]).key
    with site.settings(SECRET_KEY="a new one", SECRET_KEY_FALLBACKS=["only for tests"]):
        answer = site.do(["user"], ["fail"], key=key)
        assert answer.status == 500
        assert site.do(["user"], key=answer.key).did == ["ann"]


def test_a_user_may_have_so_many_sessions_and_the_oldest_go_first(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_MAX_PER_USER=None):
        for key in _sessions_of_bob(site, 2):
            site.do(["logout"], key=key)
    with site.settings(HEADER_SESSIONS_MAX_PER_USER=2):
        first, second, third = _sessions_of_bob(site, 3)
        assert_problem(site.do(key=first), "unknown", 401, executed=False)
        assert site.do(["user"], key=second).did == ["bob"]
        assert site.do(["user"], key=third).did == ["bob"]

        others = site.do(["login", "ann"]).key
        by_cookie = site.do(["login", "bob"], path=site.cookie_view)
        assert site.do(["user"], key=second).did == ["bob"], "cookie sessions do not count"

        anonymous = site.start()
        fourth = site.do(["login", "bob"], key=anonymous).key
        assert_problem(site.do(key=second), "unknown", 401, executed=False)
        for key, name in ((third, "bob"), (fourth, "bob"), (others, "ann")):
            assert site.do(["user"], key=key).did == [name]
        cookie = by_cookie.cookies["sessionid"].value
        assert site.do(["user"], path=site.cookie_view, cookie=cookie).did == ["bob"]


def _sessions_of_bob(site: Site, many: int) -> list[str]:
    return [site.do(["login", "bob"]).key for _ in range(many)]


# By cookie.


def test_signing_in_by_cookie(site: Site) -> None:
    before = site.start_by_cookie(["set", "basket", [1]])
    answer = site.do(["login", "ann"], path=site.cookie_view, cookie=before)
    after = answer.cookies["sessionid"].value
    assert after != before
    assert "csrftoken" in answer.cookies, "as in Django"
    assert answer.announced is None

    def by(cookie: str) -> Answer:
        return site.do(["user"], ["get", "basket"], path=site.cookie_view, cookie=cookie)

    assert by(after).did == ["ann", [1]]
    assert by(before).did == ["", None]

    gone = site.do(["logout"], path=site.cookie_view, cookie=after)
    assert gone.cookies["sessionid"].value == ""
    assert by(after).did == ["", None]


@pytest.mark.parametrize("name", ["gunicorn", "uvicorn"])
def test_the_admin_works_by_cookie_as_ever(name: str, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(name)
    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
    )
    site = f"http://127.0.0.1:{server.port}"

    def page(path: str, **form: str) -> str:
        data = urlencode(form).encode() if form else None
        with browser.open(site + path, data) as response:
            assert KEY not in response.headers
            text: str = response.read().decode()
            return text

    def token(text: str) -> str:
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', text)
        assert found
        return found[1]

    login = page("/admin/")
    assert 'name="password"' in login
    inside = page(
        "/admin/login/?next=/admin/",
        csrfmiddlewaretoken=token(login),
        username="root",
        password="root's password",
    )
    assert "Site administration" in inside
    cookie = next(cookie.value for cookie in jar if cookie.name == "sessionid")
    assert_problem(Site(server).do(key=cookie), "unknown", 401, executed=False)

    add = page("/admin/auth/group/add/")
    saved = page("/admin/auth/group/add/", csrfmiddlewaretoken=token(add), name=f"group of {name}")
    assert "was added successfully" in saved, "a message, kept in the session"

    page("/admin/logout/", csrfmiddlewaretoken=token(saved))
    assert 'name="password"' in page("/admin/")
    assert "sessionid" not in {cookie.name for cookie in jar}
