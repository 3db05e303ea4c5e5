"""What the session resource takes and shows."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from django.core.validators import RegexValidator
from rest_framework import serializers

from ..registry import LiveSession

MAX_DEPTH = 32
"""Levels of a value that are shown: a renderer recurses, and must not fail."""

DEEPER = "…"

# DRF refuses these anyhow, as databases do; a validator also shows in the schema.
NO_NUL = RegexValidator(r"^[^\x00]*$")


class CredentialsSerializer(serializers.Serializer[Any]):
    """Who signs in, and what proves it."""

    # What authenticate() is called with. A project whose backends take something else gives a
    # serializer of its own to SessionList.as_view(credentials=…).

    name_field: ClassVar[str] = "username"
    """The field whose attempts are counted together."""

    username = serializers.CharField(
        min_length=1,
        max_length=1024,
        trim_whitespace=False,
        validators=[NO_NUL],
        write_only=True,
    )
    password = serializers.CharField(
        min_length=1,
        max_length=4096,
        trim_whitespace=False,
        validators=[NO_NUL],
        write_only=True,
        style={"input_type": "password"},
    )


class SessionSerializer(serializers.Serializer[LiveSession]):
    """A session as its owner sees it; its id opens nothing."""

    id = serializers.CharField(read_only=True, help_text="Its name, the same for all its life.")
    transport = serializers.ChoiceField(
        ["header", "cookie"], read_only=True, help_text="How its key travels."
    )
    user = serializers.SerializerMethodField(help_text="The name of who is signed in.")
    created = serializers.DateTimeField(read_only=True)
    last_seen = serializers.DateTimeField(
        read_only=True, help_text="When it was used last, to within a minute."
    )
    expires = serializers.DateTimeField(
        read_only=True, help_text="When it is over if it is not used again: its idle expiry."
    )
    absolute_expires = serializers.DateTimeField(
        source="deadline",
        read_only=True,
        allow_null=True,
        help_text="When it is over however much it is used; null: never.",
    )
    ip = serializers.CharField(
        read_only=True, help_text="Where it was started from; empty where that is not kept."
    )
    user_agent = serializers.CharField(read_only=True, help_text="What it was started with.")
    current = serializers.SerializerMethodField(help_text="Whether this very request came with it.")

    def get_user(self, live: LiveSession) -> str | None:
        user = self.context["request"].user
        if live.user is None or not (user and user.is_authenticated):
            return None
        return str(user.get_username())

    def get_current(self, live: LiveSession) -> bool:
        key = self.context["request"].session.session_key
        return key is not None and key.id == live.id


class CurrentSessionSerializer(SessionSerializer):
    """A session and what is in it."""

    bytes = serializers.SerializerMethodField(help_text="What its fields take in the store.")
    fields_bytes = serializers.SerializerMethodField(help_text="The same, field by field.")
    values = serializers.SerializerMethodField(
        help_text="The values of its fields; null where they were not asked for. Fields that "
        "Django or another library keeps in it, whose names begin with an underscore, are left "
        "out; what is named like a secret is masked."
    )

    def get_bytes(self, live: LiveSession) -> int:
        return sum(self.context["sizes"].values())

    def get_fields_bytes(self, live: LiveSession) -> dict[str, int]:
        return {shown_text(name): size for name, size in self.context["sizes"].items()}

    def get_values(self, live: LiveSession) -> dict[str, Any] | None:
        values: dict[str, Any] | None = self.context["values"]
        if values is None:
            return None
        return {shown_text(name): shown(value) for name, value in values.items()}


class OptionsSerializer(serializers.Serializer[Any]):
    """The query of the current session."""

    values = serializers.ChoiceField(["true", "false"], default="false")


class EndedSerializer(serializers.Serializer[Any]):
    ended = serializers.IntegerField(read_only=True, min_value=0, help_text="How many were ended.")


def shown(value: Any, levels: int = MAX_DEPTH) -> Any:
    """``value`` as every renderer can show it, whatever was stored."""
    if isinstance(value, dict):
        if levels == 0:
            return DEEPER
        return {shown_text(str(k)): shown(v, levels - 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [shown(v, levels - 1) for v in value] if levels else DEEPER
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return shown_text(value if isinstance(value, str) else str(value))


def shown_text(text: str) -> str:
    """``text`` without halves of surrogate pairs: JSON lets them in, UTF-8 does not out."""
    return text.encode("utf-8", "backslashreplace").decode()
