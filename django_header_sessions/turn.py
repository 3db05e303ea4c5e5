"""Has what the threads and tasks of one request ask of their session go one after the other.

Two that make the session at once would make two, and two that add to a field that is not stored yet
would store one of the sums; one that sends the key that another is about to replace is refused.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from .steps import Send, Steps, Wait

P = ParamSpec("P")
T = TypeVar("T")

_taken: ContextVar[tuple[Turn, ...]] = ContextVar("_taken", default=())
"""The turns that the running code has, those that called it included."""


class Turn:
    """Whose turn it is with one session, in the order of asking."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._busy = False
        self._waiting: deque[Future[None]] = deque()

    def take(self, steps: Steps[T]) -> Steps[T]:
        """Take ``steps`` once all that came before are done. A part of those that have the turn
        already is taken at once."""
        outer = _taken.get()
        if self in outer:
            return (yield from steps)
        mine: Future[None] | None = None
        with self._guard:
            if self._busy:
                mine = Future()
                self._waiting.append(mine)
            self._busy = True
        if mine is not None:
            try:
                yield Wait(mine)
            except BaseException:
                if not mine.cancel():
                    self._pass_on()
                raise
        told: list[Send] = []
        _taken.set((*outer, self))
        try:
            return (yield from _keeping_quiet(steps, told))
        finally:
            _taken.set(outer)
            self._pass_on()
            for send in told:  # noqa: UP028  a list takes no answers
                yield send

    def _pass_on(self) -> None:
        with self._guard:
            while self._waiting:
                following = self._waiting.popleft()
                if following.set_running_or_notify_cancel():
                    following.set_result(None)
                    return
            self._busy = False


def _keeping_quiet(steps: Steps[T], told: list[Send]) -> Steps[T]:
    """``steps`` without the signals, for afterwards: a receiver may use the session itself, or need
    a thread in which somebody waits for this turn."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Send):
                told.append(step)
                step = steps.send(None)
                continue
            try:
                answer = yield step
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


class Shared(Protocol):
    """Of a session, or a part of one."""

    @property
    def turn(self) -> Turn: ...


S = TypeVar("S", bound=Shared)


def in_turn(
    steps: Callable[Concatenate[S, P], Steps[T]],
) -> Callable[Concatenate[S, P], Steps[T]]:
    """The same steps of a session, in their turn."""

    @wraps(steps)
    def taken(shared: S, /, *args: P.args, **kwargs: P.kwargs) -> Steps[T]:
        return shared.turn.take(steps(shared, *args, **kwargs))

    return taken
