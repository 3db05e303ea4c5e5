"""One URL, a sync and an async view, and both do what the test at hand has them do.

What a test has a view do is written once, as a coroutine on a ``Face``: in the sync view each
``await`` is a method of the session's sync half, in the async view of its async half.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import path

from tests.engine.face import Face

Does = Callable[[HttpRequest, Face], Coroutine[Any, Any, Any]]

now: list[Does] = []
"""What the views do at the moment."""


def answer(done: Any) -> HttpResponseBase:
    return done if isinstance(done, HttpResponseBase) else JsonResponse({"did": done})


def sync(request: HttpRequest) -> HttpResponseBase:
    does = now[-1](request, Face(request.session, "sync"))  # type: ignore[arg-type]
    while True:
        try:
            does.send(None)
        except StopIteration as done:
            return answer(done.value)


async def asynchronous(request: HttpRequest) -> HttpResponseBase:
    return answer(await now[-1](request, Face(request.session, "async")))  # type: ignore[arg-type]


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username())


urlpatterns = [
    path("sync/", sync),
    path("async/", asynchronous),
    path("whoami/", whoami, name="login"),
]
