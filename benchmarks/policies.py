#!/usr/bin/env python
"""What it costs to have a session to oneself: many requests at once on one session, and on many.

Two server processes (uvicorn) share one Valkey; every request thinks for 5 ms between what it
reads and what it writes. All kinds take turns, in the same minutes. What the requests take when
nobody waits is measured too, one after the other: a server adds to the 5 ms what it adds to all.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.processes import Process, Valkey, free_port

CALLS = 50
"""Requests at once."""

NAMES = {
    "serialized": "serialized, all at once",
    "polled": "a lock that polls, all at once",
    "in turn": "merge, one after the other",
}

WORK = 0.005
"""Seconds that each of them thinks, as ``policies_site.py`` has it."""


class Server(Process):
    def __init__(self, url: str) -> None:
        self.port = free_port()
        super().__init__(
            *(sys.executable, "-m", "uvicorn", "benchmarks.policies_site:application"),
            *("--port", str(self.port), "--host", "127.0.0.1"),
            *("--lifespan", "off", "--log-level", "warning", "--timeout-keep-alive", "60"),
            env={"REDIS_URL": url},
        )
        self.wait_until(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Caller:
    """One connection that is kept open, and asks one thing after the other."""

    async def connected(self, port: int) -> Caller:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def ask(self, path: str, key: str | None) -> tuple[int, dict[str, str], str]:
        header = f"X-Session-Key: {key}\r\n" if key else ""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(status.split(" ")[1]), headers, body.decode()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def run(callers: list[Caller], path: str, keys: list[str]) -> tuple[float, list[int]]:
    """Seconds until all are answered, and what each was answered, in the order of their asking."""
    began = time.perf_counter()
    answers = await asyncio.gather(
        *[caller.ask(path, key) for caller, key in zip(callers, keys, strict=True)]
    )
    took = time.perf_counter() - began
    assert {status for status, _, _ in answers} == {200}, answers[:3]
    return took, [int(body) for _, _, body in answers]


async def run_in_turn(callers: list[Caller], path: str, key: str) -> tuple[float, list[int]]:
    """The same with each asked when the one before was answered."""
    began = time.perf_counter()
    answers = [await caller.ask(path, key) for caller in callers]
    return time.perf_counter() - began, [int(body) for _, _, body in answers]


async def measure(ports: list[int], rounds: int) -> None:
    callers = [await Caller().connected(ports[at % len(ports)]) for at in range(CALLS)]
    keys = [(await caller.ask("/merge/", None))[1]["x-session-key"] for caller in callers]
    one: dict[str, list[float]] = {"serialized": [], "polled": [], "in turn": []}
    many: dict[str, list[float]] = {"merge": [], "serialized": []}
    lost = dict.fromkeys(one, 0)
    for at in range(rounds):
        key = keys[at % CALLS]
        for name, found in one.items():
            if name == "in turn":
                took, numbers = await run_in_turn(callers, "/merge/", key)
            else:
                took, numbers = await run(callers, f"/{name}/", [key] * CALLS)
            lost[name] += CALLS - len(set(numbers))
            # The first run starts the listeners, and is not counted.
            if at:
                found.append(took)
        # Whoever goes second finds the machine warmer, or busier: each does in turn.
        for name in sorted(many, reverse=bool(at % 2)):
            took, _ = await run(callers, f"/{name}/", keys)
            if at:
                many[name].append(took)
        print(f"\r{at + 1} of {rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    for caller in callers:
        await caller.close()

    work, in_turn = CALLS * WORK, statistics.median(one["in turn"])
    print(f"{CALLS} requests of 5 ms, two server processes, medians of {rounds - 1}\n")
    print(f"{'on one session':<34}{'ms':>8}{'× 5 ms':>12}{'× in turn':>12}{'lost':>8}")
    ratio_of = {
        name: statistics.median(a / b for a, b in zip(found, one["in turn"], strict=True))
        for name, found in one.items()
    }
    for name, found in one.items():
        took = statistics.median(found)
        print(
            f"  {NAMES[name]:<32}{took * 1000:>8.0f}{took / work:>12.2f}{ratio_of[name]:>12.2f}"
            f"{lost[name]:>8}"
        )
    print(f"\n{'on ' + str(CALLS) + ' sessions, all at once':<34}{'ms':>8}{'× merge':>12}")
    ratio = statistics.median(a / b for a, b in zip(many["serialized"], many["merge"], strict=True))
    for name, found in many.items():
        shown = 1 if name == "merge" else ratio
        print(f"  {name:<32}{statistics.median(found) * 1000:>8.0f}{shown:>12.2f}")
    aims = {
        "one session: at most 1.3 times the same requests in turn": ratio_of["serialized"] <= 1.3,
        "many sessions: within 10 % of merge": ratio <= 1.1,
        "nothing lost": lost["serialized"] == 0,
    }
    print(
        f"\nof the requests in turn {in_turn / work - 1:.0%} is the servers' and the client's own"
    )
    for aim, reached in aims.items():
        print(f"{'reached' if reached else 'MISSED '}  {aim}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    with Valkey() as valkey, Server(valkey.url) as one, Server(valkey.url) as two:
        asyncio.run(measure([one.port, two.port], rounds))


if __name__ == "__main__":
    main()
