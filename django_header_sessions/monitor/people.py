"""The users of sessions: a session knows no more than a primary key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from ..registry import LiveSession


def users_of(sessions: Iterable[LiveSession]) -> dict[str, Any]:
    """The users of these sessions by what the sessions call them, in one query."""
    return users_by_id({session.user for session in sessions if session.user is not None})


def users_by_id(ids: Iterable[str]) -> dict[str, Any]:
    """Those users who are there, by primary key as text."""
    pk: Any = get_user_model()._meta.pk
    keys = []
    for text in ids:
        try:
            keys.append(pk.to_python(text))
        except ValidationError:
            continue  # signed in by a user model that was replaced since
    if not keys:
        return {}
    found = get_user_model()._default_manager.in_bulk(keys)
    return {pk.value_to_string(user): user for user in found.values()}


def ids_named(name: str) -> list[str]:
    """The primary keys, as text, of the users of exactly this name: one, as a rule."""
    model = get_user_model()
    pk: Any = model._meta.pk
    users = model._default_manager.filter(**{model.USERNAME_FIELD: name})[:10]
    return [pk.value_to_string(user) for user in users]
