"""Views that ask for a session of their own, or only read it, and contexts: over real HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from django_header_sessions.stores.base import ASK_AGAIN
from tests.processes import Server, Valkey

from .site import KEY, Action, Answer, Site, assert_problem, commands
from .test_concurrency import at_once


def serialized(site: Site) -> str:
    return f"{site.view}serialized/"


class Holder:
    """A request that has got its session to itself, and goes on when it is told to."""

    def __init__(
        self, site: Site, key: str, *then: Action, cookie: bool = False, path: str = ""
    ) -> None:
        self._site, self._name = site, str(uuid4())
        self._pool = ThreadPoolExecutor(1)
        arrived = str(uuid4())
        where = path or (f"{site.cookie_view}serialized/" if cookie else serialized(site))
        actions = [["meet", arrived], ["meet", self._name], *then]
        claim: Any = {"cookie": key} if cookie else {"key": key}
        self._answer = self._pool.submit(partial(site.do, *actions, path=where, **claim))
        site.do(["meet", arrived])

    def goes_on(self) -> Answer:
        self._site.do(["meet", self._name])
        answer = self._answer.result(30)
        self._pool.shutdown()
        return answer


def test_a_session_is_had_by_one_request_at_a_time(site: Site) -> None:
    key = site.start(["set", "n", 1])
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0.05):
        holder = Holder(site, key, ["get", "n"], ["set", "n", 2])
        site.noted()
        refused = site.do(["note", "ran"], ["set", "n", 3], key=key, path=serialized(site))
        assert_problem(refused, "busy", 409, executed=False, passing=True)
        assert site.noted() == []
        assert refused.announced is None
        # Who does not ask for it alone is not held up.
        assert site.do(["set", "other", 1], key=key).status == 200
        assert holder.goes_on().did[2:] == [1, None]
        after = site.do(["get", "n"], ["set", "n", 3], key=key, path=serialized(site))
        assert after.did == [2, None]
    assert site.fields(key) == {"n": 3, "other": 1}


def test_who_waits_has_the_session_as_the_one_before_left_it(site: Site) -> None:
    key = site.start(["set", "n", 1])
    holder = Holder(site, key, ["set", "n", 2])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            partial(site.do, ["get", "n"], ["locked"], key=key, path=serialized(site))
        )
        holder.goes_on()
        assert waiting.result(20).did == [2, True]


def test_a_cookie_session_can_be_had_alone_too(site: Site) -> None:
    cookie = site.start_by_cookie(["set", "n", 1])
    path = f"{site.cookie_view}serialized/"
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0.05):
        holder = Holder(site, cookie, ["set", "n", 2], cookie=True)
        headers = {"Accept": "application/json"}
        refused = site.do(["set", "n", 3], cookie=cookie, path=path, headers=headers)
        assert refused.status == 409
        assert refused.document["executed"] is False
        assert refused.headers["Retry-After"] == "1"
        page = site.do(cookie=cookie, path=path, headers={"Accept": "text/html"})
        assert page.status == 409
        assert "Set-Cookie" not in page.headers
        assert b"<h1>" in page.body
        assert holder.goes_on().status == 200
        after = site.do(["get", "n"], ["set", "n", 3], cookie=cookie, path=path)
        assert after.did == [2, None]
        assert site.do(["get", "n"], cookie=cookie, path=path).did == [3]


def test_a_view_that_fails_lets_others_in(site: Site) -> None:
    key = site.start(["set", "n", 1])
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0):
        for failing in (["fail"], ["answer", 503], ["answer", 404], ["break_codec"]):
            site.do(["get", "n"], failing, key=key, path=serialized(site))
            assert site.do(["get", "n"], key=key, path=serialized(site)).did == [1]


def test_a_view_past_its_lease_stores_nothing_and_is_told(site: Site) -> None:
    key = site.start(["set", "n", 1])
    with site.settings(HEADER_SESSIONS_LOCK_LEASE=0.2):
        holder = Holder(site, key, ["set", "n", 2])
        other = site.do(["get", "n"], ["set", "n", 10], key=key, path=serialized(site))
        assert other.did == [1, None]
        late = holder.goes_on()
    assert_problem(late, "lease-expired", 409, executed=True)
    assert site.fields(key) == {"n": 10}


def test_a_session_that_ends_while_one_waits_for_it(site: Site) -> None:
    key = site.start(["set", "n", 1])
    holder = Holder(site, key, ["flush"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(partial(site.do, ["note", "ran"], key=key, path=serialized(site)))
        site.noted()
        assert holder.goes_on().announced == ""
        answer = waiting.result(20)
    # It was waited for or not looked for yet; the view did not run in either case.
    assert answer.status == 401
    assert answer.document["executed"] is False
    assert site.noted() == []


def test_a_session_that_is_rotated_while_one_waits_for_it(site: Site) -> None:
    key = site.start(["set", "n", 1])
    holder = Holder(site, key, ["cycle_key"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(partial(site.do, ["note", "ran"], key=key, path=serialized(site)))
        new = holder.goes_on().key
        assert_problem(waiting.result(20), "superseded", 409, executed=False)
    assert site.do(["locked"], key=new, path=serialized(site)).did == [True]


def test_a_first_request_has_nobody_to_wait_for(site: Site) -> None:
    answer = site.do(["locked"], ["set", "n", 1], path=serialized(site))
    assert answer.did == [False, None]
    assert site.fields(answer.key) == {"n": 1}


def test_a_view_that_puts_another_session_in_place_keeps_none_locked(site: Site) -> None:
    key = site.start(["set", "n", 1])
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0):
        for transport in ("header", "cookie"):
            answer = site.do(["replace", transport], key=key, path=serialized(site))
            assert answer.status == 200
            assert site.do(["locked"], key=key, path=serialized(site)).did == [True]


@pytest.mark.parametrize(
    ("actions", "cost"),
    [([["get", "n"]], 2), ([["set", "n", 2]], 2), ([["set", "n", 2], ["set", "m", 1]], 2)],
)
def test_what_a_session_of_ones_own_costs(
    site: Site, valkey: Valkey, actions: list[Action], cost: int
) -> None:
    """Locked and opened in one round trip, stored and unlocked in another: no more than any other
    write. Where nothing is written, one more than any other read, to unlock."""
    key = site.start(["set", "n", 1])
    site.do(["set", "n", 1], key=key, path=serialized(site))  # the server has all scripts now
    site.do(["get", "n"], key=key, path=serialized(site))
    with commands(valkey) as seen:
        assert site.do(*actions, key=key, path=serialized(site)).status == 200
    assert seen == ["EVALSHA"] * cost


# Streaming.


@pytest.fixture(params=[("gunicorn", "/sync/"), ("uvicorn", "/async/")], ids=" ".join)
def streaming(request: pytest.FixtureRequest) -> Site:
    """Where Django streams bit by bit: the others gather the whole body first."""
    server, view = request.param
    return Site(request.getfixturevalue(server), view)


class Stream:
    """A request whose answer is read bit by bit."""

    def __init__(self, site: Site, key: str, *then: Action) -> None:
        query = f"do={quote('[]')}&then={quote(json.dumps(then))}"
        self._socket = socket.create_connection(("127.0.0.1", site.server.port), timeout=20)
        self._socket.sendall(
            f"GET {site.view}stream/serialized/?{query} HTTP/1.1\r\nHost: test\r\n"
            f"{KEY}: {key}\r\nConnection: close\r\n\r\n".encode()
        )

    def until(self, text: bytes) -> None:
        received = b""
        while text not in received:
            part = self._socket.recv(4096)
            assert part, received
            received += part

    def to_its_end(self) -> None:
        while self._socket.recv(65536):
            pass
        self._socket.close()

    def goes_away(self) -> None:
        self._socket.close()


def test_a_session_is_locked_until_its_answer_was_streamed(streaming: Site) -> None:
    site = streaming
    key, name = site.start(["set", "n", 1]), str(uuid4())
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0):
        stream = Stream(
            site, key, ["get", "n"], ["meet", name], ["assign", "n", 2], ["save"], ["get", "n"]
        )
        stream.until(b"1\n")
        assert site.do(key=key, path=serialized(site)).status == 409
        site.do(["meet", name])
        stream.to_its_end()
        until_free(site, key)
    assert site.fields(key) == {"n": 2}


def test_a_client_that_goes_away_from_a_stream_lets_others_in(streaming: Site) -> None:
    site = streaming
    key, name = site.start(["set", "n", 1]), str(uuid4())
    lines: list[Action] = [["get", "n"]] * 40
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0):
        stream = Stream(site, key, ["get", "n"], ["meet", name], *lines)
        stream.until(b"1\n")
        stream.goes_away()
        site.do(["meet", name])
        until_free(site, key)


@pytest.mark.parametrize(
    ("server", "view"), [("gunicorn", "/sync/"), ("uvicorn", "/sync/"), ("uvicorn", "/async/")]
)
def test_a_stream_that_fails_lets_others_in(
    request: pytest.FixtureRequest, server: str, view: str
) -> None:
    site = Site(request.getfixturevalue(server), view)
    key = site.start(["set", "n", 1])
    stream = Stream(site, key, ["assign", "n", 2], ["save"], ["get", "n"], ["fail"])
    stream.to_its_end()
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0):
        until_free(site, key)
    assert site.fields(key) == {"n": 2}


def test_a_client_that_goes_away_from_an_async_view_lets_others_in(uvicorn: Server) -> None:
    site = Site(uvicorn, "/async/")
    key, name, arrived = site.start(["set", "n", 1]), str(uuid4()), str(uuid4())
    query = quote(json.dumps([["meet", arrived], ["meet", name]]))
    with socket.create_connection(("127.0.0.1", uvicorn.port), timeout=20) as connection:
        connection.sendall(
            f"GET {serialized(site)}?do={query} HTTP/1.1\r\nHost: test\r\n"
            f"{KEY}: {key}\r\n\r\n".encode()
        )
        site.do(["meet", arrived])
        with site.settings(HEADER_SESSIONS_LOCK_WAIT=0):
            assert site.do(key=key, path=serialized(site)).status == 409
    with site.settings(HEADER_SESSIONS_LOCK_WAIT=0):
        until_free(site, key)
    site.do(["meet", name])


def until_free(site: Site, key: str) -> None:
    """Wait until nobody has the session locked, which takes less than the lease of 30 s."""
    site.server.wait_until(lambda: site.do(key=key, path=serialized(site)).status == 200)


# Many at once.


@pytest.fixture(params=["gunicorn", "uvicorn"])
def pair(request: pytest.FixtureRequest, valkey: Valkey, database: Path) -> Iterator[list[Site]]:
    """Two processes of one site, each with a place for as many requests as there will be."""
    view = "/sync/" if request.param == "gunicorn" else "/async/"
    env = {"REDIS_URL": valkey.url, "TEST_DB": str(database)}
    with (
        Server(request.param, threads=32, **env) as one,
        Server(request.param, threads=32, **env) as two,
    ):
        yield [Site(one, view), Site(two, view)]


def test_fifty_who_read_modify_and_write_at_once_lose_nothing(
    pair: list[Site], valkey: Valkey
) -> None:
    key = pair[0].start(["set", "n", 0])
    calls = [
        partial(pair[number % 2].do, ["add", "n"], key=key, path=serialized(pair[0]))
        for number in range(50)
    ]
    before = valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    began = time.monotonic()
    answers = at_once(calls)
    took = time.monotonic() - began
    asked = valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before
    assert {answer.status for answer in answers} == {200}
    assert pair[1].fields(key) == {"n": 50}
    # Open, lock, commit; asked again when woken, and once when the listener had started; and now
    # and then, in case a message was lost. Polling would ask hundreds of times more.
    assert asked < 50 * (6 + 1000 * took / ASK_AGAIN)


def test_on_locmem_threads_take_turns(locmem_gunicorn: Server) -> None:
    site = Site(locmem_gunicorn)
    key = site.start(["set", "n", 0])
    answers = at_once(
        [partial(site.do, ["add", "n"], key=key, path=serialized(site)) for _ in range(50)]
    )
    assert {answer.status for answer in answers} == {200}
    assert site.fields(key) == {"n": 50}


def test_who_waits_takes_no_connection_of_the_pool(site: Site, valkey: Valkey) -> None:
    key = site.start(["set", "n", 0])
    holder = Holder(site, key)
    asked = threading.Barrier(5)

    def wait() -> Answer:
        asked.wait()
        return site.do(key=key, path=serialized(site))

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(wait) for _ in range(4)]
        asked.wait()
        give_up = time.monotonic() + 10
        while valkey.client.zcard(queue_of(valkey, key)) < 4:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        subscribed = [
            client for client in valkey.client.client_list() if client["cmd"] == "subscribe"
        ]
        assert len({client["id"] for client in subscribed}) <= 4, "one a process at the most"
        assert not any(client["flags"] == "b" for client in valkey.client.client_list())
        holder.goes_on()
        assert {each.result(20).status for each in waiting} == {200}


@pytest.mark.parametrize(
    ("servers", "view"),
    [(("gunicorn", "second_gunicorn"), "/sync/"), (("uvicorn", "gunicorn"), "/async/")],
)
def test_those_who_wait_have_their_turns_in_the_order_of_their_arrival(
    request: pytest.FixtureRequest, valkey: Valkey, servers: tuple[str, str], view: str
) -> None:
    """Whichever process they came to, and whichever that of the one before them."""
    sites = [Site(request.getfixturevalue(server), view) for server in servers]
    key, waiting = sites[0].start(["set", "seen", []]), [0, 1, 1, 0, 0, 1, 0, 1, 1, 1]
    holder = Holder(sites[1], key, ["append", "seen", "holder"])
    queue = queue_of(valkey, key)
    with ThreadPoolExecutor(len(waiting)) as pool:
        answers = []
        for number, at in enumerate(waiting):
            call = partial(sites[at].do, ["append", "seen", number])
            answers.append(pool.submit(call, key=key, path=serialized(sites[at])))
            give_up = time.monotonic() + 10
            while valkey.client.zcard(queue) <= number:  # it has its place
                assert time.monotonic() < give_up
                time.sleep(0.002)
        assert valkey.client.zcard(queue) == len(waiting)
        assert holder.goes_on().status == 200
        assert {answer.result(20).status for answer in answers} == {200}
    assert sites[0].fields(key) == {"seen": ["holder", *range(len(waiting))]}
    assert not valkey.client.exists(queue)


def queue_of(valkey: Valkey, key: str) -> str:
    return f":1:hs{{0}}:q:{key[:15]}"


# Only to be read.


def readonly(site: Site) -> str:
    return f"{site.view}readonly/"


def test_a_view_that_only_reads_cannot_write(site: Site) -> None:
    key = site.start(["set", "n", 1], ["set", "cart", []])
    for action in (
        ["set", "n", 2],
        ["assign", "n", 2],
        ["increment", "n"],
        ["flush"],
        ["append", "cart", 1],
        ["in_context", "tool", "n", 1],
    ):
        refused = site.do(["get", "n"], action, key=key, path=readonly(site))
        assert refused.status == 500
        assert refused.announced is None
    assert site.do(["fields"], key=key, path=readonly(site)).did == [{"n": 1, "cart": []}]
    assert site.fields(key) == {"n": 1, "cart": []}


def test_a_view_that_only_reads_waits_for_nobody(site: Site, valkey: Valkey) -> None:
    key = site.start(["set", "n", 1])
    holder = Holder(site, key, ["set", "n", 2])
    with commands(valkey) as seen:
        assert site.do(["get", "n"], key=key, path=readonly(site)).did == [1]
    assert seen == ["EVALSHA"]
    holder.goes_on()


def test_who_is_signed_in_is_known_where_a_session_is_only_read(site: Site) -> None:
    key = site.start(["login", "ann"])
    assert site.do(["user"], key=key, path=readonly(site)).did == ["ann"]
    cookie = site.start_by_cookie(["login", "ann"])
    path = f"{site.cookie_view}readonly/"
    assert site.do(["user"], cookie=cookie, path=path).did == ["ann"]
    # Whose password was changed since is signed out, there too.
    with site.settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["only for tests"]):
        answer = site.do(["user"], key=key, path=readonly(site))
        assert answer.did == ["ann"]
        key = answer.key
        assert site.do(["user"], key=key, path=readonly(site)).did == ["ann"]
    with site.settings(SECRET_KEY="a third"):
        signed_out = site.do(["user"], key=key, path=readonly(site))
        assert signed_out.did == [""]
        assert signed_out.announced == ""


# The policy of views that say nothing.


def test_a_setting_says_what_views_do_that_say_nothing(site: Site) -> None:
    key = site.start(["set", "n", 1])
    with site.settings(HEADER_SESSIONS_POLICY="readonly"):
        assert site.do(["set", "n", 2], key=key).status == 500
        assert site.do(["get", "n"], key=key).did == [1]
        assert site.do(["set", "n", 2], key=key, path=f"{site.view}merged/").status == 200
        assert site.do(["set", "n", 3], key=key, path=serialized(site)).status == 200
        # What a browser does is Django's.
        assert site.start_by_cookie(["set", "n", 1])
    with site.settings(HEADER_SESSIONS_POLICY="serialized", HEADER_SESSIONS_LOCK_WAIT=0.05):
        holder = Holder(site, key, ["set", "n", 4], path=site.view)
        site.noted()
        refused = site.do(["note", "ran"], key=key)
        assert_problem(refused, "busy", 409, executed=False, passing=True)
        assert site.noted() == []
        assert site.do(["get", "n"], key=key, path=f"{site.view}merged/").did == [3]
        assert site.do(["get", "n"], key=key, path=readonly(site)).did == [3]
        assert holder.goes_on().status == 200
        assert site.do(["locked"], ["get", "n"], key=key).did == [True, 4]


# Contexts.


def test_a_call_works_in_a_context_of_its_own(site: Site) -> None:
    key, pair = site.start(["set", "n", 1]), [str(uuid4()) for _ in range(3)]
    calls = [
        partial(site.do, ["in_context", f"call-{n}", "n", n], ["meet", pair[n // 2]], key=key)
        for n in range(6)
    ]
    assert {answer.status for answer in at_once(calls)} == {200}
    for n in range(6):
        assert site.do(["context", f"call-{n}"], key=key).did == [{"n": n}]
    assert site.fields(key) == {"n": 1}


def test_a_handle_is_passed_from_call_to_call(site: Site) -> None:
    first = site.do(["new_context"])
    key, (handle,) = first.key, first.did
    assert site.do(["in_context", handle, "n", 1], key=key).status == 200
    assert site.do(["context", handle], key=key).did == [{"n": 1}]
    assert site.do(["promote", handle], ["item", "n"], key=key).did == [None, 1]
    assert site.fields(key) == {"n": 1}
    other = site.start(["set", "n", 1])
    strangers = [site.do(["context", name], key=other) for name in (handle, "~" + "a" * 20)]
    for answer in [*strangers, site.do(["context", handle], key=key)]:
        assert_problem(answer, "unknown-context", 404, executed=True)
    assert strangers[0].body == strangers[1].body


def test_a_header_may_name_the_context_of_a_call(site: Site) -> None:
    key = site.start(["set", "n", 1])
    named = {"X-Context": "call-7"}
    assert site.do(["in_context", None, "n", 7], key=key, headers=named).status == 400
    with site.settings(HEADER_SESSIONS_CONTEXT_HEADER="X-Context"):
        assert site.do(["in_context", None, "n", 7], key=key, headers=named).status == 200
        assert site.do(["context", None], key=key, headers=named).did == [{"n": 7}]
        assert site.do(["context", "call-7"], key=key).did == [{"n": 7}]
        for wrong in ({}, {"X-Context": ""}, {"X-Context": "a b"}, {"X-Context": "x" * 5000}):
            answer = site.do(["context", None], key=key, headers=wrong)
            assert_problem(answer, "malformed-context", 400, executed=True)
        # Who does not use it need not have it in order.
        assert site.do(["get", "n"], key=key, headers={"X-Context": "a b"}).did == [1]


def test_there_is_a_limit_to_contexts(site: Site) -> None:
    with site.settings(HEADER_SESSIONS_MAX_CONTEXTS=2):
        key = site.start(["new_context"], ["new_context"])
        for action in (["new_context"], ["in_context", "one-more", "n", 1]):
            answer = site.do(action, key=key)
            assert_problem(answer, "too-many-contexts", 409, executed=True)
    assert len(site.do(["contexts"], key=key).did[0]) == 2


def test_what_a_context_costs(site: Site, valkey: Valkey) -> None:
    key = site.start(["in_context", "tool", "n", 1])
    site.do(["in_context", "tool", "n", 2], ["new_context"], key=key)  # the scripts are known
    for actions, cost in (
        ([["context", "tool"]], 2),
        ([["in_context", "tool", "n", 3]], 3),
        ([["new_context"]], 2),
        ([["in_context", "tool", "n", 4], ["set", "n", 1]], 3),
    ):
        with commands(valkey) as seen:
            assert site.do(*actions, key=key).status == 200
        assert seen == ["EVALSHA"] * cost, actions


def test_contexts_work_on_cookie_sessions_too(site: Site) -> None:
    path = site.cookie_view
    cookie = site.do(["in_context", "tool", "n", 1], path=path).cookies["sessionid"].value
    assert site.do(["context", "tool"], cookie=cookie, path=path).did == [{"n": 1}]
    assert site.do(["in_context", "tool", "n", 2], cookie=cookie, path=path).status == 200
    assert site.do(["context", "tool"], cookie=cookie, path=path).did == [{"n": 2}]
    assert site.do(["context", "~" + "a" * 20], cookie=cookie, path=path).status == 404
    assert site.do(["context", "tool"], cookie=cookie, path=path).did == [{"n": 2}]
