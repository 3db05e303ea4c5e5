"""Who may call a view, by the kind of session the call came with."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ..registry import user_key
from ..resolvers import COOKIE, HEADER, Transport
from .exceptions import NoSession


class HasSession(BasePermission):
    """A session is there, signed in or not: for tools that keep state for anybody.

    Without one the answer is 401: the client has to start one first.
    """

    message = _("Start a session first.")

    def has_permission(self, request: Request, view: Any) -> bool:
        if has_session(request):
            return True
        # DRF would answer 403 where the view signs nobody in, or had another way to. Not where this
        # is a part of another permission, which has to hear its no.
        if type(self) in view.permission_classes:
            raise NoSession
        return False


class IsHeaderSession(HasSession):
    """A header session is there: for views that must not be reached by cookie.

    Does not ask for a user; list ``IsAuthenticated`` as well where one is needed.
    """

    message = _("This is for header sessions only.")

    def has_permission(self, request: Request, view: Any) -> bool:
        return super().has_permission(request, view) and transport_of(request) == HEADER


class SignedInBySession(BasePermission):
    """The user is signed in by the session that the request came with, and not otherwise.

    DRF's ``SessionAuthentication`` takes whoever stands in ``request.user``: also whom a middleware
    put there, for a request whose session header exempts it from the CSRF check.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        live = getattr(request.session, "live", None)
        user = request.user  # None, where the project says so of nobody
        if live is None or not (user and user.is_authenticated) or live.user != user_key(user):
            raise NotAuthenticated
        return True


class SpeaksHeader(BasePermission):
    """The request would get a header session, if it has none yet."""

    message = _(
        'This starts header sessions only. Send the session header, with "new" where there is no '
        "key yet."
    )
    code = "header-needed"

    def has_permission(self, request: Request, view: Any) -> bool:
        return transport_of(request) == HEADER


def has_session(request: Request) -> bool:
    """Whether there is a session: its key alone may be that of a cookie which opens nothing."""
    # As in Django, such a key is kept until somebody looks into the session.
    request.session.keys()
    return request.session.session_key is not None


def transport_of(request: Request) -> Transport:
    """The transport of what stands in ``request.session``."""
    return getattr(request.session, "transport", COOKIE)
