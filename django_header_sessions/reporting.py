"""Keeps session keys out of Django's error pages and e-mails, whatever their header is called.

What a report shows of a request it shows by ``repr``, in the values of variables too. So the key
in the request's own places is made a ``SessionKey``, whose ``repr`` shows its id alone.
"""

from __future__ import annotations

from collections.abc import ItemsView
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.http.response import ResponseHeaders
from django.views.debug import SafeExceptionReporterFilter, get_exception_reporter_filter

from . import keys
from .conf import conf
from .keys import Hidden, HiddenBytes
from .resolvers import NEW, meta_name


def mask_key(request: HttpRequest) -> None:
    """Have reports on ``request`` show no session key, from the header or from a cookie.

    Django masks what has KEY in its name, which ``HEADER_SESSIONS_HEADER`` need not have, and
    masks nothing of what a variable holds.
    """
    project_filter = get_exception_reporter_filter(request)
    request.exception_reporter_filter = KeyMaskingFilter(project_filter)  # type: ignore[assignment]
    meta, held = request.META, []
    header, cookie = conf.HEADER_SESSIONS_HEADER, settings.SESSION_COOKIE_NAME
    name = meta_name(header)
    if name in meta:
        meta[name] = hidden(meta[name])
        held.append(header.lower().encode("latin-1"))
    if cookie in meta.get("HTTP_COOKIE", ""):
        if cookie in request.COOKIES:
            request.COOKIES[cookie] = hidden(request.COOKIES[cookie])
        meta["HTTP_COOKIE"] = Hidden(meta["HTTP_COOKIE"])
        held.append(b"cookie")
    if not held:
        return
    # Who looked at it before had Django keep it, with the key as it came.
    request.__dict__.pop("headers", None)
    if isinstance(request, ASGIRequest):
        # A copy, as ASGI asks for: what the server keeps is not ours to change.
        headers = [
            (each, HiddenBytes(value) if each in held else value)
            for each, value in request.scope["headers"]
        ]
        request.scope = {**request.scope, "headers": headers}


def hidden(value: str) -> str:
    """The same text, but what is a key or may be one does not show itself."""
    return value if value == NEW else keys.parse(value) or Hidden(value)


class AnnouncingHeaders(ResponseHeaders):
    """The headers of an answer that announces a key, whose ``repr`` shows no key.

    Nor does that of a value that is asked for by its name. In ``items()`` they stay plain: wsgiref,
    which runserver is made of, takes nothing but a ``str`` itself.
    """

    def __getitem__(self, name: str) -> str:
        value = super().__getitem__(name)
        return keys.parse(value) or value

    def items(self) -> ItemsView[str, str]:
        return dict(self._store.values()).items()

    def __repr__(self) -> str:
        return repr({name: keys.parse(value) or value for name, value in self.items()})


class KeyMaskingFilter:
    """The project's own reporter filter, with the session header masked in what it shows."""

    def __init__(self, project_filter: SafeExceptionReporterFilter) -> None:
        self._project_filter = project_filter

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        return _without_key(self._project_filter.get_safe_request_meta(request))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._project_filter, name)


class SessionKeyReporterFilter(SafeExceptionReporterFilter):
    """Django's reporter filter, with the session header masked, for a header without KEY in its
    name: ``DEFAULT_EXCEPTION_REPORTER_FILTER`` names it.

    It is for what fails in a middleware that stands before ``HeaderSessionMiddleware``, where
    nobody has masked anything yet.
    """

    def get_safe_request_meta(self, request: HttpRequest) -> dict[str, Any]:
        return _without_key(super().get_safe_request_meta(request))


def _without_key(meta: dict[str, Any]) -> dict[str, Any]:
    name = meta_name(conf.HEADER_SESSIONS_HEADER)
    if name not in meta:
        return meta
    return meta | {name: SafeExceptionReporterFilter.cleansed_substitute}
