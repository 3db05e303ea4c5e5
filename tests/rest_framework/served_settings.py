"""The tests' project with DRF, as a real server serves it."""

from __future__ import annotations

import os

from corsheaders.defaults import default_headers

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as THEIRS
from tests.settings import MIDDLEWARE as THEIRS_TOO

INSTALLED_APPS = [*THEIRS, "rest_framework", "drf_spectacular", "corsheaders"]
MIDDLEWARE = [
    "tests.rest_framework.served_urls.WrongKey",
    "corsheaders.middleware.CorsMiddleware",
    *THEIRS_TOO,
]
ROOT_URLCONF = "tests.rest_framework.served_urls"
REST_FRAMEWORK = {
    # Loaded by DRF while it loads its views.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "django_header_sessions.rest_framework.permissions.HasSession",
    ],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_RATES": {"header_sessions_user": None, "header_sessions_origin": None},
}
SPECTACULAR_SETTINGS = {
    "TITLE": "A project",
    "VERSION": "1",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "django_header_sessions.rest_framework.schema.announce",
    ],
}

CORS_ALLOWED_ORIGINS = [os.environ.get("TEST_ORIGIN", "http://a.example")]
CORS_ALLOW_HEADERS = (*default_headers, "x-session-key")
CORS_EXPOSE_HEADERS = ["X-Session-Key", "X-Session-Expires-In", "Retry-After"]
