"""A middleware that loses the store between the opening of a session and the view."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from ..processes import Valkey

servers: list[Valkey] = []
"""The servers that the next request loses."""


def lose(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        while servers:
            servers.pop().kill()
        return get_response(request)

    return middleware
