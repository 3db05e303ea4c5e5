"""What a page of the list is asked for: filters, a search, a place; read from its address."""

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

_prefix = re.compile(r"[a-z0-9]{2,14}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True)
class Query:
    """One address of the list. What in it made no sense is left out, and ``wrong`` is true."""

    text: str = ""
    user: str = ""
    transport: str = ""
    signed_in: bool | None = None
    idle: int = 0
    place: Cursor | None = None
    backward: bool = False
    """Whether the sessions before ``place`` are asked for, not those behind it."""
    refresh: bool = False
    wrong: bool = False
    leaked: bool = False
    """Whether somebody searched for a session key, which now lies in logs and histories."""

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Query:
        text = str(parameters.get("q", "")).replace("\0", "").strip()[:200]
        key = parse(text)
        query = cls(
            text=key.id if key else text,
            user=str(parameters.get("user", ""))[:200],
            refresh=parameters.get("refresh") == str(REFRESH),
            leaked=key is not None,
        )
        wrong = False
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
            place = _place(
                parameters.get("expires"), parameters.get("before" if backward else "after")
            )
            wrong |= place is None
            query = replace(query, place=place, backward=backward and place is not None)
        return replace(query, wrong=wrong)

    def address(self, **changes: Any) -> str:
        """The address of the same list with these changes: its beginning, unless they name a
        place."""
        other = replace(self, **({"place": None, "backward": False} | changes))
        parameters = {
            "q": other.text,
            "user": other.user,
            "transport": other.transport,
            "signed_in": {True: "yes", False: "no", None: ""}[other.signed_in],
            "idle": other.idle or "",
            "refresh": REFRESH if other.refresh else "",
        }
        if other.place is not None:
            parameters["expires"] = other.place.expires
            parameters["before" if other.backward else "after"] = other.place.session_id
        return "?" + urlencode({name: value for name, value in parameters.items() if value})

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
        """Whether the list is turned round, first to expire first: those that were idle longest
        stand there, and need not be looked for among all."""
        return bool(self.idle and not self.text and not self.user)

    @property
    def session_id(self) -> str:
        """The session whose id was searched for; empty where none was."""
        return self.text if is_id(self.text) else ""

    @property
    def ip(self) -> str:
        """The IP that was searched for; empty where none was."""
        try:
            ipaddress.ip_address(self.text)
        except ValueError:
            return ""
        return self.text

    @property
    def prefix(self) -> str:
        """The beginning of an id that was searched for; empty where none was."""
        return self.text if _prefix(self.text) else ""


def _place(expires: Any, session_id: Any) -> Cursor | None:
    if not (isinstance(expires, str) and re.fullmatch(r"\d{1,16}", expires, re.ASCII)):
        return None
    if len(session_id) != ID_LENGTH or not is_id(session_id) or int(expires) > LATEST:
        return None
    return Cursor(int(expires), session_id)
