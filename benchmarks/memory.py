"""What a session takes of Redis's memory: ``python benchmarks/memory.py``.

Fills a Valkey that the script starts with signed-in sessions, each with its two index entries, its
IP and its user agent, and divides what memory grew by.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.contrib.sessions.serializers import JSONSerializer

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.processes import Valkey

SESSIONS = 50_000

SERVICE = "inventory-sync/2.4.1 python-httpx/0.28.1"
DESKTOP = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36"
)
NOTES: dict[str, Any] = {"query": "stainless steel hinges", "page": 3, "language": "en-gb"}
BASKET: dict[str, Any] = {"basket": [{"article": 4711 + n, "count": n} for n in range(8)]}


@dataclass(frozen=True, slots=True)
class Kind:
    """A user agent, what its session holds beside Django's fields, and the bytes that this should
    take at the most."""

    user_agent: str
    holds: dict[str, Any] = field(default_factory=dict)
    aim: int | None = None
    encoding: str = "listpack"


KINDS = {
    "a service": Kind(SERVICE, aim=720),
    "desktop Chrome": Kind(DESKTOP, aim=800),
    "a service, 3 small fields": Kind(SERVICE, NOTES),
    # One value of more than 64 bytes, and Redis keeps the whole session in its roomy encoding.
    "a service, a basket of 8": Kind(SERVICE, BASKET, encoding="hashtable"),
}

FIELDS: dict[str, Any] = {
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": "3f" * 32,
}


def measure(valkey: Valkey, kind: Kind, sessions: int) -> dict[str, Any]:
    """Bytes a session, by the server's own count of its memory."""
    from django_header_sessions.fields import Codec
    from django_header_sessions.origin import Origin, summary
    from django_header_sessions.stores import get_store
    from django_header_sessions.stores.base import Draft, Terms

    # In the background it would be going on while memory is measured.
    flush: Any = valkey.client.execute_command
    flush("FLUSHALL", "SYNC")
    store, codec = get_store("default"), Codec(JSONSerializer)
    terms = Terms(1_800_000, 43_200_000)

    def drafts() -> Iterator[Draft]:
        for n in range(sessions):
            user = str(100_000 + n)
            ip = f"203.0.113.{n % 156 + 100}"
            fields = {"_auth_user_id": user} | FIELDS | kind.holds
            yield Draft(
                "header",
                {name: codec.encode(name, value) for name, value in fields.items()},
                user,
                origin=Origin(ip, summary(kind.user_agent)),
            )

    all_drafts = drafts()
    key, _ = store.create(next(all_drafts), terms)  # scripts and counters are no session's
    before = used(valkey)
    for draft in all_drafts:
        store.create(draft, terms)
    after = used(valkey)
    (name,) = valkey.client.scan_iter(f"*:s:{key.id}", count=10 * sessions)
    return {
        "bytes": round((after - before) / (sessions - 1)),
        "hash": int(valkey.client.memory_usage(name, samples=0) or 0),
        "encoding": valkey.client.object("ENCODING", name).decode(),
    }


def used(valkey: Valkey) -> int:
    memory: Any = valkey.client.info("memory")
    return int(memory["used_memory"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"how many ({SESSIONS})")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    with Valkey() as valkey:
        cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": valkey.url}
        settings.configure(CACHES={"default": cache})
        django.setup()
        figures = {name: measure(valkey, kind, arguments.sessions) for name, kind in KINDS.items()}
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"Bytes a signed-in session, of {arguments.sessions:,}\n")
    print(f"{'of':28}{'session':>9}{'of it the hash':>16}{'aim':>14}")
    for name, found in figures.items():
        aim = KINDS[name].aim
        kept = "" if aim is None else f"{aim} {'kept' if found['bytes'] <= aim else 'MISSED'}"
        print(f"{name:28}{found['bytes']:>9}{found['hash']:>16}{kept:>14}")
        assert found["encoding"] == KINDS[name].encoding, found


if __name__ == "__main__":
    main()
