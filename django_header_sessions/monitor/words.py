"""Figures and names as people read them."""

from __future__ import annotations

import re
from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))

# In this order: each says that it is one of the later ones, too.
_BROWSERS = (
    ("Edge", re.compile(r"\bEdgi?A?(?:OS)?/(\d+)")),
    ("Opera", re.compile(r"\bOPR/(\d+)")),
    ("Firefox", re.compile(r"\b(?:Firefox|FxiOS)/(\d+)")),
    ("Chrome", re.compile(r"\b(?:Headless)?(?:Chrome|CriOS)/(\d+)")),
    ("Safari", re.compile(r"\bVersion/(\d+)")),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
_PRODUCT = re.compile(r"([^\s/()]+)/(\d+(?:\.\d+)?)")


def duration(ms: int) -> str:
    """``ms`` milliseconds in the two largest units that say something: ``3 h 20 min``."""
    seconds = max(ms, 0) // 1000
    if seconds < 60:
        return _("%(n)d s") % {"n": seconds}
    parts = []
    for length, unit in _UNITS:
        n, seconds = divmod(seconds, length)
        if n:
            parts.append(_unit(unit) % {"n": n})
        elif parts:
            break
    return " ".join(parts[:2])


def _unit(unit: str) -> str:
    return {"d": _("%(n)d d"), "h": _("%(n)d h"), "min": _("%(n)d min")}[unit]


def moment(when: datetime) -> str:
    """``when`` in the time zone of whoever looks, as their language writes it."""
    return date_format(timezone.localtime(when), "DATETIME_FORMAT")


def timestamp(when: datetime) -> str:
    """``when`` in the time zone of whoever looks, to the second, the same in all languages; in a
    small part of the time that ``moment`` takes."""
    return f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S}"


def transport_name(transport: str) -> str:
    return {"header": _("header"), "cookie": _("cookie")}[transport]


def agent(summary: str) -> str:
    """What a stored user agent calls: a browser and its system, or a program and its version."""
    system = next((name for sign, name in _SYSTEMS if sign in summary), "")
    for browser, pattern in _BROWSERS:
        if found := pattern.search(summary):
            return f"{browser} {found[1]} · {system}" if system else f"{browser} {found[1]}"
    if found := _PRODUCT.match(summary):
        return f"{found[1]} {found[2]}"
    return summary if len(summary) <= 32 else summary[:31] + "…"


def printable(text: str) -> str:
    """``text`` as UTF-8 can hold it: JSON lets half of a surrogate pair into a ``str``."""
    return text.encode("utf-8", "backslashreplace").decode()
