"""Three servers behind a real nginx, with the configuration of the documentation."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from django_header_sessions import keys, registry
from tests.http.site import KEY, Answer, Site, assert_problem
from tests.processes import Server, Valkey, free_port

from .conftest import ENV, Behind
from .proxy import Nginx, server_of

pytestmark = pytest.mark.nginx

TIMES = 30
"""Calls after which chance is no explanation: that one of three servers is never met by so many."""


def nginx(site: Site) -> Nginx:
    assert isinstance(site.server, Nginx)
    return site.server


# Round robin.


def test_a_session_lives_on_whichever_server_answers(behind: Behind) -> None:
    site = behind("round-robin")
    first = site.do(["set", "list", [1]])
    assert first.headers["Cache-Control"] == "private, no-store"
    assert KEY in first.vary
    key, met = first.key, set()
    for n in range(TIMES):
        answer = site.do(["increment", "n"], ["get", "list"], key=key)
        assert answer.did == [n + 1, [1]]
        assert answer.announced is None
        assert answer.headers["X-Session-Expires-In"] in ("1800", "1799")
        met.add(server_of(answer))
    assert len(met) == 3


def test_a_new_key_is_good_on_every_server_and_the_old_one_on_none(behind: Behind) -> None:
    site = behind("round-robin")
    old = site.start()
    new = site.do(["cycle_key"], key=old).key
    for _ in range(3):
        assert_problem(site.do(key=old), "superseded", 409, executed=False)
        assert site.do(["get", "here"], key=new).did == [True]
    ended = site.do(["flush"], key=new)
    assert ended.announced == ""
    for _ in range(3):
        assert_problem(site.do(key=new), "unknown", 401, executed=False)


def connections(site: Site) -> int:
    """Over how many connections nginx handed on some calls."""
    asked = [site.ask("GET", "/connection/") for _ in range(TIMES)]
    return len({(server_of(each), each.body) for each in asked})


@pytest.mark.parametrize("name", ["round-robin", "affinity"])
def test_connections_to_the_servers_are_kept_open(behind: Behind, name: str) -> None:
    assert connections(behind(name)) == 3


def test_without_the_lines_that_say_so_they_are_not(behind: Behind) -> None:
    changed = {'proxy_set_header Connection "";': ""}
    assert connections(behind("round-robin", changed=changed)) == TIMES


# Affinity.


def test_all_calls_of_a_session_go_to_one_server_whatever_its_key_is(behind: Behind) -> None:
    site = behind("affinity")
    met: set[str] = set()
    for _ in range(TIMES // 2):
        key = site.start(["set", "n", 0])
        of_this: set[str] = set()
        for n in range(3):
            answer = site.do(["increment", "n"], key=key)
            assert answer.did == [n + 1]
            of_this.add(server_of(answer))
            key = site.do(["cycle_key"], key=key).key
        assert len(of_this) == 1
        met |= of_this
    assert len(met) == 3


def test_calls_without_a_session_go_anywhere(behind: Behind) -> None:
    site = behind("affinity")
    for key in (None, "new"):
        assert len({server_of(site.do(key=key)) for _ in range(TIMES)}) == 3


@pytest.fixture
def by_the_key(behind: Behind) -> Site:
    """As one may write it first: hashed by the whole header."""
    return behind("affinity", changed={"hash $session_affinity": "hash $http_x_session_key"})


def test_hashed_by_the_key_a_rotation_moves_the_session(by_the_key: Site) -> None:
    key, met = by_the_key.start(), set()
    for _ in range(TIMES):
        answer = by_the_key.do(["cycle_key"], key=key)
        key = answer.key
        met.add(server_of(answer))
    assert len(met) == 3


def test_hashed_by_the_key_one_server_gets_all_first_calls(by_the_key: Site) -> None:
    assert len({server_of(by_the_key.do(key="new")) for _ in range(TIMES)}) == 1


def test_when_its_server_is_gone_a_session_goes_on_with_another(
    behind: Behind, servers: list[int]
) -> None:
    site = behind("affinity")
    key = site.start(["set", "n", 0])
    mine = int(server_of(site.do(key=key)))
    others = [free_port() if port == mine else port for port in servers]
    site = behind("affinity", ports=others)
    assert [site.do(["increment", "n"], key=key).did for _ in range(3)] == [[1], [2], [3]]


@pytest.fixture
def alone() -> Iterator[list[int]]:
    """The ports of three servers that keep sessions in their own memory."""
    with ExitStack() as stack:
        yield [stack.enter_context(Server("gunicorn", threads=8, **ENV)).port for _ in range(3)]


def test_affinity_is_no_shared_store(behind: Behind, alone: list[int]) -> None:
    """The server that answers the first call draws the id, by which nginx chooses a server."""
    site = behind("affinity", ports=alone)
    answers = Counter(site.do(key=site.start()).status for _ in range(TIMES))
    assert answers.keys() == {200, 401}


# A server that is gone, or goes in the middle of a call.


def test_a_server_that_is_down_is_passed_over_by_posts_too(
    behind: Behind, servers: list[int]
) -> None:
    site = behind("round-robin", ports=[servers[0], free_port(), servers[1]])
    key = site.start()
    for n in range(TIMES):
        assert site.do(["increment", "n"], key=key, method="POST").did == [n + 1]


def counted(site: Site, key: str) -> Any:
    return site.do(["get", "n"], key=key).did[0]


def test_a_post_that_a_server_had_received_is_not_sent_to_another(behind: Behind) -> None:
    site = behind("round-robin")
    key = site.start()
    answer = site.ask("POST", "/count-and-die/", {KEY: key})
    assert answer.status == 502
    assert counted(site, key) == 1, "and the key is as good as before"


def test_nor_is_one_that_takes_too_long(behind: Behind, servers: list[int]) -> None:
    impatient = "proxy_read_timeout 300ms; proxy_next_upstream error"
    site = behind(
        "round-robin",
        ports=[servers[0]] * 3,
        changed={"proxy_next_upstream error": impatient},
    )
    key = site.start()
    answer = site.do(["increment", "n"], ["meet", "after 504"], key=key, method="POST")
    assert answer.status == 504
    site.do(["meet", "after 504"])
    assert counted(site, key) == 1


def test_it_would_be_if_non_idempotent_said_so(behind: Behind) -> None:
    changed = {
        "proxy_next_upstream error timeout": "proxy_next_upstream error timeout non_idempotent"
    }
    site = behind("round-robin", changed=changed)
    key = site.start()
    assert site.ask("POST", "/count-and-die/", {KEY: key}).status == 502
    assert counted(behind("round-robin"), key) == 3


def test_a_get_is_sent_to_the_others(behind: Behind) -> None:
    """Which is why a GET should change nothing."""
    site = behind("round-robin")
    key = site.start()
    assert site.ask("GET", "/count-and-die/", {KEY: key}).status == 502
    assert counted(behind("round-robin"), key) == 3


# The log.


def test_the_access_log_has_the_id_and_never_the_key(behind: Behind) -> None:
    site = behind("round-robin")
    first = site.start()
    site.do(key=first)
    second = site.do(["cycle_key"], key=first).key
    site.do(["flush"], key=second)
    site.do(key="malformed")
    name = first[:15]
    expected = [["-", name], [name, "-"], [name, name], [name, "-"], ["-", "-"]]

    def told() -> bool:
        # A line is written after its answer, so that two may change places.
        lines = nginx(site).logged().splitlines()[-5:]
        said = [line.split(" session=")[1].split(" announced=") for line in lines]
        return sorted(said) == sorted(expected)

    nginx(site).wait_until(told)
    for secret in (first[15:], second[15:]):
        assert secret not in nginx(site).logged()
        assert secret not in nginx(site).complained()


def test_nginxs_usual_format_has_neither(behind: Behind) -> None:
    site = behind("round-robin", changed={"access.log sessions": "access.log combined"})
    key = site.start()
    site.do(key=key)
    assert "python" not in nginx(site).logged()
    assert key[15:] not in nginx(site).logged()


@pytest.mark.parametrize(
    ("level", "header", "there"),
    [
        ("warn", "X_Session_Key", False),
        ("info", "X_Session_Key", True),
        ("info", "X-Session-Key", False),
        ("debug", "X-Session-Key", True),
    ],
)
def test_at_info_and_debug_the_error_log_has_what_the_other_levels_have_not(
    behind: Behind, level: str, header: str, there: bool
) -> None:
    site, key = behind("round-robin", level=level), keys.make()
    site.raw(header.encode() + b": " + key.encode())
    assert (str(key) in nginx(site).complained()) is there


# Caching.

PUBLIC = ["answer", 200, {"Cache-Control": "public, max-age=60"}]


def from_cache(answer: Answer) -> str:
    return str(answer.headers["X-Cache"])


def test_an_answer_that_announces_a_key_is_not_kept(behind: Behind) -> None:
    site = behind("cache")
    asked = (PUBLIC, ["set", "n", 1])
    first, second = site.do(*asked), site.do(*asked)
    assert first.key != second.key
    assert [from_cache(first), from_cache(second)] == ["MISS", "MISS"]
    for action in (["cycle_key"], ["flush"]):
        for _ in range(2):
            told = site.do(PUBLIC, action, key=site.start())
            assert told.announced is not None
            assert from_cache(told) == "MISS"


def test_what_may_be_kept_is_kept_for_each_key_apart(behind: Behind) -> None:
    site = behind("cache")
    ann, bob = site.start(["set", "name", "Ann"]), site.start(["set", "name", "Bob"])
    asked = (PUBLIC, ["get", "name"])
    seen = [
        (from_cache(answer), answer.did[1])
        for answer in (site.do(*asked, key=key) for key in (ann, bob, ann, bob, None, "new"))
    ]
    assert seen == [
        *(("MISS", "Ann"), ("MISS", "Bob"), ("HIT", "Ann"), ("HIT", "Bob")),
        *(("MISS", None), ("MISS", None)),
    ]


def test_what_is_kept_is_served_though_the_session_has_ended(behind: Behind) -> None:
    site = behind("cache")
    key = site.start(["set", "name", "Ann"])
    asked = (PUBLIC, ["get", "name"])
    site.do(*asked, key=key)
    site.do(["flush"], key=key)
    assert from_cache(site.do(*asked, key=key)) == "HIT"
    private = ["answer", 200, {"Cache-Control": "private, max-age=60"}]
    key = site.start()
    for _ in range(2):
        assert from_cache(site.do(private, ["get", "here"], key=key)) == "MISS"


def test_told_to_ignore_what_answers_say_it_hands_out_keys(behind: Behind) -> None:
    """What not to write."""
    careless = "proxy_cache application; proxy_cache_valid 1m; proxy_ignore_headers Cache-Control;"
    site = behind("cache", changed={"proxy_cache application;": careless})
    first, second = site.do(["set", "n", 1]), site.do(["set", "n", 1])
    assert from_cache(second) == "HIT"
    assert first.key == second.key


# What clients may send.


@pytest.mark.parametrize("name", ["round-robin", "affinity"])
def test_a_header_that_is_sent_twice_is_refused(behind: Behind, name: str) -> None:
    site = behind(name)
    key = site.start()
    line = b"X-Session-Key: " + key.encode()
    for other in (line, b"x-session-key: new", b"X-Session-Key: " + str(keys.make()).encode()):
        status, answer = site.raw(line, other)
        assert status == 400
        assert b"urn:django-header-sessions:malformed" in answer
        assert key[15:] not in nginx(site).logged()


def test_a_look_alike_with_underscores_does_not_pass(behind: Behind) -> None:
    site = behind("round-robin")
    key = site.start(["set", "n", 1])
    _, answer = site.raw(b"X_Session_Key: " + key.encode(), path="/sync/?do=[[%22get%22,%22n%22]]")
    assert b'{"did": [null]}' in answer


def test_a_header_that_is_too_large_does_not_pass(behind: Behind) -> None:
    site = behind("round-robin")
    status, answer = site.raw(b"X-Session-Key: " + b"a" * 9000)
    assert status == 400
    assert b"urn:" not in answer
    assert b"<center>nginx" in answer


def test_calls_without_a_session_are_limited_and_others_are_not(behind: Behind) -> None:
    site = behind("round-robin", more="limit")
    key = site.start()
    answers = Counter(site.do(key=first).status for first in [None, "new", "malformed"] * TIMES)
    assert answers[429] > TIMES
    assert [site.do(["get", "here"], key=key).did for _ in range(3 * TIMES)] == [[True]] * 3 * TIMES
    assert {site.do(key=str(keys.make())).status for _ in range(3 * TIMES)} == {401}


def test_what_is_recorded_of_a_client_is_what_nginx_saw(
    behind: Behind, settings: Any, redis_cache: Any
) -> None:
    site = behind("round-robin")
    settings.CACHES = {"default": redis_cache}
    connection = http.client.HTTPConnection(
        "127.0.0.1", site.server.port, source_address=("127.0.0.2", 0)
    )
    query = "/sync/?do=[[%22set%22,%22n%22,1]]"
    forged = {"X-Real-IP": "203.0.113.7", "X-Forwarded-For": "203.0.113.7"}
    connection.request("GET", query, headers=forged)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    live = registry.get(answer.headers[KEY][:15])
    assert live is not None
    assert live.ip == "127.0.0.2"


def test_plain_http_is_refused_whatever_a_client_claims(behind: Behind, servers: list[int]) -> None:
    site = behind("round-robin", ports=[servers[0]] * 3)
    with site.settings(HEADER_SESSIONS_SECURE=True):
        for claimed in ({}, {"X-Forwarded-Proto": "https"}):
            answer = site.do(key="new", headers=claimed)
            assert_problem(answer, "insecure", 403, executed=False)
        # What nginx says where it listens with TLS.
        connection = http.client.HTTPConnection("127.0.0.1", servers[0])
        connection.request("GET", "/sync/", headers={"X-Forwarded-Proto": "https", KEY: "new"})
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        connection.close()


def test_an_outage_passes_through(behind: Behind, valkey: Valkey) -> None:
    site = behind("round-robin")
    key = site.start()
    valkey.client.replicaof("127.0.0.1", "1")
    try:
        answer = site.do(key=key)
        assert_problem(answer, "unavailable", 503, executed=False)
    finally:
        valkey.client.replicaof("NO", "ONE")
    assert site.do(["get", "here"], key=key).did == [True]
