"""Redis is the one thing all servers share: what a request asks of it, counted exactly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn
from urllib.parse import quote

import asgiref.sync
import pytest
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.test import AsyncRequestFactory
from django.test import override_settings as overriding

from django_header_sessions import keys
from tests.processes import Valkey

from .site import KEY, Action, Site, commands, stored_under

# What a request does, with and without a key, and how often it may ask Redis.
COSTS: list[tuple[str, str, list[Action], int]] = [
    ("reads", "known", [["get", "here"], ["fields"]], 1),
    ("touches nothing", "known", [], 1),
    ("writes", "known", [["set", "n", 1], ["set", "m", [2]]], 2),
    ("changes a value in place", "known", [["append", "list", 1]], 2),
    ("deletes a field", "known", [["drop", "here"]], 2),
    ("clears", "known", [["clear"]], 2),
    ("increments", "known", [["increment", "n"]], 2),
    ("increments and writes", "known", [["increment", "n"], ["set", "m", 1]], 3),
    ("rotates", "known", [["cycle_key"]], 2),
    ("rotates and writes", "known", [["cycle_key"], ["set", "n", 1]], 3),
    ("ends", "known", [["flush"]], 2),
    ("sets the expiry", "known", [["set_expiry", 60]], 2),
    ("signs in from an anonymous session", "known", [["login", "ann"]], 3),
    ("fails after it wrote", "known", [["set", "n", 1], ["fail"]], 1),
    ("is refused as unknown", "unknown", [["set", "n", 1]], 1),
    ("is refused as malformed", "malformed", [["set", "n", 1]], 0),
    ("without a key touches nothing", "none", [], 0),
    ("without a key reads", "none", [["get", "n"], ["fields"]], 0),
    ("with new reads", "new", [["get", "n"], ["fields"]], 0),
    ("without a key creates", "none", [["set", "n", 1]], 1),
    ("with new creates", "new", [["set", "n", 1]], 1),
    ("without a key increments", "none", [["increment", "n"]], 1),
    ("without a key flushes", "none", [["flush"]], 0),
    ("without a key signs in", "none", [["login", "ann"]], 2),
]


@pytest.mark.parametrize(
    ("claims", "actions", "cost"),
    [(claims, actions, cost) for _, claims, actions, cost in COSTS],
    ids=[name for name, _, _, _ in COSTS],
)
def test_what_a_request_costs(
    site: Site, valkey: Valkey, claims: str, actions: list[Action], cost: int
) -> None:
    def ask() -> list[str]:
        sent = {
            "known": site.start(["set", "here", 1], ["set", "list", []]),
            "unknown": keys.make(),
            "malformed": "malformed",
            "new": "new",
            "none": None,
        }[claims]
        with commands(valkey) as seen:
            site.do(*actions, key=sent)
        return seen

    ask()  # The first of its kind teaches the server the scripts.
    assert ask() == ["EVALSHA"] * cost


def test_a_read_writes_nothing_within_a_grain_and_slides_all_after_one(
    site: Site, valkey: Valkey
) -> None:
    key = site.start()
    stored = stored_under(valkey, key)

    def written() -> tuple[Any, ...]:
        index = stored.replace(f":s:{key[:15]}", ":i:h0")
        return (
            valkey.client.pexpiretime(stored),
            valkey.client.zscore(index, key[:15]),
            valkey.client.hget(stored, b"\xffs"),
        )

    before = written()
    site.do(key=key)
    assert written() == before

    # As if it had been used last two minutes ago.
    valkey.client.hincrby(stored, b"\xffs", -120_000)
    site.do(key=key)
    after = written()
    assert after[0] > before[0]
    assert after[1] == after[0], "key and index say the same"
    assert after[2] != before[2]


def test_a_cookie_costs_a_read_too(site: Site, valkey: Valkey) -> None:
    def ask(*actions: Action) -> list[str]:
        cookie = site.start_by_cookie()
        with commands(valkey) as seen:
            site.do(*actions, path=site.cookie_view, cookie=cookie)
        return seen

    ask(["set", "n", 1])
    assert ask(["get", "here"]) == ["EVALSHA"]
    assert ask(["set", "n", 1]) == ["EVALSHA"] * 2


# Under ASGI the header transport never leaves the event loop.


@pytest.fixture
def on_redis(settings: Any, redis_cache: dict[str, Any]) -> None:
    settings.CACHES = {"default": redis_cache}
    # Django's other middleware is sync and hops; what is asked here is the session's.
    settings.MIDDLEWARE = ["django_header_sessions.middleware.HeaderSessionMiddleware"]


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every call that asgiref takes to a thread, from now on."""
    seen: list[object] = []
    hop = asgiref.sync.SyncToAsync.__call__

    def seeing(self: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        seen.append(self.func)
        return hop(self, *args, **kwargs)

    monkeypatch.setattr(asgiref.sync.SyncToAsync, "__call__", seeing)
    return seen


def ask_all(requests: list[tuple[str, list[Action]]]) -> list[str]:
    """Serve these in one event loop by Django's ASGI handler; the keys that were announced."""
    factory = AsyncRequestFactory()
    handler = ASGIHandler()

    async def serve() -> list[str]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(NoThreads())
        announced: list[str] = []
        for sent, actions in requests:
            sent = announced[-1] if sent == "announced" else sent
            text = str(actions).replace("'", '"').replace("True", "true")
            path = f"/async/?do={quote(text)}"
            headers = {KEY: sent} if sent else {}
            request: ASGIRequest = factory.get(path, headers=headers)
            response = await handler.get_response_async(request)
            assert response.status_code == 200, response
            announced.append(response.headers.get(KEY, sent))
        return announced

    return asyncio.run(serve())


class NoThreads(ThreadPoolExecutor):
    def submit(self, *args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("the event loop was left")


@pytest.mark.usefixtures("on_redis")
def test_the_header_transport_never_leaves_the_event_loop(hops: list[object]) -> None:
    threads = set(threading.enumerate())
    announced = ask_all(
        [
            ("", [["get", "n"]]),
            ("new", [["set", "n", 1], ["set", "list", []]]),
            ("announced", [["get", "n"], ["item", "n"], ["fields"]]),
            ("announced", [["append", "list", 1]]),
            ("announced", [["increment", "n"]]),
            ("announced", [["cycle_key"]]),
            ("announced", [["set_expiry", 60]]),
            ("announced", [["flush"], ["set", "m", 1]]),
            ("announced", [["flush"]]),
        ]
    )
    assert announced[-1] == ""
    assert hops == []
    assert set(threading.enumerate()) == threads


@pytest.mark.usefixtures("on_redis")
def test_the_test_of_hops_sees_a_hop(hops: list[object]) -> None:
    with (
        overriding(
            CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
        ),
        pytest.raises(AssertionError, match="the event loop was left"),
    ):
        ask_all([("", [["set", "n", 1]])])
    assert hops


@pytest.mark.usefixtures("on_redis")
def test_an_async_view_reads_an_item_without_asking_the_store_again(valkey: Valkey) -> None:
    (key,) = ask_all([("", [["set", "n", 1]])])
    with commands(valkey) as seen:
        ask_all([(key, [["item", "n"], ["fields"]])])
    assert seen.count("EVALSHA") == 1


def test_an_async_view_under_wsgi_uses_the_sync_client(valkey: Valkey, gunicorn: Any) -> None:
    """The loop of such a view lives for that view alone: a connection made in it would be a new
    one for each request."""
    site = Site(gunicorn, "/async/")
    key = site.start(["increment", "n"])
    before = valkey.client.info("stats")["total_connections_received"]
    for _ in range(5):
        site.do(["item", "n"], ["increment", "n"], ["set", "m", 1], ["cycle_key"], key=key)
        key = site.do(["cycle_key"], key=site.start()).key
    assert valkey.client.info("stats")["total_connections_received"] == before
