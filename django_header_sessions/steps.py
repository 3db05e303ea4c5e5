"""What touches a store, written once for sync and async: as a generator that yields what is to be
done and is sent the answer. Whoever takes it through its steps differs only at the ``await``."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
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


class Wait(NamedTuple):
    """A wait for another thread or task of the same request to be done with the session."""

    until: Future[None]


Steps = Generator[Verb | Send | Sleep | Wait, Any, T]


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be held up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
