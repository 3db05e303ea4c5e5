"""The last hour as a chart: creations up, ends and expiries down, a bar each minute.

Heights go by the square root, so that one rush does not flatten all the rest of the hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

from django.utils import timezone
from django.utils.formats import time_format
from django.utils.translation import gettext as _

from ..registry import Activity

HALF = 50
"""Height of the tallest bar, in the chart's own units; ``STEP`` is a minute's width."""
STEP = 10
LEAST = 6
"""Height of the lowest: however few they are, they are to be seen, and of which kind."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute: where its bars begin, and how high they are."""

    x: int
    created: float
    ended: float
    expired: float
    title: str


@dataclass(frozen=True)
class Chart:
    activity: Sequence[Activity]

    half = HALF
    height = 2 * HALF
    step = STEP
    bar = STEP - 3

    @property
    def width(self) -> int:
        return STEP * len(self.activity)

    @cached_property
    def most(self) -> int:
        """What the tallest bar stands for."""
        return max((max(one.created, one.ended + one.expired) for one in self.activity), default=0)

    @property
    def created(self) -> int:
        return sum(one.created for one in self.activity)

    @property
    def ended(self) -> int:
        return sum(one.ended for one in self.activity)

    @property
    def expired(self) -> int:
        return sum(one.expired for one in self.activity)

    @property
    def bars(self) -> list[Bar]:
        return [
            Bar(
                STEP * at + 1,
                self._height(one.created),
                *self._heights(one.ended, one.expired),
                _("%(time)s: %(created)d created, %(ended)d ended, %(expired)d expired")
                % {
                    "time": time_format(timezone.localtime(one.start), "TIME_FORMAT"),
                    "created": one.created,
                    "ended": one.ended,
                    "expired": one.expired,
                },
            )
            for at, one in enumerate(self.activity)
            if one.created or one.ended or one.expired
        ]

    def _height(self, number: int) -> float:
        return round(max(HALF * sqrt(number / self.most), LEAST), 1) if number else 0

    def _heights(self, ended: int, expired: int) -> tuple[float, float]:
        """Of two that share a bar: as high as both together, in the proportion of the two."""
        if not (ended and expired):
            return self._height(ended), self._height(expired)
        both = max(self._height(ended + expired), 2 * LEAST)
        first = min(max(both * ended / (ended + expired), LEAST), both - LEAST)
        return round(first, 1), round(both - first, 1)
