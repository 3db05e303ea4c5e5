"""Header sessions for httpx2: `httpx2.Client(auth=HeaderSession())`, or `AsyncClient`."""

from __future__ import annotations

import httpx2

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

mask_keys("httpcore2.http11", "httpcore2.http2")


class HeaderSession(HttpxSession, httpx2.Auth):
    """One server-side session, for one `httpx2.Client` or `AsyncClient`. See `flow.Flow`."""

    _plain = httpx2.Headers
    _keyed = keyed_headers(httpx2.Headers)
    _request = httpx2.Request
    _keyed_request = keyed_request(httpx2.Request, _keyed)
    _byte_stream = httpx2.ByteStream
    _async_byte_stream = httpx2.AsyncByteStream
