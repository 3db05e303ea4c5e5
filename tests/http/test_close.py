"""After the view: what is committed, what is announced, and what close answers from the latch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.processes import Valkey

from .site import EXPIRES_IN, KEY, Action, Site, assert_problem, commands


def test_a_view_that_read_alone_stores_nothing(site: Site, valkey: Valkey) -> None:
    key = site.start(["set", "n", [1]])
    with commands(valkey) as seen:
        site.do(["get", "n"], ["fields"], key=key)
    assert seen == ["EVALSHA"]


def test_what_was_changed_in_place_is_stored(site: Site) -> None:
    key = site.start(["set", "n", [1]], ["set", "m", [1]])
    site.do(["append", "n", 2], key=key)
    assert site.fields(key) == {"n": [1, 2], "m": [1]}


def test_what_others_wrote_meanwhile_stays(site: Site) -> None:
    key = site.start(["set", "n", 1], ["set", "m", 1])
    site.do(["fields"], ["write_elsewhere", "m", 2], ["set", "n", 2], key=key)
    assert site.fields(key) == {"n": 2, "m": 2}


def test_an_assigned_field_is_stored_even_if_it_looks_the_same(site: Site) -> None:
    key = site.start(["set", "page", 1])
    site.do(["get", "page"], ["write_elsewhere", "page", 2], ["set", "page", 1], key=key)
    assert site.fields(key) == {"page": 1}


@pytest.mark.parametrize("status", [200, 302, 404, 499])
def test_an_answer_below_500_commits(site: Site, status: int) -> None:
    key = site.start()
    assert site.do(["set", "n", 1], ["answer", status], key=key).status == status
    assert site.fields(key) == {"here": True, "n": 1}


@pytest.mark.parametrize("last", [["answer", 500], ["answer", 503], ["fail"]])
def test_a_5xx_commits_nothing_and_says_how_long_the_session_lives(
    site: Site, last: list[Any]
) -> None:
    key = site.start()
    answer = site.do(["set", "n", 1], last, key=key)
    assert answer.status >= 500
    assert "problem" not in answer.headers["Content-Type"]
    assert answer.announced is None
    assert answer.headers[EXPIRES_IN] in ("1800", "1799")
    assert KEY in answer.vary
    assert site.fields(key) == {"here": True}
    first = site.do(["set", "n", 1], last)
    assert first.announced is None


@pytest.mark.parametrize("last", [["answer", 500], ["fail"], ["break_codec"]])
def test_a_5xx_announces_a_rotated_key_all_the_same(site: Site, last: list[Any]) -> None:
    old = site.start()
    answer = site.do(["set", "n", 1], ["cycle_key"], last, key=old)
    assert answer.status == 500
    assert answer.key[:15] == old[:15]
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert site.fields(answer.key)["here"] is True
    assert_problem(site.do(key=old), "superseded", 409, executed=False)


def test_an_answer_that_announces_a_key_is_not_one_to_compare_with(site: Site) -> None:
    """A 304 would keep the client's copy, and lose the key."""
    validators = {"ETag": '"1"', "Last-Modified": "Thu, 26 Nov 2026 00:00:00 GMT"}
    first = site.do(["set", "n", 1], ["answer", 200, validators])
    for name in validators:
        assert name not in first.headers
    later = site.do(["get", "n"], ["answer", 200, validators], key=first.key)
    for name, value in validators.items():
        assert later.headers[name] == value


def test_a_5xx_has_the_client_forget_a_session_that_was_ended(site: Site) -> None:
    key = site.start()
    assert site.do(["flush"], ["fail"], key=key).announced == ""


def test_a_5xx_announces_a_session_that_was_created_at_once(site: Site) -> None:
    answer = site.do(["increment", "n"], ["fail"])
    assert answer.status == 500
    assert site.fields(answer.key) == {"n": 1}


def test_a_counter_is_raised_at_once_and_stays_raised_when_the_view_fails(site: Site) -> None:
    key = site.start()
    site.do(["increment", "n", 2], ["fail"], key=key)
    assert site.fields(key) == {"here": True, "n": 2}


# The latch: what the engine learned while the view ran, whoever swallowed it.

LEARNED = [
    (["end_elsewhere"], "ended", 401),
    (["rotate_elsewhere"], "superseded", 409),
    (["make_read_only"], "unavailable", 503),
]
learned = pytest.mark.parametrize(
    ("happens", "name", "status"), LEARNED, ids=[name for _, name, _ in LEARNED]
)


@learned
def test_close_answers_what_was_learned_though_the_view_swallowed_it(
    troubled: Site, happens: list[Any], name: str, status: int
) -> None:
    key = troubled.start()
    answer = troubled.do(happens, ["swallow", "increment", "n"], key=key)
    assert_problem(answer, name, status, executed=True)
    assert answer.announced is None
    assert EXPIRES_IN not in answer.headers


def test_close_answers_an_outage_on_a_cookie_path_though_the_view_swallowed_it(
    troubled: Site, trouble: Valkey
) -> None:
    cookie = troubled.start_by_cookie()
    answer = troubled.do(
        ["make_read_only"],
        ["swallow", "increment", "n"],
        path=troubled.cookie_view,
        cookie=cookie,
        headers={"Accept": "application/json"},
    )
    trouble.client.replicaof("no", "one")
    assert_problem(answer, "unavailable", 503, executed=True)


@learned
def test_the_view_is_told_too_so_that_it_may_mend_things(
    troubled: Site, happens: list[Any], name: str, status: int
) -> None:
    key = troubled.start()
    answer = troubled.do(
        happens, ["swallow", "increment", "n"], ["note", f"went on after {name}"], key=key
    )
    assert answer.status == status
    assert f"went on after {name}" in troubled.noted()


@learned
@pytest.mark.parametrize(
    "inner", ["", "swallow", "hide", "fail after"], ids=lambda inner: inner or "let pass"
)
def test_close_answers_what_was_learned_whatever_became_of_the_exception(
    troubled: Site, happens: list[Any], name: str, status: int, inner: str
) -> None:
    key = troubled.start()
    answer = troubled.do(happens, ["increment", "n"], key=key, inner=inner)
    assert_problem(answer, name, status, executed=True)


@learned
def test_close_answers_what_was_learned_though_the_view_failed_of_something_else(
    troubled: Site, happens: list[Any], name: str, status: int
) -> None:
    key = troubled.start()
    answer = troubled.do(happens, ["swallow", "increment", "n"], ["fail"], key=key)
    assert_problem(answer, name, status, executed=True)


@learned
def test_what_a_view_lets_pass_is_not_logged_as_its_fault(
    troubled: Site, happens: list[Any], name: str, status: int
) -> None:
    key = troubled.start()
    before = len(troubled.server.output())
    troubled.do(happens, ["increment", "n"], key=key)
    assert "Traceback" not in troubled.server.output()[before:]


def test_a_view_that_fails_is_logged_with_its_traceback(site: Site) -> None:
    before = len(site.server.output())
    site.do(["fail"])
    assert "RuntimeError: The view failed" in site.server.output()[before:]


def test_a_store_that_fails_after_a_rotation_does_not_hide_the_new_key(
    troubled: Site, trouble: Valkey
) -> None:
    old = troubled.start()
    answer = troubled.do(["cycle_key"], ["make_read_only"], ["set", "n", 1], key=old)
    trouble.client.replicaof("no", "one")
    assert_problem(answer, "unavailable", 503, executed=True)
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert troubled.fields(answer.key) == {"here": True}


def test_a_fault_replaces_a_streaming_answer(troubled: Site) -> None:
    key = troubled.start()
    answer = troubled.do(
        ["end_elsewhere"],
        ["swallow", "increment", "n"],
        key=key,
        path=f"{troubled.view}stream/",
        then=[["get", "n"]],
    )
    assert_problem(answer, "ended", 401, executed=True)


def test_too_much_data_counted_by_the_view_leaves_the_session_as_it_was(site: Site) -> None:
    key = site.start()
    with site.settings(HEADER_SESSIONS_MAX_BYTES=100):
        answer = site.do(["set", "n", 1], ["increment", "x" * 100], key=key)
        assert_problem(answer, "too-large", 413, executed=True)
    assert site.fields(key) == {"here": True}


def test_too_much_data_that_the_view_swallowed_is_still_a_413_while_it_is_there(
    site: Site,
) -> None:
    key = site.start()
    with site.settings(HEADER_SESSIONS_MAX_BYTES=100):
        answer = site.do(["set", "n", "x" * 100], ["swallow", "save"], key=key)
        assert_problem(answer, "too-large", 413, executed=True)

        answer = site.do(["set", "n", "x" * 100], ["swallow", "save"], ["drop", "n"], key=key)
        assert answer.did[1] == "SessionTooLarge"
    assert site.fields(key) == {"here": True}


# Exceptions of inner middleware.


@pytest.mark.parametrize("inner", ["fail before", "fail after"])
def test_an_exception_of_an_inner_middleware_is_a_500_that_commits_nothing(
    site: Site, inner: str
) -> None:
    key = site.start()
    answer = site.do(["set", "n", 1], key=key, inner=inner)
    assert answer.status == 500
    assert answer.announced is None
    assert site.fields(key) == {"here": True}


def test_a_rotation_is_announced_though_an_inner_middleware_failed_after_it(site: Site) -> None:
    old = site.start()
    answer = site.do(["cycle_key"], key=old, inner="fail after")
    assert answer.status == 500
    assert site.fields(answer.key) == {"here": True}


# Streaming.


def lines(body: bytes) -> list[Any]:
    return [json.loads(line) for line in body.splitlines()]


def test_a_session_is_stored_and_announced_before_the_body_is_streamed(site: Site) -> None:
    stream = f"{site.view}stream/"
    answer = site.do(["set", "n", 1], path=stream, then=[["get", "n"], ["write_elsewhere", "m", 2]])
    assert lines(answer.body) == [1, None]
    assert site.fields(answer.key) == {"n": 1, "m": 2}


def test_what_is_written_while_streaming_is_stored_if_it_is_saved(site: Site) -> None:
    key = site.start()
    then: list[Action] = [["set", "n", 1], ["save"], ["increment", "m"], ["set", "lost", 1]]
    answer = site.do(key=key, path=f"{site.view}stream/", then=then)
    assert lines(answer.body) == [None, None, 1, None]
    assert site.fields(key) == {"here": True, "n": 1, "m": 1}


@pytest.mark.parametrize("action", [["cycle_key"], ["flush"], ["login", "ann"]])
def test_a_key_cannot_change_once_the_body_is_streamed(site: Site, action: list[Any]) -> None:
    key = site.start()
    answer = site.do(key=key, path=f"{site.view}stream/", then=[action])
    assert lines(answer.body) == ["KeyAlreadySent"]
    assert site.fields(key) == {"here": True}


@pytest.mark.parametrize("action", [["create"], ["increment", "n"], ["cycle_key"]])
def test_a_session_cannot_begin_once_the_body_is_streamed(site: Site, action: list[Any]) -> None:
    answer = site.do(path=f"{site.view}stream/", then=[action, ["id"]])
    assert lines(answer.body) == ["KeyAlreadySent", None]


def test_a_cookie_session_is_set_before_the_body_is_streamed(site: Site) -> None:
    stream = f"{site.cookie_view}stream/"
    answer = site.do(["set", "n", 1], path=stream, then=[["get", "n"]])
    assert lines(answer.body) == [1]
    cookie = answer.cookies["sessionid"].value
    assert site.do(["fields"], path=site.cookie_view, cookie=cookie).did == [{"n": 1}]
