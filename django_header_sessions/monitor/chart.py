"""The last hour as a chart: creations up, ends and expiries down, a bar each minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from django.utils import timezone
from django.utils.formats import time_format
from django.utils.translation import gettext as _

from ..registry import Activity

HALF = 50
"""Height of the tallest bar, in the chart's own units; ``STEP`` is a minute's width."""
STEP = 10


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
                self._height(one.ended),
                self._height(one.expired),
                _("%(time)s: %(created)d created, %(ended)d ended, %(expired)d expired")
                % {
                    "time": time_format(timezone.localtime(one.start), "H:i"),
                    "created": one.created,
                    "ended": one.ended,
                    "expired": one.expired,
                },
            )
            for at, one in enumerate(self.activity)
            if one.created or one.ended or one.expired
        ]

    def _height(self, number: int) -> float:
        # However few they are, they are to be seen.
        return round(max(HALF * number / self.most, 1), 1) if number else 0
