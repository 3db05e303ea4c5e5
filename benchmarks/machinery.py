"""What a session costs a request, next to Django's own: ``python benchmarks/machinery.py``.

Each request goes through a session middleware and a trivial view, in this process, with a Valkey
that the script starts. Against the same request through an empty middleware, what is left is the
price of the session: middleware, engine, store and the round trips. All kinds take turns in small
batches, so that a machine that is busy for a while is busy for all of them; the figures are
medians over the rounds, and so are the ratios, each taken within one round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from types import ModuleType
from typing import Any

import django
import redis.asyncio
from asgiref.sync import ThreadSensitiveContext, iscoroutinefunction
from django.conf import settings
from django.core.cache import caches
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.processes import Valkey

BATCH = 32
AT_ONCE = 16

DATA: dict[str, Any] = {
    "_auth_user_id": "4711",
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": "3f" * 32,
    "search": {"query": "stainless steel hinges, left-handed", "page_size": 25, "page": 3},
    "calls": 12,
    "language": "en-gb",
}
"""Some 300 bytes as JSON: a signed-in client of a search tool, as in the example project."""

DJANGO, SLIDING, OURS, GETEX, EMPTY = "Django", "Django sliding", "ours", "GETEX", "empty"
OPERATIONS = ("read", "write", "new")
MODES = ("sync", "async", f"async, {AT_ONCE} at once")

AIMS = {
    ("sync", "read", SLIDING): 3.5,
    ("sync", "write", SLIDING): 1.8,
    ("sync", "new", SLIDING): 2.5,
    ("async", "read", SLIDING): 4.0,
    (MODES[2], "read", SLIDING): 8.0,
    ("sync", "read", GETEX): 1 / 1.5,
}
"""How many times as fast as the other kind we mean to be."""


def configure(url: str) -> None:
    # In a module, as a project's are: what settings.configure() makes takes longer to be read.
    module = ModuleType("benchmark_settings")
    vars(module).update(
        SECRET_KEY="only for benchmarks",
        ALLOWED_HOSTS=["*"],
        CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}},
        INSTALLED_APPS=["django_header_sessions"],
    )
    sys.modules[module.__name__] = module
    os.environ["DJANGO_SETTINGS_MODULE"] = module.__name__
    django.setup()


# What is measured.


def idle(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"ok")


def read(request: HttpRequest) -> HttpResponse:
    assert request.session["search"] is not None
    return HttpResponse(b"ok")


def write(request: HttpRequest) -> HttpResponse:
    request.session["search"] = DATA["search"]
    return HttpResponse(b"ok")


def new(request: HttpRequest) -> HttpResponse:
    request.session.update(DATA)
    return HttpResponse(b"ok")


async def aidle(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"ok")


async def aread(request: HttpRequest) -> HttpResponse:
    assert await request.session.aget("search") is not None
    return HttpResponse(b"ok")


async def awrite(request: HttpRequest) -> HttpResponse:
    await request.session.aset("search", DATA["search"])
    return HttpResponse(b"ok")


async def anew(request: HttpRequest) -> HttpResponse:
    await request.session.aupdate(DATA)
    return HttpResponse(b"ok")


VIEWS = {"read": (read, aread), "write": (write, awrite), "new": (new, anew)}


def empty_middleware(view: Any) -> Any:
    if not iscoroutinefunction(view):
        return lambda request: view(request)

    async def amiddleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = await view(request)
        return response

    return amiddleware


class Getex:
    """The floor: a value of the size of the session's, read with its expiry renewed."""

    def __init__(self, url: str) -> None:
        self._client = caches["default"].client.get_client(write=True)  # type: ignore[attr-defined]
        self._client.set("floor", json.dumps(DATA))
        self._async_client = redis.asyncio.Redis(
            connection_pool=redis.asyncio.BlockingConnectionPool.from_url(url)
        )

    def middleware(self, view: Any) -> Any:
        def sync(request: HttpRequest) -> Any:
            self._client.getex("floor", ex=1800)
            return view(request)

        async def amiddleware(request: HttpRequest) -> Any:
            await self._async_client.getex("floor", ex=1800)
            return await view(request)

        return amiddleware if iscoroutinefunction(view) else sync


@dataclass(frozen=True)
class Subject:
    """One kind of session in one mode doing one thing."""

    mode: str
    operation: str
    kind: str
    handle: Callable[[HttpRequest], Any]
    headers: dict[str, str]

    def requests(self) -> list[HttpRequest]:
        """A batch of requests, made before the clock runs."""
        if self.mode == "sync":
            return [WSGIRequest(self._environ()) for _ in range(BATCH)]
        return [ASGIRequest(self._scope(), io.BytesIO()) for _ in range(BATCH)]

    def _environ(self) -> dict[str, Any]:
        named = {"HTTP_" + name.upper().replace("-", "_"): v for name, v in self.headers.items()}
        return {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/api/",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "10.1.2.3",
            "HTTP_USER_AGENT": "tool-client/1.4",
            "wsgi.input": io.BytesIO(),
        } | named

    def _scope(self) -> dict[str, Any]:
        headers = {"User-Agent": "tool-client/1.4", **self.headers}
        return {
            "type": "http",
            "method": "GET",
            "path": "/api/",
            "query_string": b"",
            "client": ("10.1.2.3", 50000),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        }


def subjects(url: str) -> Iterator[Subject]:
    # Django's middleware can be imported only where settings are configured, ours likewise.
    from django.contrib.sessions.middleware import SessionMiddleware

    from django_header_sessions.middleware import HeaderSessionMiddleware

    floor = Getex(url)

    def middleware(kind: str, view: Any) -> Any:
        if kind in (DJANGO, SLIDING):
            settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
            return SessionMiddleware(view)
        settings.SESSION_ENGINE = "django_header_sessions.engine"
        return HeaderSessionMiddleware(view)

    def key(kind: str) -> dict[str, str]:
        """The header of a request whose session holds the data."""
        if kind == OURS:
            return {"X-Session-Key": middleware(kind, new)(_first()).headers["X-Session-Key"]}
        return {"Cookie": middleware(kind, new)(_first()).cookies.output(header="").strip()}

    for number, mode in enumerate(MODES):
        for operation in OPERATIONS:
            view = VIEWS[operation][min(number, 1)]
            idle_view = (idle, aidle)[min(number, 1)]
            yield Subject(mode, operation, EMPTY, empty_middleware(idle_view), {})
            for kind in (DJANGO, SLIDING, OURS):
                headers = {} if operation == "new" else key(kind)
                yield Subject(mode, operation, kind, middleware(kind, view), headers)
            if operation == "read":
                yield Subject(mode, operation, GETEX, floor.middleware(idle_view), {})


def _first() -> HttpRequest:
    return Subject("sync", "new", EMPTY, idle, {}).requests()[0]


# Measuring.

Clock = Callable[[], float]


def seconds_each(subject: Subject, runner: asyncio.Runner, clock: Clock) -> float:
    """Seconds that one request took, of a batch."""
    settings.SESSION_SAVE_EVERY_REQUEST = subject.kind == SLIDING
    requests, handle = subject.requests(), subject.handle
    if subject.mode != "sync":
        at_once = AT_ONCE if "at once" in subject.mode else 1
        return runner.run(aseconds_each(handle, requests, at_once, clock))
    started = clock()
    for request in requests:
        handle(request)
    return (clock() - started) / len(requests)


async def aseconds_each(
    handle: Callable[[HttpRequest], Awaitable[Any]],
    requests: Iterable[HttpRequest],
    at_once: int,
    clock: Clock,
) -> float:
    """As a server and Django's ASGI handler do it: each request is a task with a context and,
    where it needs one, a thread of its own."""
    loop, waiting = asyncio.get_running_loop(), iter(requests)

    async def serve(request: HttpRequest) -> None:
        async with ThreadSensitiveContext():
            await handle(request)

    async def client() -> None:
        for request in waiting:
            await loop.create_task(serve(request), context=Context())

    started = clock()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return (clock() - started) / BATCH


Times = dict[tuple[str, str, str], list[float]]


def measure(rounds: int, url: str, clock: Clock) -> Times:
    """Microseconds above the empty middleware, for each subject a figure a round."""
    times: Times = {}
    with asyncio.Runner() as runner:
        every = list(subjects(url))
        for subject in every:
            seconds_each(subject, runner, clock)
        # What is loaded by now is not searched for garbage while the clock runs.
        gc.freeze()
        for number in range(rounds):
            empty = 0.0
            for subject in every:
                taken = seconds_each(subject, runner, clock) * 1e6
                if subject.kind == EMPTY:
                    empty = taken
                else:
                    place = (subject.mode, subject.operation, subject.kind)
                    times.setdefault(place, []).append(taken - empty)
            print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    return times


# Telling.


def faster(times: Times, mode: str, operation: str, kind: str) -> float:
    """How many times as fast as ``kind`` we are: the median of what the rounds say."""
    pairs = zip(times[mode, operation, kind], times[mode, operation, OURS], strict=True)
    return median(theirs / ours for theirs, ours in pairs)


def rows(times: Times) -> list[dict[str, Any]]:
    return [
        {
            "mode": mode,
            "operation": operation,
            "microseconds": {
                kind: round(median(times[mode, operation, kind]), 1)
                for kind in (DJANGO, SLIDING, OURS, GETEX)
                if (mode, operation, kind) in times
            },
            "times as fast as": {
                kind: round(faster(times, mode, operation, kind), 2)
                for kind in (DJANGO, SLIDING, GETEX)
                if (mode, operation, kind) in times
            },
        }
        for mode in MODES
        for operation in OPERATIONS
    ]


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "µs a request above an empty middleware, and how many times as fast we are",
        "",
        " " * 24 + "   Django  sliding     ours    GETEX   Django÷ours  sliding÷ours  ours÷GETEX",
    ]
    for row in found:
        taken, ratios = row["microseconds"], row["times as fast as"]
        figures = "".join(
            f"{taken[kind]:9.0f}" if kind in taken else " " * 9
            for kind in (DJANGO, SLIDING, OURS, GETEX)
        )
        floor = f"{1 / ratios[GETEX]:12.2f}" if GETEX in ratios else ""
        title = f"{row['mode']}: {row['operation']}"
        line = f"{title:24}{figures}{ratios[DJANGO]:14.2f}{ratios[SLIDING]:14.2f}{floor}"
        lines.append(line.rstrip())
    lines.append("")
    for (mode, operation, kind), aim in AIMS.items():
        row = next(r for r in found if (r["mode"], r["operation"]) == (mode, operation))
        ratio = row["times as fast as"][kind]
        verdict = "reached" if ratio >= aim else "MISSED"
        if kind == GETEX:
            said = f"at most {1 / aim:.1f} × GETEX: {1 / ratio:.2f}"
        else:
            said = f"at least {aim:.1f} × as fast as {kind}: {ratio:.2f}"
        lines.append(f"{verdict:8} {mode}: {operation}, {said}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50, help="how often each kind has its turn")
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="count the time this process computes: for a machine that is busy with other work",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    with Valkey() as valkey:
        configure(valkey.url)
        clock = process_time if arguments.cpu else perf_counter
        found = rows(measure(arguments.rounds, valkey.url, clock))
    print(json.dumps(found, indent=2) if arguments.json else table(found))


if __name__ == "__main__":
    main()
