"""What is the same in sync and async, written once: as a generator that yields what is to be done,
step by step, and is sent the answers. ``drive`` and ``adrive`` differ only at the ``await``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from django.dispatch import Signal

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

Steps = Generator[Any, Any, T]


class Verb(NamedTuple):
    """A verb of the store, and what it is told."""

    name: str
    args: tuple[Any, ...] = ()

    def ask(self, store: object) -> Any:
        return getattr(store, self.name)(*self.args)

    def aask(self, store: object) -> Any:
        return getattr(store, "a" + self.name)(*self.args)


class Send(NamedTuple):
    """A signal, and what it says."""

    signal: Signal
    sender: Any
    kwargs: dict[str, Any]

    def send(self) -> Any:
        return self.signal.send_robust(self.sender, **self.kwargs)

    def asend(self) -> Any:
        return self.signal.asend_robust(self.sender, **self.kwargs)


class Wait(NamedTuple):
    """A wait for another thread or task of the same request to be done with the session."""

    until: Future[None]


def drive(steps: Generator[S, Any, T], do: Callable[[S], Any]) -> T:
    """Take ``steps`` to their end. ``do`` does each; what it raises is theirs to catch, all there
    is: whoever has locked something unlocks it then."""
    try:
        step = next(steps)
        while True:
            try:
                answer = do(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def adrive(steps: Generator[S, Any, T], do: Callable[[S], Awaitable[Any]]) -> T:
    try:
        step = next(steps)
        while True:
            try:
                answer = await do(step)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def twins(
    steps: Callable[Concatenate[Any, P], Steps[T]],
) -> tuple[
    Callable[Concatenate[Any, P], T],
    Callable[Concatenate[Any, P], Coroutine[None, None, T]],
]:
    """The sync and the async method of a class whose ``_run`` and ``_arun`` take such steps."""

    @wraps(steps)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(steps(self, *args, **kwargs))  # type: ignore[no-any-return]

    @wraps(steps)
    async def arun(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._arun(steps(self, *args, **kwargs))  # type: ignore[no-any-return]

    run.__name__ = steps.__name__.removeprefix("_")
    arun.__name__ = f"a{run.__name__}"
    return run, arun


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be held up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
