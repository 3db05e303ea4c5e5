"""What a session's fields hold, as people may see it: pretty, masked, and never a failure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.views.debug import get_exception_reporter_filter

from ..exceptions import SessionUnreadable
from ..registry import Field
from .words import printable

AUTH_HASH = "_auth_user_hash"
WHO = ("_auth_user_id", "_auth_user_backend")
"""Django's words for a secret are in these names; what they hold is on every page as it is."""
MOST = 4000
"""Characters of one value that are shown."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A field on a page; ``value`` is None for those who may not see values."""

    name: str
    size: int
    value: str | None = None
    readable: bool = True
    cut: int = 0
    """Characters of the value that are not shown."""


def shown(fields: Iterable[Field], request: HttpRequest | None, *, values: bool) -> list[Shown]:
    """These fields as whoever makes ``request`` may see them. A value whose name, or a name inside
    of it, looks like a secret is masked, as Django masks its error pages."""
    if not values:
        return [Shown(printable(field.name), field.size) for field in fields]
    masking = get_exception_reporter_filter(request)
    return [_shown(field, masking) for field in fields]


def _shown(field: Field, masking: Any) -> Shown:
    name = printable(field.name)
    if field.name == AUTH_HASH:
        return Shown(name, field.size, masking.cleansed_substitute)
    try:
        value = field.value()
        if field.name not in WHO:
            value = masking.cleanse_setting(field.name, value)
        text = value if value is masking.cleansed_substitute else _pretty(value)
    except SessionUnreadable:
        return _unshown(field, _("Cannot be read with SESSION_SERIALIZER."))
    except RecursionError:
        return _unshown(field, _("Nested too deeply to be shown."))
    except Exception:  # whatever objects of another serializer's making do
        return _unshown(field, _("Cannot be shown."))
    return Shown(name, field.size, text[:MOST], cut=max(len(text) - MOST, 0))


def _unshown(field: Field, why: str) -> Shown:
    return Shown(printable(field.name), field.size, why, readable=False)


def _pretty(value: Any) -> str:
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError):
        # Another serializer reads what JSON cannot write.
        text = repr(value)
    return printable(text)
