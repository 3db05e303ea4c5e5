"""System checks: one id, one condition, one hint that says what to do. Ids are never reused."""

from __future__ import annotations

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
    everybody = getattr(settings, "CORS_ALLOW_ALL_ORIGINS", False)
    if everybody and getattr(settings, "CORS_ALLOW_CREDENTIALS", False):
        yield Error(
            "CORS allows every origin, with credentials.",
            hint="Set CORS_ALLOW_CREDENTIALS = False (header sessions need no credentials), or "
            "name the origins in CORS_ALLOWED_ORIGINS.",
            id="header_sessions.E006",
        )


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
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
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
    elif not any(
        _subclasses(backend, path)
        for path in (
            "django.core.cache.backends.locmem.LocMemCache",
            "django.core.cache.backends.redis.RedisCache",
            "django_redis.cache.RedisCache",
        )
    ):
        yield Warning(
            f"The cache {alias!r} cannot list its sessions, and merges concurrent changes under "
            "a lock that is no fence.",
            hint="Use django-redis for a cluster, LocMemCache for one process.",
            id="header_sessions.W002",
        )
    if (conf.HEADER_SESSIONS_BUCKETS or 0) != 1 and "{" in config.get("KEY_PREFIX", ""):
        yield Error(
            f"The KEY_PREFIX of the cache {alias!r} holds a brace: on Redis Cluster all sessions "
            "would be in one slot, of one server.",
            hint="Remove the braces from KEY_PREFIX, or set HEADER_SESSIONS_BUCKETS = 1.",
            id="header_sessions.E014",
        )


@_check(Tags.security, deploy=True)
def check_secure() -> Iterator[CheckMessage]:
    if not conf.HEADER_SESSIONS_SECURE:
        yield Warning(
            "HEADER_SESSIONS_SECURE is not True, so session keys may travel over plain HTTP.",
            hint="Set HEADER_SESSIONS_SECURE = True where the site is served over HTTPS alone.",
            id="header_sessions.W003",
        )


def _subclasses(path: str, of: str) -> bool:
    """Whether ``path`` names the class ``of`` or one derived from it."""
    if path == of:
        return True
    try:
        found = import_string(path)
    except (ImportError, ImproperlyConfigured):
        return False  # Django's own checks say so
    return isinstance(found, type) and any(
        f"{each.__module__}.{each.__qualname__}" == of for each in found.__mro__
    )
