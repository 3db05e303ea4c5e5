"""The metrics: what they count, and that no label names anybody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from prometheus_client import CollectorRegistry, generate_latest

from django_header_sessions import metrics, registry
from django_header_sessions.keys import make
from django_header_sessions.observer import observers
from django_header_sessions.signals import session_created, session_ended
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft, Terms

from .processes import Valkey

TERMS = Terms(1_800_000, 43_200_000)

Value = Callable[..., float]


@pytest.fixture
def shown() -> Iterator[CollectorRegistry]:
    """What a scrape shows; the counting ends with the test."""
    collected = CollectorRegistry()
    counters = metrics.install(collected)
    yield collected
    observers.remove(counters)
    session_created.disconnect(counters.on_created)
    session_ended.disconnect(counters.on_ended)


@pytest.fixture
def value(shown: CollectorRegistry) -> Value:
    def valued(name: str, **labels: str) -> float:
        return shown.get_sample_value(f"header_sessions_{name}", labels) or 0

    return valued


def start(user: str | None = None, transport: str = "header") -> str:
    return get_store("default").create(Draft(transport, {}, user), TERMS)[0].id


@pytest.mark.usefixtures("listing_store")
def test_what_is_there_is_asked_of_the_store(value: Value, settings: Any) -> None:
    start()
    start("7")
    start("7", "cookie")
    assert value("live", transport="header", signed_in="no") == 1
    assert value("live", transport="header", signed_in="yes") == 1
    assert value("live", transport="cookie", signed_in="yes") == 1
    assert value("live", transport="cookie", signed_in="no") == 0
    assert value("store_up") == 1
    assert value("store_breakers_open") == 0
    memory = registry.overview().memory
    assert memory is not None
    assert value("store_memory_bytes") == pytest.approx(memory.used, rel=0.5)
    assert value("alarm", of="count") == 0
    settings.HEADER_SESSIONS_ALERT_COUNT = 2
    assert value("alarm", of="count") == 1


@pytest.mark.usefixtures("listing_store")
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_requests_are_counted_by_what_became_of_them(
    value: Value, mode: str, settings: Any
) -> None:
    client: Any = Client() if mode == "sync" else AsyncClient()

    async def call(key: str, actions: list[Any]) -> Any:
        query = {"do": json.dumps(actions)}
        sent = client.get(f"/{mode}/", query, headers={"x-session-key": key})
        return sent if mode == "sync" else await sent

    answer = await call("new", [["set", "n", 1]])
    key = answer.headers["X-Session-Key"]
    assert value("created_total", transport="header") == 1
    await call(key, [["set", "n", 2]])
    assert value("opens_total", outcome="done") == 1
    assert value("commits_total", outcome="done") == 1
    assert value("store_seconds_count", verb="open") == 1
    assert value("store_seconds_count", verb="create") == 1
    await call(str(make()), [])
    assert value("opens_total", outcome="not there") == 1
    assert value("refusals_total", kind="unknown") == 1
    await call("not a key", [])
    assert value("refusals_total", kind="malformed") == 1
    assert value("store_errors_total", verb="open") == 0
    registry.end(key[:15], "owner")
    assert value("ended_total", reason="owner") == 1


@pytest.mark.usefixtures("listing_store")
def test_no_label_holds_what_names_anybody(shown: CollectorRegistry, db: None) -> None:
    user = User.objects.create_user("alice")
    ids = [start(str(user.pk)) for _ in range(3)]
    registry.end(ids[0], f"because of {ids[0]}")
    registry.end(ids[1], "alice")
    registry.end(ids[2], "admin")
    key, _ = get_store("default").create(Draft("header", {}), TERMS)
    get_store("default").open(key, "header", TERMS)
    text = generate_latest(shown).decode()
    assert 'header_sessions_ended_total{reason="other"} 2.0' in text
    assert 'header_sessions_ended_total{reason="admin"} 1.0' in text
    for name in (*ids, "alice", key.id, str(key), "because"):
        assert name not in text


def test_a_store_that_is_down_is_a_figure_and_not_a_failure(value: Value, settings: Any) -> None:
    with Valkey() as server:
        settings.CACHES = {
            "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url}
        }
        start()
        assert value("store_up") == 1
    assert value("store_up") == 0
    assert value("store_breakers_open") == 1
    assert value("live", transport="header", signed_in="no") == 0
    assert value("store_errors_total", verb="exists") >= 1
    # So that it does not outlive the test.
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0


def test_a_cache_that_cannot_list_still_counts(value: Value, settings: Any, tmp_path: Any) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    start()
    assert value("store_up") == 1
    assert value("store_seconds_count", verb="create") == 1
    assert value("live", transport="header", signed_in="no") == 0


def test_nobody_is_told_where_nobody_asked() -> None:
    assert observers == []
    assert type(get_store("default")).__name__ == "LocMemStore"
