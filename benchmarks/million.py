"""Fills a Redis of its own with sessions, a million by default, and measures the monitor on it.

``python benchmarks/million.py [HOW MANY] [BUCKETS]``. What is measured is what a page takes on the
server: the view with its template, by Django's test client, without a network or a browser; its
round trips to Redis are counted; and what another client of Redis waits while 10,000 sessions end.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django
import redis

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import override_settings  # noqa: E402

from django_header_sessions import registry  # noqa: E402
from django_header_sessions.engine import SessionStore  # noqa: E402
from django_header_sessions.origin import Origin  # noqa: E402
from django_header_sessions.stores import get_store  # noqa: E402
from django_header_sessions.stores.base import Draft, Expiry, Terms  # noqa: E402
from django_header_sessions.stores.redis import RedisStore  # noqa: E402
from tests.processes import Valkey  # noqa: E402

LIST = "/admin/django_header_sessions/session/"
TERMS = Terms(6 * 3600 * 1000, 12 * 3600 * 1000)
BATCH = 1000
USERS = 100_000


def fill(store: RedisStore, count: int) -> None:
    """Store sessions, a third of them signed in, through the store's own script."""
    draw = Random(1)
    for done in range(0, count, BATCH):
        creations = []
        for n in range(done, min(done + BATCH, count)):
            user = str(draw.randrange(USERS)) if n % 3 == 0 else None
            fields = {"cart": b"\xff[1, 2, 3]", "visits": b"%d" % n}
            if user:
                fields |= {"_auth_user_id": user.encode(), "_auth_user_hash": b"0" * 64}
            transport = "cookie" if n % 5 == 0 else "header"
            expiry = Expiry("idle", draw.randint(3600, 6 * 3600) * 1000)
            origin = Origin(f"192.0.2.{n % 250}", "(X11; Linux x86_64) Firefox/127.0")
            creations.append(store._create(Draft(transport, fields, user, expiry, origin), TERMS))
        store._servers.run_all([next(steps) for steps in creations])  # type: ignore[misc]
        if done % 100_000 == 0:
            print(f"\r{done:,} …", end="", flush=True)
    print(f"\r{count:,} sessions stored")


class Trips:
    """Counts the round trips of redis-py: what it writes to a connection at once is one."""

    def __init__(self) -> None:
        self.count = 0
        sent: Any = redis.connection.Connection.send_packed_command

        def counted(connection: Any, command: Any, check_health: bool = True) -> Any:
            self.count += 1
            return sent(connection, command, check_health)

        redis.connection.Connection.send_packed_command = counted  # type: ignore[method-assign]


def measure(name: str, do: Callable[[], Any], trips: Trips, times: int = 30) -> None:
    do()
    took, before = [], trips.count
    for _ in range(times):
        start = time.perf_counter()
        do()
        took.append((time.perf_counter() - start) * 1000)
    median, worst = statistics.median(took), max(took)
    each = (trips.count - before) / times
    print(f"{name:<44} {median:7.1f} ms  at most {worst:7.1f} ms  {each:5.1f} round trips")


def ending(server: Valkey, ids: list[str]) -> None:
    """End many, while another client asks Redis for the smallest thing there is."""
    waits: list[float] = []
    over = threading.Event()
    other = redis.Redis(port=server.port)

    def ask() -> None:
        while not over.is_set():
            start = time.perf_counter()
            other.ping()
            waits.append((time.perf_counter() - start) * 1000)
            time.sleep(0.0005)

    asking = threading.Thread(target=ask)
    asking.start()
    server.client.config_set("slowlog-log-slower-than", 1000)
    server.client.slowlog_reset()
    start = time.perf_counter()
    progress: list[int] = []
    ended = registry.end_many(ids, "admin", progress.append)
    took = time.perf_counter() - start
    over.set()
    asking.join()
    slowest: Any = server.client.slowlog_get(1)
    waits.sort()
    print(
        f"ended {len(ended):,} in {took:.1f} s, {len(progress)} times progress; another client of "
        f"Redis waited {statistics.median(waits):.2f} ms, at the 99th percentile "
        f"{waits[len(waits) * 99 // 100]:.1f} ms, at most {waits[-1]:.1f} ms (both share this "
        f"process's interpreter); commands of more than 1 ms: {len(slowest)}"
    )
    other.close()


def main(count: int, buckets: int) -> None:
    call_command("migrate", verbosity=0)
    model = get_user_model()
    root = model.objects.create_superuser("root", "root@example.com", "x")
    model.objects.bulk_create([model(username=f"user{n}") for n in range(2000)])
    with Valkey() as server:
        caches = {
            "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url},
        }
        with override_settings(CACHES=caches, HEADER_SESSIONS_BUCKETS=buckets):
            store: Any = get_store(settings.SESSION_CACHE_ALIAS)
            start = time.perf_counter()
            fill(store, count)
            info: Any = server.client.info("memory")
            seconds = time.perf_counter() - start
            print(f"in {seconds:.0f} s; {info['used_memory'] / count:.0f} bytes each\n")
            run(server, root, Trips())


def run(server: Valkey, root: Any, trips: Trips) -> None:
    client = Client()
    client.force_login(root)

    def page(address: str) -> Callable[[], None]:
        def get() -> None:
            response = client.get(LIST + address)
            assert response.status_code == 200, response.status_code

        return get

    figures = registry.overview()
    half = registry.page(1).places[0]
    last = registry.page(1, backward=True).places[0]
    middle = f"?expires={(half.expires + last.expires) // 2}&after=000000000000000"
    newest = registry.page(1).sessions[0]
    print(f"{figures.live:,} live")
    measure("list, first page, with the overview", page(""), trips)
    measure("list, a page in the middle", page(middle), trips)
    measure("list, the page before it", page(middle.replace("after", "before")), trips)
    measure("list, header and anonymous", page("?transport=header&signed_in=no"), trips)
    measure("list, idle longer than 5 min", page("?idle=300"), trips)
    measure("search, a user", page("?q=user7"), trips)
    measure("search, an id", page(f"?q={newest.id}"), trips)
    measure("search, the beginning of an id", page("?q=zz9"), trips)
    measure("search, an IP", page("?q=198.51.100.7"), trips)
    measure("one session", page(f"{newest.id}/change/"), trips)
    measure("the overview alone (registry)", registry.overview, trips)
    measure("the page alone (registry)", registry.page, trips)
    session = SessionStore()
    session["n"] = 1
    session.create()
    key = session.session_key
    assert key is not None
    assert registry.end(key.id)
    assert not SessionStore(key).open()
    print("a session that was ended is not opened by the next request\n")
    found: list[str] = []
    after = None
    while len(found) < 10_000:
        part = registry.page(1000, after, [registry.Kind("header", False)])
        found += [session.id for session in part.sessions]
        after = part.next
        if after is None:
            break
    ending(server, found[:10_000])


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(given[0] if given else 1_000_000, given[1] if len(given) > 1 else 1)
