"""How the API speaks: JSON objects come in, JSON goes out, refusals are problem documents.

Nothing in here knows of sessions.
"""

import json
import math
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any, NoReturn, TypeVar, cast

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

MAX_DEPTH = 32
"""Levels of nesting that a body may have: the serialisers further on recurse, and must not fail."""

View = TypeVar("View", bound=Callable[..., Any])


class Problem(Exception):
    """A refusal, to be answered as a problem document (RFC 9457).

    ``name`` ends the document's ``type``, which programs tell refusals apart by; ``detail`` tells
    a person what to do.
    """

    def __init__(
        self, status: HTTPStatus, name: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.headers = headers

    def response(self) -> HttpResponse:
        document = {
            "type": f"urn:example:{self.name}",
            "title": self.status.phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return JsonResponse(
            document,
            status=self.status,
            content_type="application/problem+json",
            headers=self.headers,
        )


def api(*methods: str) -> Callable[[View], View]:
    """Make a view, sync or async, part of the API: for these methods, its problems answered."""

    def check(request: HttpRequest) -> None:
        if request.method not in methods:
            allowed = ", ".join(methods)
            raise Problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "method",
                f"Allowed here: {allowed}.",
                headers={"Allow": allowed},
            )

    def decorate(view: View) -> View:
        @wraps(view)
        def answer(request: HttpRequest, **named: str) -> HttpResponse:
            try:
                check(request)
                return cast(HttpResponse, view(request, **named))
            except Problem as problem:
                return problem.response()

        @wraps(view)
        async def async_answer(request: HttpRequest, **named: str) -> HttpResponse:
            try:
                check(request)
                return cast(HttpResponse, await view(request, **named))
            except Problem as problem:
                return problem.response()

        # A request that carries the session header is exempt already. This is for the first one,
        # which has none yet: outside the cookie paths it comes with no session that a forger
        # could ride on, so a client need not fetch a token, nor send "X-Session-Key: new".
        return cast(View, csrf_exempt(async_answer if iscoroutinefunction(view) else answer))

    return decorate


def read_object(request: HttpRequest, *, required: bool = True) -> dict[str, Any]:
    """The JSON object in the request's body, whatever its content type.

    An empty body is ``{}`` where none is ``required``. Raises ``Problem``: 413 for more than
    ``DATA_UPLOAD_MAX_MEMORY_SIZE``; 400 for what is not JSON as RFC 8259 has it, is not an
    object, or is nested deeper than ``MAX_DEPTH``.
    """
    try:
        body = request.body
    except RequestDataTooBig:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The body is too large."
        ) from None
    except UnreadablePostError:
        raise bad_request("The body broke off.") from None
    if not body and "Transfer-Encoding" in request.headers:
        # Under WSGI Django reads no body without a length; that must not pass for none at all.
        raise Problem(
            HTTPStatus.LENGTH_REQUIRED, "length-required", "Send the body with a Content-Length."
        )
    if not body and not required:
        return {}
    try:
        document = json.loads(body, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        # ValueError: no JSON, no UTF-8, a number of thousands of digits or beyond a double.
        raise bad_request("The body is no JSON that can be understood.") from None
    if not isinstance(document, dict):
        raise bad_request("The body must be a JSON object.")
    if not _fits(document, MAX_DEPTH):
        raise bad_request(f"The body is nested deeper than {MAX_DEPTH} levels.")
    return document


def bad_request(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, "bad-request", detail)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    # "1e999" is JSON, but would come back from a float as Infinity, which is not.
    if math.isfinite(number := float(digits)):
        return number
    raise ValueError(f"{digits} is beyond a double")


def _fits(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    children = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_fits(child, levels - 1) for child in children)
