from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.serializers import JSONSerializer
from django.test import Client

from django_header_sessions.fields import Codec
from django_header_sessions.origin import Origin
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft, Expiry, Terms

from ..processes import Valkey

LIST = "/admin/django_header_sessions/session/"
TERMS = Terms(1_800_000, 43_200_000)

SignIn = Callable[..., Client]
Forward = Callable[[float], None]


def page_of(session_id: str, view: str = "change") -> str:
    return f"{LIST}{session_id}/{view}/"


def start(
    user: Any = None,
    transport: str = "header",
    ip: str = "",
    agent: str = "",
    idle: int | None = None,
    raw: dict[str, bytes] | None = None,
    **fields: Any,
) -> str:
    """Store a session; its id."""
    codec = Codec(JSONSerializer)
    encoded = {name: codec.encode(name, value) for name, value in fields.items()} | (raw or {})
    expiry = None if idle is None else Expiry("idle", idle * 1000)
    pk = None if user is None else str(user.pk)
    key, _ = get_store("default").create(
        Draft(transport, encoded, pk, expiry, Origin(ip, agent)), TERMS
    )
    return key.id


def cache_of(server: Valkey) -> dict[str, Any]:
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": server.url,
        "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5},
    }


@pytest.fixture
def sign_in(db: None) -> SignIn:
    """Somebody on the staff with these permissions, ``("view", "delete")`` say, signed in."""

    def signed_in(*permissions: str, name: str = "staff", superuser: bool = False) -> Client:
        user = User.objects.create_user(name, is_staff=True, is_superuser=superuser)
        names = [f"{each}_session" if "_" not in each else each for each in permissions]
        user.user_permissions.set(
            Permission.objects.filter(
                content_type__app_label="django_header_sessions", codename__in=names
            )
        )
        client = Client()
        client.force_login(user)
        return client

    return signed_in
