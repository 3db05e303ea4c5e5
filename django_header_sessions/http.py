"""What typed code annotates its requests with.

A request is Django's own, and so is what makes it. What Django's stubs cannot know is whose session
it carries where ``SESSION_ENGINE`` is ours: this says so.
"""

from __future__ import annotations

from django import http

from .engine import SessionStore

__all__ = ["HttpRequest"]


class HttpRequest(http.HttpRequest):
    """Django's, with the session as this package makes it; for annotations, not for instances."""

    session: SessionStore
