"""A circuit breaker: a server that does not answer is waited for once, and not by every request."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..conf import conf
from ..exceptions import SessionUnavailable
from .base import Outage

logger = logging.getLogger("django_header_sessions")

OVERDUE = 30
"""Seconds without a sign of life from what probes, after which requests go through again: where a
server process lets no threads run, an outage must not last for ever."""


@dataclass(slots=True)
class _Open:
    error: str
    began: float = field(default_factory=time.monotonic)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    probed: float = field(default_factory=time.monotonic)


class Breaker:
    """Closed, it lets requests through; open, it fails them at once.

    One a server and process, shared by threads and event loops. A request opens it; no request
    ever closes it, since whoever tried would wait for a whole time-out: one background thread
    calls ``probe`` every ``HEADER_SESSIONS_BREAKER_SECONDS``, and closes it when that raises no
    ``SessionUnavailable``. Nothing here takes a lock, which a fork could leave locked for ever.
    """

    def __init__(self, name: str, probe: Callable[[], object]) -> None:
        self.name = name
        self.openings = 0
        """How often it opened: connections made before the last time may lead nowhere."""
        self._probe = probe
        # At most one entry, of this process; a fork leaves its child that of the parent, whose
        # thread the child does not have. A dict, because its setdefault and pop are atomic.
        self._open: dict[int, _Open] = {}
        self._probing: dict[int, threading.Thread] = {}

    @property
    def outage(self) -> Outage | None:
        """Since when it is open, and why; None while it is closed."""
        now = self._open.get(os.getpid()) if self._open else None
        return Outage(self.name, now.since, now.error) if now else None

    def check(self) -> None:
        """Raises ``SessionUnavailable`` while it is open."""
        if not self._open:
            return
        now = self._open.get(os.getpid())
        if now is not None and time.monotonic() - now.probed < OVERDUE:
            raise SessionUnavailable(
                f"The session store {self.name} does not answer, and is not asked again before "
                f"a probe of it has passed: {now.error}"
            )

    def open(self, error: Exception) -> None:
        """Let nobody through until a probe has passed. Turned off, let everybody through, and
        probe once all the same: a probe may find out that another server is to be asked."""
        if not conf.HEADER_SESSIONS_BREAKER_SECONDS:
            self._probe_once()
            return
        mine = _Open(str(error).rstrip(".") or type(error).__name__)
        if self._open.setdefault(os.getpid(), mine) is not mine:
            return
        self.openings += 1
        logger.warning(
            "The session store %s does not answer: %s. Requests that need it get 503 at once, "
            "until a probe has passed.",
            self.name,
            mine.error,
        )
        # It holds no more than a weak reference, so that it ends with a store that was replaced.
        prober = threading.Thread(
            target=_watch,
            args=(weakref.ref(self), mine),
            name=f"header-sessions-probe {self.name}",
            daemon=True,
        )
        try:
            prober.start()
        except RuntimeError:
            # No more threads can be had: then requests wait, each for a time-out.
            self._open.pop(os.getpid(), None)

    def _probe_once(self) -> None:
        prober = threading.Thread(target=self._probe_quietly, daemon=True)
        if self._probing.setdefault(os.getpid(), prober) is prober:
            try:
                prober.start()
            except RuntimeError:
                self._probing.pop(os.getpid(), None)

    def _probe_quietly(self) -> None:
        try:
            self._probe()
        except SessionUnavailable:
            pass  # the next request that fails probes again
        finally:
            self._probing.pop(os.getpid(), None)

    def _passes(self, mine: _Open) -> bool:
        mine.probed = time.monotonic()
        try:
            self._probe()
        except SessionUnavailable:
            return False
        return True

    def _close(self, mine: _Open) -> None:
        self._open.pop(os.getpid(), None)
        logger.info(
            "Requests that need the session store %s go through again, after %.1f s.",
            self.name,
            time.monotonic() - mine.began,
        )


def _watch(ref: weakref.ref[Breaker], mine: _Open) -> None:
    while (breaker := ref()) is not None:
        try:
            if breaker._passes(mine):
                breaker._close(mine)
                return
        except BaseException:
            # A bug, which is the requests' to show: it must not keep them out.
            breaker._close(mine)
            raise
        del breaker
        # Turned off meanwhile: nothing to wait for.
        time.sleep(conf.HEADER_SESSIONS_BREAKER_SECONDS or 0.1)
