"""Header or cookie: decided from the request alone, never mixed, and told as DESIGN has it."""

from __future__ import annotations

import pytest

from django_header_sessions import keys
from tests.processes import Valkey

from .site import EXPIRES_IN, KEY, Site, assert_problem, commands

WRITE = ["set", "n", 1]


def test_a_first_write_announces_a_key_that_opens_the_session(site: Site) -> None:
    answer = site.do(WRITE)
    assert answer.did == [None]
    assert keys.parse(answer.key)
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert KEY in answer.vary
    assert answer.headers[EXPIRES_IN] == "1800"
    assert answer.cookies == {}
    assert site.fields(answer.key) == {"n": 1}


def test_a_key_is_announced_once(site: Site) -> None:
    key = site.start(WRITE)
    for answer in (site.do(["get", "n"], key=key), site.do(["set", "n", 2], key=key)):
        assert answer.announced is None
        assert "Cache-Control" not in answer.headers
        assert KEY in answer.vary
        assert answer.headers[EXPIRES_IN] in ("1800", "1799")


@pytest.mark.parametrize("key", [None, "new"])
def test_a_request_that_writes_nothing_gets_no_session(
    site: Site, valkey: Valkey, key: str | None
) -> None:
    with commands(valkey) as seen:
        answer = site.do(["get", "n"], key=key)
    assert answer.did == [None]
    assert answer.announced is None
    assert EXPIRES_IN not in answer.headers
    assert KEY in answer.vary
    assert seen == []


def test_new_makes_a_session_when_the_view_writes(site: Site) -> None:
    answer = site.do(WRITE, key="new")
    assert site.fields(answer.key) == {"n": 1}


def test_the_name_of_the_header_is_read_in_any_case(site: Site) -> None:
    key = site.start(WRITE)
    for name in ("x-session-key", "X-SESSION-KEY"):
        assert site.do(["get", "n"], headers={name: key}).did == [1]


def test_the_name_of_the_header_is_a_setting(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_HEADER="X-Sid"):
        answer = site.do(WRITE)
        assert answer.announced is None
        key = answer.headers["X-Sid"]
        assert "X-Sid" in answer.vary
        assert site.do(["get", "n"], headers={"X-Sid": key}).did == [1]
        assert site.do(["get", "n"], key=key).did == [None], "a header like any other now"


def test_a_header_path_neither_reads_nor_sets_a_cookie(site: Site, valkey: Valkey) -> None:
    cookie = site.start_by_cookie(WRITE)
    with commands(valkey) as seen:
        read = site.do(["get", "n"], cookie=cookie)
    assert read.did == [None]
    assert seen == []

    wrote = site.do(["set", "n", 2], cookie=cookie)
    assert wrote.cookies == {}
    assert site.fields(wrote.key) == {"n": 2}
    untouched = site.do(["get", "n"], path=site.cookie_view, cookie=cookie)
    assert untouched.did == [1]


def test_a_cookie_path_sets_djangos_cookie_and_announces_nothing(site: Site) -> None:
    answer = site.do(WRITE, path=site.cookie_view)
    morsel = answer.cookies["sessionid"]
    assert keys.parse(morsel.value)
    assert morsel["httponly"]
    assert morsel["samesite"] == "Lax"
    assert morsel["max-age"] == "1209600"
    assert morsel["path"] == "/"
    assert answer.announced is None
    assert EXPIRES_IN not in answer.headers
    assert {"Cookie", KEY} <= answer.vary
    assert site.do(["get", "n"], path=site.cookie_view, cookie=morsel.value).did == [1]


def test_a_cookie_path_deletes_the_cookie_of_a_session_that_is_flushed(site: Site) -> None:
    cookie = site.start_by_cookie(WRITE)
    answer = site.do(["flush"], path=site.cookie_view, cookie=cookie)
    assert answer.cookies["sessionid"].value == ""
    assert answer.announced is None
    assert site.do(["get", "n"], path=site.cookie_view, cookie=cookie).did == [None]


def test_the_cookies_own_settings_apply(site: Site) -> None:
    overrides = {
        "SESSION_COOKIE_NAME": "mine",
        "SESSION_COOKIE_AGE": 100,
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_SAMESITE": "Strict",
        "SESSION_COOKIE_PATH": "/admin/",
    }
    with site.settings(**overrides):
        answer = site.do(WRITE, path=site.cookie_view)
        morsel = answer.cookies["mine"]
        assert morsel["max-age"] == "100"
        assert morsel["secure"]
        assert morsel["samesite"] == "Strict"
        assert morsel["path"] == "/admin/"
        headers = {"Cookie": f"mine={morsel.value}"}
        assert site.do(["get", "n"], path=site.cookie_view, headers=headers).did == [1]


def test_a_header_wins_on_a_cookie_path_and_the_cookie_is_left_alone(site: Site) -> None:
    key, cookie = site.start(["set", "n", "header's"]), site.start_by_cookie(WRITE)
    answer = site.do(["get", "n"], ["set", "m", 1], path=site.cookie_view, key=key, cookie=cookie)
    assert answer.did == ["header's", None]
    assert answer.cookies == {}
    assert site.fields(key) == {"n": "header's", "m": 1}


def test_new_on_a_cookie_path_makes_a_header_session(site: Site) -> None:
    cookie = site.start_by_cookie(WRITE)
    answer = site.do(["get", "n"], ["set", "m", 1], path=site.cookie_view, key="new", cookie=cookie)
    assert answer.did == [None, None]
    assert answer.cookies == {}
    assert site.fields(answer.key) == {"m": 1}


def test_a_header_that_opens_nothing_never_falls_back_to_the_cookie(site: Site) -> None:
    cookie = site.start_by_cookie(WRITE)
    for key, name, status in ((keys.make(), "unknown", 401), ("", "malformed", 400)):
        answer = site.do(path=site.cookie_view, key=key, cookie=cookie)
        assert_problem(answer, name, status, executed=False)
    with site.settings(HEADER_SESSIONS_UNKNOWN="renew"):
        answer = site.do(["get", "n"], path=site.cookie_view, key=keys.make(), cookie=cookie)
    assert answer.did == [None]
    assert answer.cookies == {}


def test_a_cookie_sessions_key_opens_nothing_in_the_header(site: Site) -> None:
    cookie = site.start_by_cookie(WRITE)
    for path in (site.view, site.cookie_view):
        assert_problem(site.do(path=path, key=cookie), "unknown", 401, executed=False)
    assert site.do(["get", "n"], path=site.cookie_view, cookie=cookie).did == [1]


def test_a_header_sessions_key_opens_nothing_in_the_cookie(site: Site) -> None:
    key = site.start(WRITE)
    answer = site.do(["fields"], ["set", "m", 1], path=site.cookie_view, cookie=key)
    assert answer.did == [{}, None]
    assert answer.cookies["sessionid"].value[:15] != key[:15]
    assert site.fields(key) == {"n": 1}


@pytest.mark.parametrize("paths", [["/"], ["/elsewhere/", "/sync/", "/async/"]])
def test_which_paths_are_cookie_paths_is_a_setting(site: Site, paths: list[str]) -> None:
    with site.settings(HEADER_SESSIONS_COOKIE_PATHS=paths):
        answer = site.do(WRITE)
        assert answer.announced is None
        assert site.do(["get", "n"], cookie=answer.cookies["sessionid"].value).did == [1]
        key = site.do(WRITE, key="new").key
        assert site.fields(key) == {"n": 1}


def test_no_cookie_paths_make_every_path_a_header_path(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_COOKIE_PATHS=[]):
        answer = site.do(WRITE, path=site.cookie_view)
        assert answer.cookies == {}
        assert site.fields(answer.key) == {"n": 1}


def test_the_key_of_a_session_that_this_request_ended_is_to_be_forgotten(site: Site) -> None:
    key = site.start(WRITE)
    answer = site.do(["flush"], key=key)
    assert answer.announced == ""
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert EXPIRES_IN not in answer.headers


def test_a_session_that_is_set_to_be_over_is_ended_by_that_request(site: Site) -> None:
    key = site.start(WRITE)
    assert site.do(["set_expiry", -1], key=key).announced == ""
    assert_problem(site.do(key=key), "unknown", 401, executed=False)


def test_a_session_flushed_and_written_to_again_is_announced_under_a_new_id(site: Site) -> None:
    key = site.start(WRITE)
    answer = site.do(["flush"], ["set", "m", 1], key=key)
    assert answer.key[:15] != key[:15]
    assert site.fields(answer.key) == {"m": 1}
    assert_problem(site.do(key=key), "unknown", 401, executed=False)


def test_a_rotated_key_is_announced_and_the_id_stays(site: Site) -> None:
    old = site.start(WRITE)
    answer = site.do(["cycle_key"], key=old)
    assert answer.key != old
    assert answer.key[:15] == old[:15]
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers[EXPIRES_IN] in ("1800", "1799")
    assert site.fields(answer.key) == {"n": 1}


def test_an_announcement_replaces_the_cache_control_and_adds_to_the_vary_of_a_view(
    site: Site,
) -> None:
    public = ["answer", 200, {"Cache-Control": "public, max-age=3600", "Vary": "Accept-Language"}]
    told = site.do(public, WRITE)
    assert told.headers.get_all("Cache-Control") == ["private, no-store"]
    assert {"Accept-Language", KEY} <= told.vary

    read = site.do(public, ["get", "n"], key=told.key)
    assert read.headers["Cache-Control"] == "public, max-age=3600", "it tells no key"
    assert KEY in read.vary

    for action in (["cycle_key"], ["flush"]):
        told = site.do(public, action, key=told.key)
        assert told.headers.get_all("Cache-Control") == ["private, no-store"]


def test_a_view_cannot_announce_a_key_itself(site: Site) -> None:
    answer = site.do(["answer", 200, {KEY: keys.make()}], WRITE)
    assert answer.headers.get_all(KEY) == [answer.key]
    assert site.fields(answer.key) == {"n": 1}


def test_the_expiry_told_is_the_sooner_of_idle_and_absolute(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_IDLE_TIMEOUT=1000, HEADER_SESSIONS_ABSOLUTE_TIMEOUT=600):
        assert site.do(WRITE).headers[EXPIRES_IN] == "600"
    with site.settings(HEADER_SESSIONS_IDLE_TIMEOUT=1000, HEADER_SESSIONS_ABSOLUTE_TIMEOUT=None):
        answer = site.do(WRITE)
        assert answer.headers[EXPIRES_IN] == "1000"
    with site.settings(HEADER_SESSIONS_IDLE_TIMEOUT=500):
        assert site.do(["get", "n"], key=answer.key).headers[EXPIRES_IN] in ("500", "499")
    assert site.do(["set_expiry", 300], key=answer.key).headers[EXPIRES_IN] in ("300", "299")
    assert site.do(["get", "n"], key=answer.key).headers[EXPIRES_IN] in ("300", "299")


def test_a_view_that_puts_a_cookie_session_in_place_has_it_set_as_a_cookie(site: Site) -> None:
    key = site.start(WRITE)
    answer = site.do(["replace", "cookie"], ["set", "m", 1], key=key)
    assert answer.announced is None, "a cookie session's key never leaves in a header"
    cookie = answer.cookies["sessionid"].value
    assert site.do(["fields"], path=site.cookie_view, cookie=cookie).did == [{"m": 1}]
    assert site.fields(key) == {"n": 1}


@pytest.mark.parametrize("on_cookie_path", [False, True])
def test_a_view_that_puts_a_header_session_in_place_has_it_announced(
    site: Site, on_cookie_path: bool
) -> None:
    path = site.cookie_view if on_cookie_path else site.view
    answer = site.do(["replace", "header"], ["set", "m", 1], path=path)
    assert answer.cookies == {}
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert site.fields(answer.key) == {"m": 1}


def test_a_view_that_puts_an_empty_header_session_in_place_has_the_client_forget(
    site: Site,
) -> None:
    key = site.start(WRITE)
    answer = site.do(["replace", "header"], key=key)
    assert answer.announced == ""
