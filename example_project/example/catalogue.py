"""The shipped catalogue of musical instruments, and the search in it."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Instrument:
    """One line of ``catalogue.csv``; ``price`` is in whole euros."""

    id: int
    name: str
    maker: str
    category: str
    year: int
    price: int
    description: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def search(query: str) -> Sequence[Instrument]:
    """All instruments that have every word of ``query`` somewhere in their texts, in file order.

    Upper and lower case are the same, parts of words count, and no words at all find everything.
    """
    words = query.casefold().split()
    return [instrument for text, instrument in _catalogue() if all(word in text for word in words)]


@cache
def _catalogue() -> Sequence[tuple[str, Instrument]]:
    # Read when first asked for, not at import: commands such as migrate need none of it.
    with Path(__file__).with_name("catalogue.csv").open(encoding="utf-8", newline="") as file:
        return [_entry(row) for row in csv.DictReader(file)]


def _entry(row: dict[str, str]) -> tuple[str, Instrument]:
    instrument = Instrument(
        id=int(row["id"]),
        name=row["name"],
        maker=row["maker"],
        category=row["category"],
        year=int(row["year"]),
        price=int(row["price"]),
        description=row["description"],
    )
    texts = (instrument.name, instrument.maker, instrument.category, instrument.description)
    return "\n".join(texts).casefold(), instrument
