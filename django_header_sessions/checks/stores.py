"""The cache that keeps the sessions: what would lose them, or mistake an outage for a logout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.db import connections, router

from ..conf import conf
from .checker import check, subclasses

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
BUILT_IN_REDIS = "django.core.cache.backends.redis.RedisCache"
LISTING = (LOCMEM, BUILT_IN_REDIS, DJANGO_REDIS)
DATABASE = "django.core.cache.backends.db.DatabaseCache"
MEMCACHED = "django.core.cache.backends.memcached.BaseMemcachedCache"
CULLING = (LOCMEM, "django.core.cache.backends.filebased.FileBasedCache", DATABASE)
"""Django's own that throw out entries beyond ``MAX_ENTRIES``."""

TIMEOUTS = ("socket_timeout", "socket_connect_timeout")

CLUSTER_FACTORY = "django_header_sessions.stores.cluster.ClusterConnectionFactory"


@check(Tags.caches)
def check_cache() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    if alias not in settings.CACHES:
        yield Error(
            f"SESSION_CACHE_ALIAS {alias!r} is not in CACHES.",
            hint=f"Set SESSION_CACHE_ALIAS to one of {sorted(settings.CACHES)}, or add it.",
            id="header_sessions.E012",
        )
        return
    config = settings.CACHES[alias]
    backend = str(config["BACKEND"])
    if subclasses(backend, "django.core.cache.backends.dummy.DummyCache"):
        yield Error(
            f"The cache {alias!r} is a DummyCache, which keeps no session.",
            hint="Set SESSION_CACHE_ALIAS to a cache that keeps what it is given.",
            id="header_sessions.E013",
        )
    elif subclasses(backend, MEMCACHED) and len(_locations(config)) > 1:
        yield Error(
            f"The cache {alias!r} spreads sessions over several servers of memcached, and where "
            "one is down its clients take another: an outage would sign people out, and sessions "
            "that were ended meanwhile would be there again.",
            hint="Name one server in LOCATION, or use django-redis.",
            id="header_sessions.E016",
        )
    elif any(subclasses(backend, path) for path in LISTING):
        pass
    elif conf.HEADER_SESSIONS_MAX_PER_USER is not None:
        yield Error(
            f"HEADER_SESSIONS_MAX_PER_USER needs a list of a user's sessions, and the cache "
            f"{alias!r} keeps none.",
            hint="Put SESSION_CACHE_ALIAS on django-redis, or remove the setting.",
            id="header_sessions.E015",
        )
    else:
        yield Warning(
            f"The cache {alias!r} cannot list its sessions, and merges concurrent changes under "
            "a lock that is no fence.",
            hint="Use django-redis for a cluster, LocMemCache for one process.",
            id="header_sessions.W002",
        )
    factory = getattr(settings, "DJANGO_REDIS_CONNECTION_FACTORY", "")
    factory = _options(config).get("CONNECTION_FACTORY") or factory
    cluster = subclasses(factory, CLUSTER_FACTORY)
    buckets = conf.HEADER_SESSIONS_BUCKETS or (256 if cluster else 1)
    if buckets != 1 and "{" in str(config.get("KEY_PREFIX", "")):
        yield Error(
            f"The KEY_PREFIX of the cache {alias!r} holds a brace: on Redis Cluster all sessions "
            "would be in one slot, of one server.",
            hint="Remove the braces from KEY_PREFIX, or set HEADER_SESSIONS_BUCKETS = 1.",
            id="header_sessions.E014",
        )


@check(Tags.caches)
def check_redis() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    config = settings.CACHES.get(alias, {})
    backend = str(config.get("BACKEND", ""))
    django_redis = subclasses(backend, DJANGO_REDIS)
    if not django_redis and not subclasses(backend, BUILT_IN_REDIS):
        return
    options = _options(config)
    of_connections = (options.get("CONNECTION_POOL_KWARGS") or {}) if django_redis else options
    if of_connections.get("decode_responses"):
        yield Error(
            f"The cache {alias!r} decodes what Redis answers (decode_responses), and a session "
            "holds bytes that are no text.",
            hint="Remove the option from the alias of the sessions.",
            id="header_sessions.E024",
        )
    unset = [
        name
        for name in TIMEOUTS
        if not of_connections.get(name)
        and not (django_redis and options.get(name.upper()))
        and f"{name}=" not in str(config.get("LOCATION", ""))
    ]
    if unset:
        names = " and ".join(name.upper() if django_redis else name for name in unset)
        yield Warning(
            f"The cache {alias!r} does not set {names}, so a server that hangs holds up every "
            "thread for as long as redis-py likes.",
            hint=f"Set {names} in its OPTIONS to a few seconds at the most: the sessions' scripts "
            "take less than a millisecond.",
            id="header_sessions.W020",
        )
    retrying = {"retry", "retry_on_error", "retry_on_timeout"} & {
        name for name, value in of_connections.items() if value
    }
    if retrying:
        yield Warning(
            f"The cache {alias!r} tries several times to connect ({', '.join(sorted(retrying))}): "
            "while its server is down, those who ask wait for all of them.",
            hint="Remove these options; clients are told when they may try again.",
            id="header_sessions.W021",
        )
    if not django_redis:
        return
    if options.get("IGNORE_EXCEPTIONS", getattr(settings, "DJANGO_REDIS_IGNORE_EXCEPTIONS", False)):
        yield Error(
            f"The cache {alias!r} ignores exceptions, so that an outage looks like a miss.",
            hint="Set OPTIONS['IGNORE_EXCEPTIONS'] = False for the alias of the sessions; give "
            "other caches an alias of their own.",
            id="header_sessions.E020",
        )
    if options.get("SENTINELS"):
        of_sentinels = options.get("SENTINEL_KWARGS")
        # Where there are none, redis-py takes over the time-outs of the connections.
        missing = [name for name in TIMEOUTS if of_sentinels and not of_sentinels.get(name)]
        if (of_sentinels or {}).get("retry", True):
            missing.append("retry")
        if missing:
            names = " and ".join(missing)
            yield Warning(
                f"The cache {alias!r} does not set {names} for its Sentinels: redis-py waits for "
                "one that hangs for as long as it likes, and asks it ten times more.",
                hint='Set OPTIONS["SENTINEL_KWARGS"] = {"socket_connect_timeout": 1, '
                '"socket_timeout": 1, "retry": None}.',
                id="header_sessions.W024",
            )
    closing = getattr(settings, "DJANGO_REDIS_CLOSE_CONNECTION", False)
    if options.get("CLOSE_CONNECTION", closing):
        yield Warning(
            f"The cache {alias!r} closes its connections at the end of each request, those of "
            "other threads too.",
            hint="Remove CLOSE_CONNECTION, or give the sessions an alias without it.",
            id="header_sessions.W025",
        )
    client = str(options.get("CLIENT_CLASS", ""))
    if subclasses(client, "django_redis.client.sharded.ShardClient"):
        yield Error(
            f"The cache {alias!r} spreads its entries over several servers by itself (ShardClient),"
            " and a session and the lists that name it have to be on one.",
            hint="Use the default client class; or Redis Cluster, with "
            f"CONNECTION_FACTORY = {CLUSTER_FACTORY!r}.",
            id="header_sessions.E025",
        )
        return
    # django-redis takes a list, or a text with commas: the primary, then replicas to read from.
    urls = _locations(config)
    if (
        len(urls) > 1
        or subclasses(client, "django_redis.client.SentinelClient")
        or any(re.search(r"is_master=(0|f|n)", url, re.IGNORECASE) for url in urls)
    ):
        yield Error(
            f"The cache {alias!r} reads from replicas, which learn of a session too late.",
            hint="Name the primary alone in LOCATION; under Sentinel use "
            "django_redis.pool.SentinelConnectionFactory with '?is_master=1' and the default "
            "client class.",
            id="header_sessions.E021",
        )


@check(Tags.caches)
def check_shared_place() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    own = _place(settings.CACHES.get(alias, {}))
    others = [
        other
        for other, config in settings.CACHES.items()
        if other != alias and own & _place(config)
    ]
    if others:
        yield Warning(
            f"The cache {alias!r} of the sessions shares its place with {', '.join(others)}: to "
            "clear one clears both, and ends all sessions.",
            hint="Give it a LOCATION of its own: on Redis another database number, such as "
            "'redis://…/1'.",
            id="header_sessions.W035",
        )


def _place(config: dict[str, Any]) -> set[tuple[str, str]]:
    """Where a cache keeps what it is given; empty where that is nowhere, or not known."""
    backend = str(config.get("BACKEND", ""))
    kind = next((path for path in (*LISTING, *CULLING) if subclasses(backend, path)), "")
    if kind == BUILT_IN_REDIS:
        kind = DJANGO_REDIS
    if not kind:
        return set()
    if kind != DJANGO_REDIS:
        return {(kind, at) for at in _locations(config)}
    options = _options(config)
    database = str(options.get("db") or (options.get("CONNECTION_POOL_KWARGS") or {}).get("db", 0))
    return {(kind, _server_and_database(url, database)) for url in _locations(config)}


def _server_and_database(url: str, database: str) -> str:
    """One text for all ways to write where on Redis a cache is; ``database`` where the URL names
    none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 6379
    except ValueError:
        return url
    if host is None:
        return url
    database = parts.path.strip("/") or parse_qs(parts.query).get("db", [database])[0]
    return f"{'127.0.0.1' if host == 'localhost' else host}:{port}/{database}"


def _locations(config: dict[str, Any]) -> list[str]:
    """The ``LOCATION`` of a cache, which may be a path, a text with commas, a list or nothing."""
    location = config.get("LOCATION") or ""
    if isinstance(location, list | tuple | set):
        return [str(each) for each in location]
    return [str(location)] if isinstance(location, Path) else re.split("[;,]", str(location))


def _options(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("OPTIONS") or {}


@check(Tags.caches)
def check_transactions() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    config = settings.CACHES.get(alias, {})
    if not subclasses(str(config.get("BACKEND", "")), DATABASE):
        return
    cache: Any = caches[alias]
    database = router.db_for_write(cache.cache_model_class)
    if database in connections and connections[database].settings_dict["ATOMIC_REQUESTS"]:
        yield Error(
            f"The cache {alias!r} of the sessions is a table of the database {database!r}, whose "
            "ATOMIC_REQUESTS takes back what a request that fails has done: a session that it "
            "ended would be there again, and a key that it announced would open nothing.",
            hint="Use django-redis; or give the table a database alias of its own, without "
            "ATOMIC_REQUESTS, by a router.",
            id="header_sessions.E026",
        )


@check(Tags.caches)
def check_culling() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    config = settings.CACHES.get(alias, {})
    if not any(subclasses(str(config.get("BACKEND", "")), path) for path in CULLING):
        return
    options = _options(config)
    most = options.get("MAX_ENTRIES", config.get("MAX_ENTRIES", 300))
    alert = conf.HEADER_SESSIONS_ALERT_COUNT
    needed = max(1000, alert if isinstance(alert, int) else 0)
    if isinstance(most, int) and most < needed:
        yield Warning(
            f"The cache {alias!r} keeps {most} entries at the most, and throws out live sessions "
            "where there are more.",
            hint=f"Set OPTIONS['MAX_ENTRIES'] to more sessions than there will be, at least "
            f"{needed}.",
            id="header_sessions.W023",
        )


@check(Tags.caches)
def check_processes() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    workers = os.environ.get("WEB_CONCURRENCY", "")
    several = workers.isdigit() and int(workers) > 1
    if several and subclasses(str(settings.CACHES.get(alias, {}).get("BACKEND", "")), LOCMEM):
        yield Warning(
            f"The cache {alias!r} is in the memory of one process, and WEB_CONCURRENCY asks for "
            f"{workers}: each would know its own sessions only.",
            hint="Use django-redis, or one worker process with threads.",
            id="header_sessions.W022",
        )
