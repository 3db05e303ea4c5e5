"""System checks: one id, one condition, one hint that says what to do. Ids are never reused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .conf import conf

ENGINE = "django_header_sessions.engine"
MIDDLEWARE = "django_header_sessions.middleware.HeaderSessionMiddleware"
EXPIRES_IN_HEADER = "X-Session-Expires-In"

CORS_MIDDLEWARE = "corsheaders.middleware.CorsMiddleware"
DRF_SESSION_AUTHENTICATION = "rest_framework.authentication.SessionAuthentication"
DRF_AUTHENTICATION = (
    "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication"
)

# What a browser sends without a script's doing, and what CORS lets any page send without asking
# (https://fetch.spec.whatwg.org/#cors-safelisted-request-header and #forbidden-request-header).
AMBIENT_HEADERS = frozenset(
    """accept accept-charset accept-encoding accept-language access-control-request-headers
    access-control-request-method authorization cache-control connection content-language
    content-length content-type cookie cookie2 date dnt downlink dpr ect expect host
    if-modified-since if-none-match keep-alive origin pragma priority range referer rtt save-data
    te trailer transfer-encoding upgrade upgrade-insecure-requests user-agent via
    viewport-width width x-forwarded-for x-forwarded-host x-forwarded-proto
    x-requested-with""".split()
)

LISTING = (
    "django.core.cache.backends.locmem.LocMemCache",
    "django.core.cache.backends.redis.RedisCache",
    "django_redis.cache.RedisCache",
)
CLUSTER_FACTORY = "django_header_sessions.stores.cluster.ClusterConnectionFactory"

Checker = Callable[[], Iterator[CheckMessage]]


def _check(tag: str, *, deploy: bool = False) -> Callable[[Checker], Checker]:
    def wire(checker: Checker) -> Checker:
        @register(tag, deploy=deploy)
        def run(
            app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
        ) -> list[CheckMessage]:
            return list(checker())

        return checker

    return wire


@_check(Tags.security)
def check_wiring() -> Iterator[CheckMessage]:
    if settings.SESSION_ENGINE != ENGINE:
        yield Error(
            "SESSION_ENGINE is not django_header_sessions'.",
            hint=f"Set SESSION_ENGINE = {ENGINE!r}.",
            id="header_sessions.E001",
        )
    if not any(_subclasses(path, MIDDLEWARE) for path in settings.MIDDLEWARE):
        yield Error(
            "HeaderSessionMiddleware is not in MIDDLEWARE.",
            hint="Put it where django.contrib.sessions.middleware.SessionMiddleware stands, "
            f"instead of that: {MIDDLEWARE!r}.",
            id="header_sessions.E002",
        )
    elif "django.contrib.sessions.middleware.SessionMiddleware" in settings.MIDDLEWARE:
        yield Error(
            "Django's SessionMiddleware is in MIDDLEWARE beside HeaderSessionMiddleware.",
            hint="Remove django.contrib.sessions.middleware.SessionMiddleware: the other does all "
            "that it does, on the paths of HEADER_SESSIONS_COOKIE_PATHS.",
            id="header_sessions.E003",
        )


@_check(Tags.security)
def check_header() -> Iterator[CheckMessage]:
    header = conf.HEADER_SESSIONS_HEADER
    if not isinstance(header, str) or not re.fullmatch(r"[A-Za-z0-9-]+", header):
        yield Error(
            f"HEADER_SESSIONS_HEADER {header!r} is not a header's name.",
            hint="Use letters, digits and hyphens; servers drop names with underscores.",
            id="header_sessions.E004",
        )
    elif header.lower() in AMBIENT_HEADERS or header.lower().startswith(("sec-", "proxy-")):
        yield Error(
            f"HEADER_SESSIONS_HEADER {header!r} is a header that browsers send by themselves or "
            "let any page send, so a request that carries it proves nothing.",
            hint="Use a name of its own, such as 'X-Session-Key': requests that carry it are "
            "exempt from the CSRF check.",
            id="header_sessions.E005",
        )


@_check(Tags.security)
def check_cors() -> Iterator[CheckMessage]:
    # The second is what django-cors-headers called it once, and still reads.
    everybody = getattr(
        settings,
        "CORS_ALLOW_ALL_ORIGINS",
        getattr(settings, "CORS_ORIGIN_ALLOW_ALL", False),
    )
    if everybody and getattr(settings, "CORS_ALLOW_CREDENTIALS", False):
        yield Error(
            "CORS allows every origin, with credentials.",
            hint="Set CORS_ALLOW_CREDENTIALS = False (header sessions need no credentials), or "
            "name the origins in CORS_ALLOWED_ORIGINS.",
            id="header_sessions.E006",
        )


@_check(Tags.security)
def check_cors_for_scripts() -> Iterator[CheckMessage]:
    """What a script of another origin needs, where django-cors-headers is used at all."""
    cors = [at for at, path in enumerate(settings.MIDDLEWARE) if _subclasses(path, CORS_MIDDLEWARE)]
    ours = [at for at, path in enumerate(settings.MIDDLEWARE) if _subclasses(path, MIDDLEWARE)]
    if not cors:
        return
    header = conf.HEADER_SESSIONS_HEADER
    allowed = getattr(settings, "CORS_ALLOW_HEADERS", None)
    missing = _missing((header,), allowed or ())
    if missing:
        yield Warning(
            f"CORS does not allow the header {header}, so no script of another origin can send "
            "its session key.",
            hint="from corsheaders.defaults import default_headers; "
            f"CORS_ALLOW_HEADERS = (*default_headers, {header.lower()!r})"
            if allowed is None
            else f"CORS_ALLOW_HEADERS = {[*allowed, header.lower()]!r}",
            id="header_sessions.W010",
        )
    exposed = getattr(settings, "CORS_EXPOSE_HEADERS", ())
    missing = _missing((header, EXPIRES_IN_HEADER, "Retry-After"), exposed)
    if missing:
        yield Warning(
            f"CORS does not expose {', '.join(missing)}, so no script of another origin can read "
            "it.",
            hint=f"CORS_EXPOSE_HEADERS = {[*exposed, *missing]!r}",
            id="header_sessions.W011",
        )
    if ours and max(cors) > min(ours):
        yield Warning(
            "CorsMiddleware stands after HeaderSessionMiddleware, so the answer to a key that is "
            "no longer good lacks the CORS headers: a script of another origin cannot see it, and "
            "never learns to forget its key.",
            hint=f"Move {settings.MIDDLEWARE[max(cors)]!r} before "
            f"{settings.MIDDLEWARE[min(ours)]!r} in MIDDLEWARE.",
            id="header_sessions.W012",
        )


@_check(Tags.security)
def check_rest_framework() -> Iterator[CheckMessage]:
    configured = getattr(settings, "REST_FRAMEWORK", {})
    classes = configured.get("DEFAULT_AUTHENTICATION_CLASSES", ())
    cookie, header = (
        [at for at, path in enumerate(classes) if _subclasses(path, of)]
        for of in (DRF_SESSION_AUTHENTICATION, DRF_AUTHENTICATION)
    )
    if cookie and header and min(cookie) < min(header):
        yield Warning(
            "DRF's SessionAuthentication is listed before HeaderSessionAuthentication, so a "
            "caller without credentials is told 403 instead of 401, and claims header sessions.",
            hint=f"List {DRF_AUTHENTICATION!r} first in "
            "REST_FRAMEWORK['DEFAULT_AUTHENTICATION_CLASSES'].",
            id="header_sessions.W013",
        )


def _missing(names: Sequence[str], among: Sequence[str]) -> list[str]:
    """Those of the headers' names that are not ``among`` others, in whatever case."""
    there = {name.lower() for name in among}
    # Where there are credentials browsers take it for a header of this name
    # (https://fetch.spec.whatwg.org/#http-new-header-syntax).
    if "*" in there and not getattr(settings, "CORS_ALLOW_CREDENTIALS", False):
        return []
    return [name for name in names if name.lower() not in there]


@_check(Tags.security)
def check_ambient_credentials() -> Iterator[CheckMessage]:
    for path in settings.MIDDLEWARE:
        if _subclasses(path, "django.contrib.auth.middleware.RemoteUserMiddleware"):
            yield Warning(
                f"{path} signs in whoever the web server names, on header paths too, where a "
                "request that carries the session header is exempt from the CSRF check.",
                hint="Let the web server authenticate only the paths of "
                "HEADER_SESSIONS_COOKIE_PATHS, or do without it.",
                id="header_sessions.W001",
            )


@_check(Tags.security)
def check_values() -> Iterator[CheckMessage]:
    paths = conf.HEADER_SESSIONS_COOKIE_PATHS
    if isinstance(paths, str) or not all(
        isinstance(path, str) and path.startswith("/") for path in paths
    ):
        yield Error(
            f"HEADER_SESSIONS_COOKIE_PATHS {paths!r} is not a list of beginnings of paths.",
            hint='Set a tuple of strings that begin with a slash, such as ("/admin/",).',
            id="header_sessions.E007",
        )
    for name, optional in (
        ("IDLE_TIMEOUT", False),
        ("ABSOLUTE_TIMEOUT", True),
        ("MAX_BYTES", True),
        ("MAX_PER_USER", True),
        ("ALERT_COUNT", True),
        ("ALERT_BYTES", True),
        ("BUCKETS", True),
    ):
        value = getattr(conf, f"HEADER_SESSIONS_{name}")
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**32:
            yield Error(
                f"HEADER_SESSIONS_{name} {value!r} is not a positive whole number.",
                hint="Set a whole number" + (", or None for no limit." if optional else "."),
                id="header_sessions.E008",
            )
    if conf.HEADER_SESSIONS_UNKNOWN not in ("reject", "renew"):
        yield Error(
            f"HEADER_SESSIONS_UNKNOWN {conf.HEADER_SESSIONS_UNKNOWN!r} is not known.",
            hint='Set "reject" or "renew".',
            id="header_sessions.E009",
        )
    status = conf.HEADER_SESSIONS_UNKNOWN_STATUS
    if not isinstance(status, int) or not 400 <= status < 500:
        yield Error(
            f"HEADER_SESSIONS_UNKNOWN_STATUS {status!r} is not a status of a refused request.",
            hint="Set 401, 404 or another status from 400 to 499.",
            id="header_sessions.E010",
        )
    try:
        conf.HEADER_SESSIONS_CLIENT_IP  # noqa: B018  the property imports what the setting names
    except ImportError as error:
        yield Error(
            f"HEADER_SESSIONS_CLIENT_IP cannot be imported: {error}",
            hint="Set the dotted path of a callable that takes a request and returns its IP.",
            id="header_sessions.E011",
        )


@_check(Tags.caches)
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
    if _subclasses(backend, "django.core.cache.backends.dummy.DummyCache"):
        yield Error(
            f"The cache {alias!r} is a DummyCache, which keeps no session.",
            hint="Set SESSION_CACHE_ALIAS to a cache that keeps what it is given.",
            id="header_sessions.E013",
        )
    elif any(_subclasses(backend, path) for path in LISTING):
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
    cluster = _subclasses(config.get("OPTIONS", {}).get("CONNECTION_FACTORY", ""), CLUSTER_FACTORY)
    buckets = conf.HEADER_SESSIONS_BUCKETS or (256 if cluster else 1)
    if buckets != 1 and "{" in config.get("KEY_PREFIX", ""):
        yield Error(
            f"The KEY_PREFIX of the cache {alias!r} holds a brace: on Redis Cluster all sessions "
            "would be in one slot, of one server.",
            hint="Remove the braces from KEY_PREFIX, or set HEADER_SESSIONS_BUCKETS = 1.",
            id="header_sessions.E014",
        )


@_check(Tags.caches)
def check_redis() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    config = settings.CACHES.get(alias, {})
    backend = str(config.get("BACKEND", ""))
    django_redis = _subclasses(backend, "django_redis.cache.RedisCache")
    if not django_redis and not _subclasses(backend, "django.core.cache.backends.redis.RedisCache"):
        return
    options = config.get("OPTIONS", {})
    of_connections = options.get("CONNECTION_POOL_KWARGS", {}) if django_redis else options
    unset = [
        name
        for name in ("socket_timeout", "socket_connect_timeout")
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
            f"The cache {alias!r} sends again what failed ({', '.join(sorted(retrying))}), though "
            "it may have been done: counters would count twice.",
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
    location = config.get("LOCATION", "")
    # django-redis takes a list, or a text with commas: the primary, then replicas to read from.
    urls = re.split("[;,]", location) if isinstance(location, str) else list(location)
    client = str(options.get("CLIENT_CLASS", ""))
    if (
        len(urls) > 1
        or _subclasses(client, "django_redis.client.SentinelClient")
        or any(re.search(r"is_master=(0|f|n)", str(url), re.IGNORECASE) for url in urls)
    ):
        yield Error(
            f"The cache {alias!r} reads from replicas, which learn of a session too late.",
            hint="Name the primary alone in LOCATION; under Sentinel use "
            "django_redis.pool.SentinelConnectionFactory with '?is_master=1' and the default "
            "client class.",
            id="header_sessions.E021",
        )


@_check(Tags.caches)
def check_locmem() -> Iterator[CheckMessage]:
    alias = settings.SESSION_CACHE_ALIAS
    config = settings.CACHES.get(alias, {})
    locmem = "django.core.cache.backends.locmem.LocMemCache"
    if not _subclasses(str(config.get("BACKEND", "")), locmem):
        return
    workers = os.environ.get("WEB_CONCURRENCY", "")
    if workers.isdigit() and int(workers) > 1:
        yield Warning(
            f"The cache {alias!r} is in the memory of one process, and WEB_CONCURRENCY asks for "
            f"{workers}: each would know its own sessions only.",
            hint="Use django-redis, or one worker process with threads.",
            id="header_sessions.W022",
        )
    options = config.get("OPTIONS", {})
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


@_check(Tags.security)
def check_fault_values() -> Iterator[CheckMessage]:
    after = conf.HEADER_SESSIONS_RETRY_AFTER
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        yield Error(
            f"HEADER_SESSIONS_RETRY_AFTER {after!r} is not a number of whole seconds.",
            hint="Set a whole number, such as 1.",
            id="header_sessions.E022",
        )
    seconds = conf.HEADER_SESSIONS_BREAKER_SECONDS
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        yield Error(
            f"HEADER_SESSIONS_BREAKER_SECONDS {seconds!r} is not a number of seconds.",
            hint="Set a number, such as 1; or 0 to do without the breaker.",
            id="header_sessions.E023",
        )


@_check(Tags.security, deploy=True)
def check_secure() -> Iterator[CheckMessage]:
    if not conf.HEADER_SESSIONS_SECURE:
        yield Warning(
            "HEADER_SESSIONS_SECURE is not True, so session keys may travel over plain HTTP.",
            hint="Set HEADER_SESSIONS_SECURE = True where the site is served over HTTPS alone.",
            id="header_sessions.W003",
        )


def _subclasses(path: str | type, of: str) -> bool:
    """Whether ``path`` names the class ``of`` or one derived from it, or is such a class."""
    if path == of:
        return True
    try:
        found = import_string(path) if isinstance(path, str) else path
    except (ImportError, ImproperlyConfigured):
        return False  # Django's own checks say so
    return isinstance(found, type) and any(
        f"{each.__module__}.{each.__qualname__}" == of for each in found.__mro__
    )
