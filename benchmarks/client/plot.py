"""The benchmark's plot, as an SVG that is legible on light and on dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; fill: #24292f }
.grid { stroke: #8c959f; stroke-opacity: .35 }
.http { fill: #bf5b04; stroke: #bf5b04 }
.https { fill: #0b6bcb; stroke: #0b6bcb }
.hollow { fill: none; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) {
  text { fill: #9da7b3 }
  .title { fill: #e6edf3 }
  .http { fill: #f0a35e; stroke: #f0a35e }
  .https { fill: #6cb6ff; stroke: #6cb6ff }
  .hollow { fill: none }
}
"""
LEFT, TOP, WIDTH, ROW, GAP = 178, 64, 170, 22, 18
LOWEST, HIGHEST = 0.5, 2000.0
TICKS = (1, 10, 100, 1000)


def draw(
    results: Mapping[tuple[str, str, int, int], Mapping[str, float]], modes: Sequence[str]
) -> str:
    """One panel for each network and amount of work; a row for each mode; time runs logarithmic."""
    works = sorted({key[2] for key in results})
    trips = sorted({key[3] for key in results})
    height = ROW * len(modes)
    total_width = LEFT + len(trips) * (WIDTH + GAP)
    total_height = TOP + len(works) * (height + 58)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}">',
        f"<title>Milliseconds a call</title><style>{STYLE}</style>",
        '<text class="title" x="8" y="18">Milliseconds a call; further left is better</text>',
    ]
    x = 8.0
    for scheme in ("http", "https"):
        for library, kind in (("httpx", ""), ("aiohttp", " hollow")):
            parts.append(f'<circle class="{scheme}{kind}" cx="{x + 5}" cy="36" r="4.5"/>')
            parts.append(f'<text x="{x + 14}" y="40">{library}, {scheme.upper()}</text>')
            x += 110
    for row, work in enumerate(works):
        top = TOP + 22 + row * (height + 58)
        for index, mode in enumerate(modes):
            y = top + ROW * (index + 0.5) + 4
            parts.append(f'<text x="{LEFT - 10}" y="{y}" text-anchor="end">{mode}</text>')
        for column, trip in enumerate(trips):
            left = LEFT + column * (WIDTH + GAP)
            place = "loopback" if trip == 0 else f"{trip} ms round trip"
            kind = "no work" if work == 0 else f"{work} ms tool"
            parts.append(f'<text class="title" x="{left}" y="{top - 8}">{place}, {kind}</text>')
            for tick in TICKS:
                at = left + position(tick)
                parts.append(
                    f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" '
                    f'y2="{top + height}"/>'
                    f'<text x="{at:.1f}" y="{top + height + 14}" text-anchor="middle">{tick}</text>'
                )
            for (library, scheme, for_work, for_trip), times in results.items():
                if (for_work, for_trip) != (work, trip):
                    continue
                hollow = " hollow" if library == "aiohttp" else ""
                shift = -4 if scheme == "http" else 4
                for index, mode in enumerate(modes):
                    parts.append(
                        f'<circle class="{scheme}{hollow}" '
                        f'cx="{left + position(times[mode]):.1f}" '
                        f'cy="{top + ROW * (index + 0.5) + shift:.1f}" r="3.6">'
                        f"<title>{library}, {scheme}, {mode}: {times[mode]:.1f} ms</title>"
                        "</circle>"
                    )
    parts.append("</svg>\n")
    return "\n".join(parts)


def position(ms: float) -> float:
    """How far right in its panel a time belongs."""
    share = math.log(max(ms, LOWEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return min(1.0, share) * WIDTH
