"""The Redis servers behind one cache alias: sends them scripts, and names what goes wrong.

The alias stays Django's or django-redis's own: its client is used as it is, and the async client
is built from that client's connection pool, so that no setting is read twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Any, NamedTuple

import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.sentinel
from asgiref.sync import sync_to_async
from django.core.cache import BaseCache
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from ..exceptions import SessionUnavailable

# redis-py types the calls of its sync client and not all of these.
asyncio_sentinel: Any = redis.asyncio.sentinel

PIPELINED = 64
"""Scripts sent at once: enough to make the round trips few, few enough not to hold up others."""

MAX_CONNECTIONS = 50
"""Connections of one event loop; a task that finds none free waits for one."""

# Options of a connection that are themselves sync, or that would make it retry.
_SYNC_ONLY = frozenset(
    """connection_pool event_dispatcher himport_registry maint_notifications_config
    maint_notifications_pool_handler parser_class redis_connect_func retry retry_on_error
    retry_on_timeout""".split()
)

# What a server says that is there but cannot do what was asked, by the first word of its answer.
# redis-py has classes of their own for some of these, and a bare ResponseError for the rest.
_REFUSALS = frozenset(
    "BUSY CLUSTERDOWN LOADING MASTERDOWN MISCONF NOREPLICAS OOM READONLY TRYAGAIN UNBLOCKED".split()
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script of ``scripts/``, with what they share put in front of it."""

    text: str
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        folder = files(__package__) / "scripts"
        shared = (folder / "session.lua").read_text("utf-8")
        shebang, body = (folder / f"{name}.lua").read_text("utf-8").split("\n", 1)
        text = f"{shebang}\n{shared}\n{body}"
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class Call(NamedTuple):
    """One script to run on the server that has ``keys``, which all share one hash tag."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | bytes | int]

    def evalsha(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def eval(self) -> tuple[Any, ...]:
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)


class Servers:
    """Runs scripts on the servers of one alias; one client a process, one more an event loop."""

    def __init__(self, cache: BaseCache) -> None:
        self._client: Any = raw_client(cache)
        self._async_clients: dict[asyncio.AbstractEventLoop, Any] = {}

    def run(self, call: Call) -> Any:
        """The answer to one script, in one round trip; two where the server has yet to learn it."""
        try:
            try:
                return self._client.execute_command(*call.evalsha())
            except NoScriptError:
                return self._client.execute_command(*call.eval())
        except RedisError as error:
            raise named(error) from error

    async def arun(self, call: Call) -> Any:
        client = self._async_client()
        if client is None:
            return await sync_to_async(self.run, thread_sensitive=False)(call)
        try:
            try:
                return await client.execute_command(*call.evalsha())
            except NoScriptError:
                return await client.execute_command(*call.eval())
        except RedisError as error:
            raise named(error) from error

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """The answers to many scripts, in as few round trips as pipelines of bounded size allow."""
        answers: list[Any] = []
        for some in _batches(calls):
            pipeline = self._client.pipeline(transaction=False)
            for call in some:
                pipeline.execute_command(*call.evalsha())
            try:
                found = pipeline.execute(raise_on_error=False)
            except RedisError as error:
                raise named(error) from error
            for call, answer in zip(some, found, strict=True):
                answers.append(self.run(call) if isinstance(answer, NoScriptError) else answer)
        return _checked(answers)

    async def arun_all(self, calls: Sequence[Call]) -> list[Any]:
        client = self._async_client()
        if client is None:
            return await sync_to_async(self.run_all, thread_sensitive=False)(calls)
        answers: list[Any] = []
        for some in _batches(calls):
            pipeline = client.pipeline(transaction=False)
            for call in some:
                pipeline.execute_command(*call.evalsha())
            try:
                found = await pipeline.execute(raise_on_error=False)
            except RedisError as error:
                raise named(error) from error
            for call, answer in zip(some, found, strict=True):
                answers.append(
                    await self.arun(call) if isinstance(answer, NoScriptError) else answer
                )
        return _checked(answers)

    def _async_client(self) -> Any:
        """The client of the running loop; None where the sync client's kind is not known here."""
        loop = asyncio.get_running_loop()
        try:
            return self._async_clients[loop]
        except KeyError:
            # A weak key would not do: a client and its loop hold each other.
            for other in [other for other in self._async_clients if other.is_closed()]:
                del self._async_clients[other]
            client = self._async_clients[loop] = async_client(self._client)
            return client


def raw_client(cache: BaseCache) -> Any:
    """The redis-py client of the primary behind ``cache``."""
    inner = getattr(cache, "client", None)
    if inner is not None:
        return inner.get_client(write=True)
    return cache._cache.get_client(None, write=True)  # type: ignore[attr-defined]


def async_client(client: Any) -> Any:
    """An async client with the connections that ``client`` makes, for the running event loop.

    It never retries: an increment that timed out may have been counted.
    """
    pool = client.connection_pool
    kinds: dict[type[Any], type[redis.asyncio.connection.AbstractConnection]] = {
        redis.connection.Connection: redis.asyncio.Connection,
        redis.connection.SSLConnection: redis.asyncio.SSLConnection,
        redis.connection.UnixDomainSocketConnection: redis.asyncio.UnixDomainSocketConnection,
        redis.sentinel.SentinelManagedConnection: asyncio_sentinel.SentinelManagedConnection,
        redis.sentinel.SentinelManagedSSLConnection: (
            asyncio_sentinel.SentinelManagedSSLConnection
        ),
    }
    kind = kinds.get(pool.connection_class)
    if kind is None:
        return None
    options = connection_options(pool.connection_kwargs, kind)
    if isinstance(pool, redis.sentinel.SentinelConnectionPool):
        return redis.asyncio.Redis(
            connection_pool=asyncio_sentinel.SentinelConnectionPool(
                pool.service_name,
                async_sentinel(pool.sentinel_manager),
                is_master=pool.is_master,
                check_connection=pool.check_connection,
                connection_class=kind,
                max_connections=MAX_CONNECTIONS,
                **options,
            )
        )
    return redis.asyncio.Redis(
        connection_pool=redis.asyncio.BlockingConnectionPool(
            connection_class=kind,
            max_connections=MAX_CONNECTIONS,
            timeout=options.get("socket_timeout"),
            **options,
        )
    )


def async_sentinel(manager: redis.sentinel.Sentinel) -> Any:
    """The async twin of a Sentinel manager: the same sentinels, asked in the same way."""
    options = [
        connection_options(sentinel.connection_pool.connection_kwargs, redis.asyncio.Connection)
        for sentinel in manager.sentinels
    ]
    twin = asyncio_sentinel.Sentinel([], min_other_sentinels=manager.min_other_sentinels)
    twin.sentinels = [
        redis.asyncio.Redis(connection_pool=redis.asyncio.BlockingConnectionPool(**each))
        for each in options
    ]
    return twin


def connection_options(sync_options: dict[str, Any], kind: Any) -> dict[str, Any]:
    """What ``kind`` understands of a sync connection's options, without what is itself sync."""
    understood: set[str] = set()
    for each in kind.__mro__:
        understood.update(inspect.signature(each.__init__).parameters)
    options = {name: sync_options[name] for name in understood - _SYNC_ONLY if name in sync_options}
    return options | {"retry": redis.asyncio.retry.Retry(NoBackoff(), 0)}


def named(error: RedisError) -> Exception:
    """``SessionUnavailable`` if the server cannot say at the moment, else ``error`` itself."""
    known = isinstance(error, ConnectionError | TimeoutError | ReadOnlyError | OutOfMemoryError)
    if known or (isinstance(error, ResponseError) and str(error).split(" ", 1)[0] in _REFUSALS):
        return SessionUnavailable(f"The session store cannot be used at the moment: {error}")
    return error


def _batches(calls: Sequence[Call]) -> Iterator[list[Call]]:
    rest = iter(calls)
    while some := list(islice(rest, PIPELINED)):
        yield some


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, RedisError):
            raise named(answer) from answer
    return answers
