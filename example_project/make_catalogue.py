#!/usr/bin/env python
"""Write ``example/catalogue.csv``: 3,000 invented musical instruments, the same on every run."""

import csv
from collections.abc import Sequence
from pathlib import Path
from random import Random

COUNT = 3000

MAKERS = (
    "Alder & Finch", "Bellweather", "Brightwater", "Calloway", "Dunmore", "Eastlake", "Fernhill",
    "Greystone", "Harrow & Sons", "Ironwood", "Juniper", "Kestrel", "Larkspur", "Mill Lane",
    "Northgate", "Ostrava", "Pennywhistle", "Quillon", "Rosenthal", "Sorrento", "Tamarind",
    "Umberfield", "Velasco", "Westerly",
)  # fmt: skip

SERIES = (
    "Amber", "Anthem", "Arcadia", "Aurora", "Ballad", "Canyon", "Cascade", "Concord", "Dakota",
    "Ember", "Estuary", "Falcon", "Gala", "Harbour", "Heritage", "Indigo", "Lantern", "Meridian",
    "Midnight", "Nocturne", "Orchard", "Overture", "Prairie", "Saffron", "Solstice", "Sonata",
    "Studio", "Tempest", "Traveller", "Vesper", "Virtuoso", "Willow",
)  # fmt: skip

# category: its kinds with the price of a plain one, its materials, its features
CATEGORIES: dict[str, tuple[dict[str, int], Sequence[str], Sequence[str]]] = {
    "guitars": (
        {
            "classical guitar": 320, "concert guitar": 780, "12-string guitar": 640,
            "electric guitar": 590, "bass guitar": 620, "resonator guitar": 710, "ukulele": 110,
        },
        ("spruce", "cedar", "mahogany", "rosewood", "maple", "koa"),
        ("a slim neck", "a built-in tuner", "a cutaway body", "a padded bag", "a bone saddle"),
    ),
    "bowed strings": (
        {"violin": 650, "viola": 820, "cello": 1900, "double bass": 3400, "hardanger fiddle": 1500},
        ("spruce", "flamed maple", "ebony", "willow", "carbon fibre"),
        ("hand-carved scroll", "a pernambuco bow", "oil varnish", "a fitted case", "fine tuners"),
    ),
    "plucked strings": (
        {"banjo": 430, "mandolin": 380, "lute": 1400, "lap harp": 520, "zither": 460, "oud": 690},
        ("walnut", "maple", "spruce", "cherry", "rosewood"),
        ("geared tuners", "nylon strings", "a travel case", "inlaid rosette", "a low action"),
    ),
    "keyboards": (
        {
            "stage piano": 1200, "synthesizer": 900, "accordion": 1600, "harmonium": 740,
            "celesta": 5200, "melodica": 60, "clavichord": 4100,
        },
        ("beech", "ash", "walnut", "brushed aluminium", "lacquered steel"),
        ("weighted keys", "a folding stand", "two manuals", "silent pedals", "a headphone jack"),
    ),
    "woodwind": (
        {
            "flute": 480, "piccolo": 420, "clarinet": 560, "oboe": 1700, "bassoon": 4600,
            "alto saxophone": 1150, "tenor saxophone": 1450, "recorder": 45,
        },
        ("grenadilla", "pear wood", "nickel silver", "olive wood", "maple", "resin"),
        ("split-E mechanism", "silver-plated keys", "a double case", "leather pads", "a swab set"),
    ),
    "brass": (
        {
            "trumpet": 540, "cornet": 510, "flugelhorn": 760, "trombone": 690, "french horn": 2300,
            "euphonium": 1800, "tuba": 3900,
        },
        ("yellow brass", "rose brass", "gold brass", "nickel silver", "raw copper"),
        ("steel pistons", "a first-slide trigger", "rotary valves", "a large bore", "a gig bag"),
    ),
    "percussion": (
        {
            "snare drum": 260, "djembe": 190, "cajon": 130, "marimba": 3300, "vibraphone": 3700,
            "timpani": 2900, "glockenspiel": 150, "frame drum": 90, "tambourine": 35,
        },
        ("birch", "rosewood", "maple", "bubinga", "hammered bronze", "steel"),
        ("a goat-skin head", "die-cast hoops", "soft mallets", "height-adjustable legs", "a bag"),
    ),
}  # fmt: skip

PLAYERS = ("beginners", "students", "schools", "touring players", "studio work", "orchestras",
           "folk sessions", "small hands")  # fmt: skip
TONES = ("warm", "bright", "dark", "clear", "mellow", "singing", "dry", "rich", "focused")
FINISHES = ("satin", "gloss", "matt", "natural", "sunburst", "antique")


def instruments(count: int) -> list[dict[str, str | int]]:
    # Of Python's generator only random() promises the same sequence in every version.
    draw = Random("a catalogue of instruments").random

    def pick(choices: Sequence[str]) -> str:
        return choices[int(draw() * len(choices))]

    made: dict[str, dict[str, str | int]] = {}
    while len(made) < count:
        category = pick(tuple(CATEGORIES))
        kinds, materials, features = CATEGORIES[category]
        kind, maker = pick(tuple(kinds)), pick(MAKERS)
        name = f"{pick(SERIES)} {kind}"
        made.setdefault(
            f"{maker} {name}",
            {
                "id": len(made) + 1,
                "name": name,
                "maker": maker,
                "category": category,
                "year": 1950 + int(draw() * 75),
                "price": round(kinds[kind] * (0.6 + 1.8 * draw())),
                "description": f"{pick(FINISHES).capitalize()} {pick(materials)} with "
                f"{pick(features)}; a {pick(TONES)} tone for {pick(PLAYERS)}.",
            },
        )
    return list(made.values())


def main() -> None:
    rows = instruments(COUNT)
    path = Path(__file__).parent / "example" / "catalogue.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
