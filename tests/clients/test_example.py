"""The clients against the example as it is: its own paths, its store, and its end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from django_header_sessions.clients.exceptions import SessionError, SessionLost

from .conftest import LIBRARIES, Open
from .drivers import Caller, Got, Renew
from .example import SIGN_IN, STATE, Cluster, Gateway, Relay

OUTAGE_SECONDS = 5


@pytest.fixture
def client(opener: Open, gateway: Gateway) -> Caller:
    return opener(gateway.url)


@pytest.fixture
def relay(cluster: Cluster) -> Iterator[Relay]:
    running = Relay(cluster.ports)
    yield running
    running.close()


def everybody(open_with: Open, url: str) -> list[Caller]:
    """A client of each library, each with a session that has its own state."""
    callers = [open_with(library, url, max_wait=30) for library in LIBRARIES]
    for number, caller in enumerate(callers):
        caller.call("PATCH", STATE, {"number": number})
    return callers


def at_once(callers: list[Caller], method: str, document: Any = None) -> list[Any]:
    """What each is answered when all call at the same time."""
    with ThreadPoolExecutor(len(callers)) as pool:
        futures = [pool.submit(caller.call, method, STATE, document) for caller in callers]
        return [future.result(60).document["state"] for future in futures]


def test_state_is_kept_on_both_servers(client: Caller, gateway: Gateway) -> None:
    before = dict(gateway.counts)
    client.call("PATCH", STATE, {"a": 1})
    for n in range(4):
        assert client.call("PATCH", STATE, {f"b{n}": n}).document["state"]["a"] == 1
    assert all(gateway.counts[port] > count for port, count in before.items())
    assert 1700 < (client.expires_in or 0) <= 1800
    assert 1700 < (client.keep_alive() or 0) <= 1800


def test_64_calls_on_a_new_client_count_to_64_in_one_session(
    client: Caller, gateway: Gateway
) -> None:
    sessions = len(gateway.cluster.valkey.client.keys("*:s:*"))
    calls = [("POST", "/api/state/increment/", {"key": "n"})] * 64
    totals = [got.document["n"] for got in client.parallel(calls) if isinstance(got, Got)]
    assert sorted(totals) == list(range(1, 65))
    assert len(gateway.cluster.valkey.client.keys("*:s:*")) == sessions + 1


def test_follows_the_rotation_of_a_sign_in(client: Caller, gateway: Gateway) -> None:
    client.call("PATCH", STATE, {"a": 1})
    before = str(client.key)
    assert client.call("POST", "/api/sessions/", SIGN_IN).status < 300
    assert client.key != before
    assert str(client.key)[:15] == before[:15]
    assert client.call("GET", STATE).document == {"state": {"a": 1}}


def test_calls_that_overlap_a_rotation_arrive_or_say_that_they_did_not(client: Caller) -> None:
    """What the server refused before it ran is repeated; what ran is the caller's to judge."""
    client.call("PATCH", STATE, {"a": 1})
    sign_in: list[tuple[str, str, Any]] = [("POST", "/api/sessions/", SIGN_IN)]
    writes = [("PATCH", STATE, {f"f{n}": n}) for n in range(16)]
    results = client.parallel([*sign_in, *writes])
    assert [result for result in results if isinstance(result, BaseException)] == []
    expected = {"a": 1}
    for n, result in enumerate(results[1:]):
        assert isinstance(result, Got)
        expected |= {f"f{n}": n} if result.status == 200 else {}
        assert (result.status, result.document.get("executed")) in ((200, None), (409, True))
    assert client.call("GET", STATE).document == {"state": expected}


def test_a_wrong_password_loses_no_session(client: Caller) -> None:
    client.call("PATCH", STATE, {"a": 1})
    wrong = SIGN_IN | {"password": "wrong"}
    assert client.call("POST", "/api/sessions/", wrong).status == 401
    assert client.call("GET", STATE).document == {"state": {"a": 1}}


def test_a_key_rotated_elsewhere_is_a_loss(opener: Open, client: Caller, gateway: Gateway) -> None:
    client.call("PATCH", STATE, {"a": 1})
    second = opener(gateway.url, key=str(client.key))
    second.call("POST", "/api/sessions/", SIGN_IN)
    with pytest.raises(SessionLost) as caught:
        client.call("PATCH", STATE, {"b": 2})
    assert caught.value.reason == "superseded"
    assert caught.value.executed is False
    assert second.call("GET", STATE).document == {"state": {"a": 1}}


def test_an_expired_session_is_a_loss(client: Caller, gateway: Gateway) -> None:
    client.call("PATCH", STATE, {"a": 1})
    gateway.cluster.expire(str(client.key)[:15])
    with pytest.raises(SessionLost) as caught:
        client.call("PATCH", STATE, {"b": 2})
    assert (caught.value.reason, caught.value.executed) == ("unknown", False)
    assert client.call("GET", STATE).document == {"state": {}}


def test_an_expired_session_is_renewed_by_signing_in(opener: Open, gateway: Gateway) -> None:
    client = opener(gateway.url, renew=Renew("call"))
    client.call("POST", "/login")
    client.call("PATCH", STATE, {"a": 1})
    gateway.cluster.expire(str(client.key)[:15])
    results = client.parallel([("PATCH", STATE, {f"f{n}": n}) for n in range(8)])
    assert [r for r in results if isinstance(r, BaseException)] == []
    state = client.call("GET", STATE).document["state"]
    assert state == {"user": "demo"} | {f"f{n}": n for n in range(8)}
    assert client.call("GET", "/api/whoami/").document == {"user": "demo"}
    assert len(gateway.of("/login")) == 2


def test_a_session_ended_elsewhere_is_a_loss(
    opener: Open, client: Caller, gateway: Gateway
) -> None:
    client.call("PATCH", STATE, {"a": 1})
    opener(gateway.url, key=str(client.key)).end()
    with pytest.raises(SessionLost) as caught:
        client.call("GET", STATE)
    assert caught.value.reason == "unknown"


def test_ends_its_session(opener: Open, client: Caller, gateway: Gateway) -> None:
    client.call("PATCH", STATE, {"a": 1})
    key = str(client.key)
    client.end()
    assert client.key is None
    with pytest.raises(SessionLost):
        opener(gateway.url, key=key).call("GET", STATE)


def test_a_user_who_was_deactivated_can_still_end_the_session(
    opener: Open, gateway: Gateway
) -> None:
    client = opener(gateway.url)
    client.call("POST", "/login")
    key = str(client.key)
    gateway.cluster.activate(False)
    try:
        assert client.call("GET", "/api/whoami/").status == 401
        client.end()
    finally:
        gateway.cluster.activate(True)
    assert client.key is None
    with pytest.raises(SessionLost):
        opener(gateway.url, key=key).call("GET", STATE)


def test_an_outage_of_the_store_is_sat_out(open_with: Open, gateway: Gateway) -> None:
    callers = everybody(open_with, gateway.url)
    valkey = gateway.cluster.valkey
    valkey.signal(signal.SIGSTOP)
    began = time.monotonic()
    back = threading.Timer(OUTAGE_SECONDS, valkey.signal, [signal.SIGCONT])
    back.start()
    try:
        states = at_once(callers, "PATCH", {"after": "outage"})
    finally:
        back.join()
    assert time.monotonic() - began >= OUTAGE_SECONDS
    assert states == [{"number": n, "after": "outage"} for n in range(len(callers))]


def test_a_restart_of_the_servers_breaks_connections_and_no_session(
    open_with: Open, cluster: Cluster, relay: Relay
) -> None:
    """All connections die: those that lie in a pool, and those with a call under way."""
    idle, busy = everybody(open_with, relay.url), everybody(open_with, relay.url)
    opened, asked = relay.connections, relay.requests
    cluster.valkey.signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(len(busy)) as pool:
            calls: list[Future[Got]] = [pool.submit(one.call, "GET", STATE) for one in busy]
            give_up = time.monotonic() + 10
            while relay.requests < asked + len(busy) and time.monotonic() < give_up:
                time.sleep(0.01)
            cluster.kill()
            errors = [call.exception(30) for call in calls]
        with pytest.raises(Exception, match=r".") as caught:
            idle[0].call("GET", STATE)
        errors.append(caught.value)
    finally:
        cluster.valkey.signal(signal.SIGCONT)
        cluster.start()
    # A call that breaks off is the library's to tell of, and no loss of the session.
    assert all(error is not None for error in errors)
    assert not [error for error in errors if isinstance(error, SessionError)]
    everyone = [*idle, *busy]
    states = at_once(everyone, "GET")
    assert states == [{"number": n} for n in range(len(busy))] * 2
    assert relay.connections >= opened + len(everyone)
