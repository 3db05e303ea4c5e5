"""What the client is told: every row of the table of answers, over real HTTP."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from django_header_sessions import keys
from tests.processes import Valkey

from .site import EXPIRES_IN, KEY, Action, Site, assert_problem, commands, stored_under

RAN = ["note", "the view ran"]


@pytest.fixture
def site(site: Site) -> Site:
    site.noted()
    return site


@pytest.mark.parametrize("value", ["", "old", "NEW", "a" * 39, "a" * 41, "A" * 40, "ä" * 40])
def test_a_malformed_key_is_a_400_and_reaches_neither_store_nor_view(
    site: Site, valkey: Valkey, value: str
) -> None:
    with commands(valkey) as seen:
        answer = site.do(RAN, key=value.encode().decode("latin-1"))
    assert_problem(answer, "malformed", 400, executed=False)
    assert answer.announced is None
    assert seen == []
    assert site.noted() == []


def test_a_key_that_was_never_issued_is_a_401(site: Site) -> None:
    answer = site.do(RAN, key=keys.make())
    assert_problem(answer, "unknown", 401, executed=False)
    assert answer.announced is None
    assert EXPIRES_IN not in answer.headers
    assert site.noted() == []


def test_a_right_id_with_a_wrong_secret_is_a_401_and_does_no_harm(site: Site) -> None:
    key = site.start()
    assert_problem(site.do(RAN, key=keys.make(key[:15])), "unknown", 401, executed=False)
    assert site.noted() == []
    assert site.fields(key) == {"here": True}


def test_the_key_of_a_session_that_ended_a_moment_ago_is_a_401(site: Site) -> None:
    key = site.start()
    assert site.do(["flush"], key=key).announced == ""
    assert_problem(site.do(RAN, key=key), "unknown", 401, executed=False)
    assert site.noted() == []


def test_the_key_of_a_session_that_expired_is_a_401(site: Site, valkey: Valkey) -> None:
    key = site.start()
    stored = stored_under(valkey, key)
    valkey.client.pexpire(stored, 1)
    give_up = time.monotonic() + 10
    while valkey.client.exists(stored) and time.monotonic() < give_up:
        time.sleep(0.001)
    assert_problem(site.do(RAN, key=key), "unknown", 401, executed=False)
    assert site.noted() == []


def test_the_status_for_an_unknown_key_is_a_setting(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_UNKNOWN_STATUS=404):
        answer = site.do(RAN, key=keys.make())
    assert_problem(answer, "unknown", 404, executed=False)
    assert site.noted() == []


def test_a_key_that_was_good_until_the_session_was_rotated_is_a_409(site: Site) -> None:
    old = site.start()
    new = site.do(["cycle_key"], key=old).key
    assert_problem(site.do(RAN, key=old), "superseded", 409, executed=False)
    assert site.noted() == []
    assert site.fields(new) == {"here": True}


def test_a_session_that_ends_while_the_view_runs_is_a_401_that_says_it_was_executed(
    site: Site,
) -> None:
    key = site.start()
    answer = site.do(["end_elsewhere"], ["set", "n", 1], RAN, key=key)
    assert_problem(answer, "ended", 401, executed=True)
    assert answer.announced is None
    assert site.noted() == ["the view ran"]
    assert_problem(site.do(key=key), "unknown", 401, executed=False)


def test_a_session_that_is_rotated_while_the_view_runs_is_a_409_that_says_it_was_executed(
    site: Site,
) -> None:
    key = site.start()
    answer = site.do(["rotate_elsewhere"], ["set", "n", 1], RAN, key=key)
    assert_problem(answer, "superseded", 409, executed=True)
    assert answer.announced is None
    assert site.noted() == ["the view ran"]


def test_data_over_the_limit_is_a_413_and_the_stored_session_is_as_it_was(site: Site) -> None:
    key = site.start(["set", "n", 1])
    answer = site.do(["set", "n", 2], ["set", "large", "x" * 1000], key=key)
    assert answer.status == 200
    with site.settings(HEADER_SESSIONS_MAX_BYTES=1500):
        answer = site.do(["set", "n", 3], ["set", "larger", "x" * 1000], RAN, key=key)
        assert_problem(answer, "too-large", 413, executed=True)
        assert answer.announced is None
    assert site.noted() == ["the view ran"]
    assert site.fields(key) == {"n": 2, "large": "x" * 1000}


def test_a_first_session_over_the_limit_is_a_413_and_announces_nothing(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_MAX_BYTES=1000):
        answer = site.do(["set", "large", "x" * 1000])
    assert_problem(answer, "too-large", 413, executed=True)
    assert answer.announced is None


def test_a_store_that_is_down_is_a_503_before_the_view_runs(
    troubled: Site, trouble: Valkey
) -> None:
    key = troubled.start()
    trouble.kill()
    assert_problem(troubled.do(RAN, key=key), "unavailable", 503, executed=False)
    assert troubled.noted() == []


def test_a_store_that_hangs_is_a_503_and_the_key_stays_good(
    troubled: Site, trouble: Valkey
) -> None:
    key = troubled.start()
    trouble.signal(signal.SIGSTOP)
    answer = troubled.do(RAN, key=key)
    trouble.signal(signal.SIGCONT)
    assert_problem(answer, "unavailable", 503, executed=False)
    assert troubled.noted() == []
    assert troubled.fields(key) == {"here": True}


def test_a_store_that_is_read_only_is_a_503_and_the_key_stays_good(
    troubled: Site, trouble: Valkey
) -> None:
    key = troubled.start()
    trouble.client.replicaof("127.0.0.1", "1")
    known, unknown = troubled.do(RAN, key=key), troubled.do(RAN, key=keys.make())
    trouble.client.replicaof("no", "one")
    assert_problem(known, "unavailable", 503, executed=False)
    # It may be a replica that lags, so it cannot say that there is none.
    assert_problem(unknown, "unavailable", 503, executed=False)
    assert troubled.noted() == []
    assert troubled.fields(key) == {"here": True}


def test_a_store_that_fails_while_the_view_runs_is_a_503_that_says_it_was_executed(
    troubled: Site, trouble: Valkey
) -> None:
    key = troubled.start()
    answer = troubled.do(["make_read_only"], ["set", "n", 1], RAN, key=key)
    trouble.client.replicaof("no", "one")
    assert_problem(answer, "unavailable", 503, executed=True)
    assert answer.announced is None
    assert troubled.noted() == ["the view ran"]
    assert troubled.fields(key) == {"here": True}


def test_a_store_that_is_full_is_a_503_for_those_who_write_alone(
    troubled: Site, trouble: Valkey
) -> None:
    key = troubled.start()
    trouble.client.config_set("maxmemory", 1)
    read, written = troubled.do(["get", "here"], key=key), troubled.do(["set", "n", 1], key=key)
    assert read.did == [True]
    assert_problem(written, "unavailable", 503, executed=True)


def test_header_sessions_over_plain_http_are_a_403_where_they_are_to_be_secure(
    site: Site, valkey: Valkey
) -> None:
    key = site.start()
    with site.settings(HEADER_SESSIONS_SECURE=True):
        with commands(valkey) as seen:
            carried, said_new = site.do(RAN, key=key), site.do(RAN, key="new")
        assert_problem(carried, "insecure", 403, executed=False)
        assert_problem(said_new, "insecure", 403, executed=False)
        assert seen == []
        assert site.noted() == []

        with commands(valkey) as seen:
            untouched, wrote = site.do(RAN), site.do(RAN, ["set", "n", 1])
        assert untouched.did == [None]
        assert_problem(wrote, "insecure", 403, executed=True)
        assert wrote.announced is None
        assert seen == []

        assert site.start_by_cookie(), "cookie sessions have SESSION_COOKIE_SECURE for that"
    assert site.fields(key) == {"here": True}


def test_where_unknown_keys_are_renewed_the_view_runs_with_an_empty_session(site: Site) -> None:
    unknown, ended = keys.make(), site.start(["set", "n", 1])
    site.do(["flush"], key=ended)
    with site.settings(HEADER_SESSIONS_UNKNOWN="renew"):
        read = site.do(["fields"], key=unknown)
        assert read.did == [{}]
        assert read.announced == "", "the client is told to forget the key"

        wrote = site.do(["fields"], ["set", "n", 2], key=ended)
        assert wrote.did == [{}, None]
        assert wrote.key[:15] != ended[:15], "a client's key is never adopted"
        assert site.fields(wrote.key) == {"n": 2}

        assert_problem(site.do(key="x"), "malformed", 400, executed=False)


def test_where_unknown_keys_are_renewed_a_superseded_one_is_still_a_409(site: Site) -> None:
    old = site.start()
    site.do(["cycle_key"], key=old)
    with site.settings(HEADER_SESSIONS_UNKNOWN="renew"):
        assert_problem(site.do(key=old), "superseded", 409, executed=False)


# On a cookie path.


def test_an_unknown_cookie_is_a_silent_new_session(site: Site) -> None:
    answer = site.do(["fields"], path=site.cookie_view, cookie=keys.make())
    assert answer.did == [{}]
    assert answer.cookies["sessionid"].value == "", "as in Django, the cookie is deleted"


def test_an_unknown_cookie_that_nobody_looks_at_is_left_alone(site: Site) -> None:
    """A style sheet that comes late must not sign a browser out that has signed in meanwhile."""
    answer = site.do(path=site.cookie_view, cookie=keys.make())
    assert answer.did == []
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.vary


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (["make_read_only"], 503),
        (["set", "n", "x" * 300], 413),
        (["fail"], 500),
        (["answer", 502], 502),
        (["break_codec"], 500),
    ],
)
def test_a_browser_is_told_of_a_rotation_whatever_failed_after_it(
    troubled: Site, trouble: Valkey, last: Action, status: int
) -> None:
    old = troubled.start_by_cookie()
    with troubled.settings(HEADER_SESSIONS_MAX_BYTES=200):
        answer = troubled.do(
            ["cycle_key"], ["set", "n", 1], last, path=troubled.cookie_view, cookie=old
        )
    trouble.client.replicaof("no", "one")
    assert answer.status == status
    cookie = answer.cookies["sessionid"]
    assert cookie.value != old
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/", True, "Lax")
    assert cookie["max-age"] == "1209600"
    again = troubled.do(["fields"], path=troubled.cookie_view, cookie=cookie.value)
    assert again.did == [{"here": True}]
    assert "Set-Cookie" not in again.headers


@pytest.mark.parametrize("path", ["/sync/", "/async/", "/admin/sync/", "/admin/async/"])
def test_a_view_may_remove_the_session_from_its_request(site: Site, path: str) -> None:
    answer = site.do(["set", "n", 1], ["remove_session"], path=path)
    assert answer.did == [None, None]
    assert "Set-Cookie" not in answer.headers
    assert answer.announced is None
    assert site.do(["remove_session"], ["fail"], path=path).status == 500


def test_the_log_tells_why_a_session_could_not_be_had(troubled: Site, trouble: Valkey) -> None:
    key = troubled.start()
    trouble.client.replicaof("127.0.0.1", "1")
    before = len(troubled.server.output())
    assert troubled.do(key=key).status == 503
    trouble.client.replicaof("no", "one")
    logged = troubled.server.output()[before:]
    assert logged.count("Service Unavailable: /") == 1
    assert "read only replica" in logged


@pytest.mark.parametrize("harm", ["before", "while"])
def test_an_outage_on_a_cookie_path_is_a_503_that_leaves_the_cookie_alone(
    troubled: Site, trouble: Valkey, harm: str
) -> None:
    cookie = troubled.start_by_cookie()
    actions: list[Action] = [["set", "n", 1]]
    if harm == "before":
        trouble.client.replicaof("127.0.0.1", "1")
    else:
        actions.insert(0, ["make_read_only"])

    where: Any = {"path": troubled.cookie_view, "cookie": cookie}
    problem = troubled.do(*actions, headers=_accepts("json"), **where)
    if harm == "while":
        trouble.client.replicaof("no", "one")
    page = troubled.do(*actions, headers=_accepts("html"), **where)
    trouble.client.replicaof("no", "one")

    assert_problem(problem, "unavailable", 503, executed=harm == "while")
    assert {"Accept", "Cookie", KEY} <= problem.vary
    assert page.status == 503
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"Sessions cannot be reached at the moment." in page.body
    assert "no-store" in page.headers["Cache-Control"]
    assert "Retry-After" in page.headers
    assert page.headers.get("WWW-Authenticate") is None
    assert {"Accept", "Cookie", KEY} <= page.vary
    assert page.cookies == {}
    here = troubled.do(["fields"], **where)
    assert here.did == [{"here": True}]


def test_too_much_data_on_a_cookie_path_is_a_page_for_a_browser(site: Site) -> None:
    cookie = site.start_by_cookie()
    with site.settings(HEADER_SESSIONS_MAX_BYTES=1000):
        answer = site.do(
            ["set", "large", "x" * 1000],
            path=site.cookie_view,
            cookie=cookie,
            headers=_accepts("html"),
        )
    assert answer.status == 413
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.cookies == {}
    here = site.do(["fields"], path=site.cookie_view, cookie=cookie)
    assert here.did == [{"here": True}]


def test_a_cookie_session_that_ends_while_the_view_runs_is_djangos_400(site: Site) -> None:
    cookie = site.start_by_cookie()
    actions: list[Action] = [["end_elsewhere"], ["set", "n", 1]]
    answer = site.do(*actions, path=site.cookie_view, cookie=cookie)
    assert answer.status == 400
    assert "problem" not in answer.headers["Content-Type"]


def test_a_header_on_a_cookie_path_is_answered_as_on_any_other(site: Site) -> None:
    headers = _accepts("html")
    malformed = site.do(path=site.cookie_view, key="x", headers=headers)
    assert_problem(malformed, "malformed", 400, executed=False)
    unknown = site.do(path=site.cookie_view, key=keys.make(), headers=headers)
    assert_problem(unknown, "unknown", 401, executed=False)


def _accepts(what: str) -> dict[str, str]:
    return {
        "Accept": "text/html,application/xhtml+xml,*/*;q=0.8"
        if what == "html"
        else "application/problem+json, application/json"
    }
