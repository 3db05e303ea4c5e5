"""How the tests speak to a served site: real requests, and what came back."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPMessage
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from django_header_sessions import keys
from django_header_sessions.problems import URN
from tests.processes import Server, Valkey

KEY = "X-Session-Key"
EXPIRES_IN = "X-Session-Expires-In"

Action = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def key(self) -> str:
        """The session key that was announced; an error where none was."""
        key = self.headers[KEY]
        assert len(key) == 40, f"no key announced: {self}"
        return str(key)

    @property
    def announced(self) -> str | None:
        return self.headers.get(KEY)

    @property
    def did(self) -> list[Any]:
        """What came of each action; an error where the view did not answer."""
        assert self.status == 200, self
        return list(json.loads(self.body)["did"])

    @property
    def cookies(self) -> SimpleCookie:
        found: SimpleCookie = SimpleCookie()
        for line in self.headers.get_all("Set-Cookie", []):
            found.load(line)
        return found

    @property
    def vary(self) -> set[str]:
        return {name.strip() for name in self.headers.get("Vary", "").split(",")} - {""}

    @property
    def document(self) -> dict[str, Any]:
        """The problem document; an error where the answer is none."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        found: dict[str, Any] = json.loads(self.body)
        return found


announced: set[str] = set()
"""Every session key that a server told in this run: none of them may be in a log."""


@dataclass(frozen=True, slots=True)
class Site:
    """One served site, and one kind of its views."""

    server: Server
    view: str = "/sync/"

    def do(
        self,
        *actions: Action,
        key: str | None = None,
        cookie: str | None = None,
        method: str = "GET",
        path: str | None = None,
        headers: dict[str, str] | None = None,
        **query: str | Sequence[Action],
    ) -> Answer:
        """Have a view do these actions. ``key`` goes into the header, ``cookie`` as the session
        cookie, ``query`` into the URL."""
        headers = dict(headers or {})
        if key is not None:
            headers[KEY] = key
        if cookie is not None:
            headers["Cookie"] = f"sessionid={cookie}"
        asked = {"do": list(actions), **query}
        parameters = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in asked.items()
        }
        return self.ask(method, f"{path or self.view}?{urlencode(parameters)}", headers)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> Answer:
        answer = Answer(*self.server.request(method, path, headers, body))
        told = [answer.announced, *(morsel.value for morsel in answer.cookies.values())]
        announced.update(str(key) for key in map(keys.parse, told) if key)
        return answer

    @property
    def cookie_view(self) -> str:
        """The same view on a cookie path."""
        return f"/admin{self.view}"

    def start(self, *actions: Action) -> str:
        """The key of a new session, in which these actions were done."""
        return self.do(*(actions or (["set", "here", True],))).key

    def start_by_cookie(self, *actions: Action) -> str:
        """The cookie of a new cookie session."""
        answer = self.do(*(actions or (["set", "here", True],)), path=self.cookie_view)
        return answer.cookies["sessionid"].value

    def fields(self, key: str) -> dict[str, Any]:
        """What a session holds."""
        found: dict[str, Any] = self.do(["fields"], key=key).did[0]
        return found

    def noted(self) -> list[str]:
        """What views noted since this was asked last: they ran."""
        found: list[str] = json.loads(self.ask("GET", "/test/noted/").body)["noted"]
        return found

    @contextmanager
    def settings(self, **overrides: Any) -> Iterator[None]:
        """The server runs with these settings, which it reads live."""
        answer = self.ask("POST", "/test/settings/", body=json.dumps(overrides))
        assert answer.status == 200, answer
        try:
            yield
        finally:
            assert self.ask("DELETE", "/test/settings/").status == 200

    def raw(self, *lines: bytes, path: str = "/sync/") -> tuple[int, bytes]:
        """Send header lines as they are; the status and all of the answer."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as connection:
            connection.sendall(
                b"\r\n".join(
                    [f"GET {path} HTTP/1.1".encode(), b"Host: test", b"Connection: close", *lines]
                )
                + b"\r\n\r\n"
            )
            received = bytearray()
            # A server that refuses a large request need not read all of it first.
            with suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    received += part
        return int(received.split(b" ", 2)[1]), bytes(received)


def assert_no_key_in(log: str) -> None:
    """No secret of a session key that was told is in ``log``."""
    secrets = {key[15:] for key in announced}
    for word in re.findall(r"[a-z0-9]{25,}", log):
        for start in range(len(word) - 24):
            assert word[start : start + 25] not in secrets, f"a key was logged: {word[:15]}…"


@contextmanager
def commands(valkey: Valkey) -> Iterator[list[str]]:
    """The commands that clients send to the server meanwhile, without what scripts call and
    without the signs of life of who waits to be rung."""
    seen: list[str] = []
    with valkey.client.monitor() as monitor:  # type: ignore[no-untyped-call]
        valkey.client.echo("from here")
        while monitor.next_command()["command"] != "ECHO from here":
            pass
        yield seen
        valkey.client.echo("to here")
        while (command := monitor.next_command())["command"] != "ECHO to here":
            name = command["command"].split(" ", 1)[0]
            if command["client_type"] != "lua" and name != "PING":
                seen.append(name)


def stored_under(valkey: Valkey, key: str) -> str:
    """The name under which the server holds a session."""
    (name,) = valkey.client.keys(f"*:s:{key[:15]}")
    assert isinstance(name, bytes)
    return name.decode()


def assert_problem(
    answer: Answer, name: str, status: int, *, executed: bool, passing: bool = False
) -> None:
    """``answer`` is this row of the table of answers, in full; ``passing`` is what asks to be
    tried again, beside a 503."""
    document = answer.document
    assert answer.status == status, answer
    assert document.keys() == {"type", "title", "status", "detail", "executed"}
    assert document["type"] == URN + name
    assert document["status"] == status
    assert document["executed"] is executed
    assert document["title"]
    assert document["detail"]
    assert "no-store" in answer.headers["Cache-Control"]
    assert KEY in answer.vary
    assert answer.headers.get("WWW-Authenticate") == ("Session" if status == 401 else None)
    assert ("Retry-After" in answer.headers) is (status == 503 or passing)
    assert "Set-Cookie" not in answer.headers
