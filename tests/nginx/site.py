"""What stands behind nginx: the tests' views, and two that tell of the server they run in."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from django.http import HttpRequest, JsonResponse
from django.urls import path

from tests.pages import Page
from tests.urls import urlpatterns as theirs

client_ip = Page.named("docs/nginx.md").run("client_ip.py")["client_ip"]


def connection(request: HttpRequest) -> JsonResponse:
    """The port at nginx's end of the connection that this came over."""
    return JsonResponse({"port": request.META["REMOTE_PORT"]})


def count_and_die(request: HttpRequest) -> NoReturn:
    """Count in the session, which is done at once, and die before there is an answer."""
    session: Any = request.session
    session.increment("n")
    os._exit(1)


urlpatterns = [
    path("connection/", connection),
    path("count-and-die/", count_and_die),
    *theirs,
]
