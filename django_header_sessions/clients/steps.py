"""What a flow asks its library to do, step by step, and what a client holds meanwhile."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from django_header_sessions.clients.answers import Answer
from django_header_sessions.clients.keys import SessionKey

__all__ = ["Flight", "Held", "Launch", "Lead", "Renew", "Sleep", "Step", "Steps", "Wait"]

NEW = "new"

Renew = Callable[[], object]
Lead = concurrent.futures.Future[None]


class Held:
    """What the client held at one moment: a key, or none. Compared by identity.

    As a step: send the request with `value` as its session header, and send the `Answer` back.

    `awaited` has one entry for each call that was sent with it and is not yet answered; `line` is
    shared by all that succeed each other by rotation or renewal, so that a call which was sent
    with one may be repeated with another. The rest is about the time without a key: `leader` is
    done when the call that goes alone is (`owner` made it), `tried` is true once such a call was
    answered without making a session, `lost` is the id of the session that was there before and
    must be renewed before anything else is sent, and `failed` the renewal of it that came to
    nothing.
    """

    __slots__ = (
        "awaited",
        "expires_at",
        "failed",
        "key",
        "leader",
        "line",
        "lost",
        "owner",
        "tried",
        "value",
    )

    def __init__(
        self, key: SessionKey | None, lost: str | None = None, line: object = None
    ) -> None:
        self.key = key
        self.value: str = NEW if key is None else key
        self.line = object() if line is None else line
        self.awaited: set[object] = set()
        self.expires_at: float | None = None
        self.lost = lost
        self.failed: Flight | None = None
        self.leader: concurrent.futures.Future[None] | None = None
        self.owner: object = None
        self.tried = False


class Flight:
    """One run of `renew`, for all calls that need it. `done` never holds an exception."""

    __slots__ = ("deadline", "done", "error", "lost", "renew")

    def __init__(self, renew: Renew, lost: str | None, seconds: float) -> None:
        self.renew = renew
        self.lost = lost
        self.deadline = time.monotonic() + seconds
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.error: BaseException | None = None


@dataclass(slots=True)
class Wait:
    """Wait until `future` is done, at most `seconds` (`None`: as long as it takes)."""

    future: concurrent.futures.Future[None]
    seconds: float | None


@dataclass(slots=True)
class Sleep:
    """Do nothing for `seconds`."""

    seconds: float


@dataclass(slots=True)
class Launch:
    """Run `Flow.run(flight)` or `Flow.arun(flight)` on the side; do not wait for it."""

    flight: Flight


Step = Held | Wait | Sleep | Launch
Steps = Generator[Step, Answer | None, None]
