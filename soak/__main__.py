"""The fault suite: drives the example server over HTTP while its store fails, and prints a table.

``python -m soak`` runs all faults, which takes some minutes; ``python -m soak stopped frozen`` only
those whose names begin so. It exits 0 only if nobody was logged out, nothing that was
acknowledged was lost, and no answer was anything but a success or a 503.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django_header_sessions.stores.cluster import slot_tag
from tests.faults.topologies import SLOTS, Cluster, Moving, Sentinels
from tests.processes import ROOT, Process, Valkey, free_port

from .load import HEAD, PASSWORD, Load, Row

TIMEOUT = 2.0
CLUSTER = "django_header_sessions.stores.cluster.ClusterConnectionFactory"
SENTINEL = "django_redis.pool.SentinelConnectionFactory"

FAULTS: dict[str, Callable[[Path], Row]] = {}


def fault(name: str) -> Callable[[Callable[[Path], Row]], Callable[[Path], Row]]:
    def known(run: Callable[[Path], Row]) -> Callable[[Path], Row]:
        FAULTS[name] = run
        return run

    return known


class Example(Process):
    """The example under gunicorn (threads) or uvicorn (an event loop)."""

    def __init__(
        self, kind: str, location: str, env: dict[str, str] | None = None, *, workers: int = 1
    ) -> None:
        self.port = free_port()
        at = f"127.0.0.1:{self.port}"
        command = {
            "gunicorn": (
                *("-m", "gunicorn", "example.wsgi:application", "--bind", at, "--threads", "16"),
                *("--workers", str(workers), "--no-control-socket", "--keep-alive", "60"),
            ),
            "uvicorn": (
                *("-m", "uvicorn", "example.asgi:application", "--host", "127.0.0.1"),
                *("--port", str(self.port), "--lifespan", "off", "--log-level", "error"),
            ),
        }[kind]
        super().__init__(
            sys.executable,
            *command,
            env={
                "DJANGO_SETTINGS_MODULE": "soak.settings",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "example_project")]),
                "PYTHONUNBUFFERED": "1",
                "SOAK_LOCATION": location,
            }
            | DATABASE
            | (env or {}),
        )
        self.wait_until(lambda: healthy(self.port))


def healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


DATABASE: dict[str, str] = {}
"""The environment that names the users' database, once it is made."""


def make_users(folder: Path) -> None:
    """A database with the example's users, for all faults."""
    DATABASE.update(EXAMPLE_DB=str(folder / "users.sqlite3"), EXAMPLE_PASSWORD=PASSWORD)
    with Process(
        *(sys.executable, "-m", "django", "setup"),
        env={
            "DJANGO_SETTINGS_MODULE": "soak.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "example_project")]),
            "SOAK_LOCATION": "redis://unused",
        }
        | DATABASE,
    ) as process:
        if process._process.wait():
            raise RuntimeError(process.output())


@contextmanager
def serving(location: str, **env: str) -> Iterator[list[int]]:
    """Two servers, of either kind, on one store."""
    with (
        Example("gunicorn", location, env) as threads,
        Example("uvicorn", location, env) as loop,
    ):
        yield [threads.port, loop.port]


def wait(seconds: float, what: str) -> None:
    """Wait, and show how far that is."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if sys.stderr.isatty():
            print(f"\r  {what}: {left:4.0f} s \x1b[K", end="", file=sys.stderr, flush=True)
        time.sleep(min(left, 0.25))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def under_load(
    name: str,
    ports: list[int],
    break_it: Callable[[], None],
    *,
    may_drop: bool = False,
    **load: Any,
) -> Row:
    """Two good seconds, the fault, two good seconds; then every session is looked at."""
    clients = Load(ports, **load)
    with clients:
        wait(2, "as usual")
        began = time.monotonic()
        break_it()
        ended = time.monotonic()
        wait(3, "as usual again")
    row = Row(name, clients, began, ended)
    row.judge(may_drop=may_drop)
    row.expect(row.good == clients.at_start, f"{clients.at_start - row.good} were logged out")
    row.expect(row.lost == 0, f"{row.lost} acknowledged writes were lost")
    tail = [call.status for call in clients.calls if call.at > ended + 2.2]
    row.expect(set(tail) == {200}, "not everybody was served again after two seconds")
    return row


@fault("stopped for 5 s, started with its data")
def stopped(folder: Path) -> Row:
    port = free_port()
    options = ("--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always")
    with ExitStack() as stack:
        first = stack.enter_context(Valkey(*options, port=port))

        def break_it() -> None:
            first.kill()
            wait(5, "stopped")
            stack.enter_context(Valkey(*options, port=port))

        ports = stack.enter_context(serving(first.url))
        row = under_load("Redis stopped for 5 s", ports, break_it)
    row.expect_quick(TIMEOUT)
    row.expect_503s_alone(after=0.3)
    return row


@fault("frozen for 10 s")
def frozen(folder: Path) -> Row:
    with Valkey() as valkey, serving(valkey.url) as ports:

        def break_it() -> None:
            valkey.signal(signal.SIGSTOP)
            wait(10, "frozen")
            valkey.signal(signal.SIGCONT)

        row = under_load("Redis frozen for 10 s", ports, break_it)
    row.expect_quick(TIMEOUT)
    row.expect_503s_alone(after=0.3)
    return row


@fault("read-only for 5 s")
def read_only(folder: Path) -> Row:
    with Valkey() as valkey, serving(valkey.url) as ports:

        def break_it() -> None:
            valkey.client.replicaof("127.0.0.1", "1")
            wait(5, "a replica")
            valkey.client.replicaof("no", "one")

        row = under_load("demoted to a replica for 5 s", ports, break_it)
    row.expect_503s_alone(after=0.3)
    return row


@fault("full for 5 s")
def full(folder: Path) -> Row:
    with Valkey() as valkey, serving(valkey.url) as ports:

        def break_it() -> None:
            valkey.client.config_set("maxmemory", "1")
            wait(5, "full")
            valkey.client.config_set("maxmemory", "0")

        row = under_load("maxmemory reached for 5 s", ports, break_it)
    reads = {call.status for call in row.meanwhile(0.3) if not call.writes}
    writes = {call.status for call in row.meanwhile(0.3) if call.writes}
    row.expect(reads == {200}, f"reads were answered {reads}")
    row.expect(writes == {503}, f"writes were answered {writes}")
    return row


def sentinel_row(folder: Path, how: signal.Signals, name: str) -> Row:
    with Sentinels(folder, down_after_ms=2000) as sentinels:
        options = {
            "CONNECTION_FACTORY": SENTINEL,
            "SENTINELS": [["127.0.0.1", port] for port in sentinels.ports],
            "SENTINEL_KWARGS": {
                "socket_timeout": TIMEOUT,
                "socket_connect_timeout": TIMEOUT,
                "retry": None,
            },
        }
        location = f"redis://{sentinels.name}/0?is_master=1"
        with serving(location, SOAK_OPTIONS=json.dumps(options)) as ports:

            def break_it() -> None:
                sentinels.primary.signal(how)
                while not sentinels.switched():
                    wait(0.05, "until Sentinel switches")

            row = under_load(name, ports, break_it)
    row.expect_quick(TIMEOUT)
    return row


@fault("Sentinel failover, primary killed")
def sentinel_killed(folder: Path) -> Row:
    return sentinel_row(folder, signal.SIGKILL, "Sentinel: primary killed")


@fault("Sentinel failover, primary frozen")
def sentinel_frozen(folder: Path) -> Row:
    return sentinel_row(folder, signal.SIGSTOP, "Sentinel: primary frozen")


def on_cluster(cluster: Cluster, **settings: Any) -> Any:
    return serving(
        cluster.url,
        SOAK_OPTIONS=json.dumps({"CONNECTION_FACTORY": CLUSTER}),
        SOAK_SETTINGS=json.dumps(settings),
    )


@fault("Cluster, a primary killed")
def cluster_killed(folder: Path) -> Row:
    with Cluster(node_timeout_ms=2000) as cluster, on_cluster(cluster) as ports:
        replica: Any = cluster.nodes[3].client

        def break_it() -> None:
            cluster.nodes[0].kill()
            while replica.info("replication")["role"] != "master":
                wait(0.05, "until the cluster fails over")

        row = under_load("Cluster: a primary killed", ports, break_it)
    row.expect_quick(TIMEOUT)
    refused = {owner(call.session_id) for call in row.load.calls if call.status == 503}
    row.expect(refused == {0}, f"requests of the primaries {refused} were refused")
    return row


def owner(session_id: str, buckets: int = 256) -> int:
    """Which of the three primaries a session is on."""
    return SLOTS * (zlib.crc32(session_id.encode()) % buckets) // buckets * 3 // SLOTS


_FILL = r"""
for n = ARGV[1], ARGV[2] do
  local id = string.format('%015d', n)
  redis.call('HSET', KEYS[1] .. id, '\255h', '0123456789abcdef', '\255t', 'h', '\255c', ARGV[3],
    '\255s', ARGV[3], '\255i', '192.0.2.1', 'cart', '["violin", "bow", "rosin"]')
  redis.call('PEXPIREAT', KEYS[1] .. id, ARGV[3])
  redis.call('ZADD', KEYS[2], ARGV[3], id)
end
"""


def migration_row(sessions: int, how: str) -> Row:
    slot = SLOTS // 4
    # A server that moves a large key is busy with it for longer than a short node time-out.
    with (
        Cluster(node_timeout_ms=15_000) as cluster,
        on_cluster(cluster, HEADER_SESSIONS_BUCKETS=4) as ports,
    ):
        moving = Moving(cluster, slot)
        source: Any = cluster.nodes[moving.source].client
        prefix = f":1:hs{{{slot_tag(slot)}}}"
        tomorrow = int((time.time() + 86400) * 1000)
        for first in range(1, sessions, 1000):
            source.eval(_FILL, 2, f"{prefix}:s:", f"{prefix}:i:h0", first, first + 999, tomorrow)
        took = 0.0

        def break_it() -> None:
            nonlocal took
            began = time.monotonic()
            if how == "atomic":
                source.execute_command(
                    *("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot),
                    *("NODE", cluster.ids[moving.target]),
                )
                while not moved(source):
                    wait(0.02, "until the slot has moved")
            else:
                moving.begin()
                moving.move(100)
                moving.end()
            took = time.monotonic() - began

        row = under_load(f"Cluster: {sessions:,} sessions moved, {how}", ports, break_it)
    row.fault += f" ({took:.1f} s)"
    return row


def moved(client: Any) -> bool:
    """Whether the migration that a server began has ended."""
    (migration,) = client.execute_command("CLUSTER GETSLOTMIGRATIONS")
    state = migration[b"state"]
    if state in (b"failed", b"cancelled"):
        raise RuntimeError(f"the migration {state.decode()}: {migration[b'message']!r}")
    return bool(state == b"success")


@fault("Cluster, a slot of 4,000 sessions moved")
def moved_few(folder: Path) -> Row:
    row = migration_row(4000, "key by key")
    row.expect(not any(call.status == 503 for call in row.load.calls), "somebody noticed")
    return row


@fault("Cluster, a slot of 400,000 sessions moved")
def moved_many(folder: Path) -> Row:
    return migration_row(400_000, "key by key")


@fault("Cluster, a slot of 400,000 sessions moved at once")
def moved_at_once(folder: Path) -> Row:
    row = migration_row(400_000, "atomic")
    row.expect(not any(call.status == 503 for call in row.load.calls), "somebody noticed")
    return row


KILLS = 200


@fault("server processes killed")
def killed(folder: Path) -> Row:
    with (
        Valkey() as valkey,
        Example("gunicorn", valkey.url, workers=6) as server,
        Example("gunicorn", valkey.url, workers=2) as steady,
    ):

        def break_it() -> None:
            done = 0
            while done < KILLS:
                wait(0.15, f"{KILLS - done} more kills, about")
                workers = children(server.pid)
                if len(workers) > 3:
                    os.kill(workers[done % len(workers)], signal.SIGKILL)
                    done += 1

        row = under_load(f"{KILLS} server processes killed", [server.port], break_it, may_drop=True)
        for client in row.load.clients:
            client.create()  # and one more each, on a server that was not killed
        row.faults += untrue(valkey, folder)
        del steady
    return row


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def untrue(valkey: Valkey, folder: Path) -> list[str]:
    """Where the list of live sessions and the sessions disagree: there may be no such place."""
    # By the package itself, in a process with its settings.
    script = """
import django; django.setup()
from django_header_sessions import registry
after, ids = None, []
while True:
    page = registry.page(100, after)
    ids += [session.id for session in page.sessions]
    after = page.next
    if after is None: break
print(*ids)
"""
    with Process(
        *(sys.executable, "-c", script),
        env={
            "DJANGO_SETTINGS_MODULE": "soak.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "example_project")]),
            "SOAK_LOCATION": valkey.url,
        },
    ) as process:
        process._process.wait()
        listed = process.output().split()
    names: Any = valkey.client.scan_iter("*:s:*", 1000)
    there = [name.decode().rpartition(":")[2] for name in names]
    if sorted(listed) != sorted(there):
        return [f"{len(listed)} sessions are listed, {len(there)} are there"]
    return []


@fault("a worker's clock an hour wrong")
def clock(folder: Path) -> Row:
    idle = 8
    env = {"SOAK_SETTINGS": json.dumps({"HEADER_SESSIONS_IDLE_TIMEOUT": idle})}
    with (
        Valkey() as valkey,
        Example("gunicorn", valkey.url, env) as right,
        Example("gunicorn", valkey.url, env | {"SOAK_CLOCK": "3600"}) as ahead,
        Example("uvicorn", valkey.url, env | {"SOAK_CLOCK": "-3600"}) as behind,
    ):
        ports = [right.port, ahead.port, behind.port]
        row = under_load(
            "clocks an hour wrong, either way",
            ports,
            lambda: wait(idle, "by wrong clocks"),
            # Few enough for each of them to be used within its idle timeout.
            sessions_each=3,
            browser=False,  # a wrong clock dates cookies wrong, which is a browser's to judge
        )
        wait(idle * 33 / 32 + 0.5, "until all have expired")
        late = sum(
            client._call("GET", "/api/state/", kept)[0] != 401
            for client in row.load.clients
            for kept in client.sessions
        )
        for client in row.load.clients:
            client.close()
        row.expect(late == 0, f"{late} sessions expired late")
    return row


RUNS = 500


@fault("holders of a lock stopped past their lease")
def fenced(folder: Path) -> Row:
    with Valkey() as valkey, serving(valkey.url) as ports:
        said: Counter[str] = Counter()

        def break_it() -> None:
            with tempfile.TemporaryFile("w+") as output:
                done = subprocess.run(
                    [sys.executable, "-c", _STALE, valkey.url, str(RUNS)],
                    env=os.environ
                    | {"DJANGO_SETTINGS_MODULE": "tests.settings", "REDIS_URL": valkey.url},
                    cwd=ROOT,
                    stdout=output,
                    check=True,
                )
                assert done.returncode == 0
                output.seek(0)
                said.update(output.read().split())

        row = under_load(f"{RUNS} holders of a lock stopped past their lease", ports, break_it)
    row.expect(said == {"refused": RUNS}, f"of the holders: {dict(said)}")
    return row


_STALE = """
import sys, django
django.setup()
from tests.fencing import stale_writes
for said in stale_writes(sys.argv[1], int(sys.argv[2])):
    print(said)
"""


def table(rows: list[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("faults", nargs="*", help=f"beginnings of: {'; '.join(FAULTS)}")
    wanted = parser.parse_args().faults
    rows: list[Row] = []
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as lasting:
            make_users(Path(lasting))
            for name, run in FAULTS.items():
                if wanted and not name.lower().startswith(tuple(map(str.lower, wanted))):
                    continue
                print(f"{name} …", flush=True)
                with tempfile.TemporaryDirectory() as folder:
                    row = run(Path(folder))
                rows.append(row)
                verdict = "; ".join(row.faults) or "as it should be"
                print(f"  {verdict} ({time.monotonic() - began:.0f} s so far)", flush=True)
    finally:
        print(f"\n{table(rows)}\n", flush=True)
    wrong = sum(bool(row.faults) for row in rows)
    print(f"{wrong} of {len(rows)} faults did harm." if wrong else f"None of {len(rows)} did harm.")
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
