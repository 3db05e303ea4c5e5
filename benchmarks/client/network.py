"""A network that is slow: netem between namespaces where the kernel has it, else a proxy."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

NAMESPACE = "header-sessions-bench"
HERE_ADDRESS, THERE_ADDRESS = "10.213.97.1", "10.213.97.2"


def has_netem() -> bool:
    """Whether this process may make namespaces, and the kernel can delay what goes between."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    probe = f"{NAMESPACE}-probe"
    try:
        if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
            return False
        try:
            delay = f"ip netns exec {probe} tc qdisc add dev lo root netem delay 1ms"
            return subprocess.run(delay.split(), capture_output=True).returncode == 0
        finally:
            subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=True)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def namespace() -> Iterator[list[str]]:
    """A namespace behind a pair of virtual cards; yields the prefix of commands run in it."""

    def ip(arguments: str) -> None:
        subprocess.run(["ip", *arguments.split()], check=True)

    ip(f"netns add {NAMESPACE}")
    try:
        ip(f"link add dhs0 type veth peer name dhs1 netns {NAMESPACE}")
        ip(f"addr add {HERE_ADDRESS}/30 dev dhs0")
        ip("link set dhs0 up")
        ip(f"-n {NAMESPACE} addr add {THERE_ADDRESS}/30 dev dhs1")
        ip(f"-n {NAMESPACE} link set dhs1 up")
        ip(f"-n {NAMESPACE} link set lo up")
        yield ["ip", "netns", "exec", NAMESPACE]
    finally:
        ip(f"netns del {NAMESPACE}")


def delay_cards(round_trip_ms: int) -> None:
    """Have both cards hold what they send for half of the round trip."""
    half = f"netem delay {round_trip_ms / 2}ms"
    here = f"tc qdisc replace dev dhs0 root {half}"
    there = f"ip netns exec {NAMESPACE} tc qdisc replace dev dhs1 root {half}"
    for command in (here, there):
        subprocess.run(command.split(), check=True)


@contextlib.contextmanager
def delaying_proxy(port: int, round_trip_ms: int) -> Iterator[int]:
    """A proxy to `port` in a process of its own, so that it takes no time from who measures."""
    command = [sys.executable, "-m", __name__, str(port), str(round_trip_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def pump(source: socket.socket, sink: socket.socket, opened: float, half: float) -> None:
    """Pass on what comes, each piece `half` seconds later, in order; nothing before `opened`."""
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        piece = b"any"
        while piece:
            due, piece = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            with contextlib.suppress(OSError):
                if piece:
                    sink.sendall(piece)
                else:
                    sink.shutdown(socket.SHUT_WR)

    threading.Thread(target=deliver, daemon=True).start()
    piece = b"any"
    while piece:
        try:
            piece = source.recv(65536)
        except OSError:
            piece = b""
        pieces.put((max(time.monotonic(), opened) + half, piece))


def serve(port: int, round_trip_ms: int) -> None:
    """Pass bytes on to `port` and back, half a round trip later each way, for ever.

    What a client sends first waits for one round trip more: that is how long it takes to open a
    connection, which on the loopback interface takes no time.
    """
    half = round_trip_ms / 2000
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client = listener.accept()[0]
            opened = time.monotonic() + 2 * half
            server = socket.create_connection(("127.0.0.1", port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for ends in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(*ends, opened, half), daemon=True).start()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
