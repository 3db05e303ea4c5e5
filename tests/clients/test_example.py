"""The clients against the example: two server processes, one Valkey, a proxy that takes turns."""

from __future__ import annotations

import http.client
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from django_header_sessions.clients.flow import SessionLost
from tests.processes import ROOT, Process, Valkey, free_port

from .conftest import LIBRARIES, Open
from .drivers import Caller, Got, Renew

PASSWORD = "a password for tests"
SIGN_IN = {"username": "demo", "password": PASSWORD}
STATE = "/api/state/"
OUTAGE_SECONDS = 5
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "server", "date"}


class Example(Process):
    """One process of the example under gunicorn, on a port of its own choice or on `port`."""

    def __init__(self, env: dict[str, str], port: int | None = None) -> None:
        self.port = port or free_port()
        super().__init__(
            *(sys.executable, "-m", "gunicorn", "example.wsgi", "--threads", "16"),
            *("--bind", f"127.0.0.1:{self.port}", "--no-control-socket"),
            env=env,
        )

    def ready(self) -> None:
        self.wait_until(self._answers)

    def _answers(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class TakingTurns:
    """A reverse proxy that sends each request to the next server."""

    def __init__(self, ports: list[int]) -> None:
        turns = itertools.cycle(ports)
        self.counts = dict.fromkeys(ports, 0)
        counts = self.counts

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                port = next(turns)
                counts[port] += 1
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                try:
                    connection.request(self.command, self.path, body, headers)
                    response = connection.getresponse()
                    content = response.read()
                finally:
                    connection.close()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in {*HOP_BY_HOP, "content-length"}:
                        self.send_header(name, value)
                if response.status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = forward

        class Listener(ThreadingHTTPServer):
            request_queue_size = 128

        self.http = Listener(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


class Cluster:
    """All of it."""

    def __init__(self, folder: Path) -> None:
        self.valkey = Valkey()
        self.env = {
            "REDIS_URL": self.valkey.url,
            "EXAMPLE_DB": str(folder / "db.sqlite3"),
            "EXAMPLE_PASSWORD": PASSWORD,
            "DJANGO_SETTINGS_MODULE": "tests.clients.example_settings",
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "example_project"))),
        }
        subprocess.run(
            [sys.executable, str(ROOT / "example_project" / "manage.py"), "setup"],
            env=os.environ | self.env,
            check=True,
            capture_output=True,
        )
        self.servers = [Example(self.env), Example(self.env)]
        self.wait()
        self.proxy = TakingTurns([server.port for server in self.servers])
        self.url = self.proxy.url

    def wait(self) -> None:
        for server in self.servers:
            server.ready()

    def restart(self) -> None:
        """Kill both servers, and start them again where they were."""
        for server in self.servers:
            server.__exit__()
        self.servers = [Example(self.env, server.port) for server in self.servers]
        self.wait()

    def expire(self, session_id: str) -> None:
        """Have the store's own clock run out for one session."""
        (name,) = self.valkey.client.keys(f"*{session_id}*")
        self.valkey.client.pexpire(name, 1)
        while self.valkey.client.exists(name):
            pass

    def close(self) -> None:
        self.proxy.close()
        for server in self.servers:
            server.__exit__()
        self.valkey.__exit__()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("example"))
    yield running
    running.close()


@pytest.fixture
def client(opener: Open, cluster: Cluster) -> Caller:
    return opener(cluster.url)


@pytest.fixture
def everybody(open_with: Open, cluster: Cluster) -> list[Caller]:
    """A client of each library, each with a session that has its own state."""
    callers = [open_with(library, cluster.url, max_wait=30) for library in LIBRARIES]
    for number, caller in enumerate(callers):
        caller.call("PATCH", STATE, {"number": number})
    return callers


def at_once(callers: list[Caller], method: str, document: Any = None) -> list[Any]:
    """What each is answered when all call at the same time."""
    with ThreadPoolExecutor(len(callers)) as pool:
        futures = [pool.submit(caller.call, method, STATE, document) for caller in callers]
        return [future.result(60).document["state"] for future in futures]


def test_state_is_kept_on_both_servers(client: Caller, cluster: Cluster) -> None:
    before = dict(cluster.proxy.counts)
    client.call("PATCH", STATE, {"a": 1})
    for n in range(4):
        assert client.call("PATCH", STATE, {f"b{n}": n}).document["state"]["a"] == 1
    assert all(cluster.proxy.counts[port] > count for port, count in before.items())
    assert 1700 < (client.expires_in or 0) <= 1800
    assert 1700 < (client.keep_alive() or 0) <= 1800


def test_64_calls_on_a_new_client_count_to_64_in_one_session(
    client: Caller, cluster: Cluster
) -> None:
    sessions = len(cluster.valkey.client.keys("*:s:*"))
    calls = [("POST", "/api/state/increment/", {"key": "n"})] * 64
    totals = [got.document["n"] for got in client.parallel(calls) if isinstance(got, Got)]
    assert sorted(totals) == list(range(1, 65))
    assert len(cluster.valkey.client.keys("*:s:*")) == sessions + 1


def test_follows_the_rotation_of_a_sign_in(client: Caller, cluster: Cluster) -> None:
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
        if result.status == 200:
            expected[f"f{n}"] = n
        else:
            assert (result.status, result.document["executed"]) == (409, True)
    assert client.call("GET", STATE).document == {"state": expected}


def test_a_wrong_password_loses_no_session(client: Caller) -> None:
    client.call("PATCH", STATE, {"a": 1})
    wrong = SIGN_IN | {"password": "wrong"}
    assert client.call("POST", "/api/sessions/", wrong).status == 401
    assert client.call("GET", STATE).document == {"state": {"a": 1}}


def test_a_key_rotated_elsewhere_is_a_loss(opener: Open, client: Caller, cluster: Cluster) -> None:
    client.call("PATCH", STATE, {"a": 1})
    second = opener(cluster.url, key=str(client.key))
    second.call("POST", "/api/sessions/", SIGN_IN)
    with pytest.raises(SessionLost) as caught:
        client.call("PATCH", STATE, {"b": 2})
    assert caught.value.reason == "superseded"
    assert caught.value.executed is False
    assert second.call("GET", STATE).document == {"state": {"a": 1}}


def test_an_expired_session_is_a_loss(client: Caller, cluster: Cluster) -> None:
    client.call("PATCH", STATE, {"a": 1})
    cluster.expire(str(client.key)[:15])
    with pytest.raises(SessionLost) as caught:
        client.call("PATCH", STATE, {"b": 2})
    assert (caught.value.reason, caught.value.executed) == ("unknown", False)
    assert client.call("GET", STATE).document == {"state": {}}


def test_an_expired_session_is_renewed(opener: Open, cluster: Cluster) -> None:
    maker = opener(cluster.url)
    maker.call("PATCH", STATE, {"from": "renew"})
    client = opener(cluster.url, renew=Renew("key", key=str(maker.key)))
    client.call("PATCH", STATE, {"a": 1})
    cluster.expire(str(client.key)[:15])
    results = client.parallel([("PATCH", STATE, {f"f{n}": n}) for n in range(8)])
    assert [r for r in results if isinstance(r, BaseException)] == []
    state = client.call("GET", STATE).document["state"]
    assert state == {"from": "renew"} | {f"f{n}": n for n in range(8)}


def test_a_session_ended_elsewhere_is_a_loss(
    opener: Open, client: Caller, cluster: Cluster
) -> None:
    client.call("PATCH", STATE, {"a": 1})
    opener(cluster.url, key=str(client.key)).end()
    with pytest.raises(SessionLost) as caught:
        client.call("GET", STATE)
    assert caught.value.reason == "unknown"


def test_ends_its_session(opener: Open, client: Caller, cluster: Cluster) -> None:
    client.call("PATCH", STATE, {"a": 1})
    key = str(client.key)
    client.end()
    assert client.key is None
    with pytest.raises(SessionLost):
        opener(cluster.url, key=key).call("GET", STATE)


def test_an_outage_of_the_store_is_sat_out(everybody: list[Caller], cluster: Cluster) -> None:
    cluster.valkey.signal(signal.SIGSTOP)
    began = time.monotonic()
    back = threading.Timer(OUTAGE_SECONDS, cluster.valkey.signal, [signal.SIGCONT])
    back.start()
    try:
        states = at_once(everybody, "PATCH", {"after": "outage"})
    finally:
        back.join()
    assert time.monotonic() - began >= OUTAGE_SECONDS
    assert states == [{"number": n, "after": "outage"} for n in range(len(everybody))]


def test_a_restart_of_the_servers_is_not_noticed(everybody: list[Caller], cluster: Cluster) -> None:
    cluster.restart()
    assert at_once(everybody, "GET") == [{"number": n} for n in range(len(everybody))]
