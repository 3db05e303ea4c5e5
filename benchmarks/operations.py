"""What the store's verbs take of a Redis's time: ``python benchmarks/operations.py``.

Does each verb to many signed-in sessions of a Valkey that the script starts, and asks the server
what it took: by its own count of the script's microseconds, and by the processor time of its
process, which has reading from and writing to the socket in it. Redis runs scripts on one core, so
a million divided by the second figure is what one Redis can do in a second at the very most.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
from django.conf import settings

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.processes import Valkey

SESSIONS = 10_000
SHORT = 32_000
"""An idle timeout in milliseconds. A session slides after 1/32 of it, which is waited for."""

FIELDS = {
    "_auth_user_backend": b"django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": b"3f" * 32,
    "query": b"stainless steel hinges",
    "page": b"3",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a call."""

    script: float
    process: float


@contextmanager
def measured(valkey: Valkey, calls: int, into: dict[str, Cost], name: str) -> Iterator[None]:
    def spent() -> tuple[float, float]:
        cpu: Any = valkey.client.info("cpu")
        scripts: Any = valkey.client.info("commandstats")
        by_script = scripts.get("cmdstat_evalsha", {"usec": 0})["usec"]
        return by_script, (cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6

    before = spent()
    yield
    script, process = (after - earlier for after, earlier in zip(spent(), before, strict=True))
    into[name] = Cost(script / calls, process / calls)


def measure(valkey: Valkey, sessions: int) -> dict[str, Cost]:
    from django_header_sessions.fields import Changes
    from django_header_sessions.keys import SessionKey, make
    from django_header_sessions.origin import Origin
    from django_header_sessions.stores import get_store
    from django_header_sessions.stores.base import Commit, Draft, Terms, grain

    store, terms = get_store("default"), Terms(1_800_000, 43_200_000)
    costs: dict[str, Cost] = {}
    keys: list[SessionKey] = []

    def create() -> None:
        for n in range(sessions):
            user = str(n)
            fields = FIELDS | {"_auth_user_id": user.encode()}
            draft = Draft("header", fields, user, origin=Origin("203.0.113.7", "a service/2.4"))
            keys.append(store.create(draft, terms)[0])

    def opened(terms: Terms) -> Callable[[], None]:
        def each() -> None:
            for key in keys:
                assert store.open(key, "header", terms) is not None

        return each

    def commit(changes: Changes) -> Callable[[], None]:
        def each() -> None:
            for key in keys:
                store.commit(key, "header", terms, Commit(changes))

        return each

    def rotate() -> None:
        for at, key in enumerate(keys):
            new = make(key.id)
            store.commit(key, "header", terms, Commit(rotate_to=new))
            keys[at] = new

    def end() -> None:
        for key in keys:
            assert store.end(key.id)

    steps: list[tuple[str, Callable[[], None]]] = [
        ("create, signed in", create),
        ("open", opened(terms)),
        ("open that slides it", opened(Terms(SHORT, None))),
        ("commit one field", commit(Changes(set={"page": b"4"}))),
        ("increment", commit(Changes(add=("page", 1)))),
        ("rotate", rotate),
        ("end", end),
    ]
    store.create(Draft("header", {}), terms)  # loads the scripts and makes the connection
    for name, step in steps:
        if name == "open that slides it":
            time.sleep(grain(SHORT) / 1000)
        with measured(valkey, sessions, costs, name):
            step()
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"how many ({SESSIONS})")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    with Valkey() as valkey:
        cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": valkey.url}
        settings.configure(CACHES={"default": cache})
        django.setup()
        found = measure(valkey, arguments.sessions)
    if arguments.json:
        figures = {name: [cost.script, cost.process] for name, cost in found.items()}
        print(json.dumps(figures, indent=2))
        return
    print(f"Microseconds of Redis a call, {arguments.sessions:,} sessions\n")
    print(f"{'':30}{'script':>9}{'process':>9}{'calls a second':>17}")
    for name, cost in found.items():
        most = f"{1e6 / cost.process:,.0f}"
        print(f"{name:30}{cost.script:>9.1f}{cost.process:>9.1f}{most:>17}")


if __name__ == "__main__":
    main()
