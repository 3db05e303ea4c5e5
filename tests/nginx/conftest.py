from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.http.site import Site
from tests.processes import Server, Valkey

from .proxy import Nginx

ENV = {
    "DJANGO_SETTINGS_MODULE": "tests.nginx.settings",
    "GUNICORN_CMD_ARGS": "--keep-alive 75",
}


class Behind(Protocol):
    """Starts an nginx by a file of the documentation, and speaks to the servers behind it."""

    def __call__(self, name: str, *, ports: list[int] | None = None, **how: Any) -> Site: ...


@pytest.fixture(scope="package")
def servers(valkey: Valkey) -> Iterator[list[int]]:
    """The ports of three servers that share one Valkey."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(Server("gunicorn", threads=8, REDIS_URL=valkey.url, **ENV)).port
            for _ in range(3)
        ]


@pytest.fixture
def behind(servers: list[int], valkey: Valkey, tmp_path: Path) -> Iterator[Behind]:
    valkey.client.flushall()
    with ExitStack() as stack:

        def start(name: str, *, ports: list[int] | None = None, **how: Any) -> Site:
            folder = tmp_path / f"nginx-{len(list(tmp_path.iterdir()))}"
            return Site(stack.enter_context(Nginx(folder, name, ports or servers, **how)))

        yield start
