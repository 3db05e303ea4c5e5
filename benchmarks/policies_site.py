"""The site that ``policies.py`` asks: one view of 5 ms work, under each policy."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import redis.asyncio
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from django_header_sessions.decorators import serialized_session

WORK = 0.005
"""Seconds that a view thinks between what it reads and what it writes."""

if not settings.configured:
    settings.configure(
        SECRET_KEY="only for a benchmark",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django_header_sessions.middleware.HeaderSessionMiddleware"],
        INSTALLED_APPS=["django_header_sessions"],
        SESSION_ENGINE="django_header_sessions.engine",
        SESSION_CACHE_ALIAS="default",
        USE_TZ=True,
        CACHES={
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": os.environ["REDIS_URL"],
                "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5},
            }
        },
    )

_polled: dict[Any, Any] = {}


async def work(request: HttpRequest) -> HttpResponse:
    """Read, think, write; answers the number that it wrote."""
    return await worked(request.session)


async def worked(session: Any) -> HttpResponse:
    n = await session.aget("n", 0)
    await asyncio.sleep(WORK)
    await session.aset("n", n + 1)
    text = str(n + 1)
    return HttpResponse(text, headers={"Content-Length": str(len(text))})


async def polled(request: HttpRequest) -> HttpResponse:
    """The same under redis-py's lock, which asks every 0.1 s whether it is free."""
    key: Any = request.session.session_key
    loop = asyncio.get_running_loop()
    if loop not in _polled:
        _polled[loop] = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])
    async with _polled[loop].lock(f"lock {key.id}", timeout=30):
        session = SessionStore(key, transport="header")  # as it is now that it is locked
        await session.aopen()
        response = await worked(session)
        await session.asave()
    return response


urlpatterns = [
    path("merge/", work),
    path("serialized/", serialized_session(wait=60)(work)),
    path("polled/", polled),
]

application = get_asgi_application()

from django_header_sessions.engine import SessionStore  # noqa: E402  once the settings are there
