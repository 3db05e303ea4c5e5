"""Other apps, Django's among them, that know of sessions or of who is calling."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .checker import DRF_AUTHENTICATION, MIDDLEWARE, check, has_header_paths, places, subclasses

REMOTE_USER = "django.contrib.auth.middleware.RemoteUserMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
COOKIE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
SESSION_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
PAGE_CACHE = "django.middleware.cache.UpdateCacheMiddleware"
USER_SESSIONS = "allauth.usersessions.middleware.UserSessionsMiddleware"

DRF_SESSION_AUTHENTICATION = "rest_framework.authentication.SessionAuthentication"


@check(Tags.security)
def check_page_cache() -> Iterator[CheckMessage]:
    updating, ours = places(PAGE_CACHE), places(MIDDLEWARE)
    if ours and updating and max(updating) > min(ours):
        path = settings.MIDDLEWARE[max(updating)]
        yield Error(
            f"{path} stands after HeaderSessionMiddleware, so it keeps pages before they are "
            "marked as one session's: whoever asks next is handed another's page.",
            hint=f"Move {path!r} before {settings.MIDDLEWARE[min(ours)]!r} in MIDDLEWARE.",
            id="header_sessions.E034",
        )


@check(Tags.security)
def check_ambient_credentials() -> Iterator[CheckMessage]:
    for at in places(REMOTE_USER):
        yield Warning(
            f"{settings.MIDDLEWARE[at]} signs in whoever the web server names, on header paths "
            "too, where a request that carries the session header is exempt from the CSRF check.",
            hint="Let the web server authenticate only the paths of "
            "HEADER_SESSIONS_COOKIE_PATHS, or do without it.",
            id="header_sessions.W001",
        )


@check(Tags.security)
def check_rest_framework() -> Iterator[CheckMessage]:
    configured = getattr(settings, "REST_FRAMEWORK", {})
    classes = configured.get("DEFAULT_AUTHENTICATION_CLASSES", ())
    cookie, header = (
        [at for at, path in enumerate(classes) if subclasses(path, of)]
        for of in (DRF_SESSION_AUTHENTICATION, DRF_AUTHENTICATION)
    )
    if cookie and header and min(cookie) < min(header):
        yield Warning(
            "DRF's SessionAuthentication is listed before HeaderSessionAuthentication, so a "
            "caller without credentials is told 403 instead of 401, and claims header sessions.",
            hint=f"List {DRF_AUTHENTICATION!r} first in "
            "REST_FRAMEWORK['DEFAULT_AUTHENTICATION_CLASSES'].",
            id="header_sessions.W013",
        )


@check(Tags.security)
def check_messages() -> Iterator[CheckMessage]:
    if has_header_paths() and places(MESSAGES) and _sets_cookies(settings.MESSAGE_STORAGE):
        yield Warning(
            f"MESSAGE_STORAGE {settings.MESSAGE_STORAGE!r} keeps messages in a cookie, on header "
            "paths too, where clients keep no cookies and never see them.",
            hint=f"Set MESSAGE_STORAGE = {SESSION_STORAGE!r}.",
            id="header_sessions.W034",
        )


def _sets_cookies(storage: str) -> bool:
    try:
        found = import_string(storage)
    except (ImportError, ImproperlyConfigured):
        return False
    # Django's default tries several in turn, the cookie first.
    return any(
        subclasses(each, COOKIE_STORAGE) for each in (found, *getattr(found, "storage_classes", ()))
    )


@check(Tags.security)
def check_user_sessions() -> Iterator[CheckMessage]:
    tracks = getattr(settings, "USERSESSIONS_TRACK_ACTIVITY", False)
    if tracks and USER_SESSIONS in settings.MIDDLEWARE:
        yield Warning(
            "allauth's UserSessionsMiddleware writes the keys of header sessions into its table, "
            "a row for each key that a session ever had.",
            hint="Put a subclass in its place that passes on requests of which "
            "request.session.transport is 'header'; or set USERSESSIONS_TRACK_ACTIVITY = False.",
            id="header_sessions.W044",
        )
