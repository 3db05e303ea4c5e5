"""An API view, and an authentication of the project's own on top of the package's."""

from datetime import datetime
from typing import assert_type

from django.contrib.auth.models import AnonymousUser, User
from rest_framework import request as drf
from rest_framework.response import Response
from rest_framework.views import APIView

from django_header_sessions.engine import SessionStore
from django_header_sessions.registry import LiveSession
from django_header_sessions.rest_framework.authentication import HeaderSessionAuthentication
from django_header_sessions.rest_framework.permissions import HasSession
from django_header_sessions.rest_framework.request import Request


class Whoami(APIView):
    authentication_classes = (HeaderSessionAuthentication,)
    permission_classes = (HasSession,)

    def get(self, request: Request) -> Response:
        assert_type(request.user, User | AnonymousUser)
        assert_type(request.session, SessionStore)
        live = assert_type(request.auth, LiveSession | None)
        since = None if live is None else assert_type(live.created, datetime)
        calls = assert_type(request.session.increment("calls"), int)
        return Response(f"{calls} calls since {since}")


class Audited(HeaderSessionAuthentication):
    def authenticate(self, request: drf.Request) -> tuple[User, LiveSession] | None:
        return assert_type(super().authenticate(request), tuple[User, LiveSession] | None)
