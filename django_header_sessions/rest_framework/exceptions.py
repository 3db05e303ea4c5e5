"""The refusals of the session resource, as DRF's exceptions.

Apart from ``problems``, which needs DRF's views: these in turn load the authentication classes that
the settings name, so that what those import must not need views.
"""

from __future__ import annotations

from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import (
    APIException,
    AuthenticationFailed,
    NotFound,
)

from ..conf import conf


class NoSession(APIException):
    """There is no session, or it was ended while the request was served."""

    # No NotAuthenticated, which DRF makes a 403 of where a view has no authentication classes.
    status_code = status.HTTP_401_UNAUTHORIZED
    auth_header = "Session"
    default_detail = _("There is no session. Start one first.")
    default_code = "no-session"


class SignedOut(AuthenticationFailed):
    """The session's user cannot be signed in by it any more."""

    default_detail = _("Whoever was signed in with this session is no longer. Sign in again.")
    default_code = "signed-out"


class WrongCredentials(AuthenticationFailed):
    """No backend knows these credentials, or the user may not sign in."""

    # The same words for an unknown name and a wrong password tell a guesser nothing.
    default_detail = _("No active user has these credentials.")
    default_code = "credentials"


class NoSuchSession(NotFound):
    default_detail = _("You have no such session.")
    default_code = "no-such-session"


class NoList(APIException):
    """``ListingNotSupported``, for a client."""

    status_code = status.HTTP_501_NOT_IMPLEMENTED
    default_detail = _(
        "The cache behind the sessions cannot list them. Redis can, and LocMemCache where there "
        "is one process."
    )
    default_code = "no-list"


class NotCounted(APIException):
    """The cache that counts attempts to sign in cannot be reached, so that none is made."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = _("Attempts to sign in cannot be counted at the moment. Try again.")
    default_code = "not-counted"

    @property
    def wait(self) -> int:
        """What DRF sends as Retry-After."""
        return max(1, conf.HEADER_SESSIONS_RETRY_AFTER)
