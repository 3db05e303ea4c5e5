"""What the served project has: allauth, the session resource, the recipes, and the tests' views."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import login
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore as OldSession
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from rest_framework.authtoken.models import Token
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tests.neighbours import recipes
from tests.urls import urlpatterns as theirs


class Whoami(APIView):
    """Who calls, and by which of the ways that are the project's defaults."""

    permission_classes = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        name = request.user.get_username()
        return Response({"user": name, "by": type(request.auth).__name__})


def old_session(request: HttpRequest) -> HttpResponse:
    """The key of a session of Django's own engine, in which somebody is signed in."""
    asked = HttpRequest()
    asked.session = OldSession()
    asked.session["basket"] = ["a pump"]
    user = User.objects.get(username=request.GET["name"])
    login(asked, user, "django.contrib.auth.backends.ModelBackend")
    asked.session.save()
    return HttpResponse(asked.session.session_key)


def token(request: HttpRequest) -> HttpResponse:
    """The DRF token of a user."""
    user = User.objects.get(username=request.GET["name"])
    return HttpResponse(Token.objects.get_or_create(user=user)[0].key)


urlpatterns: list[Any] = [
    path("api/sessions/", include("django_header_sessions.rest_framework.urls")),
    path("api/whoami/", Whoami.as_view()),
    path("api/exchange/", recipes.Exchange.as_view()),
    path("api/exchange-session-token/", recipes.ExchangeSessionToken.as_view()),
    path("admin/to-header/", recipes.to_header),
    path("test/old-session/", old_session),
    path("test/token/", token),
    *theirs,
]
urlpatterns += recipes.NEIGHBOURS.run("urls.py")["urlpatterns"]
