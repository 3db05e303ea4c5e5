"""Who is calling: the IP and a short summary of the user agent."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpRequest

MAX_BYTES = 64
"""A longer value would make Redis store the whole session in its roomy encoding."""

# What browsers say for the sake of old servers, so that it tells none of them apart.
_LITANY = re.compile(
    r"Mozilla/5\.0|AppleWebKit/[\d.]+|\(KHTML, like Gecko\)|Gecko/[\d.]+|; rv:[\d.]+"
    r"|(?<=\s)Safari/[\d.]+(?=\s+\S)"
)
_CHROMES_SAFARI = re.compile(r"(Chrome/\S+)(\s+Mobile)?\s+Safari/[\d.]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a session was started from; empty strings where that is not known."""

    ip: str = ""
    user_agent: str = ""


def origin_of(request: HttpRequest, client_ip: Callable[[HttpRequest], str] | None) -> Origin:
    """The origin of ``request``, its IP as ``client_ip`` says, else ``REMOTE_ADDR``.

    Forwarded headers are not looked at: whoever sends a request can write them.
    """
    ip = client_ip(request) if client_ip else request.META.get("REMOTE_ADDR", "")
    return Origin(_short(ip or ""), summary(request.META.get("HTTP_USER_AGENT", "")))


def summary(user_agent: str) -> str:
    """What tells this user agent from others, in at most ``MAX_BYTES`` bytes of UTF-8."""
    text = _CHROMES_SAFARI.sub(r"\1\2", user_agent[:512])
    return _short(" ".join(_LITANY.sub("", text).split()))


def _short(text: str) -> str:
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return printable.encode("utf-8", "replace")[:MAX_BYTES].decode("utf-8", "ignore")
