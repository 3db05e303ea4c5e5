"""A project's API: the resource, one view of its own, and the schema of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework import serializers
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response


class WrongKey:
    """Takes the wrong credential that schemathesis sends for one that could be right.

    What is no key at all is a mistake of the client's, 400, before anything is looked at; a key
    that opens nothing is 401, which is what it wants to see.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.META.get("HTTP_X_SESSION_KEY") == "SCHEMATHESIS-INVALID-VALUE":
            request.META["HTTP_X_SESSION_KEY"] = "0" * 40
        return self.get_response(request)


class NameSerializer(serializers.Serializer[Any]):
    user = serializers.CharField(source="get_username", read_only=True)


class Whoami(GenericAPIView[Any]):
    permission_classes: Any = (IsAuthenticated,)
    serializer_class = NameSerializer

    def get(self, request: Request) -> Response:
        return Response(self.get_serializer(request.user).data)


class Open(Whoami):
    authentication_classes = ()
    permission_classes = ()


def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


urlpatterns = [
    path("api/sessions/", include("django_header_sessions.rest_framework.urls")),
    path("api/whoami/", Whoami.as_view()),
    path("api/open/", Open.as_view()),
    path("schema/", SpectacularAPIView.as_view(authentication_classes=[], permission_classes=[])),
    path("healthz", healthz),
]
