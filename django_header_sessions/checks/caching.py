"""Caches of whole pages: whose page they hand to whom."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags

from .checker import MIDDLEWARE, check, places

UPDATE = "django.middleware.cache.UpdateCacheMiddleware"


@check(Tags.security)
def check_page_cache() -> Iterator[CheckMessage]:
    updating, ours = places(UPDATE), places(MIDDLEWARE)
    if ours and updating and max(updating) > min(ours):
        path = settings.MIDDLEWARE[max(updating)]
        yield Error(
            f"{path} stands after HeaderSessionMiddleware, so it keeps pages before they are "
            "marked as one session's: whoever asks next is handed another's page.",
            hint=f"Move {path!r} before {settings.MIDDLEWARE[min(ours)]!r} in MIDDLEWARE.",
            id="header_sessions.E034",
        )
