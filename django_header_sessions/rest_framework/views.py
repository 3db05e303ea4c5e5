"""The session resource: start, see, rotate and end sessions. Mounted with ``.urls``.

The key travels in the header alone: the middleware announces it, and no body holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import authenticate, login, logout
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.debug import get_exception_reporter_filter
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from rest_framework import status
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import NotFound, ParseError
from rest_framework.generics import GenericAPIView
from rest_framework.pagination import PageNumberPagination
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.throttling import BaseThrottle

from .. import registry
from ..decorators import merged_session
from ..problems import CONTENT_TYPE
from ..registry import LiveSession, user_key
from ..resolvers import COOKIE
from .authentication import HeaderSessionAuthentication
from .exceptions import NoSession, NoSuchSession, SignedOut, WrongCredentials
from .permissions import HasSession, SignedInBySession, SpeaksHeader, transport_of
from .problems import handle
from .serializers import (
    CredentialsSerializer,
    CurrentSessionSerializer,
    EndedSerializer,
    OptionsSerializer,
    SessionSerializer,
    shown,
)
from .throttling import SignInByName, SignInByOrigin

OWNER = "owner"
"""Why a session was ended, as ``session_ended`` says: its user said so."""


class SessionPagination(PageNumberPagination):
    page_size = 50

    def get_page_number(self, request: Request, paginator: Any) -> Any:
        # DRF takes "?page=" for the first page, which the schema calls no number.
        if request.query_params.get(self.page_query_param) == "":
            raise NotFound(self.invalid_page_message)
        return super().get_page_number(request, paginator)


@method_decorator(merged_session, name="dispatch")
class SessionView(GenericAPIView[Any]):
    """What the views of the resource have in common.

    They write, whatever ``HEADER_SESSIONS_POLICY`` has for views that say nothing.
    """

    authentication_classes = (HeaderSessionAuthentication, SessionAuthentication)
    permission_classes: Sequence[Any] = (SignedInBySession,)
    serializer_class: type[BaseSerializer[Any]] | None = SessionSerializer
    pagination_class: Any = None
    filter_backends: Sequence[Any] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if request.method not in self.allowed_methods:
            # Before anybody is asked to sign in for it.
            self.http_method_not_allowed(request, *args, **kwargs)
        super().initial(request, *args, **kwargs)
        if transport_of(request) == COOKIE:
            # DRF checks this only where somebody is signed in.
            with reading_the_body():
                SessionAuthentication().enforce_csrf(request)

    def perform_authentication(self, request: Request) -> None:
        with reading_the_body():  # as the CSRF check does
            super().perform_authentication(request)

    def get_authenticate_header(self, request: Request) -> str:
        return HeaderSessionAuthentication().authenticate_header(request)

    def get_exception_handler(self) -> Callable[..., Response | None]:
        return handle

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Response:
        answer: Response = super().finalize_response(request, response, *args, **kwargs)
        if answer.exception and isinstance(answer.accepted_renderer, JSONRenderer):
            answer.content_type = CONTENT_TYPE
        # Replaced by the middleware's own where a key is announced.
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def shown(self, live: LiveSession | None, **context: Any) -> dict[str, Any]:
        """``live`` as the answer shows it."""
        if live is None:
            raise NoSession
        context |= self.get_serializer_context()
        serializer: Any = self.get_serializer_class()(live, context=context)
        return dict(serializer.data)


@method_decorator(sensitive_post_parameters(), name="dispatch")
class SessionList(SessionView):
    """Your live sessions, newest first. POST starts a session, and signs in."""

    pagination_class = SessionPagination
    credentials = CredentialsSerializer
    sign_in_throttles: Sequence[type[BaseThrottle]] = (SignInByName, SignInByOrigin)

    def get_authenticators(self) -> list[BaseAuthentication]:
        # Whoever signs in need not be signed in, and a session whose user was signed out may be
        # signed in again.
        return [] if self._starts() else super().get_authenticators()

    def get_permissions(self) -> list[BasePermission]:
        permissions: list[Any] = [*super().get_permissions()]
        return [SpeaksHeader()] if self._starts() else permissions

    def get_throttles(self) -> list[BaseThrottle]:
        throttles: list[BaseThrottle] = super().get_throttles()
        if self._starts():
            throttles += [throttle() for throttle in self.sign_in_throttles]
        return throttles

    def check_throttles(self, request: Request) -> None:
        if self._starts():
            # Throttles would be the first to.
            with reading_the_body():
                request.data  # noqa: B018
        super().check_throttles(request)

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return self.credentials if self._starts() else SessionSerializer

    def _starts(self) -> bool:
        return getattr(self.request, "method", None) == "POST"

    def get_queryset(self) -> Any:
        # Of very many a store tells 1,000, which need not be the newest: the current one is added.
        own = session_of(self.request).live
        found = {one.id: one for one in (own, *registry.of_user(self.request.user))}
        return sorted(found.values(), key=lambda one: (one.created, one.id), reverse=True)

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        session = session_of(request)
        was = session.session_key
        if isinstance(request.data, Mapping) and not request.data:
            if was is None:
                session.create()
            elif found := HeaderSessionAuthentication().authenticate(request):
                request.user = found[0]
        else:
            self._sign_in(request)
            if session.session_key == was:
                # The same user again: Django would keep the key.
                session.cycle_key()
            # Now, so that the answer tells what is stored.
            session.save()
        live = registry.get(session.session_key.id)
        if live is None:
            raise NoSession
        data = SessionSerializer(live, context=self.get_serializer_context()).data
        if session.session_key == was:
            return Response(data)
        headers = {"Location": request.build_absolute_uri("current/")}
        return Response(data, status=status.HTTP_201_CREATED, headers=headers)

    @sensitive_variables("credentials")
    def _sign_in(self, request: Request) -> None:
        credentials = self.get_serializer(data=request.data)
        credentials.is_valid(raise_exception=True)
        user = authenticate(request._request, **credentials.validated_data)
        if user is None or not user.is_active:
            raise WrongCredentials
        login(request._request, user)
        request.user = user


class SessionCurrent(SessionView):
    """The session this request came with. DELETE signs out and ends it."""

    permission_classes = (HasSession,)
    serializer_class = CurrentSessionSerializer

    def perform_authentication(self, request: Request) -> None:
        try:
            super().perform_authentication(request)
        except SignedOut:
            # Whoever holds a session may end it, also one that signs nobody in any more.
            if request.method != "DELETE":
                raise

    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        options = OptionsSerializer(data=request.query_params.dict())
        options.is_valid(raise_exception=True)
        session = session_of(request)
        found = registry.sizes(session.session_key.id)
        live, sizes = found if found else (None, {})
        wanted = options.validated_data["values"] == "true"
        values = own_values(request._request) if wanted else None
        return Response(self.shown(live, sizes=sizes, values=values))

    def delete(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        logout(request._request)
        return Response(status=status.HTTP_204_NO_CONTENT)


class SessionRotate(SessionView):
    """POST gives the session a new key, which the answer's header holds. Nothing else changes."""

    permission_classes = (HasSession,)

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        session = session_of(request)
        session.cycle_key()
        return Response(self.shown(session.live or registry.get(session.session_key.id)))


class SessionEndOthers(SessionView):
    """POST ends all your sessions but the one this request came with."""

    serializer_class = EndedSerializer

    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        own = session_of(request).session_key.id
        ended = 0
        # Until there are none, or somebody else is ending those that there are: of many sessions
        # the registry tells some at a time.
        while now := registry.end_many(
            [one.id for one in registry.of_user(request.user) if one.id != own], OWNER
        ):
            ended += len(now)
        return Response({"ended": ended})


class SessionDetail(SessionView):
    """DELETE ends one of your sessions."""

    def delete(self, request: Request, *args: Any, session_id: str, **kwargs: Any) -> Response:
        if session_id == session_of(request).session_key.id:
            logout(request._request)
            return Response(status=status.HTTP_204_NO_CONTENT)
        live = registry.get(session_id)
        own = live is not None and live.user == user_key(request.user)
        if not own or not registry.end(session_id, OWNER):
            raise NoSuchSession
        return Response(status=status.HTTP_204_NO_CONTENT)


@contextmanager
def reading_the_body() -> Iterator[None]:
    """Refuses one that is nested too deeply: DRF's parser recurses, and lets anybody find out."""
    try:
        yield
    except RecursionError:
        raise ParseError(_("The body is nested too deeply.")) from None


def session_of(request: Request) -> Any:
    """The session of ``request``: ours, whose key and public face Django's do not have."""
    return request._request.session


def own_values(request: HttpRequest) -> dict[str, Any]:
    """The values of the session's own fields; what is named like a secret is masked, as the project
    has it."""
    mask = get_exception_reporter_filter(request).cleanse_setting
    fields = request.session.items()
    # Django's filter recurses, so that the depth is cut before.
    return {name: mask(name, shown(value)) for name, value in fields if not name.startswith("_")}
