"""What all clients do, each test once for every library.

The server is the example, on Redis and in two processes that take turns; where a test has it
misbehave, a gateway does in its place.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from email.utils import formatdate

import pytest

from django_header_sessions.clients.exceptions import (
    InsecureOrigin,
    SessionError,
    SessionLost,
    SessionNotStarted,
)

from .conftest import CANCELLABLE, Open
from .drivers import Got, Renew
from .example import Gateway
from .server import HEADER, Reply, Seen, Server, make_key, problem

# To a session that is begun for this, or for the answer.
WRITE = {"w": 1}
GATHER = 10  # seconds after which a test that waits for something has failed


@pytest.fixture
def server(gateway: Gateway) -> Gateway:
    return gateway


def statuses(results: list[Got | BaseException]) -> list[object]:
    return [r.status if isinstance(r, Got) else type(r).__name__ for r in results]


def together(count: int, handler: Callable[[Seen], Reply]) -> Callable[[Seen], Reply]:
    """A handler that answers nobody before `count` requests are there."""
    barrier = threading.Barrier(count)

    def wait(seen: Seen) -> Reply:
        reply = handler(seen)
        barrier.wait(GATHER)
        return reply

    return wait


# A session's life


def test_says_new_then_sends_what_was_announced(call: Open, server: Gateway) -> None:
    client = call()
    assert client.call("PATCH", "/state", {"a": 1}).document == {"state": {"a": 1}}
    assert client.call("GET", "/state").document == {"state": {"a": 1}}
    (session,) = server.sessions.values()
    assert [seen.sent for seen in server.seen] == ["new", session.key]
    assert client.key == session.key


def test_goes_on_with_a_key_that_is_given(call: Open, server: Gateway) -> None:
    first = call()
    first.call("PATCH", "/state", {"a": 1})
    second = call(key=str(first.key))
    assert second.call("GET", "/state").document == {"state": {"a": 1}}


@pytest.mark.parametrize(
    "key", ["", "new", "a" * 39, "a" * 41, "A" * 40, "ä" * 40, "a" * 40 + "\n"]
)
def test_refuses_a_key_that_cannot_be_one(call: Open, key: str) -> None:
    with pytest.raises(ValueError, match="40 characters") as caught:
        call(key=key)
    assert not key or key == "new" or key not in str(caught.value)


def test_a_key_is_for_one_origin_and_has_to_say_which(opener: Open, server: Gateway) -> None:
    """Else the server that happens to be called first would be sent it."""
    with pytest.raises(ValueError, match="origin"):
        opener(server.url, key=make_key(), origin=None)
    client = opener(server.url, renew=Renew("key", key=make_key()))
    with pytest.raises(SessionNotStarted):
        client.start_again()
    assert client.key is None
    assert client.call("GET", "/state").status == 200
    assert [seen.sent for seen in server.seen] == ["new"]


def test_follows_rotation(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    before = client.key
    client.call("POST", "/login")
    assert client.key != before
    assert str(client.key)[:15] == str(before)[:15]
    assert client.call("GET", "/state").document == {"state": {"a": 1, "user": "demo"}}


def test_a_key_that_is_announced_again_is_the_same_key(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    key = str(client.key)
    server.on("GET", "/x", lambda seen: Reply(200, {}, [(HEADER, key)]))
    client.call("GET", "/x")
    assert client.key == key


def test_forgets_when_the_server_says_so(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    server.on("POST", "/logout", lambda seen: Reply(headers=[(HEADER, "")]))
    client.call("POST", "/logout")
    assert client.key is None
    assert client.expires_in is None
    client.call("GET", "/state")
    assert server.seen[-1].sent == "new"


def test_knows_when_the_session_expires(call: Open, server: Gateway) -> None:
    client = call()
    assert client.expires_in is None
    client.call("PATCH", "/state", WRITE)
    first = client.expires_in
    assert first is not None
    assert 1790 < first <= 1800


def test_keeps_the_session_alive(call: Open, server: Gateway) -> None:
    client = call()
    assert client.keep_alive() is None
    assert not server.seen
    client.call("PATCH", "/state", WRITE)
    longer = Reply(200, {}, [("X-Session-Expires-In", "3600")])
    server.on("GET", "/api/sessions/current/", lambda seen: longer)
    told = client.keep_alive()
    assert told is not None
    assert 3590 < told <= 3600
    assert 3590 < (client.expires_in or 0) <= told
    (seen,) = server.of("/api/sessions/current/")
    assert (seen.method, seen.sent) == ("GET", client.key)


@pytest.mark.parametrize("said", ["-5", "soon", "9" * 30, "1e3", "", "١٢"])
def test_ignores_an_expiry_that_is_none(call: Open, server: Gateway, said: str) -> None:
    client = call(key=make_key())
    value = said.encode().decode("latin-1")
    server.on("GET", "/x", lambda seen: Reply(headers=[("X-Session-Expires-In", value)]))
    assert client.call("GET", "/x").status == 200
    assert client.expires_in is None


def test_ends_the_session(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", {"a": 1})
    client.end()
    assert client.key is None
    assert not server.sessions
    client.end()
    assert len(server.of("/api/sessions/current/")) == 1


def test_ending_what_has_ended_is_no_error_and_renews_nothing(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", {"a": 1})
    server.end_all()
    client.end()
    assert client.key is None
    assert not server.of("/login")


def test_a_session_that_was_not_ended_is_kept(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    server.on("DELETE", "/api/sessions/current/", lambda seen: Reply(405))
    with pytest.raises(SessionError, match="405"):
        client.end()
    assert client.call("GET", "/state").document == {"state": {"a": 1}}


def test_a_session_that_somebody_else_has_is_not_ended_and_says_so(
    call: Open, server: Gateway
) -> None:
    """Whoever replaced the key may be a thief: signing out must not seem to have worked."""
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", {"a": 1})
    (session,) = server.sessions.values()
    server.rotate(session)
    for _ in range(2):
        with pytest.raises(SessionError, match=r"not ended.*replaced") as caught:
            client.end()
        assert client.key is not None
        assert str(client.key)[15:] not in str(caught.value)
    assert list(server.sessions.values()) == [session]
    assert not server.of("/login")


def test_ending_takes_a_newer_key_that_another_call_brings(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    rotated, refused = threading.Event(), threading.Event()

    def rotate(seen: Seen) -> Reply:
        reply = server.login(seen)
        rotated.set()
        refused.wait(GATHER)
        return reply

    def end(seen: Seen) -> Reply:
        reply = server.end(seen)
        refused.set()
        return reply

    server.on("POST", "/login", rotate)
    server.on("DELETE", "/api/sessions/current/", end)
    with ThreadPoolExecutor(1) as pool:
        signing_in = pool.submit(client.call, "POST", "/login")
        rotated.wait(GATHER)
        client.end()
        assert signing_in.result(GATHER).status == 200
    assert client.key is None
    assert not server.sessions


def test_what_a_renewal_is_about_to_bring_is_ended_too(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", {"a": 1})
    server.end_all()
    renewing, go = threading.Event(), threading.Event()

    def slow_login(seen: Seen) -> Reply:
        renewing.set()
        go.wait(GATHER)
        return server.login(seen)

    server.on("POST", "/login", slow_login)
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(client.call, "GET", "/state")
        renewing.wait(GATHER)
        ending = pool.submit(client.end)
        # One that takes no notice of the renewal is done by now.
        wait([ending], 0.2)
        go.set()
        assert ending.result(GATHER) is None
        # It was there while the session was, or is told that the session is not.
        assert late.exception(GATHER) is None or isinstance(late.exception(), SessionLost)
    assert client.key is None
    assert not server.sessions
    assert client.call("GET", "/state").status == 200
    assert server.seen[-1].sent == "new"
    assert len(server.of("/login")) == 1


def test_after_ending_nothing_is_renewed_any_more(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", {"a": 1})
    server.end_all()
    server.on("POST", "/login", lambda seen: Reply(403))
    with pytest.raises(SessionLost):
        client.call("GET", "/state")
    client.end()
    assert client.call("GET", "/state").status == 200
    assert server.seen[-1].sent == "new"
    assert len(server.of("/login")) == 1


# Many calls at once


def test_64_calls_on_a_new_client_make_one_session(call: Open, server: Gateway) -> None:
    client = call()
    results = client.parallel([("PATCH", "/state", {f"f{n}": n}) for n in range(64)])
    assert statuses(results) == [200] * 64
    (session,) = server.sessions.values()
    assert len(session.data) == 64
    assert [seen.sent for seen in server.seen].count("new") == 1


def test_first_calls_that_are_redirected_make_one_session(call: Open, server: Gateway) -> None:
    """The first call is alone until the end of the way that it is sent."""
    client = call()
    second = threading.Event()

    def write(seen: Seen) -> Reply:
        if len(server.of("/state")) > 1:
            second.set()
        # One that does not wait for the first answer is here by now.
        second.wait(0.3)
        return server.write(seen)

    server.on("PATCH", "/moved", lambda seen: Reply(307, headers=[("Location", "/moved/again")]))
    server.on("PATCH", "/moved/again", lambda seen: Reply(307, headers=[("Location", "/state")]))
    server.on("PATCH", "/state", write)
    results = client.parallel([("PATCH", "/moved", {f"f{n}": n}) for n in range(16)])
    assert statuses(results) == [200] * 16
    (session,) = server.sessions.values()
    assert len(session.data) == 16


def test_redirects_that_nobody_follows_hold_nobody_up(call: Open, server: Gateway) -> None:
    client = call(follow=False)
    server.on("GET", "/moved", lambda seen: Reply(302, headers=[("Location", "/state")]))
    assert statuses(client.parallel([("GET", "/moved", None)] * 8)) == [302] * 8
    assert statuses(client.parallel([("PATCH", "/state", WRITE)] * 8)) == [200] * 8
    assert len(server.sessions) == 1


def test_calls_go_at_once_after_a_first_one_that_wrote_nothing(call: Open, server: Gateway) -> None:
    client = call()
    client.call("GET", "/state")
    server.on("GET", "/state", together(8, server.read))
    assert statuses(client.parallel([("GET", "/state", None)] * 8)) == [200] * 8


def test_the_next_call_goes_alone_when_the_first_one_fails(call: Open, server: Gateway) -> None:
    client = call()
    server.script("PATCH", "/state", Reply(500), server.write)
    results = client.parallel([("PATCH", "/state", {f"f{n}": n}) for n in range(16)])
    assert sorted(statuses(results), key=str) == [200] * 15 + [500]
    assert len(server.sessions) == 1


def test_a_first_call_that_never_arrives_holds_nobody_up(call: Open, server: Gateway) -> None:
    client = call()
    server.on("POST", "/broken", lambda seen: Reply(0))
    for _ in range(2):
        with pytest.raises(Exception, match=r".") as caught:
            client.call("POST", "/broken")
        assert not isinstance(caught.value, SessionError)
        # It holds the request, which the client of requests then takes for under way.
        del caught
    assert statuses(client.parallel([("PATCH", "/state", WRITE)] * 4)) == [200] * 4
    assert len(server.sessions) == 1


def test_start_makes_one_session_for_all(call: Open, server: Gateway) -> None:
    client = call(origin=server.url)
    client.call("GET", "/state")
    client.start("/state")
    key = client.key
    assert key is not None
    client.start("/state")
    assert client.key == key
    results = client.parallel([("PATCH", "/state", {f"f{n}": n}) for n in range(16)])
    assert statuses(results) == [200] * 16
    assert len(server.sessions) == 1


def test_a_start_that_brings_no_session_says_so(call: Open, server: Gateway) -> None:
    client = call()
    server.on("PATCH", "/state", lambda seen: Reply(200, {}))
    with pytest.raises(SessionNotStarted, match="no session key was announced in X-Session-Key"):
        client.start("/state")
    server.on("PATCH", "/state", server.write)
    client.start("/state")
    assert client.key is not None


def test_an_announcement_counts_only_for_the_key_that_was_sent(call: Open, server: Gateway) -> None:
    """A slow answer to a call with the old key must not bring the old session back."""
    client = call()
    client.call("PATCH", "/state", WRITE)
    arrived, go = threading.Event(), threading.Event()
    stale = make_key()

    def slow(seen: Seen) -> Reply:
        arrived.set()
        go.wait(GATHER)
        return Reply(headers=[(HEADER, stale), ("X-Session-Expires-In", "1")])

    server.on("GET", "/slow", slow)

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(client.call, "GET", "/slow")
        arrived.wait(GATHER)
        client.call("POST", "/login")
        key = client.key
        go.set()
        assert late.result(GATHER).status == 200
    assert client.key == key != stale
    assert (client.expires_in or 0) > 10


def test_superseded_calls_take_the_newer_key(call: Open, server: Gateway) -> None:
    """Calls with the old key are refused before the answer with the new key is there."""
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    rotated, refused = threading.Event(), threading.Barrier(3)

    def rotate(seen: Seen) -> Reply:
        reply = server.login(seen)
        rotated.set()
        refused.wait(GATHER)
        return reply

    def use(seen: Seen) -> Reply:
        rotated.wait(GATHER)
        reply = server.write(seen)
        if reply.status == 409:
            refused.wait(GATHER)
        return reply

    server.on("POST", "/login", rotate)
    server.on("PATCH", "/use", use)
    uses = [("PATCH", "/use", {name: 2}) for name in "bc"]
    results = client.parallel([("POST", "/login", None), *uses])
    assert statuses(results) == [200] * 3
    (session,) = server.sessions.values()
    assert session.data == {"a": 1, "user": "demo", "b": 2, "c": 2}
    assert len(server.of("/use")) == 4


@pytest.mark.parametrize("executed", [True, None])
def test_a_superseded_call_that_may_have_run_is_the_callers(
    call: Open, server: Gateway, executed: bool | None
) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    rotated, refused = threading.Event(), threading.Event()

    def rotate(seen: Seen) -> Reply:
        reply = server.login(seen)
        rotated.set()
        refused.wait(GATHER)
        return reply

    def pay(seen: Seen) -> Reply:
        rotated.wait(GATHER)
        refused.set()
        return problem(409, "superseded", executed)

    server.on("POST", "/login", rotate)
    server.on("POST", "/pay", pay)
    results = client.parallel([("POST", "/login", None), ("POST", "/pay", {})])
    assert statuses(results) == [200, 409]
    assert len(server.of("/pay")) == 1
    (session,) = server.sessions.values()
    assert client.key == session.key


def test_a_key_replaced_by_somebody_else_is_a_loss(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    (session,) = server.sessions.values()
    server.rotate(session)
    with pytest.raises(SessionLost, match="replaced") as caught:
        client.call("GET", "/state")
    assert caught.value.reason == "superseded"
    assert caught.value.executed is False
    assert client.key is None


def test_a_server_that_supersedes_for_ever_is_given_up(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    (session,) = server.sessions.values()

    def refuse(seen: Seen) -> Reply:
        with server.lock:
            reply = problem(409, "superseded")
            reply.headers.append((HEADER, server.rotate(session)))
        return reply

    server.on("GET", "/never", refuse)
    with pytest.raises(SessionLost):
        client.call("GET", "/never")
    assert 1 < len(server.of("/never")) < 10


def test_a_server_that_goes_on_with_another_session_is_followed(
    call: Open, server: Gateway
) -> None:
    """It may be set to, or somebody else has signed in: the client cannot tell."""
    client = call()
    client.call("PATCH", "/state", {"a": 1})

    def forgiving(seen: Seen) -> Reply:
        seen.sent = "new"
        return server.write(seen)

    server.end_all()
    server.on("PATCH", "/state", forgiving)
    assert client.call("PATCH", "/state", {"b": 2}).document == {"state": {"b": 2}}
    (session,) = server.sessions.values()
    assert client.key == session.key


# A session that is gone


@pytest.mark.parametrize("status", [401, 404])
def test_a_lost_session_is_seen(call: Open, server: Gateway, status: int) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    key = str(client.key)
    server.on("GET", "/state", lambda seen: problem(status, "unknown"))
    with pytest.raises(SessionLost, match="not executed") as caught:
        client.call("GET", "/state")
    assert caught.value.session_id == key[:15]
    assert caught.value.reason == "unknown"
    assert caught.value.executed is False
    assert not caught.value.renewed
    assert key not in repr(caught.value) + str(caught.value)
    assert "begins a new, empty session" in str(caught.value)
    assert client.key is None
    client.call("PATCH", "/state", WRITE)
    assert server.seen[-1].sent == "new"


def test_a_401_that_is_not_about_the_session_is_the_callers(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    challenge = [("WWW-Authenticate", "Session")]
    for document, kind in (({"type": "urn:mine:unknown"}, "problem+json"), ({}, "json")):
        reply = Reply(401, document, challenge, f"application/{kind}")
        server.script("GET", "/private", reply)
        assert client.call("GET", "/private").status == 401
    assert client.call("GET", "/state").status == 200
    assert not server.of("/login")


def test_what_a_head_request_cannot_tell_the_next_call_does(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    server.end_all()
    assert client.call("HEAD", "/state").status == 401
    with pytest.raises(SessionLost):
        client.call("GET", "/state")


def test_renews_and_repeats(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", {"a": 1})
    server.end_all()
    assert client.call("PATCH", "/state", {"b": 2}).document == {"state": {"user": "demo", "b": 2}}
    assert [seen.sent for seen in server.of("/login")] == ["new"]


def test_renews_with_a_key_that_renew_returns(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    second = call(key=make_key(), renew=Renew("key", key=str(client.key)))
    assert second.call("GET", "/state").document == {"state": {"a": 1}}


def test_renews_once_for_all_calls_in_flight(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", {"a": 1})
    server.end_all()
    server.script("PATCH", "/state", *[together(16, server.write)] * 16, server.write)
    results = client.parallel([("PATCH", "/state", {f"f{n}": n}) for n in range(16)])
    assert statuses(results) == [200] * 16
    (session,) = server.sessions.values()
    assert len(session.data) == 17
    assert len(server.of("/login")) == 1


def test_a_late_refusal_is_not_repeated_on_a_session_begun_since(
    call: Open, server: Gateway
) -> None:
    """Somebody was told of the loss and went on; this call was not told yet."""
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    arrived, go = threading.Event(), threading.Event()

    def slow(seen: Seen) -> Reply:
        arrived.set()
        go.wait(GATHER)
        return server.read(seen)

    server.on("GET", "/slow", slow)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(client.call, "GET", "/slow")
        arrived.wait(GATHER)
        server.end_all()
        with pytest.raises(SessionLost):
            client.call("GET", "/state")
        client.call("PATCH", "/state", {"b": 2})
        go.set()
        assert isinstance(late.exception(GATHER), SessionLost)
        assert f"another one, of session {str(client.key)[:15]}" in str(late.exception())
    assert len(server.of("/slow")) == 1
    assert client.call("GET", "/state").document == {"state": {"b": 2}}


@pytest.mark.parametrize("executed", [True, None])
def test_does_not_repeat_what_may_have_run(
    call: Open, server: Gateway, executed: bool | None
) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    server.script("POST", "/pay", problem(401, "ended", executed))
    with pytest.raises(SessionLost) as caught:
        client.call("POST", "/pay", {})
    assert caught.value.executed is executed
    assert caught.value.renewed
    assert "make the call again" in str(caught.value)
    assert len(server.of("/pay")) == 1
    assert client.call("GET", "/state").document == {"state": {"user": "demo"}}


def test_repeats_what_is_idempotent_even_if_it_ran(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    server.script("PUT", "/thing", problem(401, "ended", executed=True), Reply(200, {"ok": 1}))
    assert client.call("PUT", "/thing", {}).document == {"ok": 1}


def test_a_renewal_that_fails_is_a_loss_for_all(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("fail"))
    client.start("/state")
    server.end_all()
    server.script("GET", "/state", *[together(4, server.read)] * 4, server.read)
    results = client.parallel([("GET", "/state", None)] * 4)
    assert statuses(results) == ["SessionLost"] * 4
    reasons = {result.reason for result in results if isinstance(result, SessionLost)}
    assert reasons == {"renewal"}
    # Not started over by the next call either: it tries to renew again.
    assert all("renewed first" in str(result) for result in results)
    with pytest.raises(SessionLost):
        client.call("GET", "/state")
    assert len(server.of("/state")) == 5


def test_a_renewal_that_hangs_is_given_up(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("hang"), renew_timeout=0.2)
    client.call("PATCH", "/state", WRITE)
    server.end_all()
    results = client.parallel([("GET", "/state", None)] * 4)
    assert statuses(results) == ["SessionLost"] * 4


def test_a_renewal_may_be_given_all_the_time_there_is(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"), renew_timeout=1e12)
    client.call("PATCH", "/state", WRITE)
    server.end_all()
    assert client.call("GET", "/state").document == {"state": {"user": "demo"}}


@pytest.mark.parametrize("kind", ["unknown", "other"])
def test_a_renewal_that_is_answered_401_is_a_loss(call: Open, server: Gateway, kind: str) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    server.end_all()
    server.on("POST", "/login", lambda seen: problem(401, kind))
    with pytest.raises(SessionLost) as caught:
        client.call("GET", "/state")
    assert caught.value.reason == "renewal"
    assert len(server.of("/login")) == 1


def test_a_renewed_session_that_is_refused_again_is_a_loss(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    server.on("GET", "/cursed", lambda seen: problem(401, "unknown"))
    with pytest.raises(SessionLost):
        client.call("GET", "/cursed")
    assert len(server.of("/cursed")) == 2
    assert len(server.of("/login")) == 1


@pytest.mark.parametrize("library", CANCELLABLE, indirect=True)
def test_a_call_cancelled_while_renewing_takes_nobody_along(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    server.end_all()
    renewing, go = threading.Event(), threading.Event()

    def slow_login(seen: Seen) -> Reply:
        renewing.set()
        go.wait(GATHER)
        return server.login(seen)

    server.on("POST", "/login", slow_login)
    client.cancelled("GET", "/state", renewing)
    go.set()
    results = client.parallel([("GET", "/state", None)] * 4)
    assert statuses(results) == [200] * 4
    assert len(server.of("/login")) == 1


@pytest.mark.parametrize("library", CANCELLABLE, indirect=True)
def test_a_cancelled_first_call_holds_nobody_up(call: Open, server: Gateway) -> None:
    client = call()
    arrived, go = threading.Event(), threading.Event()

    def slow(seen: Seen) -> Reply:
        arrived.set()
        go.wait(GATHER)
        return Reply()

    server.on("GET", "/slow", slow)
    client.cancelled("GET", "/slow", arrived)
    assert statuses(client.parallel([("PATCH", "/state", WRITE)] * 4)) == [200] * 4
    go.set()
    assert len(server.sessions) == 1


# A store that is down


def test_waits_and_repeats_on_503(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    down = problem(503, "unavailable", False, ("Retry-After", "0"))
    server.script("PATCH", "/state", down, down, server.write)
    assert client.call("PATCH", "/state", {"a": 1}).document == {"state": {"a": 1} | WRITE}


def test_understands_a_date_to_come_back_at(call: Open, server: Gateway) -> None:
    client = call()
    past = formatdate(time.time() - 60, usegmt=True)
    server.script("GET", "/x", Reply(503, headers=[("Retry-After", past)]), Reply(200))
    assert client.call("GET", "/x").status == 200


@pytest.mark.parametrize("said", ["3600", "later", None, "-1", "1.5", "5 minutes", "1e0", "2 s"])
def test_does_not_wait_beyond_the_bound(call: Open, server: Gateway, said: str | None) -> None:
    client = call(max_wait=5)
    headers = [] if said is None else [("Retry-After", said)]
    server.on("GET", "/x", lambda seen: Reply(503, headers=headers))
    assert client.call("GET", "/x").status == 503
    assert len(server.of("/x")) == 1


def test_a_server_that_is_never_ready_is_given_up_at_the_bound(call: Open, server: Gateway) -> None:
    """All tries of a call together, and none of them at once after the one before."""
    client = call(max_wait=0.3)
    down = Reply(503, headers=[("Retry-After", "0")])
    server.script("GET", "/x", *[down] * 20, Reply(200))
    assert client.call("GET", "/x").status == 503
    assert 2 <= len(server.of("/x")) <= 8
    # The next call has a bound of its own.
    before = len(server.of("/x"))
    assert client.call("GET", "/x").status == 503
    assert len(server.of("/x")) > before + 1


def test_the_connection_of_a_call_that_is_repeated_is_used_again(
    call: Open, server: Gateway
) -> None:
    client = call(renew=Renew("call"), max_wait=30)
    client.call("PATCH", "/state", WRITE)
    # Too long to lie in any buffer.
    page = b"<p>down</p>" * 100_000
    down = Reply(503, None, [("Retry-After", "0")], "text/html", page)
    server.script("GET", "/x", down, down, down, Reply(200))
    assert client.call("GET", "/x").status == 200
    server.end_all()
    assert client.call("GET", "/state").status == 200
    assert len(server.seen) == 8
    # Renewing makes a call beside the one that waits for it.
    assert server.connections <= 2


def test_does_not_wait_when_told_not_to(call: Open, server: Gateway) -> None:
    client = call(max_wait=0)
    server.on("GET", "/x", lambda seen: Reply(503, headers=[("Retry-After", "0")]))
    assert client.call("GET", "/x").status == 503
    assert len(server.of("/x")) == 1


@pytest.mark.parametrize("executed", [True, None])
def test_does_not_repeat_a_503_that_may_have_run(
    call: Open, server: Gateway, executed: bool | None
) -> None:
    client = call()
    reply = problem(503, "unavailable", executed, ("Retry-After", "0"))
    server.on("POST", "/pay", lambda seen: reply)
    assert client.call("POST", "/pay", {}).status == 503
    assert len(server.of("/pay")) == 1


@pytest.mark.parametrize(
    "reply",
    [
        problem(400, "malformed"),
        problem(403, "insecure"),
        problem(413, "too-large", executed=True),
        Reply(429, headers=[("Retry-After", "0")]),
        Reply(500),
        Reply(502),
    ],
)
def test_repeats_nothing_else(call: Open, server: Gateway, reply: Reply) -> None:
    client = call()
    server.on("GET", "/x", lambda seen: reply)
    assert client.call("GET", "/x").status == reply.status
    assert len(server.of("/x")) == 1


# What else the middleware answers: of the 409s only one means that there is a newer key, and of the
# 401s two that there is none.
NOT_ABOUT_THE_KEY = [
    (409, "busy", False),
    (409, "lease-expired", True),
    (409, "too-many-contexts", True),
    (404, "unknown-context", False),
    (400, "malformed-context", False),
    # One that is not known yet, with the status of one that is.
    (409, "whatever-comes", False),
    (401, "whatever-comes", False),
]


def test_what_is_not_about_the_key_is_the_callers(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    key = client.key
    for status, kind, executed in NOT_ABOUT_THE_KEY:
        reply = problem(status, kind, executed, ("Retry-After", "0"))
        for method in ("GET", "POST"):
            path = f"/{status}/{kind}"
            server.script(method, path, reply)
            got = client.call(method, path)
            assert (got.status, got.document) == (status, reply.document)
        assert [seen.method for seen in server.of(path)] == ["GET", "POST"]
    assert client.key == key
    assert not server.of("/login")


# Where the key goes


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_stays_at_home_when_redirected_away(
    call: Open, server: Gateway, other: Server, status: int
) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    foreign = make_key()
    server.on("GET", "/away", lambda seen: Reply(status, headers=[("Location", other.url + "/x")]))
    other.on("GET", "/x", lambda seen: Reply(200, {}, [(HEADER, foreign)]))
    assert client.call("GET", "/away").status == 200
    assert [seen.sent for seen in other.of("/x")] == [None]
    assert client.key not in (None, foreign)
    assert server.of("/away")[0].sent == client.key


# What a parser, or another one, may take for a place at home.
SPELLINGS = [
    "//{other}/x",
    "http://{home}@{other}/x",
    "http://{other}\\@{home}/x",
    "http://{other}#@{home}",
    "////{other}/x",
    "//////{other}/x",
    "http:////{other}/x",
    "////{home}@{other}/x",
]


@pytest.mark.parametrize("location", SPELLINGS)
def test_no_spelling_of_a_redirect_takes_the_key_away(
    call: Open, server: Gateway, other: Server, location: str
) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    home, away = server.url.removeprefix("http://"), other.url.removeprefix("http://")
    reply = Reply(302, headers=[("Location", location.format(home=home, other=away))])
    server.on("GET", "/x", lambda seen: reply)
    # Each library finds its own of these URLs to be broken; that is not the point.
    with suppress(Exception):
        client.call("GET", "/x")
    assert client.key is not None
    assert [seen.sent for seen in other.seen] == [None] * len(other.seen)


def test_the_key_comes_along_when_redirected_within(call: Open, server: Gateway) -> None:
    """What a redirect itself announces is taken, and sent on the next hop."""
    client = call()
    client.call("PATCH", "/state", {"a": 1})

    def sign_in(seen: Seen) -> Reply:
        reply = server.login(seen)
        reply.status = 302
        reply.headers.append(("Location", "/state"))
        return reply

    server.on("POST", "/sign-in", sign_in)
    got = client.call("POST", "/sign-in", {})
    assert got.document == {"state": {"a": 1, "user": "demo"}}
    (session,) = server.sessions.values()
    assert server.seen[-1].sent == session.key == client.key


def test_a_first_call_that_is_redirected_makes_one_session(call: Open, server: Gateway) -> None:
    client = call()

    def sign_in(seen: Seen) -> Reply:
        reply = server.login(seen)
        reply.status = 303
        reply.headers.append(("Location", server.url + "/state"))
        return reply

    server.on("POST", "/sign-in", sign_in)
    assert client.call("POST", "/sign-in", {}).document == {"state": {"user": "demo"}}
    assert len(server.sessions) == 1


def test_the_key_is_back_after_a_way_round(call: Open, server: Gateway, other: Server) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    server.on("GET", "/out", lambda seen: Reply(302, headers=[("Location", other.url + "/x")]))
    home = server.url + "/state"
    other.on("GET", "/x", lambda seen: Reply(302, headers=[("Location", home)]))
    assert client.call("GET", "/out").document == {"state": {"a": 1}}
    assert [seen.sent for seen in other.seen] == [None]
    assert server.seen[-1].sent == client.key


def test_a_redirect_that_is_not_followed_is_the_callers(call: Open, server: Gateway) -> None:
    client = call(follow=False)
    key = make_key()
    reply = Reply(302, headers=[("Location", "/state"), (HEADER, key)])
    server.on("GET", "/x", lambda seen: reply)
    assert client.call("GET", "/x").status == 302
    assert client.key == key
    assert len(server.seen) == 1


def test_a_session_lost_on_a_later_hop_is_renewed(call: Open, server: Gateway) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)

    def ends(seen: Seen) -> Reply:
        server.end_all()
        return Reply(302, headers=[("Location", "/state")])

    server.on("POST", "/x", ends)
    assert client.call("POST", "/x", {}).document == {"state": {"user": "demo"}}
    assert len(server.of("/x")) == 1


def test_other_origins_are_called_without_the_session(
    call: Open, server: Gateway, other: Server
) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    key = client.key
    assert client.call("PATCH", other.url + "/state", WRITE).status == 200
    assert other.seen[-1].sent is None
    assert client.key == key


def test_a_header_of_the_clients_own_takes_the_key_nowhere_else(
    call: Open, server: Gateway, other: Server
) -> None:
    """Who has put it among the default headers sends it to whomever the client calls."""
    first = call()
    first.call("PATCH", "/state", {"a": 1})
    key = str(first.key)
    client = call(key=key, headers={HEADER: key})
    server.on("GET", "/away", lambda seen: Reply(302, headers=[("Location", other.url + "/x")]))
    assert client.call("GET", "/state").document == {"state": {"a": 1}}
    client.call("GET", "/away")
    client.call("GET", other.url + "/y")
    # It stays the session's own, however often its key was replaced since.
    client.call("POST", "/login")
    client.call("GET", "/away")
    client.call("GET", other.url + "/y")
    assert len(other.seen) == 4
    assert {seen.sent for seen in other.seen} == {None}
    assert client.call("GET", "/state").status == 200


def test_a_header_for_another_service_is_left_alone(
    call: Open, server: Gateway, other: Server
) -> None:
    theirs = make_key()
    client = call(headers={HEADER: theirs})
    client.call("PATCH", "/state", WRITE)
    assert client.call("GET", other.url + "/x").status == 404
    assert [seen.sent for seen in other.seen] == [theirs]
    assert [seen.sent for seen in server.seen] == ["new"]


@pytest.mark.parametrize("away", ["http://example.test", "http://127.0.0.1.example.test:80"])
def test_no_plain_http_beyond_this_host(opener: Open, away: str) -> None:
    with pytest.raises(InsecureOrigin, match="plain HTTP"):
        opener(away, key=make_key())
    client = opener(away)
    with pytest.raises(InsecureOrigin, match="plain HTTP"):
        client.call("GET", "/x")


def test_plain_http_when_told_to(opener: Open) -> None:
    key = make_key()
    assert opener("http://example.test", key=key, insecure=True).key == key


# A server that does not keep to the protocol


@pytest.mark.parametrize(
    "announced",
    [
        ["garbage"],
        ["A" * 40],
        ["a" * 39],
        ["a" * 41],
        ["new"],
        ["a" * 40, "b" * 40],
        ["a" * 40, "a" * 40],
        [f"{'a' * 40},{'b' * 40}"],
        ["", ""],
        ["é" * 40],
        ["x" * 8000],
    ],
)
def test_an_announcement_that_is_none_is_ignored(
    call: Open, server: Gateway, announced: list[str]
) -> None:
    client = call()
    client.call("PATCH", "/state", {"a": 1})
    key = client.key
    reply = Reply(200, {}, [(HEADER, value) for value in announced])
    server.on("GET", "/bad", lambda seen: reply)
    assert client.call("GET", "/bad").status == 200
    assert client.key == key
    assert client.call("GET", "/state").document == {"state": {"a": 1}}


def test_a_key_on_a_500_counts(call: Open, server: Gateway) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    (session,) = server.sessions.values()

    def fail(seen: Seen) -> Reply:
        return Reply(500, None, [(HEADER, server.rotate(session))])

    server.on("POST", "/fail", fail)
    assert client.call("POST", "/fail").status == 500
    assert client.key == session.key
    assert client.call("GET", "/state").status == 200


UNREADABLE = [
    *(b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"[" * 50_000, b"[" * 500),
    *(b'{"type": 5}', b'{"type": null}', b'{"type": ["urn:django-header-sessions:unknown"]}'),
    b'{"title": "urn:django-header-sessions:unknown"}',
]


@pytest.mark.parametrize("status", [401, 409, 503])
def test_a_problem_that_cannot_be_read_is_the_callers(
    call: Open, server: Gateway, status: int
) -> None:
    client = call()
    client.call("PATCH", "/state", WRITE)
    key = client.key
    for raw in UNREADABLE:
        reply = Reply(status, raw=raw, content_type="application/problem+json")
        for method in ("GET", "HEAD"):
            server.script(method, "/bad", reply)
            assert client.call(method, "/bad").status == status, raw
    assert len(server.of("/bad")) == 2 * len(UNREADABLE)
    assert client.key == key


def test_whether_a_call_ran_is_not_known_from_what_is_no_boolean(
    call: Open, server: Gateway
) -> None:
    client = call(renew=Renew("call"))
    client.call("PATCH", "/state", WRITE)
    reply = problem(401, "unknown")
    reply.document["executed"] = "no"
    server.on("POST", "/pay", lambda seen: reply)
    with pytest.raises(SessionLost) as caught:
        client.call("POST", "/pay", {})
    assert caught.value.executed is None
    assert len(server.of("/pay")) == 1


# The key is a password


def test_no_key_is_in_a_log_or_an_exception(
    call: Open, server: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = call(renew=Renew("call"), renew_timeout=5)
    keys: list[str] = []
    errors: list[BaseException] = []

    def make(method: str, path: str) -> None:
        try:
            client.call(method, path, None if method == "GET" else {})
        except SessionError as error:
            errors.append(error)
        keys.append(str(client.key))

    make("PATCH", "/state")
    for value in (keys[0].upper(), f"{keys[0]},{keys[0]}", keys[0][:-1], make_key()):
        announcing = Reply(500, {}, [(HEADER, value)])
        keys.append(value)
        server.script("POST", "/bad", announcing)
        make("POST", "/bad")
    make("POST", "/login")
    server.end_all()
    make("GET", "/state")
    make("POST", "/login")
    (session,) = server.sessions.values()
    keys.append(server.rotate(session))
    make("PATCH", "/state")
    server.on("POST", "/login", lambda seen: Reply(403))
    make("GET", "/state")
    with pytest.raises(ValueError, match="40"):
        call(key=keys[0] + "x")
    with pytest.raises(SessionError) as caught:
        client.start("/nowhere")
    errors.append(caught.value)
    assert len(errors) == 3
    told = caplog.text + client.shown()
    for error in errors:
        told += repr(error) + "".join(traceback.format_exception(error))
    secrets = {key[15:].lower() for key in keys if len(key) > 30}
    assert len(secrets) >= 5
    assert not [secret for secret in secrets if secret in told.lower()]
    # That something was told at all.
    assert keys[0][:15] in told
