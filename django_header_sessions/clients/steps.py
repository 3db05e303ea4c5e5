"""What a flow asks its library to do, step by step, and what a client holds meanwhile.

What is not sending is done here, in a thread or in a task.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .answers import Answer
from .keys import SessionKey

if TYPE_CHECKING:
    from .flow import Flow

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
    nothing. `through` are the renewals that were to bring a key, and did.
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
        "through",
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
        self.through: tuple[Flight, ...] = ()
        self.tried = False


class Flight:
    """One run of `renew`, for all calls that need it. `done` never holds an exception."""

    __slots__ = ("deadline", "done", "error", "launched", "lost", "renew")

    def __init__(self, renew: Renew, lost: str | None, seconds: float) -> None:
        self.renew = renew
        self.lost = lost
        self.deadline = time.monotonic() + seconds
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.error: BaseException | None = None
        self.launched = False


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


def perform(flow: Flow, step: Wait | Sleep | Launch) -> None:
    """Do a step in this thread."""
    if isinstance(step, Wait):
        seconds = None if step.seconds is None else min(step.seconds, threading.TIMEOUT_MAX)
        concurrent.futures.wait([step.future], seconds)
    elif isinstance(step, Sleep):
        time.sleep(step.seconds)
    else:
        aside(functools.partial(flow.run, step.flight))


def aside(work: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Begin `work` in a thread that nobody waits for when the program, or its loop, ends.

    So that a renewal that hangs keeps neither of them from ending.
    """
    done: concurrent.futures.Future[Any] = concurrent.futures.Future()
    # From now on whoever waits for it cannot cancel it.
    done.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(result)

    threading.Thread(target=run, name="session-renew", daemon=True).start()
    return done


_tasks: set[asyncio.Task[None]] = set()


async def aperform(flow: Flow, step: Wait | Sleep | Launch) -> None:
    """Do a step in this task; cancelling it cancels nobody else's wait."""
    if isinstance(step, Wait):
        await asyncio.wait([asyncio.wrap_future(step.future)], timeout=step.seconds)
    elif isinstance(step, Sleep):
        await asyncio.sleep(step.seconds)
    else:
        task = asyncio.get_running_loop().create_task(flow.arun(step.flight))
        # The loop keeps weak references only.
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        task.add_done_callback(lambda _: flow.grounded(step.flight))


def drive(flow: Flow, steps: Steps) -> None:
    """Run steps that send nothing, in this thread."""
    for step in steps:
        assert not isinstance(step, Held)
        perform(flow, step)


async def adrive(flow: Flow, steps: Steps) -> None:
    """Run steps that send nothing, in this task."""
    for step in steps:
        assert not isinstance(step, Held)
        await aperform(flow, step)
