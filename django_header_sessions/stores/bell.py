"""Wakes those in this process who wait for a session's lock, threads and tasks alike."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from itertools import count
from typing import NamedTuple

from ..keys import make

_numbers = count()
_processes: dict[int, str] = {}


def process_name() -> str:
    """What tells this process from all others, its parent among them."""
    return _processes.get(os.getpid()) or _processes.setdefault(os.getpid(), make()[:16])


class Bell:
    """Rings for the owner of a ticket, once its turn may have come."""

    def __init__(self) -> None:
        # By process: those who wait in a parent do not wait in its fork.
        self._waiters: dict[int, dict[str, Waiter]] = {}

    def waiter(self) -> Waiter:
        """One who waits with a ticket of its own, until it is closed."""
        waiter = Waiter(self, f"{process_name()}.{next(_numbers)}")
        self._waiters.setdefault(os.getpid(), {})[waiter.ticket] = waiter
        return waiter

    @property
    def _here(self) -> dict[str, Waiter]:
        return self._waiters.get(os.getpid(), {})

    def ring(self, ticket: str) -> None:
        """Wake the owner of ``ticket``, if it is in this process and waits still."""
        waiter = self._here.get(ticket)
        if waiter is not None:
            waiter.wake()

    def ring_for_all(self) -> None:
        for waiter in list(self._here.values()):
            waiter.wake()

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._here)

    def listen(self) -> None:
        """Somebody is about to wait: hear what rings elsewhere, where there is such a thing."""

    def forget(self, ticket: str) -> None:
        self._here.pop(ticket, None)


class Waiter:
    """A ticket and its owner's sleep. Woken too early it asks again, which does no harm."""

    def __init__(self, bell: Bell, ticket: str) -> None:
        self.ticket = ticket
        self._bell = bell
        self._woken = threading.Event()
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    def wake(self) -> None:
        self._woken.set()
        if self._task is not None:
            loop, sleep = self._task
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_end, sleep)

    def wait(self, seconds: float) -> None:
        """Sleep until woken, at most for so long; not at all if woken since the last sleep."""
        self._bell.listen()
        self._woken.wait(seconds)
        self._woken.clear()

    async def await_(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        sleep = loop.create_future()
        self._task = loop, sleep
        self._bell.listen()
        if not self._woken.is_set():
            # Not asyncio.wait_for, which goes round the loop twice more: that adds up, as those
            # who wait do so one after the other.
            alarm = loop.call_later(seconds, _end, sleep)
            try:
                await sleep
            finally:
                alarm.cancel()
        self._task = None
        self._woken.clear()

    def close(self) -> None:
        self._bell.forget(self.ticket)


class Sleep(NamedTuple):
    """A wait for others that have the session, for so many seconds at the most."""

    waiter: Waiter
    seconds: float


def _end(sleep: asyncio.Future[None]) -> None:
    if not sleep.done():
        sleep.set_result(None)
