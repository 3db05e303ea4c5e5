"""What touches a store, written once for sync and async: as a generator that yields what is to be
done and is sent the answer. Whoever takes it through its steps differs only at the ``await``."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, TypeVar

from django.dispatch import Signal

from .stores.bell import Waiter

T = TypeVar("T")


class Verb(NamedTuple):
    """A verb of the store, and what it is told."""

    name: str
    args: tuple[Any, ...] = ()


class Send(NamedTuple):
    """A signal, and what it says."""

    signal: Signal
    sender: Any
    kwargs: dict[str, Any]


class Sleep(NamedTuple):
    """A wait for others that have the session, for so many seconds at the most."""

    waiter: Waiter
    seconds: float


Steps = Generator[Verb | Send | Sleep, Any, T]
