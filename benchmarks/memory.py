"""What a session takes of Redis's memory: ``python benchmarks/memory.py``.

Fills a Valkey that the script starts with signed-in sessions, each with its two index entries, its
IP and its user agent, and divides what memory grew by.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
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
KINDS = {
    "a service": (SERVICE, 720),
    "desktop Chrome": (DESKTOP, 800),
}
"""User agents, and the bytes that a session of theirs should take at the most."""

FIELDS: dict[str, Any] = {
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": "3f" * 32,
}


def measure(valkey: Valkey, user_agent: str, sessions: int) -> dict[str, Any]:
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
            fields = {"_auth_user_id": user} | FIELDS
            yield Draft(
                "header",
                {name: codec.encode(value) for name, value in fields.items()},
                user,
                origin=Origin(ip, summary(user_agent)),
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
        figures = {
            name: measure(valkey, user_agent, arguments.sessions)
            for name, (user_agent, _) in KINDS.items()
        }
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"Bytes a signed-in session, of {arguments.sessions:,}\n")
    print(f"{'user agent and IP':20}{'session':>9}{'of it the hash':>16}{'aim':>14}")
    for name, found in figures.items():
        aim = KINDS[name][1]
        verdict = f"{aim} {'kept' if found['bytes'] <= aim else 'MISSED'}"
        print(f"{name:20}{found['bytes']:>9}{found['hash']:>16}{verdict:>14}")
        assert found["encoding"] == "listpack", found


if __name__ == "__main__":
    main()
