"""The headers panel of django-debug-toolbar, without the session key."""

from __future__ import annotations

from typing import Any

from debug_toolbar.panels import headers

from .conf import conf

MASK = "********************"


class HeadersPanel(headers.HeadersPanel):
    """The toolbar's own with the session header masked, in the request and in the answer.

    It stands in ``DEBUG_TOOLBAR_PANELS`` in the place of the toolbar's. What a panel shows the
    toolbar keeps, in memory, in a cache or in the database.
    """

    def record_stats(self, stats: dict[str, Any]) -> None:
        masked = {name: _masked(shown) for name, shown in stats.items()}
        super().record_stats(masked)  # type: ignore[no-untyped-call]


def _masked(shown: dict[str, Any]) -> dict[str, Any]:
    header = conf.HEADER_SESSIONS_HEADER.lower()
    return {name: MASK if name.lower() == header else value for name, value in shown.items()}
