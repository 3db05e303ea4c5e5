"""A store whose every verb is timed, and told to the observers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..exceptions import (
    ListingNotSupported,
    SessionEnded,
    SessionSuperseded,
    SessionUnavailable,
)
from ..observer import observers
from .base import Queued, Store

VERBS = (
    "open create commit lock unlock open_context contexts end_context end end_many exists get "
    "get_many count page page_each of_user places_of_user sweep activity memory"
).split()


class ObservedStore:
    """Does what ``store`` does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        for verb in VERBS:
            setattr(self, verb, _timed(verb, getattr(store, verb)))
            setattr(self, f"a{verb}", _atimed(verb, getattr(store, f"a{verb}")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _timed(verb: str, ask: Callable[..., Any]) -> Callable[..., Any]:
    def asked(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            answer = ask(*args, **kwargs)
        except BaseException as error:
            _tell(verb, start, _failure(error))
            raise
        _tell(verb, start, _outcome(answer))
        return answer

    return asked


def _atimed(verb: str, ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def asked(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            answer = await ask(*args, **kwargs)
        except BaseException as error:
            _tell(verb, start, _failure(error))
            raise
        _tell(verb, start, _outcome(answer))
        return answer

    return asked


def _tell(verb: str, start: float, outcome: str) -> None:
    seconds = time.perf_counter() - start
    for observer in observers:
        observer.asked(verb, seconds, outcome)


def _outcome(answer: object) -> str:
    if isinstance(answer, Queued):
        return "queued"
    return "done" if answer is not None else "not there"


def _failure(error: BaseException) -> str:
    if isinstance(error, SessionUnavailable):
        return "unavailable"
    if isinstance(error, SessionSuperseded):
        return "superseded"
    if isinstance(error, SessionEnded):
        return "not there"
    if isinstance(error, ListingNotSupported | OverflowError | TypeError):
        return "refused"
    # Whoever asked was cancelled, or is being stopped.
    return "failed" if isinstance(error, Exception) else "given up"
