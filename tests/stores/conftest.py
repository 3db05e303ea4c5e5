from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..processes import Valkey


@pytest.fixture
def own_valkey() -> Iterator[Callable[..., Valkey]]:
    """Starts Valkeys of this test's own, which it may stop, fill and break."""
    with ExitStack() as stack:

        def start(*options: str) -> Valkey:
            return stack.enter_context(Valkey(*options))

        yield start


def django_redis(url: str, **options: Any) -> dict[str, dict[str, Any]]:
    """``CACHES`` with a django-redis alias."""
    return {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": url,
            "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5} | options,
        }
    }
