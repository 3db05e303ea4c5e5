"""Where a URL leads, as far as a key may go there."""

from __future__ import annotations

import re

# Stricter than any URL parser on purpose: what this does not match is another origin.
ORIGIN = re.compile(
    r"(https?)://(?:[^@/?#\\\s]*@)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?(?=[/?#]|$)",
    re.ASCII | re.IGNORECASE,
)
LOOPBACK = re.compile(r"http://(?:(?:.+\.)?localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]+)?")


def origin_of(url: str) -> str | None:
    """The origin of an absolute http or https URL, default ports left out; else `None`."""
    match = ORIGIN.match(url)
    if match is None:
        return None
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    if not port or int(port) == {"http": 80, "https": 443}[scheme]:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def is_loopback(origin: str) -> bool:
    """Whether an origin over plain HTTP is this machine."""
    return LOOPBACK.fullmatch(origin) is not None
