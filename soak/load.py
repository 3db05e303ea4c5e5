"""Sixteen clients of the example server and a browser, who know what they were told and hold it to
that."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from statistics import median
from typing import Any
from urllib.parse import urlencode

PASSWORD = "correct horse battery staple"
CLIENTS = 16
THINKING = 0.1
"""Seconds between two calls of one client."""


@dataclass
class Kept:
    """One session, and what its owner knows of it. Nobody else uses it."""

    key: str
    signed_in: bool = False
    acknowledged: int = 0
    later: set[int] = field(default_factory=set)
    """What was written since and not acknowledged: it may have been kept, or not."""
    counted: int = 0
    perhaps: int = 0
    """How often it was counted without being told that it was done: that may have been, or not."""


@dataclass(frozen=True)
class Call:
    at: float
    took: float
    status: int
    session_id: str
    writes: bool


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
        """A session more; every third of them is signed in."""
        status, headers, _ = self._call("PATCH", "/api/state/", None, {"n": 0})
        if status != 200:
            return False
        kept = Kept(headers["X-Session-Key"])
        if len(self.sessions) % 3 == 0:
            who = {"username": "demo", "password": PASSWORD}
            status, headers, body = self._call("POST", "/api/sessions/", kept, who)
            if status != 201:
                raise RuntimeError(f"demo cannot sign in: {status} {body}")
            kept = Kept(headers["X-Session-Key"], signed_in=True)
        self.sessions.append(kept)
        return True

    def act(self) -> None:
        kept = self._random.choice(self.sessions)
        choice = self._random.random()
        if choice < 0.1 and kept.signed_in:
            status, headers, body = self._call("GET", "/api/whoami/", kept)
        elif choice < 0.5:
            path = self._random.choice(["/api/state/", "/api/async/state/"])
            status, headers, body = self._call("GET", path, kept)
            if status == 200:
                self._compare(kept, body)
        elif choice < 0.65:
            status, headers, body = self._count(kept)
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

    def _count(self, kept: Kept) -> tuple[int, Any, Any]:
        status, headers, body = self._call("POST", "/api/state/increment/", kept, {"key": "count"})
        if status == 200:
            # What was counted and not acknowledged is known by now.
            missed = body["count"] - kept.counted - 1
            if not 0 <= missed <= kept.perhaps:
                self.wrong.append(f"{body} where {kept.counted} and perhaps {kept.perhaps} were")
            kept.counted, kept.perhaps = body["count"], 0
        elif status == 0 or (status == 503 and body["executed"]):
            kept.perhaps += 1
        return status, headers, body

    def good(self, kept: Kept) -> tuple[bool, bool]:
        """Whether a session is there, and whether it holds what was acknowledged."""
        for _ in range(100):
            status, _, body = self._call("GET", "/api/state/", kept)
            if status not in (0, 503):
                break
            time.sleep(0.1)
        if status != 200:
            return False, False
        if kept.signed_in:
            status, _, _ = self._call("GET", "/api/whoami/", kept)
            if status != 200:
                return False, True
        counted = body["state"].get("count", 0) - kept.counted
        kept_all = body["state"].get("n") in {kept.acknowledged, *kept.later}
        return True, kept_all and 0 <= counted <= kept.perhaps

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
            text = response.read()
            if response.headers.get("Connection", "").lower() == "close":
                self.close()
        except (OSError, http.client.HTTPException):
            self.close()
            self.dropped += 1
            return 0, {}, {}
        session_id = kept.key[:15] if kept else ""
        took = time.monotonic() - began
        self.calls.append(Call(began, took, response.status, session_id, method != "GET"))
        try:
            answer = json.loads(text)
        except ValueError:
            # Django's page for a 500 is none, and a 500 is what no fault excuses.
            self.wrong.append(f"{response.status} {text[:200]!r}")
            answer = {"executed": True, "type": ""}
        return response.status, response.headers, answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Browser:
    """Somebody who is signed in to the admin by a cookie, and looks at its first page."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies: dict[str, str] = {}
        self.calls: list[Call] = []
        self.wrong: list[str] = []
        self.dropped = 0
        self._ask("GET", "/admin/login/")
        form = urlencode(
            {
                "username": "admin",
                "password": PASSWORD,
                "csrfmiddlewaretoken": self._cookies["csrftoken"],
            }
        )
        status = self._ask("POST", "/admin/login/?next=/admin/", form)
        if status != 302 or "sessionid" not in self._cookies:
            raise RuntimeError(f"admin cannot sign in: {status}")
        self._session = self._cookies["sessionid"]

    def act(self) -> None:
        status = self._ask("GET", "/admin/")
        if status not in (0, 200, 503):
            self.wrong.append(f"{status} to a browser that was signed in")
        if self._cookies["sessionid"] != self._session:
            self.wrong.append(f"a browser's cookie was changed with {status}")
            self._cookies["sessionid"] = self._session

    def _ask(self, method: str, path: str, form: str | None = None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        headers = {
            "Accept": "text/html",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
            "Referer": f"http://127.0.0.1:{self._port}/admin/",
        }
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        began = time.monotonic()
        try:
            connection.request(method, path, form, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self.dropped += 1
            return 0
        finally:
            connection.close()
        for line in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(line).items():
                self._cookies[name] = morsel.value
        took = time.monotonic() - began
        self.calls.append(Call(began, took, response.status, "", method != "GET"))
        return response.status


class Load:
    """All clients at once, each in a thread of its own."""

    def __init__(
        self, ports: Sequence[int], sessions_each: int = 15, *, browser: bool = True
    ) -> None:
        self.clients = [Client(ports, number) for number in range(CLIENTS)]
        self.browsers = [Browser(port) for port in ports] if browser else []
        for client in self.clients:
            client.start(sessions_each)
        self.at_start = sum(len(client.sessions) for client in self.clients)
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Load:
        self._threads = [
            threading.Thread(target=self._act, args=(client,)) for client in self.everybody
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _act(self, client: Client | Browser) -> None:
        while not self._over.wait(THINKING):
            client.act()

    @property
    def everybody(self) -> list[Client | Browser]:
        return [*self.clients, *self.browsers]

    @property
    def calls(self) -> list[Call]:
        return sorted(
            (call for client in self.everybody for call in list(client.calls)),
            key=lambda call: call.at,
        )

    @property
    def dropped(self) -> int:
        """Calls whose connection broke."""
        return sum(client.dropped for client in self.everybody)


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

    def meanwhile(self, after: float, before: float = 0.2) -> list[Call]:
        """Calls that began in the midst of the fault: not in its first and last seconds."""
        return [
            call
            for call in self.load.calls
            if self.began + after < call.at and call.at + call.took < self.ended - before
        ]

    def judge(self, *, may_drop: bool = False) -> None:
        """Look at every session when all is over."""
        if not may_drop:
            self.expect(self.load.dropped == 0, f"{self.load.dropped} connections broke")
        for browser in self.load.browsers:
            self.faults += browser.wrong[:3]
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

    def expect_503s_alone(self, after: float) -> None:
        """From so long after the fault began, nothing else was answered until it was over."""
        statuses = Counter(call.status for call in self.meanwhile(after))
        self.expect(set(statuses) == {503}, f"meanwhile {dict(statuses)} were answered")

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
        dropped = self.load.dropped
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
