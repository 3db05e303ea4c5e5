"""How a request carries its session, and what an answer tells of it: pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from django.conf import settings
from django.http import HttpRequest

from . import keys
from .conf import conf

Transport = Literal["header", "cookie"]
HEADER: Final = "header"
COOKIE: Final = "cookie"

NEW = "new"
"""The header value of a client that has no session yet."""

EXPIRES_IN_HEADER = "X-Session-Expires-In"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of its session, before anything was asked of a store."""

    transport: Transport
    key: keys.SessionKey | None = field(default=None, repr=False)
    carries_header: bool = False
    malformed: bool = False


def resolve(request: HttpRequest) -> Claim:
    """Which transport ``request`` uses, and which key it presents.

    A header that is there decides alone, whatever the path and the cookies. A malformed cookie
    is no cookie, as in Django; a malformed header is the client's mistake.
    """
    value = request.META.get(meta_name(conf.HEADER_SESSIONS_HEADER))
    if value is not None:
        key = keys.parse(value)
        return Claim(HEADER, key, carries_header=True, malformed=key is None and value != NEW)
    if request.path_info.startswith(tuple(conf.HEADER_SESSIONS_COOKIE_PATHS)):
        return Claim(COOKIE, keys.parse(request.COOKIES.get(settings.SESSION_COOKIE_NAME)))
    return Claim(HEADER)


def context_of(request: HttpRequest) -> str | None:
    """The name of the context that ``request`` asks for; None where it does not, or none may."""
    header = conf.HEADER_SESSIONS_CONTEXT_HEADER
    return None if header is None else request.META.get(meta_name(header))


def meta_name(header: str) -> str:
    """The name of ``header`` in ``request.META``."""
    return "HTTP_" + header.upper().replace("-", "_")


def announcement(sent: str | None, stored: str | None) -> str | None:
    """What the answer's session header says, from the key that was sent and the key that the
    store now expects: the new key, an empty string to forget the old one, or nothing (None)."""
    if sent == stored:
        return None
    return stored or ""
