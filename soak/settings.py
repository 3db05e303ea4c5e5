"""The example's settings, with the cache that a fault needs.

``SOAK_LOCATION`` and ``SOAK_OPTIONS`` (JSON) make the alias, ``SOAK_SETTINGS`` (JSON) holds other
settings, ``SOAK_CLOCK`` puts the clock of the process wrong, by so many seconds.
"""

import json
import os
from datetime import UTC, datetime, timedelta

from example.settings import *  # noqa: F403

if os.environ.get("SOAK_CLOCK"):
    import time_machine

    wrong = datetime.now(UTC) + timedelta(seconds=int(os.environ["SOAK_CLOCK"]))
    time_machine.travel(wrong, tick=True).start()

TIMEOUT = 2

# Hundreds of sessions are signed in, and how long that takes is not what is looked at.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ["SOAK_LOCATION"],
        "OPTIONS": {"SOCKET_TIMEOUT": TIMEOUT, "SOCKET_CONNECT_TIMEOUT": TIMEOUT}
        | json.loads(os.environ.get("SOAK_OPTIONS", "{}")),
    }
}
globals().update(json.loads(os.environ.get("SOAK_SETTINGS", "{}")))

# An outage is expected here, and each of its 503s would be a line.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {
        "django": {"handlers": ["stderr"], "level": "CRITICAL"},
        "django.request": {"level": "CRITICAL"},
        "django_header_sessions": {"handlers": ["stderr"], "level": "INFO"},
    },
}
