"""Scripts of other origins: which may call, and what they may send and read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning

from ..conf import conf
from .checker import MIDDLEWARE, check, places

EXPIRES_IN_HEADER = "X-Session-Expires-In"
CORS_MIDDLEWARE = "corsheaders.middleware.CorsMiddleware"
NOBODYS_ORIGIN = "https://nobody.invalid"


@check(Tags.security)
def check_cors() -> Iterator[CheckMessage]:
    if getattr(settings, "CORS_ALLOW_CREDENTIALS", False) and _allows_everybody():
        yield Error(
            "CORS allows every origin, with credentials.",
            hint="Set CORS_ALLOW_CREDENTIALS = False (header sessions need no credentials), or "
            "name the origins in CORS_ALLOWED_ORIGINS.",
            id="header_sessions.E006",
        )


def _allows_everybody() -> bool:
    # The second of each is what django-cors-headers called it once, and still reads.
    everybody = getattr(
        settings,
        "CORS_ALLOW_ALL_ORIGINS",
        getattr(settings, "CORS_ORIGIN_ALLOW_ALL", False),
    )
    patterns = getattr(
        settings,
        "CORS_ALLOWED_ORIGIN_REGEXES",
        getattr(settings, "CORS_ORIGIN_REGEX_WHITELIST", ()),
    )
    return bool(everybody) or any(re.match(pattern, NOBODYS_ORIGIN) for pattern in patterns)


@check(Tags.security)
def check_cors_for_scripts() -> Iterator[CheckMessage]:
    """What a script of another origin needs, where django-cors-headers is used at all."""
    cors, ours = places(CORS_MIDDLEWARE), places(MIDDLEWARE)
    if not cors:
        return
    header = conf.HEADER_SESSIONS_HEADER
    sent = [name for name in (header, conf.HEADER_SESSIONS_CONTEXT_HEADER) if name]
    allowed = getattr(settings, "CORS_ALLOW_HEADERS", None)
    missing = _missing(sent, allowed or ())
    if missing:
        lower = [name.lower() for name in missing]
        more = ", ".join(map(repr, lower))
        yield Warning(
            f"CORS does not allow {' and '.join(missing)}, so no script of another origin can send "
            "it.",
            hint="from corsheaders.defaults import default_headers; "
            f"CORS_ALLOW_HEADERS = (*default_headers, {more})"
            if allowed is None
            else f"CORS_ALLOW_HEADERS = {[*allowed, *lower]!r}",
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


def _missing(names: Sequence[str], among: Sequence[str]) -> list[str]:
    """Those of the headers' names that are not ``among`` others, in whatever case."""
    there = {name.lower() for name in among}
    # Where there are credentials browsers take it for a header of this name
    # (https://fetch.spec.whatwg.org/#http-new-header-syntax).
    if "*" in there and not getattr(settings, "CORS_ALLOW_CREDENTIALS", False):
        return []
    return [name for name in names if name.lower() not in there]
