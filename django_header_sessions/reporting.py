"""Keeps the session key out of Django's error pages and e-mails, whatever its header is called."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter, get_exception_reporter_filter

from .conf import conf
from .resolvers import meta_name


def mask_key(request: HttpRequest) -> None:
    """Have reports on ``request`` show no session header.

    Django masks what has KEY in its name, which ``HEADER_SESSIONS_HEADER`` need not have.
    """
    project_filter = get_exception_reporter_filter(request)
    request.exception_reporter_filter = KeyMaskingFilter(project_filter)  # type: ignore[assignment]


class KeyMaskingFilter:
    """The project's own reporter filter, with the session header masked in what it shows."""

    def __init__(self, project_filter: SafeExceptionReporterFilter) -> None:
        self._project_filter = project_filter

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        meta = self._project_filter.get_safe_request_meta(request)
        name = meta_name(conf.HEADER_SESSIONS_HEADER)
        if name not in meta:
            return meta
        return meta | {name: SafeExceptionReporterFilter.cleansed_substitute}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._project_filter, name)
