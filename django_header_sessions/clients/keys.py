"""The session key as a client has it."""

from __future__ import annotations

import re

# The parts of a key, as the server makes them: 15 characters name the session, 25 open it.
KEY = re.compile(r"[a-z0-9]{40}", re.ASCII)
ID_LENGTH = 15


class SessionKey(str):
    """A session key: a `str` whose `repr` shows its id only. `str(key)` is the key, a password."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """The public name of the session, the same for all its life."""
        return self[:ID_LENGTH]

    def __repr__(self) -> str:
        return f"<SessionKey {self[:ID_LENGTH]}…>"
