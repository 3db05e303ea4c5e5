"""What typed code annotates the requests of its API views with."""

from __future__ import annotations

from rest_framework import request

from ..engine import SessionStore
from ..registry import LiveSession

__all__ = ["Request"]


class Request(request.Request):
    """DRF's, with the session as this package makes it and what ``HeaderSessionAuthentication``
    puts into ``auth``, None where nobody is signed in; for annotations, not for instances."""

    session: SessionStore
    auth: LiveSession | None
