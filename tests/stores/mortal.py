"""Whoever does something to a store and dies in the midst of it.

On Redis that is a process which is killed: ``python -m tests.stores.mortal`` does each job that it
reads in a fork of its own. LocMem is in this process, so there it is a cache that stops whoever
uses it.
"""

from __future__ import annotations

import base64
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from django.core.cache.backends.locmem import LocMemCache

from django_header_sessions.exceptions import SessionError

from ..processes import ROOT, Valkey

Cut = Literal["before", "within", "after"]


@dataclass(frozen=True)
class Job:
    """A verb of the store, or a function of the registry, and when whoever does it dies: before,
    within or after the ``nth`` thing that is sent to the server or asked of the cache."""

    name: str
    args: tuple[Any, ...]
    nth: int
    cut: Cut
    buckets: int | None = None


class MortalProcess:
    """Does jobs on the Valkey, and dies of each."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey, self._client = valkey, cast("Any", valkey.client)
        env = {"REDIS_URL": valkey.url, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stores.mortal"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | env,
            cwd=ROOT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()

    def do(self, job: Job) -> bool:
        """Whether the job was cut short. What was sent has arrived by then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(base64.b64encode(pickle.dumps(job)) + b"\n")
        self._process.stdin.flush()
        port, status = self._process.stdout.readline().split()
        assert status in (b"0", b"-9")
        addr = f"127.0.0.1:{int(port)}"
        self._valkey.wait_until(
            lambda: all(each["addr"] != addr for each in self._client.client_list())
        )
        return bool(status == b"-9")


class Died(BaseException):
    """Not to be caught by whoever catches errors."""


class MortalCache(LocMemCache):
    """Stops whoever asks it for the last thing that is left to them."""

    left: int | None = None
    cut: Cut = "before"

    @classmethod
    def do(cls, job: Job, do: Callable[[], object]) -> bool:
        cls.left, cls.cut = job.nth, job.cut
        try:
            with suppress(SessionError):
                do()
        except Died:
            return True
        finally:
            cls.left = None
        return False

    def _asked(self, ask: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        cls = type(self)
        if cls.left is None:
            return ask(*args, **kwargs)
        cls.left -= 1
        dies = cls.left == 0
        if dies:
            cls.left = None
        if dies and cls.cut == "before":
            raise Died
        answer = ask(*args, **kwargs)
        if dies:
            raise Died
        return answer

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._asked(super().get, *args, **kwargs)

    def set(self, *args: Any, **kwargs: Any) -> Any:
        return self._asked(super().set, *args, **kwargs)

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return self._asked(super().add, *args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        return self._asked(super().delete, *args, **kwargs)


def die_of(job: Job) -> None:
    """Do the job, and be killed in the midst of it."""
    import redis
    from django.test.utils import override_settings

    from django_header_sessions import registry
    from django_header_sessions.stores import get_store

    send: Any = redis.connection.AbstractConnection.send_packed_command
    sent = 0

    def dying(connection: Any, command: Any, check_health: bool = True) -> Any:
        nonlocal sent
        data = command if isinstance(command, bytes) else b"".join(command)
        sent += b"EVAL" in data
        if sent >= job.nth and b"EVAL" in data:  # pragma: no cover  the dead do not report
            os.write(1, b"%d " % connection._sock.getsockname()[1])
            parts = {"before": 0, "within": len(data) // 2, "after": len(data)}
            connection._sock.sendall(data[: parts[job.cut]])
            os.kill(os.getpid(), signal.SIGKILL)
        return send(connection, [data], check_health)

    redis.connection.AbstractConnection.send_packed_command = dying  # type: ignore[method-assign]
    with override_settings(HEADER_SESSIONS_BUCKETS=job.buckets):
        where: Any = registry if job.name.startswith("registry.") else get_store("default")
        with suppress(SessionError):
            getattr(where, job.name.removeprefix("registry."))(*job.args)
    os.write(1, b"0 ")


def main() -> None:
    import django

    django.setup()
    # What each fork would import anew, which takes longer than its job.
    import django.test.utils

    import django_header_sessions.registry  # noqa: F401
    from django_header_sessions.stores import get_store

    get_store("default")
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            die_of(pickle.loads(base64.b64decode(line)))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
