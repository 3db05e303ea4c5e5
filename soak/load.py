"""Sixteen clients of the example server, who know what they were told and hold it to that."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

CLIENTS = 16
THINKING = 0.1
"""Seconds between two calls of one client."""


@dataclass
class Kept:
    """One session, and what its owner knows of it. Nobody else uses it."""

    key: str
    acknowledged: int = 0
    later: set[int] = field(default_factory=set)
    """What was written since and not acknowledged: it may have been kept, or not."""


@dataclass(frozen=True)
class Call:
    at: float
    took: float
    status: int
    session_id: str


class Client:
    """One client with sessions of its own, over connections that it keeps."""

    def __init__(self, ports: Sequence[int], number: int) -> None:
        self.sessions: list[Kept] = []
        self.calls: list[Call] = []
        self.wrong: list[str] = []
        """Answers that no fault excuses."""
        self.dropped = 0
        """Calls whose connection broke: their server was killed."""
        # Half of them are served by threads, half by an event loop; each keeps to one server, but
        # turns to the next where it breaks off.
        self._ports = [*ports[number % len(ports) :], *ports[: number % len(ports)]]
        self._connection: http.client.HTTPConnection | None = None
        self._random = random.Random(number)
        self._number = 0

    def start(self, sessions: int) -> None:
        for _ in range(sessions):
            self.create()

    def create(self) -> bool:
        status, headers, _ = self._call("PATCH", "/api/state/", None, {"n": 0})
        if status == 200:
            self.sessions.append(Kept(headers["X-Session-Key"]))
        return status == 200

    def act(self) -> None:
        kept = self._random.choice(self.sessions)
        if self._random.random() < 0.5:
            path = self._random.choice(["/api/state/", "/api/async/state/"])
            status, headers, body = self._call("GET", path, kept)
            if status == 200:
                self._compare(kept, body)
        else:
            self._number += 1
            kept.later.add(self._number)
            status, headers, body = self._call("PATCH", "/api/state/", kept, {"n": self._number})
            if status == 200:
                kept.acknowledged, kept.later = self._number, set()
            elif status == 503 and not body["executed"]:
                kept.later.discard(self._number)  # certainly not
        if status not in (0, 200, 503):
            self.wrong.append(f"{status} {json.dumps(body)[:200]}")
        if status == 503 and not (headers["Retry-After"] and body["type"].endswith("unavailable")):
            self.wrong.append(f"503 {json.dumps(body)[:200]}")
        if headers.get("X-Session-Key") is not None:
            self.wrong.append(f"a key was announced with {status}")

    def good(self, kept: Kept) -> tuple[bool, bool]:
        """Whether a session is there, and whether it holds what was acknowledged."""
        for _ in range(100):
            status, _, body = self._call("GET", "/api/state/", kept)
            if status not in (0, 503):
                break
            time.sleep(0.1)
        if status != 200:
            return False, False
        return True, body["state"].get("n") in {kept.acknowledged, *kept.later}

    def _compare(self, kept: Kept, body: Any) -> None:
        if body["state"].get("n") not in {kept.acknowledged, *kept.later}:
            self.wrong.append(f"{body} where {kept.acknowledged} was acknowledged")

    def _call(
        self, method: str, path: str, kept: Kept | None, body: Any = None
    ) -> tuple[int, Any, Any]:
        headers = {"Content-Type": "application/json"}
        if kept is not None:
            headers["X-Session-Key"] = kept.key
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    "127.0.0.1", self._ports[0], timeout=30
                )
            self._connection.request(
                method, path, None if body is None else json.dumps(body), headers
            )
            response = self._connection.getresponse()
            answer = json.loads(response.read())
            if response.headers.get("Connection", "").lower() == "close":
                self.close()
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            self.dropped += 1
            return 0, {}, {}
        session_id = kept.key[:15] if kept else ""
        took = time.monotonic() - began
        self.calls.append(Call(began, took, response.status, session_id))
        return response.status, response.headers, answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Load:
    """All clients at once, each in a thread of its own."""

    def __init__(self, ports: Sequence[int], sessions_each: int = 15) -> None:
        self.clients = [Client(ports, number) for number in range(CLIENTS)]
        for client in self.clients:
            client.start(sessions_each)
        self.at_start = sum(len(client.sessions) for client in self.clients)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Load:
        self._threads = [
            threading.Thread(target=self._act, args=(client,)) for client in self.clients
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _act(self, client: Client) -> None:
        while not self._over.wait(THINKING):
            client.act()

    @property
    def calls(self) -> list[Call]:
        return sorted(
            (call for client in self.clients for call in list(client.calls)),
            key=lambda call: call.at,
        )


@dataclass
class Row:
    """What a fault did to the clients."""

    fault: str
    load: Load
    began: float
    ended: float
    good: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)
    """What should not have been."""

    def judge(self) -> None:
        """Look at every session when all is over."""
        for client in self.load.clients:
            for kept in client.sessions:
                there, right = client.good(kept)
                self.good += there
                self.lost += not right
            self.faults += client.wrong[:3]
            client.close()

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.faults.append(what)

    def expect_quick(self, timeout: float) -> None:
        """The first 503 within a time-out, those after it at once, and nobody for longer."""
        refused = [call for call in self.load.calls if call.status == 503]
        self.expect(bool(refused), "nobody noticed the fault")
        if refused:
            self.expect(self.longest < timeout + 0.5, f"a request took {self.longest:.2f} s")
            self.expect(self.usual < 0.005, f"a 503 took {self.usual * 1000:.1f} ms")

    @property
    def longest(self) -> float:
        return max((call.took for call in self.load.calls), default=0)

    @property
    def usual(self) -> float:
        """What a 503 takes in the middle of an outage."""
        refused = [call.took for call in self.load.calls if call.status == 503]
        return median(refused) if refused else 0

    def cells(self) -> list[str]:
        statuses = Counter(call.status for call in self.load.calls)
        dropped = sum(client.dropped for client in self.load.clients)
        by_status = ", ".join(
            f"{status}: {number:,}" for status, number in sorted(statuses.items())
        )
        written = sum(client._number for client in self.load.clients)
        refused = statuses[503]
        return [
            self.fault,
            f"{sum(statuses.values()) + dropped:,}",
            by_status + (f", broken off: {dropped:,}" if dropped else ""),
            f"{self.usual * 1000:.1f} ms / {self.longest:.2f} s" if refused else "–",
            f"{self.load.at_start:,}",
            f"{self.good:,}",
            f"{written:,}",
            f"{self.lost:,}",
        ]


HEAD = [
    "fault",
    "requests",
    "answers by status",
    "503: usual / longest request",
    "sessions before",
    "good after",
    "writes",
    "acknowledged and lost",
]
