"""The server of the client benchmark: one tool, with header sessions, under gunicorn.

`POST /call?ms=20` is the tool: it reads the session if there is one and works so long. `POST
/start` makes a session, `POST /sign-in` checks a password with Django's default hasher first.
"""

from __future__ import annotations

import os
import time

from django.conf import settings

PASSWORD = "correct horse battery staple"

settings.configure(
    SECRET_KEY="only for this benchmark",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django_header_sessions"],
    MIDDLEWARE=["django_header_sessions.middleware.HeaderSessionMiddleware"],
    SESSION_ENGINE="django_header_sessions.engine",
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
        }
    },
)

from django.contrib.auth.hashers import check_password, make_password  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

STORED = make_password(PASSWORD)


def call(request: HttpRequest) -> JsonResponse:
    """The tool. Without a session it is told all it needs each time, and starts from nothing."""
    calls = request.session.get("calls", 0) if request.session.session_key is not None else 0
    time.sleep(int(request.GET.get("ms", "0")) / 1000)
    return JsonResponse({"calls": calls})


def start(request: HttpRequest) -> JsonResponse:
    """The handshake: make a session."""
    request.session["calls"] = 1
    return JsonResponse({})


def sign_in(request: HttpRequest) -> JsonResponse:
    """The handshake, with a password."""
    request.session["user"] = check_password(request.body.decode(), STORED)
    return JsonResponse({"user": request.session["user"]})


urlpatterns = [path("call", call), path("start", start), path("sign-in", sign_in)]
application = get_wsgi_application()
