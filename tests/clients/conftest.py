"""Servers to call, and every client library to call them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from .drivers import (
    AiohttpCaller,
    Caller,
    FetchCaller,
    HttpxAsyncCaller,
    HttpxCaller,
    Loop,
    Node,
    Options,
    RequestsCaller,
)
from .example import Cluster, Gateway
from .server import Server

LIBRARIES = ("httpx", "httpx-async", "httpx2", "httpx2-async", "requests", "aiohttp", "fetch")
CANCELLABLE = ("httpx-async", "httpx2-async", "aiohttp", "fetch")

Open = Callable[..., Caller]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("example"))
    yield running
    running.close()


@pytest.fixture
def gateway(cluster: Cluster) -> Iterator[Gateway]:
    """The example with no sessions, behind a gateway that can misbehave."""
    cluster.valkey.client.flushall()
    with Gateway(cluster) as running:
        yield running


@pytest.fixture
def other() -> Iterator[Server]:
    """A server of another origin."""
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.close()


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    running = Node()
    yield running
    running.close()


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def open_with(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a caller of any library on any server."""
    opened: list[Caller] = []

    def make(library: str, base: str, **options: Any) -> Caller:
        if "key" in options:
            options.setdefault("origin", base)
        known = {"key", "origin", "renew", "follow", "headers"}
        settings = {name: value for name, value in options.items() if name not in known}
        chosen = Options(
            base,
            settings=settings,
            **{name: value for name, value in options.items() if name in known},
        )
        caller: Caller
        if library == "fetch":
            caller = FetchCaller(chosen, request.getfixturevalue("node"))
        elif library == "aiohttp":
            caller = AiohttpCaller(chosen, request.getfixturevalue("loop"))
        elif library == "requests":
            caller = RequestsCaller(chosen)
        elif library.endswith("-async"):
            name = library.removesuffix("-async")
            caller = HttpxAsyncCaller(name, chosen, request.getfixturevalue("loop"))
        else:
            caller = HttpxCaller(library, chosen)
        opened.append(caller)
        return caller

    yield make
    for caller in opened:
        caller.close()


@pytest.fixture
def opener(open_with: Open, library: str) -> Open:
    """Opens a caller on any server."""
    return partial(open_with, library)


@pytest.fixture
def call(opener: Open, server: Server) -> Open:
    """Opens a caller on the server."""

    def make(**options: Any) -> Caller:
        return opener(server.url, **options)

    return make
