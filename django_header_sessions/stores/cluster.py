"""Redis Cluster: the connection factory for a django-redis alias, and what sends scripts there.

redis-py's cluster client knows which server has which slot. Scripts are sent here, one server at
a time, since that client would send again what timed out (a counter would count twice), and would
give up on a slot that is being moved before it has been. Each server has its own breaker: one
dead primary closes the door to its own slots only.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Sequence
from itertools import count
from random import choice
from typing import Any, NamedTuple, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache import BaseCache
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, NodesManager, RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.retry import Retry

from ..exceptions import SessionUnavailable
from ..steps import adrive, drive
from .base import Finding, Memory, Outage
from .breaker import Breaker
from .servers import Call, Server, Servers, batches, examined, named, raw_client

# redis-py does not type these.
make_node: Any = ClusterNode

T = TypeVar("T")

REDIRECTS = 8
"""Times that a script is sent elsewhere before the cluster is held to disagree with itself."""

PAUSE = 0.02
"""Seconds between two tries at a slot that is being moved."""

PATIENCE = 5.0
"""Seconds of trying where the alias has no socket time-out."""


CLOSED = (RedisError, RedisClusterException, IndexError)
"""What redis-py raises of a cluster that it cannot enter; the last where nobody has any slots."""


class ClusterConnectionFactory:
    """For ``OPTIONS["CONNECTION_FACTORY"]`` of a django-redis alias whose ``LOCATION`` is one
    server of a Redis Cluster; ``OPTIONS["STARTUP_NODES"]`` may name more, as pairs of host and
    port, for when that one is down while a process starts.

    The alias works as a cache for what concerns one key at a time. One client a URL and process.
    """

    _clients: dict[str, RedisCluster] = {}  # noqa: RUF012  the process's, as django-redis's pools are
    _lock = threading.Lock()

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def connect(self, url: str) -> RedisCluster:
        with self._lock:
            if url not in self._clients:
                self._clients[url] = self._connected(url)
            return self._clients[url]

    def disconnect(self, connection: Any) -> None:
        connection.disconnect_connection_pools()

    def servers(self, alias: str, cache: BaseCache) -> Servers:
        """What sends the scripts of the session store."""
        return ClusterServers(alias, cache)

    def _connected(self, url: str) -> RedisCluster:
        options = {
            name.lower(): self._options[name]
            for name in ("USERNAME", "PASSWORD", "SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT")
            if self._options.get(name)
        }
        return RedisCluster.from_url(
            url,
            startup_nodes=[
                make_node(host, port) for host, port in self._options.get("STARTUP_NODES", ())
            ],
            # What timed out may have been done; whoever repeats it must know that.
            retry=Retry(NoBackoff(), 0),
            # A part of the slots is better than none.
            require_full_coverage=False,
            **options | self._options.get("CONNECTION_POOL_KWARGS", {}),
        )


class _Send(NamedTuple):
    server: Server
    command: Sequence[Any]


class _SendAll(NamedTuple):
    server: Server
    commands: Sequence[Sequence[Any]]


class _Pause(NamedTuple):
    seconds: float


Steps = Generator[_Send | _SendAll | _Pause, Any, T]


class ClusterServers(Servers):
    """Runs each script on the server that has its keys."""

    buckets = 256

    def __init__(self, alias: str, cache: BaseCache) -> None:
        self._alias = alias
        self._cache = cache
        self._client: RedisCluster | None = None
        self._joining = threading.Lock()
        self._entry = Breaker(f"{alias!r} (the whole cluster)", self._enter)
        self._servers: dict[str, Server] = {}

    def tag(self, bucket: int, of: int) -> str:
        """One whose slot is that share of all slots, so that each server gets its share."""
        return slot_tag(SLOTS * bucket // of)

    def run(self, call: Call) -> Any:
        self._join()
        return drive(self._steps(call), self._do)

    async def arun(self, call: Call) -> Any:
        await self._ajoin()
        return await adrive(self._steps(call), self._ado)

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        self._join()
        return drive(self._all_steps(calls), self._do)

    async def arun_all(self, calls: Sequence[Call]) -> list[Any]:
        await self._ajoin()
        return await adrive(self._all_steps(calls), self._ado)

    def every(self) -> list[Server]:
        """The primaries that have slots."""
        return [self._server_of(node) for node in self._primaries()]

    def memory(self) -> Memory | None:
        self._join()
        return super().memory()

    async def amemory(self) -> Memory | None:
        await self._ajoin()
        return await super().amemory()

    def _own_connection(self) -> Any:
        # What one server is told to publish, all of them tell; so any of them will do.
        server = self._server_of(choice(self._serving()))  # noqa: S311  it need not be a secret
        pool = server.client.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def outages(self) -> list[Outage]:
        breakers = [self._entry, *(server.breaker for server in list(self._servers.values()))]
        return [now for breaker in breakers if (now := breaker.outage)]

    def examine(self) -> list[Finding]:
        self._join()
        findings = []
        for server in self.every():
            try:
                findings += [*examined(server), *_coverage(server)]
            except SessionUnavailable as error:
                findings.append(Finding("error", f"{server.name} does not answer: {error}"))
        return findings

    # Where scripts go. Written once for sync and async, which differ only in how they send.

    def _steps(self, call: Call) -> Steps[Any]:
        slot = key_slot(call.keys[0].encode())
        server, command, asking = self._owner(slot), call.evalsha(), False
        redirects, give_up = 0, 0.0
        while True:
            try:
                if not asking:
                    return (yield _Send(server, command))
                _, answer = yield _SendAll(server, [("ASKING",), command])
                if isinstance(answer, RedisError):
                    raise answer
                return answer
            except NoScriptError:
                command = call.eval()
            except AskError as error:
                redirects += 1
                if redirects > REDIRECTS:
                    raise SessionUnavailable(f"The servers send each other on: {error}") from error
                # Moved for good, or only while the slot is on its way.
                asking = not isinstance(error, MovedError)
                server = self._redirected(error)
            except TryAgainError as error:
                if call.moving is not None:
                    return call.moving
                now = time.monotonic()
                give_up = give_up or now + _patience(server)
                if now > give_up:
                    raise named(error) from error
                yield _Pause(PAUSE)
                server, asking, redirects = self._owner(slot), False, 0
            except RedisError as error:
                raise named(error) from error

    def _all_steps(self, calls: Sequence[Call]) -> Steps[list[Any]]:
        answers: list[Any] = [None] * len(calls)
        at_server: dict[str, tuple[Server, list[int]]] = {}
        for at, call in enumerate(calls):
            server = self._owner(key_slot(call.keys[0].encode()))
            at_server.setdefault(server.name, (server, []))[1].append(at)
        for server, positions in at_server.values():
            for some in batches(positions):
                try:
                    found = yield _SendAll(server, [calls[at].evalsha() for at in some])
                except RedisError as error:
                    raise named(error) from error
                for at, answer in zip(some, found, strict=True):
                    if isinstance(answer, NoScriptError | AskError | TryAgainError):
                        answers[at] = yield from self._steps(calls[at])
                    elif isinstance(answer, RedisError):
                        raise named(answer) from answer
                    else:
                        answers[at] = answer
        return answers

    def _do(self, step: _Send | _SendAll | _Pause) -> Any:
        match step:
            case _Send(server, command):
                return server.send(command)
            case _SendAll(server, commands):
                return server.send_all(commands)
            case _:
                return time.sleep(step.seconds)

    async def _ado(self, step: _Send | _SendAll | _Pause) -> Any:
        match step:
            case _Send(server, command):
                return await server.asend(command)
            case _SendAll(server, commands):
                return await server.asend_all(commands)
            case _:
                return await asyncio.sleep(step.seconds)

    def _join(self) -> None:
        """Learn of the servers, once a process."""
        if self._client is None:
            with self._joining:
                # Whoever waited here need not wait for the same again.
                self._entry.check()
                try:
                    self._enter()
                except SessionUnavailable as error:
                    self._entry.open(error)
                    raise

    async def _ajoin(self) -> None:
        if self._client is None:
            await sync_to_async(self._join, thread_sensitive=False)()

    def _enter(self) -> None:
        if self._client is None:
            try:
                self._client = raw_client(self._cache)
            except CLOSED as error:
                raise _nobody(error) from error

    @property
    def _nodes(self) -> NodesManager:
        assert self._client is not None  # joined
        return self._client.nodes_manager

    def _primaries(self) -> list[ClusterNode]:
        return list(
            {nodes[0].name: nodes[0] for nodes in self._nodes.slots_cache.values()}.values()
        )

    def _serving(self) -> list[ClusterNode]:
        """The primaries, where there are any."""
        primaries = self._primaries()
        if not primaries:
            raise SessionUnavailable("No server of the cluster has any slots.")
        return primaries

    def _owner(self, slot: int) -> Server:
        nodes = self._nodes.slots_cache.get(slot) or self._serving()
        # One that has not this slot says who has it, or that nobody does.
        return self._server_of(nodes[0])

    def _redirected(self, error: AskError) -> Server:
        if isinstance(error, MovedError):
            self._nodes.move_slot(error)
        known = self._nodes.get_node(error.host, error.port)
        return self._server_of(known or make_node(error.host, error.port))

    def _server_of(self, node: ClusterNode) -> Server:
        known = self._servers.get(node.name)
        if known is not None:
            return known
        assert self._client is not None  # joined
        client = self._client.get_redis_connection(node)
        server = Server(f"{self._alias!r} ({node.name})", client, self._probe)
        return self._servers.setdefault(node.name, server)

    def _probe(self, server: Server) -> None:
        """Raises where ``server`` does not answer, though it is the one to be asked."""
        try:
            self._nodes.initialize()
        except CLOSED as error:
            raise _nobody(error) from error
        if server in self.every():
            server.ping()


_tags: dict[int, str] = {}
_untried = count()
_finding = threading.Lock()


def slot_tag(slot: int) -> str:
    """The smallest number that is a hash tag of ``slot``: the same in every process."""
    with _finding:
        while slot not in _tags:
            tag = str(next(_untried))
            _tags.setdefault(key_slot(tag.encode()), tag)
        return _tags[slot]


def _nobody(error: Exception) -> SessionUnavailable:
    return SessionUnavailable(f"No server of the cluster can be asked: {error}")


def _patience(server: Server) -> float:
    """Seconds to try on while a slot is moved: what a request may wait for a server anyway."""
    timeout = server.client.connection_pool.connection_kwargs.get("socket_timeout")
    return float(timeout or PATIENCE)


def _coverage(server: Server) -> list[Finding]:
    name = "cluster-require-full-coverage"
    try:
        answer = server.ask("CONFIG GET", name)
    except RedisError as error:
        # Who hosts a cluster for others may have taken CONFIG out of it.
        if isinstance(error, NoPermissionError) or "unknown command" in str(error):
            return [Finding("warning", f"{server.name} does not tell whether {name} is set.")]
        raise named(error) from error
    if answer.get(name) != "yes":
        return []
    return [
        Finding(
            "warning",
            f"{server.name} has {name} set: while one primary is down, all others refuse too.",
            f'Set "{name} no" on every server.',
        )
    ]
