"""Engine and middleware: without them there are no header sessions."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning

from ..conf import conf
from .checker import MIDDLEWARE, check, has_header_paths, places, subclasses

ENGINE = "django_header_sessions.engine"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"

NEED_SESSION = (
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)


@check(Tags.security)
def check_wiring() -> Iterator[CheckMessage]:
    if not subclasses(f"{settings.SESSION_ENGINE}.SessionStore", f"{ENGINE}.SessionStore"):
        yield Error(
            f"SESSION_ENGINE {settings.SESSION_ENGINE!r} is not {ENGINE!r}, nor derived from it.",
            hint=f"Set SESSION_ENGINE = {ENGINE!r}.",
            id="header_sessions.E001",
        )
    ours = places(MIDDLEWARE)
    if not ours:
        yield Error(
            "HeaderSessionMiddleware is not in MIDDLEWARE.",
            hint=f"Put it where {DJANGOS} stands, instead of that: {MIDDLEWARE!r}.",
            id="header_sessions.E002",
        )
        return
    if DJANGOS in settings.MIDDLEWARE:
        yield Error(
            "Django's SessionMiddleware is in MIDDLEWARE beside HeaderSessionMiddleware.",
            hint=f"Remove {DJANGOS}: the other does all that it does, on the paths of "
            "HEADER_SESSIONS_COOKIE_PATHS.",
            id="header_sessions.E003",
        )
    in_session = settings.CSRF_USE_SESSIONS
    needing = (*NEED_SESSION, CSRF) if in_session else NEED_SESSION
    early = sorted(at for path in needing for at in places(path) if at < min(ours))
    if early:
        names = ", ".join(settings.MIDDLEWARE[at] for at in early)
        yield Error(
            f"Before HeaderSessionMiddleware there is no session, and there stands what needs one: "
            f"{names}.",
            hint=f"Move {settings.MIDDLEWARE[min(ours)]!r} before it in MIDDLEWARE.",
            id="header_sessions.E030",
        )
    if not in_session and has_header_paths() and any(at < min(ours) for at in places(CSRF)):
        yield Warning(
            "CsrfViewMiddleware stands before HeaderSessionMiddleware, so a client that signs in "
            "by header is sent a CSRF cookie.",
            hint=f"Move {settings.MIDDLEWARE[min(ours)]!r} before it in MIDDLEWARE.",
            id="header_sessions.W030",
        )


@check(Tags.security, deploy=True)
def check_secure() -> Iterator[CheckMessage]:
    if not conf.HEADER_SESSIONS_SECURE:
        yield Warning(
            "HEADER_SESSIONS_SECURE is not True, so session keys may travel over plain HTTP.",
            hint="Set HEADER_SESSIONS_SECURE = True where the site is served over HTTPS alone.",
            id="header_sessions.W003",
        )
