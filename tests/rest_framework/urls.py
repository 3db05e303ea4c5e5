"""A project that uses DRF: the resource on a header path and on a cookie path, and some views."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import include, path
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from django_header_sessions.rest_framework.authentication import HeaderSessionAuthentication
from django_header_sessions.rest_framework.permissions import HasSession, IsHeaderSession


class Whoami(APIView):
    """Says who is calling, and by which kind of authentication."""

    authentication_classes: Any = (HeaderSessionAuthentication,)
    permission_classes: Any = (IsAuthenticated,)

    def get(self, request: Request) -> Response:
        return Response(
            {
                "user": request.user.get_username(),
                "auth": type(request.auth).__name__,
                "authenticator": type(request.successful_authenticator).__name__,
                "face": repr(request.auth),
            }
        )

    post = get


class AnyoneWhoami(Whoami):
    permission_classes = (AllowAny,)


class HeaderFirst(Whoami):
    authentication_classes = (HeaderSessionAuthentication, SessionAuthentication)


class CookieFirst(Whoami):
    authentication_classes = (SessionAuthentication, HeaderSessionAuthentication)


class Notebook(Whoami):
    """A tool with a memory, for anybody who has a session."""

    permission_classes: Any = (HasSession,)

    def get(self, request: Request) -> Response:
        request.session["calls"] = request.session.get("calls", 0) + 1
        return Response({"calls": request.session["calls"]})


class HeaderOnly(HeaderFirst):
    permission_classes: tuple[type[BasePermission], ...] = (IsHeaderSession,)


class HeaderOnlySignedIn(HeaderFirst):
    permission_classes = (IsHeaderSession, IsAuthenticated)


class OpenNotebook(Notebook):
    """The same where nobody is to be signed in."""

    authentication_classes = ()


class OpenHeaderOnly(OpenNotebook):
    permission_classes: Any = (IsHeaderSession,)


class Reading(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        return request.method == "GET"


class SessionOrReading(OpenNotebook):
    permission_classes: Any = (Reading | HasSession,)

    def get(self, request: Request) -> Response:
        return Response({})

    post = get


class Write(APIView):
    """Begins a session by writing to it."""

    authentication_classes = ()

    def post(self, request: Request) -> Response:
        request.session.update(request.data)
        return Response({})


views: list[Any] = [
    path("whoami/", Whoami.as_view()),
    path("anyone/", AnyoneWhoami.as_view()),
    path("header-first/", HeaderFirst.as_view()),
    path("cookie-first/", CookieFirst.as_view()),
    path("notebook/", Notebook.as_view()),
    path("open-notebook/", OpenNotebook.as_view()),
    path("open-header-only/", OpenHeaderOnly.as_view()),
    path("session-or-reading/", SessionOrReading.as_view()),
    path("header-only/", HeaderOnly.as_view()),
    path("header-only-signed-in/", HeaderOnlySignedIn.as_view()),
    path("write/", Write.as_view()),
    path("sessions/", include("django_header_sessions.rest_framework.urls")),
]

urlpatterns = [
    path("api/", include(views)),
    # Under a cookie path, too: for people with a browser.
    path("admin/api/", include(views)),
    path("admin/", admin.site.urls),
]
