"""Settings of the tests: a project that has what most projects have, on LocMem.

A server process of the tests takes these from the environment: ``REDIS_URL`` puts its sessions
on that Redis, ``TEST_DB`` names an SQLite file that all its threads share.
"""

import os
import sys
from typing import Any

SECRET_KEY = "only for tests"
USE_TZ = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_header_sessions",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django_header_sessions.middleware.HeaderSessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "tests.views.Inner",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TEST_DB", ":memory:"),
    }
}
if "TEST_DB" in os.environ:
    # Threads that sign in at the same time wait for one another instead of failing.
    DATABASES["default"]["OPTIONS"] = {"timeout": 20}  # type: ignore[assignment]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
SESSION_ENGINE = "django_header_sessions.engine"
SESSION_CACHE_ALIAS = "default"
STATIC_URL = "/static/"
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "tests",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}
# Not in the process of pytest itself: its tests end all the sessions of their cache, and whoever
# runs them may have a REDIS_URL of another meaning.
if "REDIS_URL" in os.environ and "pytest" not in sys.modules:
    CACHES["default"] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ["REDIS_URL"],
        "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5},
    }
