"""What is particular to one client library, and what the decisions are made of."""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib
import json
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest
import requests

from django_header_sessions.clients import aiohttp as sessions_aiohttp
from django_header_sessions.clients import requests as sessions_requests
from django_header_sessions.clients.answers import Answer, seconds_of
from django_header_sessions.clients.exceptions import (
    InsecureOrigin,
    SessionError,
    SessionLost,
    SessionNotStarted,
)
from django_header_sessions.clients.flow import Flow
from django_header_sessions.clients.keys import SessionKey
from django_header_sessions.clients.origins import origin_of
from django_header_sessions.clients.steps import Flight, Held, Launch, Step, Steps, Wait

from .drivers import HttpxCaller, Options, Renew
from .server import HEADER, URN, Reply, Seen, Server, Session, make_key, problem
from .test_conformance import SPELLINGS, statuses, together

KEY = make_key()


@pytest.fixture(params=["httpx", "httpx2"])
def name(request: pytest.FixtureRequest) -> str:
    library: str = request.param
    return library


@pytest.fixture
def bare(name: str, server: Server) -> Iterator[HttpxCaller]:
    """httpx that follows redirects, without the hooks."""
    caller = HttpxCaller(name, Options(server.url, renew=Renew("call")), hooks=False)
    yield caller
    caller.close()


def broken(caller: HttpxCaller) -> tuple[type[Exception], ...]:
    """What httpx, and httpx2, raise for a URL or a connection."""
    library = importlib.import_module(type(caller.client).__module__.partition(".")[0])
    return (library.HTTPError, library.InvalidURL)


def redirect(status: int, location: str) -> Reply:
    return Reply(status, headers=[("Location", location)])


# Imports


@pytest.mark.parametrize("library", ["httpx", "httpx2", "requests", "aiohttp"])
def test_each_module_imports_its_own_library_and_no_django(library: str) -> None:
    others = {"django", "httpx", "httpx2", "requests", "aiohttp"} - {library}
    code = f"""
import sys
import django_header_sessions.clients.{library} as module
assert module.HeaderSession.__module__ == module.__name__
assert not {others!r} & set(sys.modules), {others!r} & set(sys.modules)
assert all(hasattr(module, name) for name in module.__all__)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# What is raised


def test_a_loss_survives_copying_and_the_way_between_processes() -> None:
    lost = SessionLost(KEY[:15], "ended", executed=True, renewed=True, detail="gone", outlook="So.")
    # One that cannot be unpickled would break a whole pool of processes.
    for again in (copy.copy(lost), pickle.loads(pickle.dumps(lost))):
        assert type(again) is SessionLost
        assert vars(again) == vars(lost)
        assert str(again) == str(lost)


# Where a URL leads


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.com", "https://example.com"),
        ("https://example.com:443/x", "https://example.com"),
        ("http://example.com:80?q", "http://example.com"),
        ("http://example.com:0080/", "http://example.com"),
        ("http://example.com:8000#f", "http://example.com:8000"),
        ("http://user:secret@example.com/", "http://example.com"),
        ("http://home:80@evil.example/", "http://evil.example"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://example.com:/x", "http://example.com"),
        ("http://evil.example\\@home/", None),
        ("http://home\\.evil.example/", None),
        ("http://a@home@evil.example/", None),
        ("http://ho me/", None),
        ("http://home:80:80/", None),
        ("http://home:" + "1" * 5000, None),
        ("http://hömé/", None),
        ("//home/", None),
        ("/path", None),
        ("", None),
        ("ftp://home/", None),
        ("http:///x", None),
    ],
)
def test_the_origin_of_a_url(url: str, origin: str | None) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        ("http://localhost", True),
        ("http://app.localhost:8000", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:8000", True),
        ("https://example.com", True),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_loopback_may_be_plain(origin: str, fine: bool) -> None:
    if fine:
        assert Flow(origin=origin).origin == origin
    else:
        with pytest.raises(InsecureOrigin):
            Flow(origin=origin)


def test_an_origin_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="origin"):
        Flow(origin="example.com")


@pytest.mark.parametrize("location", SPELLINGS)
def test_no_spelling_of_a_redirect_takes_the_key_from_httpx_alone(
    bare: HttpxCaller, server: Server, other: Server, location: str
) -> None:
    bare.call("PATCH", "/state", {})
    home, away = server.url.removeprefix("http://"), other.url.removeprefix("http://")
    server.on("GET", "/x", lambda seen: redirect(302, location.format(home=home, other=away)))
    # The library finds some of these URLs to be broken; that is not the point.
    with suppress(ValueError, OSError, *broken(bare)):
        bare.call("GET", "/x")
    assert [seen.sent for seen in other.seen] == [None] * len(other.seen)


# The session itself


def test_where_a_session_is(server: Server) -> None:
    assert Flow(resource="https://a.example/s").resource_url == "https://a.example/s"
    assert Flow(origin=server.url).resource_url == server.url + "/api/sessions/current/"
    with pytest.raises(SessionError, match="origin"):
        _ = Flow().resource_url


def test_what_there_is_without_a_session(bare: HttpxCaller, server: Server) -> None:
    assert bare.session.id is None
    assert bare.keep_alive() is None
    assert "no session" in repr(bare.session)
    bare.end()
    bare.session.renew = None
    with pytest.raises(ValueError, match="start"):
        bare.session.start()
    assert not server.seen


def test_a_session_that_is_let_go(bare: HttpxCaller, server: Server) -> None:
    bare.call("PATCH", "/state", {})
    bare.session.forget()
    bare.call("PATCH", "/state", {})
    assert [seen.sent for seen in server.seen] == ["new", "new"]


def test_a_start_that_fails_costs_no_session_that_another_call_has_made(
    name: str, server: Server
) -> None:
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    session = module.HeaderSession(origin=server.url)
    sent, failing, made = threading.Event(), threading.Event(), threading.Event()

    def slow(seen: Seen) -> Reply:
        sent.set()
        failing.wait(10)
        return server.write(seen)

    def fail() -> None:
        failing.set()
        made.wait(10)
        raise ZeroDivisionError

    server.on("PATCH", "/slow", slow)
    with importlib.import_module(name).Client(auth=session, base_url=server.url) as client:
        client.get("/state")  # writes nothing: those after it do not wait for one another

        def write() -> None:
            client.patch("/slow", json={"a": 1})
            made.set()

        thread = threading.Thread(target=write)
        thread.start()
        sent.wait(10)
        with pytest.raises(SessionNotStarted):
            session.start(fail)
        thread.join()
        assert client.get("/state").json() == {"state": {"a": 1}}

        def begin_and_fail() -> None:
            client.patch("/state", json={})
            client.post("/login")
            raise ZeroDivisionError

        # One of its own that was begun only, it forgets.
        session.forget()
        with pytest.raises(SessionNotStarted):
            session.start(begin_and_fail)
        assert session.key is None


def test_start_waits_for_a_first_call(bare: HttpxCaller, server: Server) -> None:
    arrived, go = threading.Event(), threading.Event()

    def slow(seen: Seen) -> Reply:
        arrived.set()
        go.wait(10)
        return server.write(seen)

    server.on("PATCH", "/slow", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(bare.call, "PATCH", "/slow", {})
        assert arrived.wait(10)
        starting = pool.submit(bare.start, "/state")
        go.set()
        first.result(10)
        starting.result(10)
    assert len(server.sessions) == 1


def test_starts_at_once_are_one(bare: HttpxCaller, server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(bare.start, ["/state"] * 8)) == [None] * 8
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 7 ", 7.0),
        ("-1", None),
        ("9" * 9, 999999999.0),
        ("9" * 400, None),
        ("٣", None),
        ("1.5", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
        ("soon", None),
        ("", None),
    ],
)
def test_how_long_to_wait(said: str | None, seconds: float | None) -> None:
    assert seconds_of(said) == seconds


# Threads, which a lock keeps from deciding the same thing twice


@pytest.fixture
def impatient() -> Iterator[None]:
    """An interpreter that lets another thread go on at the next opportunity."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    yield
    sys.setswitchinterval(before)


def next_steps(calls: list[Steps], answer: Answer | None) -> list[Step]:
    """The next step of each call, all taken at the same moment."""
    barrier = threading.Barrier(len(calls))
    taken: list[Step] = []

    def take(steps: Steps) -> None:
        barrier.wait(10)
        taken.append(next(steps) if answer is None else steps.send(answer))

    threads = [threading.Thread(target=take, args=(steps,)) for steps in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return taken


@pytest.mark.usefixtures("impatient")
def test_of_many_first_calls_one_goes_alone() -> None:
    for _ in range(150):
        session = Flow(origin="https://a.example")
        calls = [session.call() for _ in range(6)]
        steps = next_steps(calls, None)
        assert len(steps) == 6
        assert [type(step) for step in steps].count(Held) == 1
        for call in calls:
            call.close()


@pytest.mark.usefixtures("impatient")
def test_of_many_calls_that_find_the_session_gone_one_renews_it() -> None:
    gone = Answer(401, problem={"type": "urn:django-header-sessions:unknown"})
    for _ in range(150):
        session = Flow(key=KEY, origin="https://a.example", renew=dict)
        calls = [session.call() for _ in range(6)]
        for call in calls:
            next(call)
        steps = next_steps(calls, gone)
        assert len(steps) == 6
        assert [type(step) for step in steps].count(Launch) == 1
        for call in calls:
            call.close()


def test_a_call_that_is_refused_once_another_had_the_session_renewed_goes_on() -> None:
    newer = make_key()
    session = Flow(key=KEY, origin="https://a.example", renew=lambda: newer)
    first, second = session.call(), session.call()
    for call in (first, second):
        next(call)
    gone = Answer(401, problem={"type": "urn:django-header-sessions:unknown", "executed": False})
    session.run(cast("Launch", first.send(gone)).flight)
    assert cast("Held", second.send(gone)).key == newer


def test_all_calls_that_were_superseded_go_on_with_the_key_that_another_brings() -> None:
    session = Flow(key=KEY, origin="https://a.example")
    first, second, third = calls = [session.call() for _ in range(3)]
    for call in calls:
        next(call)
    superseded = Answer(
        409, problem={"type": "urn:django-header-sessions:superseded", "executed": False}
    )
    once, waits = second.send(superseded), [third.send(superseded)]
    # The third may have been the last that could bring one: who waits looks again.
    assert cast("Wait", once).future.done()
    waits.append(next(second))
    assert not any(cast("Wait", wait).future.done() for wait in waits)
    newer = make_key(KEY[:15])
    with pytest.raises(StopIteration):
        first.send(Answer(200, announced=[newer]))
    assert all(cast("Wait", wait).future.done() for wait in waits)
    assert [cast("Held", next(call)).key for call in (second, third)] == [newer, newer]


# httpx without the hooks


def test_httpx_alone_never_hands_the_key_on(
    bare: HttpxCaller, server: Server, other: Server
) -> None:
    bare.call("PATCH", "/state", {})
    server.on("GET", "/away", lambda seen: redirect(302, other.url + "/x"))
    bare.call("GET", "/away")
    assert [seen.sent for seen in other.seen] == [None]


def test_httpx_alone_makes_a_hop_again_with_the_key(bare: HttpxCaller, server: Server) -> None:
    bare.call("PATCH", "/state", {"a": 1})

    def sign_in(seen: Seen) -> Reply:
        reply = server.login(seen)
        reply.status = 302
        reply.headers.append(("Location", "/between"))
        return reply

    server.on("POST", "/sign-in", sign_in)
    server.on("GET", "/between", lambda seen: redirect(302, "/state"))
    got = bare.call("POST", "/sign-in", {})
    assert got.document == {"state": {"a": 1, "user": "demo"}}
    assert server.seen[-1].sent == bare.key
    assert len(server.of("/sign-in")) == 1


async def test_httpx_alone_makes_a_hop_again_in_async(name: str, server: Server) -> None:
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    library = importlib.import_module(name)
    session = module.HeaderSession()
    options = {"auth": session, "base_url": server.url, "follow_redirects": True}
    server.on("GET", "/between", lambda seen: redirect(302, "/state"))
    async with library.AsyncClient(**options, trust_env=False) as client:
        await client.patch("/state", json={"a": 1})
        assert (await client.get("/between")).json() == {"state": {"a": 1}}
    assert server.seen[-1].sent == session.key


def test_httpx_alone_says_when_a_hop_cannot_be_made_again(
    bare: HttpxCaller, server: Server
) -> None:
    bare.call("PATCH", "/state", {})
    server.on("POST", "/x", lambda seen: redirect(307, "/y"))
    server.on("POST", "/y", lambda seen: Reply())
    with pytest.raises(SessionError, match="event_hooks"):
        bare.call("POST", "/x", {})


@pytest.mark.parametrize("mixed", [False, True])
def test_a_client_with_the_hooks_of_one_session_serves_others_too(
    mixed: bool, name: str, server: Server
) -> None:
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    library = importlib.import_module(name)
    ann, bob = module.HeaderSession(), module.HeaderSession()
    hooks = ann.event_hooks
    if mixed:
        hooks = {kind: [*hooks[kind], *bob.event_hooks[kind]] for kind in hooks}
    server.on("GET", "/between", lambda seen: redirect(302, "/state"))
    server.on("DELETE", "/between", lambda seen: redirect(308, "/state"))
    server.on("DELETE", "/state", lambda seen: Reply(204, headers=[(HEADER, "")]))
    with library.Client(
        auth=ann, base_url=server.url, event_hooks=hooks, follow_redirects=True, trust_env=False
    ) as client:
        client.patch("/state", json={"user": "ann"})
        client.patch("/state", json={"user": "bob"}, auth=bob)
        assert bob.key not in (None, ann.key)
        for session, user in ((ann, "ann"), (bob, "bob")):
            client.post("/login", auth=session)
            client.patch("/state", json={"user": user}, auth=session)
            assert client.get("/state", auth=session).json()["state"] == {"user": user}
            assert client.get("/between", auth=session).json()["state"] == {"user": user}
        ann_key = ann.key
        try:
            client.delete("/between", auth=bob)
        except SessionError:
            assert not mixed  # nobody carries bob's key on
        else:
            assert server.seen[-1].sent != ann_key
            assert bob.key is None
        assert ann.key == ann_key
    assert len(server.sessions) == 2


@pytest.mark.parametrize("copied", ["Headers", "dict", "raw"])
@pytest.mark.parametrize("hooks", [False, True])
def test_who_replaces_the_headers_in_the_last_moment_takes_no_key_away(
    hooks: bool, copied: str, name: str, server: Server, other: Server
) -> None:
    """As tracing does, which adds one of its own."""
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    library = importlib.import_module(name)

    class Traced(library.HTTPTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            headers: Any = {
                "Headers": lambda: library.Headers(request.headers),
                "dict": lambda: library.Headers(dict(request.headers)),
                "raw": lambda: library.Headers(request.headers.raw),
            }[copied]()
            headers["traceparent"] = "00"
            request.headers = headers
            return super().handle_request(request)

    session = module.HeaderSession()
    options = {"event_hooks": session.event_hooks} if hooks else {}
    server.on("GET", "/away", lambda seen: redirect(302, other.url + "/x"))
    with library.Client(
        transport=Traced(), auth=session, base_url=server.url, follow_redirects=True, **options
    ) as client:
        for number in range(2):
            client.patch("/state", json={str(number): number})
        assert client.get("/state").json()["state"] == {"0": 0, "1": 1}
        client.get("/away")
        request = client.get("/state").request
    assert [seen.headers.get("traceparent") for seen in server.seen] == ["00"] * 5
    assert session.key is not None
    assert server.seen[-1].sent == session.key
    assert [seen.sent for seen in other.seen] == [None]
    assert (repr(request), str(session.key) in repr(request.headers)) == (
        f"<Request('GET', '{server.url}/state')>",
        False,
    )


@pytest.mark.parametrize("library", ["httpx", "httpx2", "requests"])
def test_an_answer_can_be_kept(library: str, server: Server) -> None:
    """Among processes, and on disk."""
    module = importlib.import_module(f"django_header_sessions.clients.{library}")
    session = module.HeaderSession()
    with getattr(
        importlib.import_module(library), "Session" if library == "requests" else "Client"
    )() as client:
        client.auth = session
        client.patch(server.url + "/state", json={"a": 1})
        answer = client.get(server.url + "/state")
        for kept in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
            assert kept.json() == {"state": {"a": 1}}
            assert kept.request.method == "GET"
        assert client.get(server.url + "/state").status_code == 200
    assert str(session.key)[15:].encode() not in pickle.dumps(answer)
    if library == "requests":
        # What is sent of it names the session, and opens nothing.
        with requests.Session() as plain:
            plain.send(kept.request)
        assert server.seen[-1].sent == session.id


@pytest.mark.parametrize("first", ["url", "headers"])
@pytest.mark.parametrize("copied", ["nothing", "pairs", "not replaced"])
def test_a_request_that_was_turned_to_another_host_takes_no_key_along(
    copied: str, first: str, name: str, server: Server, other: Server
) -> None:
    """As a transport does that goes elsewhere where a server is down."""
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    library = importlib.import_module(name)

    class Elsewhere(library.HTTPTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            if request.url.path == "/moved":
                url = library.URL(other.url + "/x")
                headers = dict(request.headers) if copied == "pairs" else {}
                headers["host"] = url.netloc.decode()
                if first == "url":
                    request.url = url
                if copied != "not replaced":
                    request.headers = library.Headers(headers)
                request.url = url
            return super().handle_request(request)

    session = module.HeaderSession()
    with library.Client(transport=Elsewhere(), auth=session, base_url=server.url) as client:
        client.patch("/state", json={})
        client.get("/moved")
    assert session.key is not None
    assert [seen.sent for seen in other.seen] == [None]


def test_a_hook_that_writes_headers_anew_gives_no_copy_of_the_key(
    name: str, server: Server, other: Server
) -> None:
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    library = importlib.import_module(name)

    def strip(request: Any) -> None:
        for header, value in list(request.headers.items()):
            request.headers[header] = value.strip()
        request.headers.update({**request.headers, "A": "b"})
        request.headers.pop("X-Session-Key", None)

    session = module.HeaderSession()
    hooks = session.event_hooks
    hooks["request"].append(strip)
    server.on("GET", "/away", lambda seen: redirect(302, other.url + "/x"))
    with library.Client(
        auth=session, base_url=server.url, follow_redirects=True, event_hooks=hooks
    ) as client:
        client.patch("/state", json={})
        client.get("/away")
    assert server.seen[-1].sent == session.key
    assert server.seen[-1].headers["A"] == "b"
    assert [seen.sent for seen in other.seen] == [None]


def test_headers_that_would_hand_the_key_on_are_refused() -> None:
    from django_header_sessions.clients._httpx import keyed_headers

    class Headers(dict[str, str]):
        encoding = "ascii"

        def __init__(self, headers: Any = (), encoding: str = "") -> None:
            super().__init__(headers)

        def __contains__(self, key: object) -> bool:
            return True

    with pytest.raises(RuntimeError, match="does not support"):
        keyed_headers(Headers)


def test_keyed_headers_show_the_key_to_who_asks_for_it(name: str) -> None:
    library = importlib.import_module(name)
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers)
        return library.Response(200)

    transport = library.MockTransport(answer)
    auth = module.HeaderSession(key=KEY, origin="https://example.com")
    with library.Client(auth=auth, transport=transport) as client:
        client.get("https://example.com/", headers={"x-session-key": "my own", "a": "b"})
    (headers,) = seen
    assert headers["x-session-key"] == headers.get("X-Session-Key") == KEY
    assert "X-SESSION-KEY" in headers
    assert headers["a"] == "b"
    assert dict(headers) == dict(headers.items())
    assert set(headers) == set(headers.keys()) == set(dict(headers.multi_items()))
    assert KEY in headers.values()
    assert headers.get_list("x-session-key") == [KEY]
    assert len(headers) == len(headers.raw) == len(list(headers))
    assert [value for key, value in headers.raw if key == b"X-Session-Key"] == [KEY.encode()]
    assert KEY not in repr(headers)
    assert "x-session-key" not in headers.copy()
    # One header it stays, whoever sets it after us.
    headers["x-session-key"] = "another"
    headers.update({"X-SESSION-KEY": "a third"})
    sent = [value for key, value in headers.raw if key.lower() == b"x-session-key"]
    assert sent == [KEY.encode()]


# httpx with hooks of the client's own, which see an answer before an auth object does


def raise_for_status(response: Any) -> None:
    response.raise_for_status()


async def araise_for_status(response: Any) -> None:
    response.raise_for_status()


@pytest.fixture(params=["Client", "AsyncClient"])
def raising(request: pytest.FixtureRequest, name: str, server: Server) -> Iterator[Any]:
    """A session, and what calls with it in a client whose hooks raise for the status."""
    library = importlib.import_module(name)
    session = importlib.import_module(f"django_header_sessions.clients.{name}").HeaderSession()
    is_async = request.param == "AsyncClient"
    own = araise_for_status if is_async else raise_for_status
    hooks = {**session.event_hooks, "response": [*session.event_hooks["response"], own]}
    options = {"auth": session, "event_hooks": hooks, "base_url": server.url, "trust_env": False}
    session.status_error = library.HTTPStatusError
    if is_async:
        with asyncio.Runner() as runner:
            client = library.AsyncClient(**options)
            session.acall = client.request
            yield session, lambda *call: runner.run(client.request(*call))
            runner.run(client.aclose())
    else:
        with library.Client(**options) as client:
            session.acall = client.request
            yield session, client.request


def test_a_loss_is_seen_though_a_hook_has_raised_for_the_status(
    raising: Any, server: Server
) -> None:
    session, call = raising
    call("PATCH", "/state")
    server.end_all()
    with pytest.raises(SessionLost):
        call("GET", "/state")
    assert session.key is None


def test_a_renewal_begins_though_a_hook_has_raised_for_the_status(
    raising: Any, server: Server
) -> None:
    session, call = raising
    call("PATCH", "/state")
    session.renew = lambda: session.acall("POST", "/login")
    server.end_all()
    with pytest.raises(session.status_error):
        call("GET", "/state")
    assert call("GET", "/state").json() == {"state": {"user": "demo"}}
    assert len(server.of("/login")) == 1
    assert len(server.of("/state")) == 3


@pytest.mark.parametrize(
    "reply",
    [
        problem(409, "superseded"),
        problem(503, "unavailable", False, ("Retry-After", "0")),
        Reply(500),
        Reply(404, {}),
    ],
)
def test_what_else_a_hook_raises_for_is_the_callers(
    raising: Any, server: Server, reply: Reply
) -> None:
    session, call = raising
    call("PATCH", "/state")
    (stored,) = server.sessions.values()
    key = server.rotate(stored)
    reply = replace(reply, headers=[*reply.headers, (HEADER, key)])
    server.on("GET", "/x", lambda seen: reply)
    with pytest.raises(session.status_error):
        call("GET", "/x")
    assert session.key == key
    assert len(server.of("/x")) == 1
    # Nobody waits for what has come to nothing.
    assert call("GET", "/state").status_code == 200


def test_a_hop_that_does_not_arrive_is_not_taken_for_the_one_before(
    name: str, server: Server
) -> None:
    caller = HttpxCaller(name, Options(server.url))
    caller.call("PATCH", "/state", {})
    server.on("GET", "/x", lambda seen: redirect(302, "/broken"))
    server.on("GET", "/broken", lambda seen: Reply(0))
    for _ in range(2):
        with pytest.raises(broken(caller)):
            caller.call("GET", "/x")
    assert caller.call("GET", "/state").status == 200
    caller.close()


def test_of_a_key_that_was_superseded_who_is_answered_last_wakes_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though that call looks without a lock whether anybody waits, when none does yet."""
    flow = Flow(key=KEY, origin="https://example.com", renew_timeout=60)
    last, refused = flow.call(), flow.call()
    next_steps([last, refused], None)

    class Awaited(set[object]):
        def __bool__(self) -> bool:
            there = len(self) > 0
            with suppress(StopIteration):
                last.send(Answer(200))  # now
            return there

    held = flow.current()
    held.awaited = Awaited(held.awaited)
    answer = Answer(409, problem={"type": URN + "superseded", "executed": False}, idempotent=True)
    step = refused.send(answer)
    assert isinstance(step, Wait)
    assert step.future.done()
    with pytest.raises(SessionLost):
        next(refused)


# Bodies that can be sent once only


def chunks() -> Iterator[bytes]:
    yield b"{}"


def test_a_stream_is_not_repeated(bare: HttpxCaller, server: Server) -> None:
    bare.call("PATCH", "/state", {})
    down = problem(503, "unavailable", False, ("Retry-After", "0"))
    server.on("PUT", "/x", lambda seen: down)
    assert bare.client.put(server.url + "/x", content=chunks()).status_code == 503
    with requests.Session() as client:
        client.auth = sessions_requests.HeaderSession(key=str(bare.key), origin=server.url)
        assert client.put(server.url + "/x", data=chunks()).status_code == 503
    assert len(server.of("/x")) == 2


async def test_a_stream_is_not_repeated_by_aiohttp(server: Server) -> None:
    down = problem(503, "unavailable", False, ("Retry-After", "0"))
    server.on("PUT", "/x", lambda seen: down)

    async def body() -> Any:
        yield b"{}"

    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url)
    async with (
        aiohttp.ClientSession(middlewares=[session]) as client,
        client.put(server.url + "/x", data=body()) as response,
    ):
        assert response.status == 503
    assert len(server.seen) == 1


@pytest.mark.parametrize("form", [False, True])
async def test_a_stream_that_was_broken_off_is_not_repeated_by_aiohttp(form: bool) -> None:
    """The answer is there before the body has ended."""
    lost = json.dumps({"type": URN + "unknown", "executed": False})
    head = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\n"
    asked, answered = 0, asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{head}Content-Length: {len(lost)}\r\n\r\n{lost}".encode())
        await answered.wait()
        writer.close()

    async def body() -> Any:
        yield b"{}"
        await answered.wait()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        session = sessions_aiohttp.HeaderSession(key=KEY, origin=url, renew=make_key)
        data: Any = body()
        if form:
            data = aiohttp.MultipartWriter()
            data.append_payload(aiohttp.AsyncIterablePayload(body()))
        async with aiohttp.ClientSession(middlewares=[session]) as client:
            with pytest.raises(SessionLost):
                await client.post(url + "/x", data=data)
        answered.set()
    assert asked == 1


async def test_aiohttp_ends_the_session_that_was_asked_and_not_that_of_the_client(
    server: Server,
) -> None:
    ann, bob = sessions_aiohttp.HeaderSession(), sessions_aiohttp.HeaderSession()
    server.on("DELETE", "/api/sessions/current/", lambda seen: Reply(204, headers=[(HEADER, "")]))
    async with aiohttp.ClientSession(middlewares=[bob]) as client:
        await client.patch(server.url + "/state", json={})
        await client.patch(server.url + "/state", json={}, middlewares=(ann,))
        key, kept = ann.key, bob.key
        await ann.keep_alive(client)
        await ann.end(client)
    assert (ann.key, bob.key) == (None, kept)
    assert [seen.sent for seen in server.of("/api/sessions/current/")] == [key, key]


async def test_what_aiohttp_can_send_twice() -> None:
    is_replayable = sessions_aiohttp.is_replayable
    stream, form = aiohttp.AsyncIterablePayload(asyncio.StreamReader()), aiohttp.MultipartWriter()
    form.append(b"a")
    whole = is_replayable(form)
    form.append(stream)
    assert (is_replayable(b""), is_replayable(aiohttp.BytesPayload(b""))) == (True, True)
    assert (whole, is_replayable(form), is_replayable(stream)) == (True, False, False)


async def test_aiohttp_keeps_alive_and_ends_through_the_middlewares_of_the_client(
    server: Server,
) -> None:
    async def pass_gateway(request: Any, handler: Any) -> Any:
        request.headers["X-Gateway"] = "open"
        return await handler(request)

    session = sessions_aiohttp.HeaderSession()
    lists: list[list[Any]] = [[session, pass_gateway], [pass_gateway]]
    for own in lists:
        async with aiohttp.ClientSession(middlewares=own, raise_for_status=True) as client:
            for _ in range(2 if session not in own else 1):
                await client.patch(server.url + "/state", json={}, middlewares=(session,))
            await session.keep_alive(client)
            with pytest.raises(SessionError, match="answered 404"):
                await session.end(client)
            assert session.key is not None
        for seen in server.of("/api/sessions/current/"):
            assert (seen.headers.get("X-Gateway"), seen.sent) == ("open", session.key)


def test_a_streamed_answer_stays_a_stream(bare: HttpxCaller, server: Server) -> None:
    with bare.client.stream("PATCH", server.url + "/state", json={}) as response:
        assert not response.is_closed
        assert response.read()
    assert bare.key is not None


# requests, which does not tell how a call ended


def test_a_prepared_request_that_is_dropped_holds_nobody_up(server: Server) -> None:
    with requests.Session() as client:
        client.auth = sessions_requests.HeaderSession()
        prepared = client.prepare_request(requests.Request("GET", server.url + "/state"))
        waiting = threading.Event()
        done: list[int] = []

        def other_thread() -> None:
            waiting.set()
            done.append(client.patch(server.url + "/state", json={}).status_code)

        thread = threading.Thread(target=other_thread)
        thread.start()
        waiting.wait(10)
        assert prepared.headers[HEADER] == "new"
        del prepared
        gc.collect()
        thread.join(10)
        assert done == [200]


def test_a_first_call_that_failed_holds_nobody_up_though_it_lies_around(server: Server) -> None:
    """What the library raises is in a circle of references, which is not collected for long."""
    server.on("POST", "/broken", lambda seen: Reply(0))
    answered: list[int] = []
    with requests.Session() as client:
        client.auth = sessions_requests.HeaderSession()

        def another() -> None:
            answered.append(client.patch(server.url + "/state", json={}).status_code)

        gc.collect()
        gc.disable()
        try:
            with suppress(requests.ConnectionError):
                client.post(server.url + "/broken")
            thread = threading.Thread(target=another)
            thread.start()
            thread.join(10)
        finally:
            gc.enable()
    assert answered == [200]


def test_a_prepared_request_may_be_sent_twice(server: Server) -> None:
    with requests.Session() as client:
        session = client.auth = sessions_requests.HeaderSession()
        client.patch(server.url + "/state", json={"a": 1})
        prepared = client.prepare_request(requests.Request("GET", server.url + "/state"))
        for _ in range(2):
            assert client.send(prepared).json() == {"state": {"a": 1}}
        client.post(server.url + "/login")
        assert client.send(prepared).json() == {"state": {"a": 1, "user": "demo"}}
        assert session.key is not None


def test_the_history_of_a_repeated_call(server: Server) -> None:
    with requests.Session() as client:
        client.auth = sessions_requests.HeaderSession()
        down = problem(503, "unavailable", False, ("Retry-After", "0"))
        server.script("GET", "/x", down, redirect(302, "/state"))
        response = client.get(server.url + "/x")
        assert response.status_code == 200
        assert response.url == server.url + "/state"
        assert [past.status_code for past in response.history] == [302]


# renew in the wrong colour, and in both


def test_a_coroutine_function_cannot_renew_a_synchronous_client(server: Server) -> None:
    async def renew() -> None: ...

    with requests.Session() as client:
        client.auth = sessions_requests.HeaderSession(key=KEY, origin=server.url, renew=renew)
        with pytest.raises(SessionLost) as caught:
            client.get(server.url + "/state")
        assert isinstance(caught.value.__cause__, TypeError)


async def test_what_a_plain_function_returns_to_await_is_not_awaited_by_a_synchronous_client(
    server: Server,
) -> None:
    promise = asyncio.get_running_loop().create_future()

    def lose() -> BaseException | None:
        session = sessions_requests.HeaderSession(key=KEY, origin=server.url, renew=lambda: promise)
        with requests.Session() as client, pytest.raises(SessionLost) as caught:
            client.get(server.url + "/state", auth=session)
        return caught.value.__cause__

    assert isinstance(await asyncio.to_thread(lose), TypeError)
    assert not promise.done()


async def test_a_plain_function_that_fails_is_the_cause(server: Server) -> None:
    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url, renew=lambda: 1 / 0)
    async with aiohttp.ClientSession(middlewares=[session]) as client:
        with pytest.raises(SessionLost) as caught:
            await client.get(server.url + "/state")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_key_that_a_renewal_brings_when_it_was_given_up_is_not_taken(
    bare: HttpxCaller, server: Server
) -> None:
    late, threads = threading.Event(), []

    def renew() -> str:
        threads.append(threading.current_thread())
        late.wait(10)
        return make_key()

    bare.session.renew, bare.session.renew_timeout = renew, 0.1
    bare.call("PATCH", "/state", {})
    server.end_all()
    with pytest.raises(SessionLost):
        bare.call("GET", "/state")
    late.set()
    threads[0].join(10)
    assert bare.session.key is None


async def test_a_plain_function_may_renew_an_async_client(server: Server) -> None:
    key = make_key()
    server.sessions[key[:15]] = Session(key, data={"user": "demo"})
    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url, renew=lambda: key)
    async with (
        aiohttp.ClientSession(middlewares=[session]) as client,
        client.get(server.url + "/state") as answer,
    ):
        assert await answer.json() == {"state": {"user": "demo"}}


def test_a_plain_function_that_hangs_keeps_no_loop_from_ending(server: Server) -> None:
    """Threads of the loop's own are waited for when it ends."""
    release = threading.Event()

    async def lose() -> None:
        session = sessions_aiohttp.HeaderSession(
            key=KEY, origin=server.url, renew=release.wait, renew_timeout=0.1
        )
        async with aiohttp.ClientSession(middlewares=[session]) as client:
            with pytest.raises(SessionLost):
                await client.get(server.url + "/state")

    thread = threading.Thread(target=asyncio.run, args=(lose(),))
    thread.start()
    thread.join(5)
    hangs = thread.is_alive()
    release.set()
    thread.join()
    assert not hangs


# renew that starts


def test_renew_may_start_the_session(bare: HttpxCaller, server: Server) -> None:
    """One function for the first session and for all that follow."""

    def begin() -> None:
        bare.session.start(lambda: bare.call("POST", "/login"))
        # There is one by now.
        bare.session.start(lambda: bare.call("POST", "/login"))

    bare.session.renew = begin
    begin()
    server.end_all()
    assert bare.call("GET", "/state").document == {"state": {"user": "demo"}}
    assert len(server.of("/login")) == 2


async def test_an_async_renew_may_start_the_session(server: Server) -> None:
    async def sign_in() -> None:
        async with client.post(server.url + "/login"):
            pass

    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url)
    session.renew = lambda: session.start(sign_in)
    async with (
        aiohttp.ClientSession(middlewares=[session]) as client,
        client.get(server.url + "/state") as response,
    ):
        assert await response.json() == {"state": {"user": "demo"}}
    assert len(server.of("/login")) == 1


def test_renew_may_start_with_a_key(bare: HttpxCaller, server: Server) -> None:
    key = make_key()
    server.sessions[key[:15]] = Session(key, data={"user": "demo"})
    bare.session.renew = lambda: bare.session.start(lambda: key)
    bare.call("PATCH", "/state", {})
    server.sessions.pop(bare.session.id)
    assert bare.call("GET", "/state").document == {"state": {"user": "demo"}}


@pytest.mark.parametrize("fails", [True, False])
def test_a_start_within_renew_that_makes_no_session_is_a_loss(
    bare: HttpxCaller, server: Server, fails: bool
) -> None:
    def begin() -> None:
        bare.session.start(lambda: 1 / 0 if fails else None)

    bare.session.renew = begin
    bare.call("PATCH", "/state", {})
    server.end_all()
    for _ in range(2):
        with pytest.raises(SessionLost) as caught:
            bare.call("GET", "/state")
        assert caught.value.reason == "renewal"
        assert isinstance(caught.value.__cause__, SessionNotStarted)
    assert len(server.of("/state")) == 2


def test_renew_cannot_start_with_itself(bare: HttpxCaller, server: Server) -> None:
    bare.session.renew = bare.session.start
    bare.call("PATCH", "/state", {})
    server.end_all()
    with pytest.raises(SessionLost) as caught:
        bare.call("GET", "/state")
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_loop_that_ends_during_a_renewal(server: Server) -> None:
    """The renewal's task is cancelled with its loop; who waits elsewhere is told."""
    asked = threading.Event()

    async def renew() -> None:
        asked.set()
        await asyncio.Event().wait()

    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url, renew=renew)
    async with aiohttp.ClientSession(middlewares=[session]) as client:
        task = asyncio.create_task(client.get(server.url + "/state"))
        await asyncio.wait_for(asyncio.to_thread(asked.wait), 10)
        (renewing,) = asyncio.all_tasks() - {asyncio.current_task(), task}
        renewing.cancel()
        with pytest.raises(SessionLost) as caught:
            await task
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_what_a_renewal_starts_may_go_on_after_it(server: Server) -> None:
    left: list[asyncio.Task[int]] = []
    renewed = asyncio.Event()

    async def later() -> int:
        await renewed.wait()
        async with client.get(server.url + "/state") as response:
            return response.status

    async def renew() -> None:
        left.append(asyncio.create_task(later()))
        async with client.post(server.url + "/login"):
            pass

    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url, renew=renew)
    async with aiohttp.ClientSession(middlewares=[session]) as client:
        async with client.get(server.url + "/state") as response:
            assert response.status == 200
        renewed.set()
        assert await left[0] == 200


async def test_a_renewal_that_was_given_up_sends_nothing_more(server: Server) -> None:
    outcome: list[BaseException] = []

    async def renew() -> None:
        try:
            await client.post(server.url + "/login")
        except SessionError as error:
            outcome.append(error)

    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url, renew=renew)
    async with aiohttp.ClientSession(middlewares=[session]) as client:
        flight = Flight(renew, KEY[:15], 60)
        flight.error = TimeoutError()
        flight.done.set_result(None)
        await session.arun(flight)
    assert len(outcome) == 1
    assert not server.seen


# The key is a password


def test_a_key_masks_itself() -> None:
    key = SessionKey(KEY)
    assert KEY not in repr(key) + repr([key]) + f"{key!r}"
    assert key.id == KEY[:15]
    assert str(key) == KEY
    assert KEY[15:] not in repr(Answer(200, [KEY]))
    assert KEY[15:] not in repr(Flow(key=KEY, origin="https://a.example"))


@pytest.mark.parametrize("redirected", [False, True])
async def test_no_key_that_was_sent_or_announced_is_in_an_exception_of_aiohttp(
    server: Server, redirected: bool
) -> None:
    keys = [KEY]

    def announce(status: int) -> Reply:
        keys.append(make_key(KEY[:15]))
        return Reply(status, None, [(HEADER, keys[-1]), ("Location", "/x")])

    server.on("GET", "/x", lambda seen: announce(500))
    server.on("GET", "/there", lambda seen: announce(302))
    session = sessions_aiohttp.HeaderSession(key=KEY, origin=server.url)
    async with aiohttp.ClientSession(middlewares=[session], raise_for_status=True) as client:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await client.get(server.url + ("/there" if redirected else "/x"))
    assert session.key == keys[-1]
    assert len(keys) == (3 if redirected else 2)
    shown = repr(caught.value) + str(caught.value) + repr(caught.value.history)
    assert KEY[:15] in shown
    assert not [key for key in keys if key[15:] in shown]
    # Who asks for it is told it.
    assert caught.value.headers is not None
    assert caught.value.headers[HEADER] == keys[-1]


def test_what_the_library_logs_is_masked_by_the_name_of_the_header(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = importlib.import_module(f"django_header_sessions.clients.{name}")
    library = importlib.import_module(name)
    session = module.HeaderSession(key=KEY, origin="https://example.com", header="X-Other-Key")
    transport = library.MockTransport(lambda request: library.Response(200))
    with library.Client(auth=session, transport=transport) as client:
        client.get("https://example.com/")
    log = logging.getLogger(f"{name.replace('httpx', 'httpcore')}.http11")
    with caplog.at_level(logging.DEBUG, log.name):
        log.debug("return_value=%r", [(b"x-other-key", KEY.encode()), (b"ETag", KEY.encode())])
        log.debug("%s of %d", "nothing", 1)
    masked, plain = (record.getMessage() for record in caplog.records)
    assert masked == f"return_value=[(b'x-other-key', b'{KEY[:15]}…'), (b'ETag', b'{KEY}')]"
    assert plain == "nothing of 1"


def test_another_session_in_the_place_of_the_one_that_was_sent_is_logged(
    bare: HttpxCaller, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bare.call("PATCH", "/state", {})
    before, after = str(bare.key), make_key()
    server.on("GET", "/x", lambda seen: Reply(200, {}, [(HEADER, after)]))
    bare.call("GET", "/x")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert before[:15] in record.message
    assert after[:15] in record.message
    assert not [key for key in (before, after) if key[15:] in record.message]


def test_a_session_that_nobody_keeps_is_logged(
    bare: HttpxCaller, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The first call only read, so that the others did not wait for one another."""
    bare.call("GET", "/state")
    server.on("PATCH", "/state", together(2, server.write))
    assert statuses(bare.parallel([("PATCH", "/state", {})] * 2)) == [200, 200]
    assert len(server.sessions) == 2
    (record,) = caplog.records
    assert "Call start() first" in record.message
    assert bare.session.id in record.message


def test_that_a_session_is_over_is_logged(
    bare: HttpxCaller, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "django_header_sessions.clients")
    bare.call("PATCH", "/state", {})
    before = str(bare.key)
    server.on("GET", "/x", lambda seen: Reply(200, {}, [(HEADER, "")]))
    bare.call("GET", "/x")
    (record,) = (one for one in caplog.records if one.name == "django_header_sessions.clients")
    assert before[:15] in record.message
    assert before[15:] not in record.message
