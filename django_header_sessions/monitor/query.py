"""What a page of the list is asked for: filters, a search, a place; read from its address.

A place in the list is ``<expiry>.<id>``. A list of the idle has a place for each kind of sessions,
with commas between: ``h1.<expiry>.<id>`` is that of the header sessions with a user.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from ..keys import ID_LENGTH, is_id, parse
from ..registry import KINDS, Cursor, Kind

IDLE = (300, 900, 3600, 21_600, 86_400)
"""Seconds that the filter "idle longer than" offers."""

REFRESH = 10
"""Seconds after which a page that refreshes itself does so."""

TRANSPORTS = ("header", "cookie")
LATEST = 2**53
"""No expiry lies beyond it: Redis scores are doubles."""

Places = Mapping[Kind, Cursor]

LONGEST = 1000
"""Characters that may be searched for."""

_prefix = re.compile(r"[a-z0-9]{2,14}", re.ASCII).fullmatch
_by_letters = {f"{kind.transport[0]}{kind.signed_in:d}": kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Query:
    """One address of the list. What in it made no sense is left out, and ``wrong`` is true."""

    text: str = ""
    user: str = ""
    transport: str = ""
    signed_in: bool | None = None
    idle: int = 0
    place: Cursor | Places | None = None
    """Where the page begins; places of the kinds where ``turned``."""
    backward: bool = False
    """Whether the sessions before ``place`` are asked for, not those behind it."""
    refresh: bool = False
    wrong: bool = False
    leaked: bool = False
    """Whether somebody searched for a session key, which now lies in logs and histories."""

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Query:
        text = str(parameters.get("q", "")).replace("\0", "").strip()
        user = str(parameters.get("user", ""))
        # Not a part of it, which may be somebody else's name.
        wrong = max(len(text), len(user)) > LONGEST
        text, user = ("", "") if wrong else (text, user)
        key = parse(text)
        query = cls(
            text=key.id if key else text,
            user=user,
            refresh=parameters.get("refresh") == str(REFRESH),
            leaked=key is not None,
        )
        if transport := parameters.get("transport"):
            wrong |= transport not in TRANSPORTS
            query = replace(query, transport=transport if transport in TRANSPORTS else "")
        if signed_in := parameters.get("signed_in"):
            wrong |= signed_in not in ("yes", "no")
            query = replace(query, signed_in={"yes": True, "no": False}.get(signed_in))
        if idle := parameters.get("idle"):
            known = idle in map(str, IDLE)
            wrong |= not known
            query = replace(query, idle=int(idle) if known else 0)
        if "after" in parameters or "before" in parameters:
            backward = "before" in parameters
            where = str(parameters.get("before" if backward else "after"))
            place = _read_places(where) if query.turned else read_place(where)
            wrong |= place is None
            query = replace(query, place=place, backward=backward and place is not None)
        return replace(query, wrong=wrong)

    def address(self, **changes: Any) -> str:
        """The address of the same list with these changes: its beginning, unless they name a
        place."""
        return "?" + urlencode(self.parameters(**changes))

    def parameters(self, **changes: Any) -> dict[str, str]:
        other = replace(self, **({"place": None, "backward": False} | changes))
        parameters = {
            "q": other.text,
            "user": other.user,
            "transport": other.transport,
            "signed_in": {True: "yes", False: "no", None: ""}[other.signed_in],
            "idle": str(other.idle or ""),
            "refresh": str(REFRESH) if other.refresh else "",
        }
        if other.place is not None:
            parameters["before" if other.backward else "after"] = (
                place_text(other.place)
                if isinstance(other.place, Cursor)
                else _places_text(other.place)
            )
        return {name: value for name, value in parameters.items() if value}

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of sessions that are asked for; none where all are."""
        if not self.transport and self.signed_in is None:
            return []
        return [
            kind
            for kind in KINDS
            if self.transport in ("", kind.transport) and self.signed_in in (None, kind.signed_in)
        ]

    @property
    def filtered(self) -> bool:
        return bool(self.transport or self.signed_in is not None or self.idle)

    @property
    def turned(self) -> bool:
        """Whether those that were idle longest come first, not those that expire last."""
        return bool(self.idle and not self.text and not self.user)

    @property
    def session_id(self) -> str:
        """The session whose id was searched for; empty where none was."""
        return self.text if is_id(self.text) else ""

    @property
    def ip(self) -> str:
        """The IP that was searched for, as ``written_ip`` writes it; empty where none was."""
        return written_ip(self.text)

    @property
    def prefix(self) -> str:
        """The beginning of an id that was searched for; empty where none was."""
        return self.text if _prefix(self.text) else ""


def written_ip(text: str) -> str:
    """An IP in the one way of the many in which it can be written; empty where it is none."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def place_text(place: Cursor) -> str:
    return f"{place.expires}.{place.session_id}"


def read_place(text: str) -> Cursor | None:
    """The place that ``place_text`` wrote down; None where it is none."""
    expires, _, session_id = text.partition(".")
    if not re.fullmatch(r"\d{1,16}", expires, re.ASCII) or int(expires) > LATEST:
        return None
    if len(session_id) != ID_LENGTH or not is_id(session_id):
        return None
    return Cursor(int(expires), session_id)


def _places_text(places: Places) -> str:
    return ",".join(
        f"{letters}.{place_text(places[kind])}"
        for letters, kind in _by_letters.items()
        if kind in places
    )


def _read_places(text: str) -> Places | None:
    places = {}
    for part in text.split(",", len(KINDS)):
        letters, _, rest = part.partition(".")
        kind, place = _by_letters.get(letters), read_place(rest)
        if kind is None or place is None:
            return None
        places[kind] = place
    return places
