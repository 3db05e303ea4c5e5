"""Serializers as a project may have them."""

from __future__ import annotations

import json
import os
import pickle
from typing import Any, cast


class Upside:
    """JSON read from its end: a serializer that is simply another one."""

    def dumps(self, obj: Any) -> bytes:
        return json.dumps(obj).encode()[::-1]

    def loads(self, data: bytes) -> Any:
        return json.loads(data[::-1])


class Encrypting:
    """A toy cipher that, like a real one, never writes the same value twice in the same way."""

    def dumps(self, obj: Any) -> bytes:
        plain, nonce = json.dumps(obj).encode(), os.urandom(8)
        return nonce + _xor(plain, nonce)

    def loads(self, data: bytes) -> Any:
        return json.loads(_xor(data[8:], data[:8]))


class Pickling:
    """Reads back whatever Python has, a datetime say."""

    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


class Noting(Upside):
    """Notes what it read, so that a test can tell what was not."""

    read: list[Any] = []  # noqa: RUF012  one list for all, emptied by the test

    def loads(self, data: bytes) -> Any:
        found = super().loads(data)
        self.read.append(found)
        return found


def _xor(text: bytes, nonce: bytes) -> bytes:
    return bytes(byte ^ nonce[at % 8] ^ 0x5A for at, byte in enumerate(text))


def path(serializer: type[Any]) -> str:
    """For ``SESSION_SERIALIZER``."""
    return f"{serializer.__module__}.{cast('Any', serializer).__qualname__}"
