"""System checks: one id, one condition, one hint that says what to do. Ids are never reused.

``docs/checks.md`` lists them all.
"""

from . import cors, header, neighbours, stores, urls, values, wiring

__all__ = ["cors", "header", "neighbours", "stores", "urls", "values", "wiring"]
