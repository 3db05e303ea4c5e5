"""A server that speaks the protocol of header sessions, and misbehaves where a test wants it to.

Standard library only, and nothing of the package but its static files: what the clients are held
against is written down here a second time. Every origin may call it (CORS), with no credentials.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import django_header_sessions

URN = "urn:django-header-sessions:"
HEADER = "X-Session-Key"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
STATIC = Path(django_header_sessions.__file__).parent / "static" / "django_header_sessions"


def make_key(session_id: str | None = None) -> str:
    """A session key, of the session with this id or of a new one."""
    head = session_id or "".join(secrets.choice(LETTERS) for _ in range(15))
    return head + "".join(secrets.choice(LETTERS) for _ in range(25))


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    path: str
    sent: str | None
    headers: dict[str, str]
    body: bytes
    sessions: list[str | None] = field(default_factory=list)


@dataclass
class Reply:
    """What goes out. Status 0: nothing, the connection is closed."""

    status: int = 200
    document: Any = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    content_type: str = "application/json"
    raw: bytes | None = None


Handler = Callable[[Seen], Reply]


def problem(
    status: int, kind: str, executed: bool | None = False, *headers: tuple[str, str]
) -> Reply:
    """A problem document; `executed` is left out when it is `None`."""
    document: dict[str, Any] = {"type": URN + kind, "title": kind, "status": status}
    if executed is not None:
        document["executed"] = executed
    extra = [("WWW-Authenticate", "Session")] if status == 401 else []
    return Reply(status, document, [*headers, *extra], "application/problem+json")


@dataclass
class Session:
    """What is stored: the key that opens, those that did, the data."""

    key: str
    old: set[str] = field(default_factory=set)
    data: dict[str, Any] = field(default_factory=dict)


class Server:
    """Runs in threads of this process; `on` replaces what one path answers."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self.sessions: dict[str, Session] = {}
        self.lock = threading.Lock()
        self.handlers: dict[tuple[str, str], Handler] = {
            ("GET", "/state"): self.read,
            ("HEAD", "/state"): self.read,
            ("PATCH", "/state"): self.write,
            ("POST", "/login"): self.login,
            ("GET", "/api/sessions/current/"): self.read,
        }
        outer = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body go out in one segment, or Nagle and delayed ACKs cost 40 ms.
            wbufsize = -1
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with outer.lock:
                    outer.connections += 1

            def log_message(self, *args: object) -> None:
                pass

            def handle_any(self) -> None:
                outer.answer(self)

            do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any
            do_OPTIONS = handle_any

        class Listener(ThreadingHTTPServer):
            # With the usual 5, the sixth connection of a moment waits for a whole second.
            request_queue_size = 128

        self.http = Listener(("127.0.0.1", 0), Request)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def on(self, method: str, path: str, handler: Handler) -> None:
        """Answer this method and path with `handler`."""
        self.handlers[method, path] = handler

    def script(self, method: str, path: str, *replies: Reply | Handler) -> None:
        """Answer with these, one after the other; from then on as the last one says."""
        left = list(replies)

        def next_one(seen: Seen) -> Reply:
            with self.lock:
                reply = left.pop(0) if len(left) > 1 else left[0]
            return reply if isinstance(reply, Reply) else reply(seen)

        self.on(method, path, next_one)

    def of(self, path: str) -> list[Seen]:
        """The requests to this path so far, preflights left out."""
        return [seen for seen in self.seen if seen.path == path and seen.method != "OPTIONS"]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        if request.headers.get("Transfer-Encoding") == "chunked":
            while size := int(request.rfile.readline(), 16):
                body += request.rfile.read(size)
                request.rfile.readline()
            request.rfile.readline()
        path = request.path.partition("?")[0]
        seen = Seen(request.command, path, request.headers.get(HEADER), dict(request.headers), body)
        with self.lock:
            self.seen.append(seen)
        if request.command == "OPTIONS":
            reply = Reply(204)
        elif path.startswith("/static/"):
            name = path.removeprefix("/static/")
            reply = Reply(content_type="text/javascript", raw=(STATIC / name).read_bytes())
        else:
            reply = self.handlers.get((request.command, path), self.otherwise)(seen)
        if reply.status == 0:
            request.close_connection = True
            return
        content = b"" if reply.document is None else json.dumps(reply.document).encode()
        content = content if reply.raw is None else reply.raw
        request.send_response(reply.status)
        request.send_header("Access-Control-Allow-Origin", "*")
        request.send_header("Access-Control-Allow-Methods", "*")
        request.send_header("Access-Control-Allow-Headers", f"{HEADER}, Content-Type")
        request.send_header(
            "Access-Control-Expose-Headers",
            f"{HEADER}, X-Session-Expires-In, Retry-After, WWW-Authenticate",
        )
        for name, value in reply.headers:
            request.send_header(name, value)
        if reply.status != 204:
            request.send_header("Content-Type", reply.content_type)
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    # The well-behaved part

    def otherwise(self, seen: Seen) -> Reply:
        """Answer a path that nobody has said anything about."""
        return Reply(404, {"detail": "no such path"})

    def open(self, seen: Seen) -> Session | Reply | None:
        """The session of a request, `None` for a new one, or why there is none."""
        sent = seen.sent
        if sent is None or sent == "new":
            return None
        session = self.sessions.get(sent[:15])
        if session is not None and sent in session.old:
            return problem(409, "superseded")
        if session is None or session.key != sent:
            return problem(401, "unknown")
        return session

    def with_session(self, seen: Seen, view: Callable[[Session], Reply], create: bool) -> Reply:
        with self.lock:
            session = self.open(seen)
            if isinstance(session, Reply):
                return session
            if session is None:
                if not create:
                    return Reply(200, {"state": {}})
                session = Session(make_key())
                self.sessions[session.key[:15]] = session
            reply = view(session)
            reply.headers.append(("X-Session-Expires-In", "1800"))
            if session.key != seen.sent:
                reply.headers.append((HEADER, session.key))
            return reply

    def read(self, seen: Seen) -> Reply:
        return self.with_session(seen, lambda s: Reply(200, {"state": dict(s.data)}), False)

    def write(self, seen: Seen) -> Reply:
        def merge(session: Session) -> Reply:
            session.data.update(json.loads(seen.body or b"{}"))
            return Reply(200, {"state": dict(session.data)})

        return self.with_session(seen, merge, True)

    def login(self, seen: Seen) -> Reply:
        """Sign in: a new session, or a rotation of the one there is."""

        def sign_in(session: Session) -> Reply:
            session.data["user"] = "demo"
            if session.key == seen.sent:
                self.rotate(session)
            return Reply(200, {"state": dict(session.data)})

        return self.with_session(seen, sign_in, True)

    def rotate(self, session: Session) -> str:
        """Give the session a new secret and answer its new key; the caller holds the lock."""
        session.old.add(session.key)
        session.key = make_key(session.key[:15])
        return session.key

    def end_all(self) -> None:
        """End every session behind the clients' backs."""
        with self.lock:
            self.sessions.clear()
