"""The example to call: two server processes, one Valkey, and what takes turns between them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.processes import ROOT, Process, Valkey, free_port

from .server import HEADER, Reply, Seen, Server, Session

PASSWORD = "a password for tests"
SIGN_IN = {"username": "demo", "password": PASSWORD}
STATE = "/api/state/"
CURRENT = "/api/sessions/current/"
NOT_PASSED_ON = {
    *("connection", "keep-alive", "transfer-encoding", "server", "date", "host"),
    *("content-length", "content-type", "vary"),
}


class Example(Process):
    """One process of the example under gunicorn, on a port of its own choice or on `port`."""

    def __init__(self, env: dict[str, str], port: int | None = None) -> None:
        self.port = port or free_port()
        super().__init__(
            *(sys.executable, "-m", "gunicorn", "example.wsgi", "--threads", "16"),
            *("--bind", f"127.0.0.1:{self.port}", "--no-control-socket", "--keep-alive", "60"),
            env=env,
        )

    def ready(self) -> None:
        self.wait_until(self._answers)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class Cluster:
    """Two servers that share a Valkey."""

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
        self.ports = [server.port for server in self.servers]
        for server in self.servers:
            server.ready()

    def activate(self, active: bool) -> None:
        """Let the user sign in, or nowhere any more."""
        with contextlib.closing(sqlite3.connect(self.env["EXAMPLE_DB"])) as database, database:
            database.execute("UPDATE auth_user SET is_active = ?", (active,))

    def start(self) -> None:
        """Start both servers again where they were before they were killed."""
        self.servers = [Example(self.env, port) for port in self.ports]
        for server in self.servers:
            server.ready()

    def kill(self) -> None:
        for server in self.servers:
            server.__exit__()

    def expire(self, session_id: str) -> None:
        """Have the store's own clock run out for one session."""
        (name,) = self.valkey.client.keys(f"*{session_id}*")
        self.valkey.client.pexpire(name, 1)
        while self.valkey.client.exists(name):
            pass

    def close(self) -> None:
        self.kill()
        self.valkey.__exit__()


class Gateway(Server):
    """`Server` whose well-behaved part is the example: each request goes to the next process.

    Where a test says so it misbehaves in their place, as gateways do. `sessions` are those that
    live in the store.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.keys: dict[str, str] = {}
        self.counts = dict.fromkeys(cluster.ports, 0)
        self.turns = itertools.cycle(cluster.ports)
        super().__init__()

    def forward(self, method: str, path: str, sent: str | None, body: bytes = b"") -> Reply:
        """What the next process answers."""
        port = next(self.turns)
        self.counts[port] += 1
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Content-Type": "application/json"} | ({HEADER: sent} if sent else {})
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        announced = response.headers.get(HEADER)
        if announced:
            self.keys[announced[:15]] = announced
        return Reply(
            response.status,
            None,
            [pair for pair in response.getheaders() if pair[0].lower() not in NOT_PASSED_ON],
            response.headers.get("Content-Type", ""),
            content,
        )

    def otherwise(self, seen: Seen) -> Reply:
        """Answer a path that is the example's own."""
        return self.forward(seen.method, seen.path, seen.sent, seen.body)

    def read(self, seen: Seen) -> Reply:
        path = STATE if seen.path != CURRENT else CURRENT
        return self.forward(seen.method, path, seen.sent)

    def write(self, seen: Seen) -> Reply:
        return self.forward("PATCH", STATE, seen.sent, seen.body)

    def login(self, seen: Seen) -> Reply:
        """Sign in, and answer what the session then holds: its user's name, too."""
        signed_in = self.forward("POST", "/api/sessions/", seen.sent, json.dumps(SIGN_IN).encode())
        key = dict(signed_in.headers).get(HEADER)
        if key is None:
            return signed_in
        reply = self.forward("PATCH", STATE, key, b'{"user": "demo"}')
        # Without the place of the session, which is none of this answer's.
        headers = [pair for pair in signed_in.headers if pair[0] != "Location"]
        return Reply(reply.status, None, headers, reply.content_type, reply.raw)

    def end(self, seen: Seen) -> Reply:
        return self.forward("DELETE", CURRENT, seen.sent)

    def rotate(self, session: Session) -> str:
        self.forward("POST", CURRENT + "rotate/", session.key)
        session.key = self.keys[session.key[:15]]
        return session.key

    @property
    def sessions(self) -> dict[str, Session]:
        return {session.key[:15]: session for session in self._live()}

    @sessions.setter
    def sessions(self, nothing: dict[str, Session]) -> None:
        """Made by the example alone."""

    def _live(self) -> Iterator[Session]:
        names: Any = self.cluster.valkey.client.keys("*:s:*")
        for name in sorted(names):
            key = self.keys[name.decode().rpartition(":")[2]]
            state = json.loads(self.forward("GET", STATE, key).raw or b"")["state"]
            yield Session(key, data=state)

    def end_all(self) -> None:
        self.cluster.valkey.client.flushall()


class Relay:
    """A balancer that knows connections only: each goes to the next process, and dies with it."""

    def __init__(self, ports: list[int]) -> None:
        self.turns = itertools.cycle(ports)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = 0
        self.requests = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        # Closing the listener ends this.
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                self.connections += 1
                try:
                    server = socket.create_connection(("127.0.0.1", next(self.turns)))
                except OSError:
                    client.close()
                    continue
                for ends in ((client, server, 1), (server, client, 0)):
                    threading.Thread(target=self.pump, args=ends, daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket, requests: int) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
                self.requests += requests
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
