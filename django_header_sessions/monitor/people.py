"""The users of sessions: a session knows no more than a primary key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import IntegerField

from ..registry import LiveSession, user_key


def users_of(sessions: Iterable[LiveSession]) -> dict[str, Any]:
    """The users of these sessions by what the sessions call them, in one query."""
    return users_by_id({session.user for session in sessions if session.user is not None})


def users_by_id(ids: Iterable[str]) -> dict[str, Any]:
    """Those users who are there, by primary key as text."""
    ids = set(ids)
    if not ids:
        return {}  # which a project without users can be told, too
    model: Any = get_user_model()
    keys = [key for text in ids if (key := _as(model._meta.pk, text)) is not None]
    if not keys:
        return {}
    found = model._default_manager.in_bulk(keys)
    return {user_key(user): user for user in found.values()}


def ids_named(name: str) -> list[str]:
    """The primary keys, as text, of the users of exactly this name: one, as a rule."""
    model: Any = get_user_model()
    value = _as(model._meta.get_field(model.USERNAME_FIELD), name)
    if value is None:
        return []
    users = model._default_manager.filter(**{model.USERNAME_FIELD: value})[:10]
    return list(map(user_key, users))


def _as(field: Any, text: str) -> Any:
    """``text`` as a value that the database can be asked for; None where it is none of ``field``,
    as a session's user is not who signed in by a user model that was replaced since."""
    while field.remote_field is not None:
        field = field.target_field
    try:
        value = field.to_python(text)
        if isinstance(field, IntegerField):
            field.run_validators(value)  # those of the database's range are among them
    except ValidationError:
        return None
    # PostgreSQL takes no text with a NUL in it.
    return None if "\0" in str(value) else value
