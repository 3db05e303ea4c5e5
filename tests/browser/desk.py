"""A browser, a site for it to look at, and sessions for the site to show."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connections
from django.test.testcases import LiveServerThread
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from django_header_sessions.fields import Changes
from django_header_sessions.origin import Origin, summary
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Commit, ContextChange, Draft, Expiry, Terms

TERMS = Terms(1_800_000, 43_200_000)
CONTEXTS = [
    ContextChange("search", Changes(set={"query": b"steel hinges", "page": b"3"}), idle=600_000),
    ContextChange("travel", Changes(set={"from": b"Vienna", "to": b"Graz"}), idle=300_000),
]
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "python-httpx/0.27.0",
    "okhttp/4.12.0",
)


class Server(ThreadedWSGIServer):
    """Ends the connections that a browser keeps open, and waits for their threads."""

    daemon_threads = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
        super().server_close()


class ServerThread(LiveServerThread):
    server_class = Server


@contextmanager
def browser(width: int = 1600, height: int = 900) -> Iterator[Chrome]:
    """Debian's Chromium, without a window."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    driver = Chrome(options=options, service=ChromeService("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(30)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def site() -> Iterator[str]:
    """This project with its static files, served by threads of this process; its address."""
    shared = {each.alias: each for each in connections.all()}
    for connection in shared.values():
        connection.inc_thread_sharing()
    server = ServerThread("127.0.0.1", StaticFilesHandler, connections_override=shared)
    server.daemon = True
    server.start()
    server.is_ready.wait(10)
    try:
        assert server.error is None, server.error
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.terminate()
        for connection in shared.values():
            connection.dec_thread_sharing()


def fill(count: int, users: list[str], seed: int = 1) -> list[str]:
    """Store so many sessions of all kinds, spread over time-outs; their ids."""
    draw, store, ids = Random(seed), get_store("default"), []
    for n in range(count):
        fields = {"cart": b'\xff{"items": [3, 14, 15], "coupon": "SPRING"}', "visits": b"%d" % n}
        user = draw.choice([*users, None, None]) if users else None
        if user:
            fields |= {
                "_auth_user_id": user.encode(),
                "_auth_user_backend": b"django.contrib.auth.backends.ModelBackend",
                "_auth_user_hash": b"0" * 64,
            }
        draft = Draft(
            draw.choice(["header", "header", "header", "cookie"]),
            fields,
            user,
            Expiry("idle", draw.randint(300, 1800) * 1000),
            Origin(f"192.0.2.{draw.randint(1, 40)}", summary(draw.choice(AGENTS))),
        )
        key, _ = store.create(draft, TERMS)
        if draft.transport == "header":
            store.commit(key, "header", TERMS, Commit(contexts=CONTEXTS, most=len(CONTEXTS)))
        ids.append(key.id)
    return ids
