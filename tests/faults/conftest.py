from __future__ import annotations

import asyncio
import http.cookies
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncClient, Client

from tests.processes import Valkey

from . import site
from .topologies import Cluster

TIMEOUT = 1.0
"""The socket time-out of the fault tests, in seconds."""

PATIENCE = 1.5
"""The socket time-out of the cluster that nobody breaks. One for all tests of it: its client lives
as long as the process, as django-redis's pools do."""

AT_ONCE = TIMEOUT
"""Seconds within which a request is answered that waits for nothing, on a busy machine: whoever
waited would take longer."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    cookies: http.cookies.SimpleCookie
    body: Any
    took: float


class Caller:
    """Calls a view through all of Django, on one side of the sync/async divide and transport."""

    def __init__(self, mode: str, transport: str) -> None:
        self.mode, self.transport = mode, transport
        self.key = ""

    async def __call__(self, view: str, **query: int) -> Answer:
        path = f"{'/admin' if self.transport == 'cookie' else ''}/{self.mode}/{view}/"
        client = Client() if self.mode == "sync" else AsyncClient()
        headers = {"Accept": "application/json"}
        if self.key and self.transport == "header":
            headers["X-Session-Key"] = self.key
        elif self.key:
            client.cookies["sessionid"] = self.key
        began = time.perf_counter()
        response: Any
        if isinstance(client, Client):
            response = await asyncio.to_thread(client.get, path, query, headers=headers)
        else:
            response = await client.get(path, query, headers=headers)
        took = time.perf_counter() - began
        return Answer(
            response.status_code, response.headers, response.cookies, response.json(), took
        )

    async def started(self) -> Caller:
        """With a session in which ``n`` is 1."""
        answer = await self("write", n=1)
        assert answer.status == 200
        self.key = (
            answer.headers["X-Session-Key"]
            if self.transport == "header"
            else answer.cookies["sessionid"].value
        )
        return self


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def caller(mode: str) -> Caller:
    return Caller(mode, "header")


@pytest.fixture(params=["header", "cookie"])
def either_caller(mode: str, request: pytest.FixtureRequest) -> Caller:
    return Caller(mode, request.param)


@pytest.fixture(autouse=True)
def _site(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = "tests.faults.site"
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0.05
    site.ran.clear()
    yield
    site.meanwhile.clear()


class Failing:
    """A Valkey that can be stopped and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.valkey = self._started(None)
        self.port = self.valkey.port

    def _started(self, port: int | None) -> Valkey:
        return Valkey("--dir", str(self._folder), "--enable-debug-command", "yes", port=port)

    def command(self, *words: object) -> Any:
        client: Any = self.valkey.client
        return client.execute_command(*words)

    def scripts(self) -> int:
        """How many scripts it was asked for, by their names: probes have none. What it was sent
        while it hung counts as it wakes."""
        stats: Any = self.valkey.client.info("commandstats")
        return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])

    def stop(self) -> None:
        self.valkey.client.save()
        self.close()

    def close(self) -> None:
        self.valkey.kill()
        self.valkey.log.close()

    def start(self) -> None:
        self.valkey = self._started(self.port)


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Failing]:
    failing = Failing(tmp_path)
    yield failing
    failing.close()


@pytest.fixture
def store(failing: Failing, settings: Any) -> Failing:
    """The Valkey behind the sessions, with short time-outs."""
    settings.CACHES = {"default": alias(failing.valkey.url)}
    return failing


def alias(location: str, **options: Any) -> dict[str, Any]:
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": location,
        "OPTIONS": {
            "SOCKET_TIMEOUT": TIMEOUT,
            "SOCKET_CONNECT_TIMEOUT": TIMEOUT,
        }
        | options,
    }


def cluster_alias(cluster: Cluster, timeout: float = PATIENCE) -> dict[str, Any]:
    return alias(
        cluster.url,
        CONNECTION_FACTORY="django_header_sessions.stores.cluster.ClusterConnectionFactory",
        SOCKET_TIMEOUT=timeout,
        SOCKET_CONNECT_TIMEOUT=timeout,
    )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster for the tests that leave it as it was."""
    with Cluster() as started:
        yield started


async def until(holds: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``holds`` answers once it is true; fails where it never is. It may be async."""
    give_up = time.monotonic() + seconds
    while True:
        answer = holds()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < give_up, f"not within {seconds} s"
        await asyncio.sleep(0.01)
