"""A server process that is killed leaves no session half made, half ended or unlisted."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from contextlib import suppress
from typing import Any

from django_header_sessions import registry
from tests.processes import Server

from .conftest import Failing

ROUNDS = 3
CLIENTS = 8


class Client(threading.Thread):
    """Makes sessions and writes to them, until its server is gone."""

    def __init__(self, server: Server, begun: threading.Barrier) -> None:
        super().__init__()
        self._server = server
        self._begun = begun
        self.acknowledged: dict[str, int] = {}

    def run(self) -> None:
        key, n = "", 0
        with suppress(OSError, http.client.HTTPException):  # once it is killed
            while True:
                headers = {"X-Session-Key": key} if key else {}
                status, told, body = self._server.request("GET", f"/sync/write/?n={n}", headers)
                assert status == 200
                key = told.get("X-Session-Key") or key
                self.acknowledged[key] = json.loads(body)["n"]
                n += 1
                if n == 4:
                    self._begun.wait()
                if n % 3 == 0:
                    key = ""


def test_after_a_server_was_killed_what_is_listed_is_what_is_there(store: Failing) -> None:
    acknowledged: dict[str, int] = {}
    for _ in range(ROUNDS):
        begun = threading.Barrier(CLIENTS + 1)
        with Server(
            "gunicorn",
            REDIS_URL=store.valkey.url,
            DJANGO_SETTINGS_MODULE="tests.faults.served_settings",
        ) as server:
            clients = [Client(server, begun) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            begun.wait()
            server.signal(signal.SIGKILL)
            for client in clients:
                client.join()
                acknowledged |= client.acknowledged
    listed = [session.id for session in registry.page(1000).sessions]
    redis: Any = store.valkey.client
    there = [key.decode().rpartition(":")[2] for key in redis.keys("*:s:*")]
    assert sorted(listed) == sorted(there)
    assert sum(registry.count().values()) == len(there)
    # Whoever was told that a session was made, or that a value was kept, was told the truth.
    kept = {session_id: redis.hget(name(redis, session_id), "n") for session_id in there}
    for key, n in acknowledged.items():
        assert int(kept[key[:15]]) in (n, n + 1)


def name(redis: Any, session_id: str) -> bytes:
    (found,) = redis.keys(f"*:s:{session_id}")
    return bytes(found)
