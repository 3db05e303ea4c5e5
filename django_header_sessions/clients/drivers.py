"""The two ways to do a step that is not sending: in a thread, and in a task."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django_header_sessions.clients.steps import Held, Launch, Sleep, Steps, Wait

if TYPE_CHECKING:
    from django_header_sessions.clients.flow import Flow

__all__ = ["adrive", "aperform", "aside", "drive", "perform"]


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
