"""Header sessions for httpx: `httpx.Client(auth=HeaderSession())`, or `AsyncClient`."""

from __future__ import annotations

import httpx

from ._httpx import HttpxSession, keyed_headers, keyed_request, mask_keys
from .flow import (
    InsecureOrigin,
    SessionError,
    SessionKey,
    SessionLost,
    SessionNotStarted,
)

__all__ = [
    "HeaderSession",
    "InsecureOrigin",
    "SessionError",
    "SessionKey",
    "SessionLost",
    "SessionNotStarted",
]

mask_keys("httpcore.http11", "httpcore.http2")


class HeaderSession(HttpxSession, httpx.Auth):
    """One server-side session, for one `httpx.Client` or `AsyncClient`. See `flow.Flow`."""

    _plain = httpx.Headers
    _keyed = keyed_headers(httpx.Headers)
    _request = httpx.Request
    _keyed_request = keyed_request(httpx.Request, _keyed)
    _byte_stream = httpx.ByteStream
    _async_byte_stream = httpx.AsyncByteStream
