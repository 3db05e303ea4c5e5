"""What a client is told when its session cannot be had: problem documents (RFC 9457)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import patch_vary_headers
from django.utils.html import format_html

from .conf import conf
from .observer import observers
from .resolvers import told_apart_by

URN = "urn:django-header-sessions:"
CONTENT_TYPE = "application/problem+json"


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<body style="max-width: 36em; margin: 15vh auto; padding: 0 1em; font-family: sans-serif">
<h1>{title}</h1>
<p>{text}</p>
</html>
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table of answers; ``name`` ends its ``type``, a stable URN.

    ``advice`` is what the page of a browser says where ``detail`` speaks to programs.
    """

    name: str
    status: int
    title: str
    detail: str
    advice: str = ""


MALFORMED: Final = Problem(
    "malformed",
    400,
    "The session header is malformed.",
    'Send the session key once, exactly as it was announced, or "new" to start without one.',
)
UNKNOWN: Final = Problem(
    "unknown",
    401,
    "There is no such session.",
    "The session has expired, was ended, or was never issued. Start a new one.",
)
SUPERSEDED: Final = Problem(
    "superseded",
    409,
    "This session key was replaced.",
    "The session lives on under a newer key. Use the one that was announced last.",
)
ENDED: Final = Problem(
    "ended",
    401,
    "The session ended while the request was served.",
    "The changes of this request were not kept. Start a new session.",
)
TOO_LARGE: Final = Problem(
    "too-large",
    413,
    "The session would become too large.",
    "The changes of this request were not kept; the session is as it was.",
)
BUSY: Final = Problem(
    "busy",
    409,
    "The session is in use.",
    "Another request has had it for longer than this one could wait. Try again.",
)
LEASE_EXPIRED: Final = Problem(
    "lease-expired",
    409,
    "The request had the session for too long.",
    "The changes of this request were not kept: others may have changed the session meanwhile.",
)
UNKNOWN_CONTEXT: Final = Problem(
    "unknown-context",
    404,
    "The session has no such context.",
    "The context has expired, was ended, or was never made in this session. Make a new one.",
)
MALFORMED_CONTEXT: Final = Problem(
    "malformed-context",
    400,
    "The name of the context is missing or malformed.",
    "Name a context by 1 to 64 visible ASCII characters, none of them a comma.",
)
TOO_MANY_CONTEXTS: Final = Problem(
    "too-many-contexts",
    409,
    "The session has too many contexts.",
    "End some of them, or let them expire, before making another one.",
)
UNAVAILABLE: Final = Problem(
    "unavailable",
    503,
    "Sessions cannot be reached at the moment.",
    "Keep the session key and try again.",
    "Nobody was signed out. Wait a moment, and load this page again.",
)
INSECURE: Final = Problem(
    "insecure",
    403,
    "Sessions are served over HTTPS only.",
    "Repeat the request over HTTPS; consider a key that was sent over plain HTTP stolen.",
)


def respond(
    request: HttpRequest,
    problem: Problem,
    *,
    executed: bool,
    html: bool = False,
    final: bool = True,
) -> HttpResponse:
    """The answer to ``request``. ``executed`` tells whether the view ran, so that a client knows
    if it may repeat; ``html`` offers a plain page to a client that accepts one. One that is not
    ``final`` is made again before it is sent, so nobody is told of it yet."""
    if final:
        for observer in observers:
            observer.refused(problem.name)
    status = conf.HEADER_SESSIONS_UNKNOWN_STATUS if problem is UNKNOWN else problem.status
    response: HttpResponse
    if html and request.accepts("text/html"):
        response = HttpResponse(
            format_html(PAGE, title=problem.title, text=problem.advice or problem.detail),
            status=status,
        )
    else:
        response = JsonResponse(
            {
                "type": URN + problem.name,
                "title": problem.title,
                "status": status,
                "detail": problem.detail,
                "executed": executed,
            },
            status=status,
            content_type=CONTENT_TYPE,
        )
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, told_apart_by())
    if html:
        patch_vary_headers(response, ("Accept", "Cookie"))
    if status == 401:
        response["WWW-Authenticate"] = "Session"
    if problem in (UNAVAILABLE, BUSY):
        response["Retry-After"] = str(conf.HEADER_SESSIONS_RETRY_AFTER)
    return response
