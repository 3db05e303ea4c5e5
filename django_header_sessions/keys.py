"""The session key: what a client sends to be known again.

A key is 40 characters of ``[a-z0-9]``: the session id (15 characters, a public name) followed
by the secret (25 characters, 129 bits). Whoever has the key has the session, so it is handled
like a password: a store keeps only a hash of the secret.
"""

from __future__ import annotations

import hashlib
import os
import re
import string

ID_LENGTH = 15
KEY_LENGTH = 40
ALPHABET = string.ascii_lowercase + string.digits

_well_formed = re.compile(r"[a-z0-9]{40}", re.ASCII).fullmatch
_well_formed_id = re.compile(r"[a-z0-9]{15}", re.ASCII).fullmatch

# 252 is the largest multiple of 36 that a byte can hold: bytes from there on are rejected, since
# to fold them in would make the first four characters of the alphabet likelier than the others.
_FAIR = 256 - 256 % len(ALPHABET)
_TABLE = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
_REJECTED = bytes(range(_FAIR, 256))


class SessionKey(str):
    """A well-formed session key, whose ``repr`` shows the id alone.

    ``str(key)`` is the whole key, because that is what a header or a cookie needs; ``repr`` is
    what debuggers, error pages and log lines of containers show.
    """

    __slots__ = ()

    @property
    def id(self) -> str:
        """The public name of the session: for people, logs, the admin and URLs."""
        return self[:ID_LENGTH]

    @property
    def secret_hash(self) -> bytes:
        """The first 128 bits of the sha256 of the secret: what a store keeps."""
        return hashlib.sha256(self[ID_LENGTH:].encode("ascii")).digest()[:16]

    def __repr__(self) -> str:
        return f"<session key {self.id}…>"


class Hidden(str):
    """Text that may hold a session key, and whose ``repr`` shows nothing of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


class HiddenBytes(bytes):
    """The same as bytes: how a header lies in an ASGI scope."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


def make(session_id: str = "") -> SessionKey:
    """Draw a new key; with ``session_id``, a new secret for that session."""
    wanted = KEY_LENGTH - len(session_id)
    drawn = b""
    while len(drawn) < wanted:
        drawn += os.urandom(wanted + 8).translate(_TABLE, _REJECTED)
    return SessionKey(session_id + drawn[:wanted].decode("ascii"))


def parse(text: object) -> SessionKey | None:
    """``text`` as a session key, or ``None`` if it is not one; touches no store."""
    if isinstance(text, SessionKey):
        return text
    if isinstance(text, str) and _well_formed(text):
        return SessionKey(text)
    return None


def is_id(text: object) -> bool:
    """Whether ``text`` has the form of a session id."""
    return isinstance(text, str) and _well_formed_id(text) is not None
