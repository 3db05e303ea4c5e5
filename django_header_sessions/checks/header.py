"""The name of the header: what it must not be, and what its name does not hide."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.http import HttpRequest
from django.utils.module_loading import import_string

from ..conf import conf
from .checker import check

# What a browser sends without a script's doing, and what CORS lets any page send without asking
# (https://fetch.spec.whatwg.org/#cors-safelisted-request-header and #forbidden-request-header).
AMBIENT_HEADERS = frozenset(
    """accept accept-charset accept-encoding accept-language access-control-request-headers
    access-control-request-method authorization cache-control connection content-language
    content-length content-type cookie cookie2 date dnt downlink dpr early-data ect expect
    forwarded host if-modified-since if-none-match if-range keep-alive last-event-id origin
    ping-from ping-to pragma priority purpose range referer rtt save-data service-worker
    set-cookie te trailer transfer-encoding upgrade upgrade-insecure-requests user-agent via
    viewport-width width x-forwarded-for x-forwarded-host x-forwarded-proto x-real-ip
    x-requested-with""".split()
)
ALLAUTHS = "x-session-token"


@check(Tags.security)
def check_header() -> Iterator[CheckMessage]:
    header = conf.HEADER_SESSIONS_HEADER
    if not isinstance(header, str) or not re.fullmatch(r"[A-Za-z0-9-]+", header):
        yield Error(
            f"HEADER_SESSIONS_HEADER {header!r} is not a header's name.",
            hint="Use letters, digits and hyphens; servers drop names with underscores.",
            id="header_sessions.E004",
        )
        return
    if header.lower() in AMBIENT_HEADERS or header.lower().startswith(("sec-", "proxy-")):
        yield Error(
            f"HEADER_SESSIONS_HEADER {header!r} is a header that browsers send by themselves or "
            "let any page send, so a request that carries it proves nothing.",
            hint="Use a name of its own, such as 'X-Session-Key': requests that carry it are "
            "exempt from the CSRF check.",
            id="header_sessions.E005",
        )
    elif header.lower() == ALLAUTHS and apps.is_installed("allauth.headless"):
        yield Error(
            f"HEADER_SESSIONS_HEADER {header!r} is the header in which allauth.headless has its "
            "own session tokens: each call of its clients would be answered 401.",
            hint="Use another name, such as 'X-Session-Key'.",
            id="header_sessions.E035",
        )
    elif _shown(header):
        yield Warning(
            f"The name of the header {header} has none of the words that Django masks, so an error "
            "in a middleware before HeaderSessionMiddleware is reported with the session key.",
            hint="Set DEFAULT_EXCEPTION_REPORTER_FILTER = "
            "'django_header_sessions.reporting.SessionKeyReporterFilter', or derive the project's "
            "own from it.",
            id="header_sessions.W036",
        )


def _shown(header: str) -> bool:
    """Whether the project's reporter filter shows what came in this header."""
    request = HttpRequest()
    name = "HTTP_" + header.upper().replace("-", "_")
    request.META[name] = key = "a session key"
    try:
        project_filter = import_string(settings.DEFAULT_EXCEPTION_REPORTER_FILTER)()
        return bool(project_filter.get_safe_request_meta(request).get(name) == key)
    except Exception:
        # Whatever a filter of the project's own makes of a request that never was.
        return False
