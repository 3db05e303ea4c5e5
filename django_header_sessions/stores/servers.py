"""The Redis servers behind one cache alias: sends them scripts, and names what goes wrong.

The alias stays Django's or django-redis's own: its client is used as it is, and the async client
is built from that client's connection pool, so that no setting is read twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.sentinel
from asgiref.sync import sync_to_async
from django.core.cache import BaseCache
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    MaxConnectionsError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)
from redis.maint_notifications import MaintNotificationsConfig

from ..exceptions import SessionUnavailable
from .base import Finding, Memory, Outage
from .bell import Bell
from .breaker import Breaker
from .listener import Listener

T = TypeVar("T")

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
    moving: Any = None
    """What to answer at once where the keys are just being moved to another server; None tries
    on until they have been."""

    def evalsha(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def eval(self) -> tuple[Any, ...]:
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)


class Server:
    """One server: the clients that reach it, and the breaker that keeps waiting for it short."""

    def __init__(
        self, name: str, client: Any, probe: Callable[[Server], object] | None = None
    ) -> None:
        self.name = name
        self.client = client
        self.breaker = Breaker(name, partial(probe or Server.ping, self))
        self._async_clients: dict[asyncio.AbstractEventLoop, Any] = {}

    def send(self, command: Sequence[Any]) -> Any:
        """The answer to one command, as it came. Raises what redis-py raises.

        It is sent once, whatever the alias says of retries, and not by ``execute_command``, which
        heeds them: an increment that timed out may have been counted.
        """
        return self._guarded(self._exchange, *command)

    def ask(self, *command: str) -> Any:
        """The answer to a question about the server itself, as redis-py reads it."""
        return self._guarded(self.client.execute_command, *command)

    def _exchange(self, *command: Any) -> Any:
        pool = self.client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        except ResponseError:
            raise  # which is an answer
        except BaseException:
            # Who asks next must not get the answer to this.
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _guarded(self, exchange: Callable[..., Any], *command: Any) -> Any:
        self.breaker.check()
        try:
            return exchange(*command)
        except (ConnectionError, TimeoutError) as error:
            self._failed(error)
            raise
        except ResponseError as error:
            if demoted(error):
                self._leave()
            raise

    async def asend(self, command: Sequence[Any]) -> Any:
        client = self._async_client()
        if client is None:
            return await sync_to_async(self.send, thread_sensitive=False)(command)
        self.breaker.check()
        try:
            return await client.execute_command(*command)
        except (ConnectionError, TimeoutError) as error:
            self._failed(error)
            raise
        except ResponseError as error:
            if demoted(error):
                await client.connection_pool.disconnect(inuse_connections=False)
            raise

    def send_all(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """The answers to some commands in one round trip, errors among them."""
        self.breaker.check()
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        except (ConnectionError, TimeoutError) as error:
            self._failed(error)
            raise
        if any(map(demoted, answers)):
            self._leave()
        return answers

    async def asend_all(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        client = self._async_client()
        if client is None:
            return await sync_to_async(self.send_all, thread_sensitive=False)(commands)
        self.breaker.check()
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (ConnectionError, TimeoutError) as error:
            self._failed(error)
            raise
        if any(map(demoted, answers)):
            await client.connection_pool.disconnect(inuse_connections=False)
        return answers

    def ping(self) -> None:
        """Raises ``SessionUnavailable`` where the server does not answer."""
        try:
            # What is idle may lead to a server that hangs, or that is no primary any more.
            self._leave()
            # While its writes are paused, for a failover, it answers PING and holds up all scripts.
            self.client.execute_command("EVAL", "return 1", 0)
        except NoPermissionError:
            pass  # an answer is an answer
        except RedisError as error:
            raise named(error) from error

    def _leave(self) -> None:
        """Have the next requests connect anew, as the name may lead to another server by now."""
        self.client.connection_pool.disconnect(inuse_connections=False)

    def _failed(self, error: ConnectionError | TimeoutError) -> None:
        if unanswered(error):
            self.breaker.open(error)

    def _async_client(self) -> Any:
        """The client of the running loop; None where the sync client's kind is not known here."""
        loop = asyncio.get_running_loop()
        try:
            return self._async_clients[loop]
        except KeyError:
            # A weak key would not do: a client and its loop hold each other.
            for clients in (self._async_clients, _closings):
                for other in [one for one in list(clients) if one.is_closed()]:
                    clients.pop(other, None)
            client = self._async_clients[loop] = async_client(self.client, self.breaker)
            if client is not None:
                closing = _closing(client)
                # It has nothing to wait for; begun in this loop, it is the loop's to finish.
                with suppress(StopIteration):
                    closing.asend(None).send(None)
                _closings.setdefault(loop, []).append(closing)
            return client


_closings: dict[asyncio.AbstractEventLoop, list[AsyncGenerator[None, None]]] = {}
"""What closes the clients of each loop. Kept here for as long as the loop runs: a client of a store
that was replaced would be thrown away with its connections open."""


async def _closing(client: Any) -> AsyncGenerator[None, None]:
    """Closes a client with its event loop: a loop that is shut down finishes the asynchronous
    generators that were begun in it, and gives no other notice."""
    try:
        yield
    finally:
        pool = client.connection_pool
        await pool.disconnect()
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            await sentinel.connection_pool.disconnect()


class Servers:
    """Runs scripts on the server of one alias."""

    buckets = 1
    """Parts that the sessions are split into, unless a setting says otherwise."""

    def __init__(self, alias: str, client: Any) -> None:
        self._server = Server(repr(alias), client)

    def tag(self, bucket: int, of: int) -> str:
        """The hash tag of the keys of one bucket of so many."""
        return str(bucket)

    def run(self, call: Call) -> Any:
        """The answer to one script, in one round trip; two where the server has yet to learn it."""
        try:
            try:
                return self._server.send(call.evalsha())
            except NoScriptError:
                return self._server.send(call.eval())
        except RedisError as error:
            raise named(error) from error

    async def arun(self, call: Call) -> Any:
        try:
            try:
                return await self._server.asend(call.evalsha())
            except NoScriptError:
                return await self._server.asend(call.eval())
        except RedisError as error:
            raise named(error) from error

    def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """The answers to many scripts, in as few round trips as pipelines of bounded size allow."""
        answers: list[Any] = []
        for some in batches(calls):
            try:
                found = self._server.send_all(call.evalsha() for call in some)
            except RedisError as error:
                raise named(error) from error
            for call, answer in zip(some, found, strict=True):
                answers.append(self.run(call) if isinstance(answer, NoScriptError) else answer)
        return _checked(answers)

    async def arun_all(self, calls: Sequence[Call]) -> list[Any]:
        answers: list[Any] = []
        for some in batches(calls):
            try:
                found = await self._server.asend_all(call.evalsha() for call in some)
            except RedisError as error:
                raise named(error) from error
            for call, answer in zip(some, found, strict=True):
                answers.append(
                    await self.arun(call) if isinstance(answer, NoScriptError) else answer
                )
        return _checked(answers)

    def bell(self, channels: str) -> Bell:
        """What rings for those who wait in this process, called on channels that begin so."""
        return Listener(channels, self._own_connection)

    def _own_connection(self) -> Any:
        """A connection as the pool makes them, that is none of the pool's."""
        pool = self.every()[0].client.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def every(self) -> list[Server]:
        """The servers that are known so far."""
        return [self._server]

    def memory(self) -> Memory | None:
        """What they use together; None where one may not be asked."""
        found = []
        for server in self.every():
            try:
                found.append(server.ask("INFO", "memory"))
            except NoPermissionError:
                return None
            except RedisError as error:
                raise named(error) from error
        return _memory(found)

    async def amemory(self) -> Memory | None:
        found = []
        for server in self.every():
            try:
                found.append(await server.asend(("INFO", "memory")))
            except NoPermissionError:
                return None
            except RedisError as error:
                raise named(error) from error
        return _memory(found)

    def outages(self) -> list[Outage]:
        return [now for server in self.every() if (now := server.breaker.outage)]

    def examine(self) -> list[Finding]:
        return examined(self._server)


def servers_of(alias: str, cache: BaseCache) -> Servers:
    """What runs the scripts of ``alias``: a connection factory that reaches more than one server
    brings its own."""
    factory = getattr(getattr(cache, "client", None), "connection_factory", None)
    own: Callable[[str, BaseCache], Servers] | None = getattr(factory, "servers", None)
    return Servers(alias, raw_client(cache)) if own is None else own(alias, cache)


def raw_client(cache: BaseCache) -> Any:
    """The redis-py client of the primary behind ``cache``."""
    inner = getattr(cache, "client", None)
    if inner is not None:
        try:
            return inner.get_client(write=True)
        except NotImplementedError as error:
            raise ImproperlyConfigured(
                f"{type(inner).__name__} has no one client: sessions need a CLIENT_CLASS that has."
            ) from error
    return cache._cache.get_client(None, write=True)  # type: ignore[attr-defined]


class _Pool(redis.asyncio.BlockingConnectionPool):
    """Waits for a free connection, but for none to a server that is known not to answer."""

    breaker: Breaker

    async def ensure_connection(self, connection: Any) -> None:
        # Who waited for a connection may have waited until the server was known to be lost.
        self.breaker.check()
        made = getattr(connection, "made_in", None)
        if made not in (None, self.breaker.openings):
            # Made before an outage: it may lead to a server that hung, and is no primary now.
            await connection.disconnect()
        connection.made_in = self.breaker.openings
        await super().ensure_connection(connection)


class _SentinelPool(asyncio_sentinel.SentinelConnectionPool, _Pool):  # type: ignore[misc]
    """The same, whose connections ask the sentinels who the primary is."""


class _Sentinel(asyncio_sentinel.Sentinel):  # type: ignore[misc]
    """Asks the sentinel first that answered last."""

    async def discover_master(self, service_name: str) -> Any:
        # redis-py swaps two places of its list. Of tasks that do so at once, each with an index
        # of before, one puts a sentinel into two places, and another nowhere: it would never be
        # asked again, and its connections would be thrown away open. So each has its own list.
        asking = copy(self)
        asking.sentinels = list(self.sentinels)
        address = await super(_Sentinel, asking).discover_master(service_name)
        first = asking.sentinels[0]
        self.sentinels.sort(key=lambda sentinel: sentinel is not first)
        return address


def async_client(client: Any, breaker: Breaker) -> Any:
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
    options |= {
        "connection_class": kind,
        "max_connections": MAX_CONNECTIONS,
        "timeout": options.get("socket_timeout"),
    }
    own: Any
    if isinstance(pool, redis.sentinel.SentinelConnectionPool):
        own = _SentinelPool(
            pool.service_name,
            async_sentinel(pool.sentinel_manager),
            is_master=pool.is_master,
            check_connection=pool.check_connection,
            **options,
        )
    else:
        own = _Pool(**options)
    own.breaker = breaker
    return redis.asyncio.Redis(connection_pool=own)


def async_sentinel(manager: redis.sentinel.Sentinel) -> Any:
    """The async twin of a Sentinel manager: the same sentinels, asked in the same way."""
    options = [
        connection_options(sentinel.connection_pool.connection_kwargs, redis.asyncio.Connection)
        for sentinel in manager.sentinels
    ]
    twin = _Sentinel([], min_other_sentinels=manager.min_other_sentinels)
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
    options["retry"] = redis.asyncio.retry.Retry(NoBackoff(), 0)
    if "maint_notifications_config" in understood:
        # While redis-py listens for these, it does not look whether a connection from the pool
        # still holds somebody else's answer.
        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return options


def demoted(answer: object) -> bool:
    """Whether a server said that it is no primary, though connections to it were made as to one."""
    if isinstance(answer, ReadOnlyError):
        return True
    return isinstance(answer, ResponseError) and str(answer).startswith("READONLY ")


def named(error: Exception) -> Exception:
    """``SessionUnavailable`` if the server cannot say at the moment, ``ImproperlyConfigured`` if it
    does not let us in, else ``error`` itself."""
    if isinstance(error, AuthenticationError):
        # A connection error to redis-py, but time does not mend it.
        return ImproperlyConfigured(
            f"The session store refuses the user name or password of its cache alias: {error}"
        )
    known = isinstance(
        error,
        ConnectionError
        | TimeoutError
        | ReadOnlyError
        | OutOfMemoryError
        | ClusterDownError
        | TryAgainError
        | InvalidResponse,  # something else answers in the server's place
    )
    if known or (isinstance(error, ResponseError) and str(error).split(" ", 1)[0] in _REFUSALS):
        return SessionUnavailable(f"The session store cannot be used at the moment: {error}")
    return error


def unanswered(error: ConnectionError | TimeoutError) -> bool:
    """Whether a server said nothing, so that to ask it again would be to wait again."""
    if isinstance(error, BusyLoadingError | MaxConnectionsError | AuthenticationError):
        return False  # it did answer, or was not asked
    if str(error) == "No connection available.":
        return False  # of a pool that waits: it was not asked
    # A sentinel's client turns this answer into a lost connection.
    return not isinstance(error.__context__, ReadOnlyError)


def batches(whole: Iterable[T]) -> Iterator[list[T]]:
    """Parts of it, each small enough for one pipeline."""
    rest = iter(whole)
    while some := list(islice(rest, PIPELINED)):
        yield some


def examined(server: Server) -> list[Finding]:
    """How one server is set up, where that endangers sessions."""
    try:
        server_info = server.ask("INFO", "server")
        replication = server.ask("INFO", "replication")
        memory = server.ask("INFO", "memory")
    except NoPermissionError as error:
        return [
            Finding(
                "warning",
                f"{server.name} does not tell how it is set up: {error}",
                "Give the user of the alias +info, or look yourself that maxmemory-policy is "
                "noeviction.",
            )
        ]
    except RedisError as error:
        raise named(error) from error
    findings = []
    version = str(server_info.get("valkey_version") or server_info.get("redis_version", "?"))
    findings.append(Finding("ok", f"{server.name} answers; its version is {version}."))
    if str(replication.get("role")) != "master":
        findings.append(
            Finding(
                "error",
                f"{server.name} is a replica: it may not know the newest sessions, and refuses "
                "to open any.",
                "Let the alias lead to the primary.",
            )
        )
    policy = str(memory.get("maxmemory_policy", "?"))
    if policy != "noeviction":
        full = bool(memory.get("maxmemory"))
        findings.append(
            Finding(
                "error" if full else "warning",
                f"{server.name} has the maxmemory-policy {policy}: "
                + ("when" if full else "with a maxmemory, when")
                + " memory is full it throws live sessions away, and logs people out.",
                'Set "maxmemory-policy noeviction" there, and keep caches on another server.',
            )
        )
    return findings


def _memory(found: list[dict[str, Any]]) -> Memory:
    limits = [int(memory.get("maxmemory", 0)) for memory in found]
    policies = {str(memory.get("maxmemory_policy", "?")) for memory in found}
    return Memory(
        used=sum(int(memory["used_memory"]) for memory in found),
        limit=sum(limits) if all(limits) else None,
        policy=", ".join(sorted(policies)),
    )


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, RedisError):
            raise named(answer) from answer
    return answers
