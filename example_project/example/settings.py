"""Settings of the example: ten lines make the sessions, the rest is what every project has.

From the environment:

``REDIS_URL``           keep sessions on this Redis; without it in this process's memory
``EXAMPLE_DB``          the SQLite file
``EXAMPLE_DEBUG``       ``1`` for Django's debug pages
``EXAMPLE_SECRET_KEY``  Django's secret key
``EXAMPLE_PASSWORD``    the users' password, read by ``manage.py setup``
"""

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Header sessions -----------------------------------------------------------------------------

SESSION_ENGINE = "django_header_sessions.engine"
SESSION_CACHE_ALIAS = "default"

CACHES: dict[str, dict[str, Any]]
if redis_url := os.environ.get("REDIS_URL"):
    CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": redis_url,
            # Without these a Redis that hangs would hold up every thread of the server for long.
            "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 2, "SOCKET_TIMEOUT": 2},
        }
    }
else:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            # The default of 300 would throw out live sessions as soon as there are more.
            "OPTIONS": {"MAX_ENTRIES": 100_000},
        }
    }

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    # In the place of django.contrib.sessions.middleware.SessionMiddleware:
    "django_header_sessions.middleware.HeaderSessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

# The default storage puts messages into a cookie, which a client of the header transport ignores.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# --- Django --------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_header_sessions",
    "rest_framework",
    "example",
]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_THROTTLE_RATES": {
        # The password is published, and whoever tries the example signs in over and over.
        "header_sessions_user": None,
        "header_sessions_origin": None,
    },
}

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DB") or BASE_DIR / "db.sqlite3",
        # Every sign-in writes to the one file; wait for one's turn rather than fail.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

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

ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"
STATIC_URL = "static/"
USE_TZ = True

DEBUG = os.environ.get("EXAMPLE_DEBUG", "") not in ("", "0")
# An example is tried under any name, in containers and behind proxies. A real site lists its own.
ALLOWED_HOSTS = ["*"]
# Published, hence insecure: it only lets several processes of the example understand each other.
SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY") or "django-insecure-example-project-only"

# With DEBUG off Django mails its errors; an example has nobody to mail, so it prints them.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["stderr"], "level": "ERROR"}},
}
