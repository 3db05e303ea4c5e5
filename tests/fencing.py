"""A holder of a session's lock that is stopped for longer than its lease, and then goes on.

Run as a module it is the holder, a process of its own: for each line it reads it locks the session
of that key, says so, waits for another line, and tries to store what it made of what it read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Self

import django
import redis

from .processes import ROOT

LEASE = 0.03
"""Seconds."""


class Holder:
    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fencing"],
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "REDIS_URL": url},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.go_on()
        self._process.communicate()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin)

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def stale_writes(url: str, runs: int) -> Iterator[str]:
    """What became of each of so many holders that were stopped for longer than their lease: what
    they said, and ``"stale"`` where what they wrote was stored."""
    from django_header_sessions.engine import SessionStore

    client: Any = redis.Redis.from_url(url)
    session = SessionStore(transport="header")
    session["n"] = 0
    session.save()
    key = str(session.session_key)
    with client, Holder(url) as holder:
        for run in range(runs):
            holder.say(key)
            assert holder.hear() == "locked"
            holder.stop()
            (lock,) = client.keys(f"*:l:{key[:15]}") or [None]
            while lock is not None and client.exists(lock):
                pass  # for as long as the lease
            taken = run % 2 == 0  # by somebody else, or by nobody
            mine = SessionStore(key, transport="header")
            if taken:
                with mine.serialized(wait=0):
                    mine["n"] = run + 1
            else:
                mine["n"] = run + 1
                mine.save()
            holder.say("go on")
            holder.go_on()
            said = holder.hear()
            stored = SessionStore(key, transport="header")
            yield said if stored["n"] == run + 1 else "stale"


def tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def hold() -> None:
    from django_header_sessions.engine import SessionStore
    from django_header_sessions.exceptions import LeaseExpired

    for line in sys.stdin:
        said = "stored"
        try:
            with SessionStore(line.strip(), transport="header").serialized(lease=LEASE) as session:
                n = session["n"]
                tell("locked")
                sys.stdin.readline()
                session["n"] = n - 1_000_000
        except LeaseExpired:
            said = "refused"
        tell(said)


if __name__ == "__main__":
    django.setup()
    hold()
