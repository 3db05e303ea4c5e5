"""Who may call a view, by the kind of session the call came with."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ..resolvers import COOKIE, HEADER, Transport


class HasSession(BasePermission):
    """A session is there, signed in or not: for tools that keep state for anybody.

    Without one the answer is 401: the client has to start one first.
    """

    message = _("Start a session first.")

    def has_permission(self, request: Request, view: Any) -> bool:
        return request.session.session_key is not None


class IsHeaderSession(HasSession):
    """A header session is there: for views that must not be reached by cookie.

    Does not ask for a user; list ``IsAuthenticated`` as well where one is needed.
    """

    message = _("This is for header sessions only.")

    def has_permission(self, request: Request, view: Any) -> bool:
        return transport_of(request) == HEADER and super().has_permission(request, view)


class SpeaksHeader(BasePermission):
    """The request would get a header session, if it has none yet."""

    message = _(
        'This starts header sessions only. Send the session header, with "new" where there is no '
        "key yet."
    )
    code = "header-needed"

    def has_permission(self, request: Request, view: Any) -> bool:
        return transport_of(request) == HEADER


def transport_of(request: Request) -> Transport:
    """The transport of what stands in ``request.session``."""
    return getattr(request.session, "transport", COOKIE)
