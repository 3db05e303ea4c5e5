"""Signs in the user of a header session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from ..registry import LiveSession, user_key
from ..resolvers import HEADER
from .exceptions import SignedOut

if TYPE_CHECKING:
    from django.contrib.auth.models import _User  # the project's own


class HeaderSessionAuthentication(BaseAuthentication):
    """The user who is signed in by the session whose key came in the request's header.

    ``request.auth`` is the session's public face, a ``LiveSession``; there is no key in it. A
    cookie session signs nobody in here: that is the business of DRF's ``SessionAuthentication``,
    with its CSRF check. Where both are listed this one comes first, since DRF takes the answer to
    a caller without credentials, 401 or 403, from the first.

    Raises ``SignedOut`` (401) where the session's user was deleted or deactivated since, or has
    another password. In the last case Django has ended the session, and the answer tells the
    client to forget the key; in the others the key stays good for signing in anew.
    """

    def authenticate(self, request: Request) -> tuple[_User, LiveSession] | None:
        # Only what the store opened for the key that was sent counts: not who a middleware or a
        # view signed in while this request is served.
        session = getattr(request._request, "session", None)
        live: LiveSession | None = getattr(session, "live", None)
        if live is None or live.transport != HEADER or live.user is None:
            return None
        user: Any = getattr(request._request, "user", None)
        if not _is(user, live.user):
            user = get_user(request._request)
        if not _is(user, live.user) or not getattr(user, "is_active", True):
            raise SignedOut
        return user, live

    def authenticate_header(self, request: Request) -> str:
        return "Session"


def _is(user: Any, of_session: str) -> bool:
    return bool(getattr(user, "is_authenticated", False)) and user_key(user) == of_session
