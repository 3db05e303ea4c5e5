"""What the auth object adds to a call of httpx and httpx2, in microseconds, without any I/O.

    python -m benchmarks.client.overhead

Calls with and without it take turns; the least median of many batches is what the machine can
do when nothing else runs on it. Aim: under 15 µs; a miss is printed, not an error. Writes
`overhead.md` beside this file.
"""

from __future__ import annotations

import importlib
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import described

AIM = 15
BATCHES, CALLS = 20, 300
URL = "https://example.com/api/state/"


def batch(client: Any) -> float:
    """The median of some calls, in microseconds."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        client.get(URL)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def main() -> None:
    lines = [
        f"What the auth object adds to a call without any I/O; {described()}.",
        "",
        "| library | bare, µs | more with a session, µs | under 15 |",
        "|---|---:|---:|---|",
    ]
    for name in ("httpx", "httpx2"):
        library = importlib.import_module(name)
        module = importlib.import_module(f"django_header_sessions.clients.{name}")

        def answer(request: Any, library: Any = library) -> Any:
            return library.Response(200, headers={"X-Session-Expires-In": "1800"})

        transport = library.MockTransport(answer)
        session = module.HeaderSession(key="a" * 40, origin=URL)
        with (
            library.Client(transport=transport) as bare,
            library.Client(transport=transport, auth=session) as keyed,
        ):
            pairs = [(batch(bare), batch(keyed)) for _ in range(BATCHES)]
        without, with_session = (min(times) for times in zip(*pairs, strict=True))
        more = with_session - without
        verdict = "yes" if more < AIM else "NO"
        version = f"{name} {library.__version__}"
        lines.append(f"| {version} | {without:.1f} | {more:.1f} | {verdict} |")
    text = "\n".join([*lines, ""])
    print(text)
    Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
