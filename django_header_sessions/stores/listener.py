"""Hears in this process what the scripts publish in others: whose turn it is to have a lock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from ..exceptions import SessionUnavailable
from .base import ASK_AGAIN
from .bell import Bell, process_name

SILENCE = 5.0
"""Seconds without a word from the server after which it is asked for one, and after as many more
the connection is held to be lost."""

LINGER = 10.0
"""Seconds that the connection is kept after the last waiter has gone."""

LOOK = 0.5
"""Seconds after which it is looked at whether anybody waits still."""


class Listener(Bell):
    """A bell with one thread and one connection a process, for as long as somebody waits.

    The connection is none of the pool's, so that those who wait take none from those who work.
    What is not heard, because the connection was lost or may not be had, costs its waiter no more
    than ``ASK_AGAIN`` milliseconds.
    """

    def __init__(self, channels: str, connection: Callable[[], Any]) -> None:
        super().__init__()
        self._channels = channels
        self._connection = connection
        # A fork leaves its child an entry of the parent, whose thread the child does not have.
        self._threads: dict[int, threading.Thread] = {}

    def listen(self) -> None:
        process = os.getpid()
        if process in self._threads:
            return
        thread = threading.Thread(target=self._hear, name="header-sessions-listener", daemon=True)
        if self._threads.setdefault(process, thread) is thread:
            try:
                thread.start()
            except RuntimeError:  # no more threads can be had: those who wait ask now and then
                self._threads.pop(process, None)

    def _hear(self) -> None:
        left = time.monotonic()
        try:
            while self.awaited or time.monotonic() - left < LINGER:
                try:
                    left = self._heard()
                except (RedisError, SessionUnavailable, OSError):
                    if not self.awaited:
                        return
                    time.sleep(ASK_AGAIN / 1000)
        finally:
            self._threads.pop(os.getpid(), None)

    def _heard(self) -> float:
        """Ring for whoever is called until nobody has waited for a while. Since when nobody has."""
        connection = self._connection()
        try:
            connection.connect()
            connection.send_command("SUBSCRIBE", self._channels + process_name())
            left = spoke = time.monotonic()
            asked: float | None = None
            while self.awaited or time.monotonic() - left < LINGER:
                now = time.monotonic()
                if self.awaited:
                    left = now
                if connection.can_read(timeout=LOOK):
                    self._understand(connection.read_response(push_request=True))
                    spoke, asked = now, None
                elif asked is None and now - spoke > SILENCE:
                    connection.send_command("PING")
                    asked = now
                elif asked is not None and now - asked > SILENCE:
                    raise SessionUnavailable("The session store has fallen silent.")
            return left
        finally:
            connection.disconnect()

    def _understand(self, message: Any) -> None:
        match message:
            case [b"subscribe", *_]:
                # Nothing was heard until now, so some may have been called already.
                self.ring_for_all()
            case [b"message", _, ticket]:
                self.ring(ticket.decode())
