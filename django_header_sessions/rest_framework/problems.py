"""The refusals of the session resource, as problem documents (RFC 9457).

Those that only these views know have a ``type`` beside the ones of the middleware; all others
are what their status says, ``about:blank``. ``executed`` is false in each: nothing was done.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import (
    APIException,
    NotAuthenticated,
    ParseError,
    ValidationError,
)
from rest_framework.response import Response
from rest_framework.views import exception_handler

from ..exceptions import ListingNotSupported
from ..problems import URN
from .exceptions import NoList, WrongCredentials
from .permissions import has_session

TITLES = {
    "credentials": "The credentials are wrong.",
    "header-needed": "This needs the session header.",
    "invalid": "The request is not valid.",
    "no-list": "Sessions cannot be listed here.",
    "no-session": "There is no session.",
    "no-such-session": "There is no such session of yours.",
    "not-counted": "Attempts to sign in cannot be counted.",
    "not-signed-in": "Nobody is signed in.",
    "signed-out": "The session signs nobody in any more.",
    "throttled": "There were too many attempts to sign in.",
}
"""The name of each refusal, which ends its ``type``, and its title."""

TOO_LARGE = (RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent)


def handle(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler for the views of the session resource, and for these alone.

    None, so that the exception goes on, for what DRF does not know: what is the matter with a
    session or its store is answered by the middleware.
    """
    if isinstance(exc, ListingNotSupported):
        exc = NoList()
    if isinstance(exc, TOO_LARGE):
        log_too_large(exc, context["request"]._request)
        exc = ParseError(_("The body is larger than is taken here."))
    response: Response | None
    if isinstance(exc, WrongCredentials):
        # DRF would roll back what a receiver of user_login_failed has noted of the attempt.
        headers = {"WWW-Authenticate": context["view"].get_authenticate_header(context["request"])}
        response = Response({"detail": exc.detail}, exc.status_code, headers=headers)
    else:
        response = exception_handler(exc, context)
    if response is None:
        return None
    name = name_of(exc, context)
    document: dict[str, Any] = {
        "type": URN + name if name else "about:blank",
        "title": TITLES[name] if name else HTTPStatus(response.status_code).phrase,
        "status": response.status_code,
        "executed": False,
    }
    told = response.data
    if isinstance(told, dict) and told.keys() == {"detail"} and isinstance(told["detail"], str):
        document["detail"] = told["detail"]
    else:
        # Of a serializer, by field; a project's own exceptions may hold as much.
        document["errors"] = told if isinstance(told, dict) else {"non_field_errors": told}
    response.data = document
    return response


def log_too_large(exc: Exception, request: HttpRequest) -> None:
    """Tell of it where Django does, and in its words: DRF does not know it."""
    log = logging.getLogger(f"django.security.{type(exc).__name__}")
    log.error("%s", exc, exc_info=exc, extra={"status_code": 400, "request": request})


def name_of(exc: Exception, context: dict[str, Any]) -> str | None:
    """The name of a refusal that is ours."""
    code = exc.get_codes() if isinstance(exc, APIException) else None
    if code == NotAuthenticated.default_code:
        return "not-signed-in" if has_session(context["request"]) else "no-session"
    if isinstance(exc, ValidationError):
        return "invalid"
    return code if isinstance(code, str) and code in TITLES else None
