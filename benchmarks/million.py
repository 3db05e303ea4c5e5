"""Fills a Redis of its own with sessions, a million by default, and measures the monitor on it.

``python benchmarks/million.py [--sessions N] [--buckets N]``. What is measured is what a page takes
on the server: the view with its template, by Django's test client, without a network or a browser,
in a process of its own. Its round trips to Redis are counted, with ten thousand sessions and with
all of them. Then the command ends ten thousand sessions of one user, the admin those of another, in
a process of their own too, while yet another process asks Redis for the smallest thing there is.
Where the system allows, what is measured (Redis, the pages, that other client) goes before all
other processes, as on machines of its own: else one measures who has to wait for a processor.

Each aim is printed with whether it was met. A miss is no error: the machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
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
FEW = 10_000
"""Sessions with which the round trips are counted first."""
SERVICES = {
    "command": (1_000_001, 10_000),
    "admin": (1_000_002, 10_000),
    "many": (1_000_003, 3000),
    "few": (1_000_004, 7),
}
"""Accounts with many sessions: their primary keys, and how many."""
TIMES = 30
PAGE_MS, STALL_MS = 100, 10


def drafts(start: int, end: int) -> Iterator[Draft]:
    """Sessions of all kinds, a third of them signed in."""
    draw = Random(start)
    for n in range(start, end):
        user = str(draw.randrange(USERS)) if n % 3 == 0 else None
        transport = "cookie" if n % 5 == 0 else "header"
        yield draft(n, transport, user, draw.randint(3600, 6 * 3600))


def draft(n: int, transport: str, user: str | None, idle: int) -> Draft:
    fields = {"cart": b"\xff[1, 2, 3]", "visits": b"%d" % n}
    if user:
        fields |= {"_auth_user_id": user.encode(), "_auth_user_hash": b"0" * 64}
    origin = Origin(f"192.0.2.{n % 250}", "(X11; Linux x86_64) Firefox/127.0")
    return Draft(transport, fields, user, Expiry("idle", idle * 1000), origin)


def store_all(store: RedisStore, all_of_them: Iterator[Draft]) -> None:
    """Store sessions through the store's own script, and say how far it is."""
    done = 0
    steps: list[Any] = []

    def send() -> None:
        store._servers.run_all([next(each) for each in steps])
        steps.clear()
        print(f"\r{done:,} …", end="", file=sys.stderr, flush=True)

    for one in all_of_them:
        steps.append(store._create(one, TERMS))
        done += 1
        if len(steps) == BATCH:
            send()
    if steps:
        send()
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Trips:
    """Counts the round trips of redis-py: what it writes to a connection at once is one."""

    def __init__(self) -> None:
        self.count = 0
        sent: Any = redis.connection.Connection.send_packed_command

        def counted(connection: Any, command: Any, check_health: bool = True) -> Any:
            self.count += 1
            return sent(connection, command, check_health)

        redis.connection.Connection.send_packed_command = counted  # type: ignore[method-assign]


# What runs in processes of their own; each prints what it found as JSON.


def measure_pages() -> dict[str, Any]:
    go_first()
    trips, client = Trips(), Client()
    client.force_login(get_user_model().objects.get(username="root"))

    def page(address: str) -> Callable[[], None]:
        def get() -> None:
            response = client.get(LIST + address)
            assert response.status_code == 200, response.status_code
            assert b"Live sessions" in response.content or b"fields" in response.content

        return get

    first = registry.page(1).places[0]
    last = registry.page(1, backward=True).places[0]
    middle = f"{(first.expires + last.expires) // 2}.{'0' * 15}"
    newest = registry.page(1).sessions[0]
    ended = SessionStore()
    ended["n"] = 1
    ended.create()
    key = ended.session_key
    assert key is not None
    assert registry.end(key.id)
    pages = {
        "list, first page, with the overview": page(""),
        "list, a page in the middle": page(f"?after={middle}"),
        "list, the page before it": page(f"?before={middle}"),
        "list, the last page": page(f"?before={last.expires}.{'z' * 15}"),
        "list, header and anonymous": page("?transport=header&signed_in=no"),
        "list, idle longer than 5 min": page("?idle=300"),
        "search, a user with 7 sessions": page("?q=few"),
        "search, a user with 3,000 sessions": page("?q=many"),
        "search, an id": page(f"?q={newest.id}"),
        "search, the beginning of an id": page("?q=zz9"),
        "search, an IP": page("?q=198.51.100.7"),
        "one session": page(f"{newest.id}/change/"),
        "the overview alone (registry)": registry.overview,
    }
    found = {}
    for name, do in pages.items():
        do()
        took, before = [], trips.count
        for _ in range(TIMES):
            start = time.perf_counter()
            do()
            took.append((time.perf_counter() - start) * 1000)
        found[name] = {"ms": sorted(took), "trips": (trips.count - before) / TIMES}
    return {"pages": found, "opens": SessionStore(ended.session_key).open()}


def end_by_command() -> dict[str, Any]:
    out, err = StringIO(), StringIO()
    start = time.perf_counter()
    call_command("header_sessions", "end", "--user", "command", stdout=out, stderr=err)
    seconds = time.perf_counter() - start
    told = err.getvalue().splitlines()
    return {"seconds": seconds, "said": out.getvalue().strip(), "progress": len(told)}


def end_by_admin() -> dict[str, Any]:
    client = Client()
    client.force_login(get_user_model().objects.get(username="root"))
    url = f"{LIST}user/{SERVICES['admin'][0]}/end/"
    took, ended = [], ""
    while True:
        start = time.perf_counter()
        response = client.post(url, {"post": "yes", "ended": ended})
        took.append(time.perf_counter() - start)
        if response.status_code == 302:
            break
        (ended,) = re.findall(r'name="ended" value="(\d+)"', response.content.decode())
    (said,) = response.wsgi_request._messages._queued_messages  # type: ignore[attr-defined]
    return {"seconds": sum(took), "said": str(said), "progress": len(took) - 1}


def go_first(pid: int = 0) -> bool:
    """Let a process, or this one, have a processor before all others, where that is allowed."""
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, PermissionError):
        return False
    return True


def ping(port: int) -> dict[str, Any]:
    """What another client waits, from now until the end of the standard input."""
    waits = []
    go_first()
    with redis.Redis(port=port) as client:
        client.ping()
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 0.0005)[0]:
            start = time.perf_counter()
            client.ping()
            waits.append((time.perf_counter() - start) * 1000)
    return {"ms": sorted(waits)}


# What starts them, and judges.


class Bench:
    def __init__(self, server: Valkey, folder: str, buckets: int) -> None:
        self.server = server
        self.buckets = buckets
        self.env = os.environ | {
            "REDIS_URL": server.url,
            "TEST_DB": str(Path(folder) / "users.sqlite3"),
        }
        self.misses = 0

    def run(self, what: str) -> Any:
        command = [sys.executable, __file__, "--run", what, "--buckets", str(self.buckets)]
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While the block runs, a process computes, and asks Redis nothing."""
        command = [sys.executable, "-c", "while True: sum(range(1000))"]
        with subprocess.Popen(command) as process:
            yield
            process.kill()

    @contextmanager
    def pinging(self) -> Iterator[list[float]]:
        """The waits of another client while the block runs, in milliseconds and in order."""
        command = [sys.executable, __file__, "--run", "ping", "--port", str(self.server.port)]
        waits: list[float] = []
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield waits
            told, _ = process.communicate("")
            waits += json.loads(told)["ms"]

    def judge(self, text: str, met: bool, but: str = "") -> None:
        self.misses += not met
        print(f"{'PASS' if met else 'MISS'}  {text}{but and f' ({but})'}", flush=True)


def report_pages(bench: Bench, few: dict[str, Any], all_of_them: dict[str, Any]) -> None:
    for name, found in all_of_them["pages"].items():
        median, worst = statistics.median(found["ms"]), found["ms"][-1]
        late = sum(each >= PAGE_MS for each in found["ms"])
        trips, before = found["trips"], few["pages"][name]["trips"]
        bench.judge(
            f"{name:<36} {median:6.1f} ms, at most {worst:6.1f}; {trips:4.1f} round trips, "
            f"{before:4.1f} with {FEW:,}",
            median < PAGE_MS and abs(trips - before) < 0.5,
            f"{late} of {TIMES} took longer than {PAGE_MS} ms" if late else "",
        )
    bench.judge(
        "a session that was ended is not opened by its next request", not all_of_them["opens"]
    )


def report_end(bench: Bench, by: str) -> None:
    client: Any = bench.server.client
    # What it waits because the machine has so many processors and no more.
    with bench.busy(), bench.pinging() as quiet:
        time.sleep(3)
    client.config_set("slowlog-log-slower-than", 1000)
    client.slowlog_reset()
    with bench.pinging() as waits:
        found = bench.run(by)
    slowest = max((each["duration"] for each in client.slowlog_get(1000)), default=0) / 1000
    print(f"\n10,000 sessions of a user, by the {by}: {found['said']} {found['seconds']:.1f} s")
    bench.judge(f"it showed progress {found['progress']} times", found["progress"] > 1)
    late = sum(each > STALL_MS for each in waits)
    at_99 = waits[len(waits) * 99 // 100]
    bench.judge(
        f"another client, asking {len(waits):,} times, waited {statistics.median(waits):.2f} ms, "
        f"at the 99th percentile {at_99:.1f} ms, at most {waits[-1]:.1f} ms; "
        f"beside one that only computes {statistics.median(quiet):.2f} and {quiet[-1]:.1f} ms",
        waits[-1] <= STALL_MS,
        f"{late} of {len(waits):,} waited longer than {STALL_MS} ms" if late else "",
    )
    bench.judge(
        "by the clock of Redis no command took longer than "
        + (f"{slowest:.1f} ms" if slowest else "1 ms"),
        slowest <= STALL_MS,
    )


def main(count: int, buckets: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Valkey() as server:
        bench = Bench(server, folder, buckets)
        if not go_first(server.pid):
            print("Here, what is measured has to wait for a processor as all others do.")
        bench.run("migrate")
        caches = {
            "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url},
        }
        with override_settings(CACHES=caches, HEADER_SESSIONS_BUCKETS=buckets):
            store: Any = get_store(settings.SESSION_CACHE_ALIAS)
            start = time.perf_counter()
            for pk, how_many in SERVICES.values():
                store_all(store, (draft(n, "header", str(pk), 7200 + n) for n in range(how_many)))
            store_all(store, drafts(0, FEW))
            few = bench.run("pages")
            store_all(store, drafts(FEW, count))
            seconds = time.perf_counter() - start
            info: Any = server.client.info("memory")
            live = registry.overview().live
            print(
                f"{live:,} live sessions in {buckets} bucket{'s' * (buckets > 1)}, stored in "
                f"{seconds:.0f} s, {info['used_memory'] / live:.0f} bytes each\n",
                flush=True,
            )
            report_pages(bench, few, bench.run("pages"))
            report_end(bench, "command")
            report_end(bench, "admin")
            print(f"\n{bench.misses} missed" if bench.misses else "\nall met")


def migrate() -> None:
    call_command("migrate", verbosity=0)
    model = get_user_model()
    model.objects.create_superuser("root", "root@example.com", "x")
    model.objects.bulk_create([model(username=f"user{n}") for n in range(2000)])
    for name, (pk, _) in SERVICES.items():
        model.objects.create(pk=pk, username=name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--buckets", type=int, default=1, help="parts of the sessions: 1, or 256")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run is None:
        main(max(given.sessions, FEW), given.buckets)
    else:
        jobs: dict[str, Callable[[], Any]] = {
            "migrate": migrate,
            "pages": measure_pages,
            "command": end_by_command,
            "admin": end_by_admin,
            "ping": lambda: ping(given.port),
        }
        with override_settings(HEADER_SESSIONS_BUCKETS=given.buckets):
            print(json.dumps(jobs[given.run]()))
