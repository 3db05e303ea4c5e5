"""Who is told what happens to sessions in this process: nobody, unless somebody counts it."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Is told in the midst of requests, so it must be quick and must not fail."""

    def asked(self, verb: str, seconds: float, outcome: str) -> None:
        """A store was asked: what, for how long, and what became of it: ``"done"``,
        ``"queued"`` (others have the session locked), ``"not there"``, ``"superseded"``,
        ``"refused"`` (what was asked for cannot be done: a counter that holds no integer, a list
        where there is none), ``"given up"`` by whoever asked, ``"unavailable"`` or ``"failed"``."""

    def refused(self, kind: str) -> None:
        """A request was answered with this problem, by the name that ends its ``type``."""


observers: list[Observer] = []
