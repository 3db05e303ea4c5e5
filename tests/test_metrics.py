"""The metrics: what they count, and that no label names anybody."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import AsyncClient, Client
from prometheus_client import CollectorRegistry, generate_latest

from django_header_sessions import metrics, registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import (
    ListingNotSupported,
    SessionBusy,
    SessionEnded,
    SessionSuperseded,
)
from django_header_sessions.fields import Changes
from django_header_sessions.keys import make
from django_header_sessions.observer import observers
from django_header_sessions.rest_framework.testing import HeaderSessionAPIClient
from django_header_sessions.signals import session_alarm, session_created, session_ended
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Commit, Draft, Store, Terms

from .processes import Valkey

TERMS = Terms(1_800_000, 43_200_000)

Value = Callable[..., float]


@contextmanager
def uncounted(counters: metrics.Counters) -> Iterator[None]:
    """The counting ends with the block."""
    yield
    observers.remove(counters)
    session_created.disconnect(counters.on_created)
    session_ended.disconnect(counters.on_ended)


@pytest.fixture
def shown() -> Iterator[CollectorRegistry]:
    """What a scrape shows; the counting ends with the test."""
    collected = CollectorRegistry()
    with uncounted(metrics.install(collected)):
        yield collected


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


@pytest.mark.usefixtures("quiet_cache")
def test_memory_that_may_not_be_asked_for_is_not_shown(shown: CollectorRegistry) -> None:
    assert shown.get_sample_value("header_sessions_store_up") == 1
    assert shown.get_sample_value("header_sessions_store_memory_bytes") is None


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


def test_to_install_the_metrics_asks_nobody(settings: Any, valkey: Valkey) -> None:
    """An ``AppConfig.ready`` runs with each command, and a store may hang just then."""
    settings.CACHES = {
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": valkey.url}
    }
    start()
    settings.HEADER_SESSIONS_ALERT_COUNT = 0
    told: list[str] = []

    def receive(of: str, **kwargs: Any) -> None:
        told.append(of)

    session_alarm.connect(receive)
    # As prometheus_client makes its own.
    collected = CollectorRegistry(auto_describe=True)
    with uncounted(metrics.install(collected)):
        assert told == []
        # Whoever asks the store raises the alarm.
        assert collected.get_sample_value("header_sessions_alarm", {"of": "count"}) == 1
        assert told == ["count"]
    session_alarm.disconnect(receive)


@pytest.mark.usefixtures("listing_store")
def test_a_session_that_is_opened_by_its_lock_counts_as_opened_once(value: Value) -> None:
    holder = SessionStore(transport="header")
    holder["n"] = 1
    holder.save()
    holder.lock()
    assert value("opens_total", outcome="done") == 1
    with pytest.raises(SessionBusy):
        SessionStore(holder.session_key, transport="header").lock(wait=0)
    assert value("opens_total", outcome="queued") == 0
    assert value("opens_total", outcome="done") == 1
    holder.unlock()
    with pytest.raises(SessionEnded):
        SessionStore(str(make()), transport="header").lock()
    assert value("opens_total", outcome="not there") == 1


@pytest.mark.usefixtures("listing_store")
def test_a_change_that_came_too_late_is_counted_as_that(value: Value) -> None:
    def session() -> SessionStore:
        made = SessionStore(transport="header")
        made["n"] = 1
        made.save()
        return made

    rotated, ended = session(), session()
    for late in (rotated, ended):
        late["n"] = 2
    SessionStore(rotated.session_key, transport="header").cycle_key()
    registry.end(str(ended.session_key)[:15])
    rotations = value("commits_total", outcome="done")
    with pytest.raises(SessionSuperseded):
        rotated.save()
    assert value("commits_total", outcome="superseded") == 1
    with pytest.raises(SessionEnded):
        ended.save()
    assert value("commits_total", outcome="not there") == 1
    assert value("commits_total", outcome="done") == rotations


@pytest.mark.usefixtures("listing_store")
@pytest.mark.django_db
def test_every_end_is_counted_by_its_reason(value: Value, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.rest_framework.urls"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]
    settings.HEADER_SESSIONS_MAX_PER_USER = 2
    user = User.objects.create_superuser("alice")
    session = SessionStore()
    session["n"] = 1
    session.save()
    session.flush()
    assert value("ended_total", reason="logout") == 1
    session["n"] = 1
    session.save()
    session.set_expiry(-1)
    session.save()
    assert value("ended_total", reason="expiry") == 1
    clients = []
    for _ in range(3):
        clients.append(HeaderSessionAPIClient())
        clients[-1].force_login(user)
    assert value("ended_total", reason="limit") == 1
    assert clients[2].post("/api/sessions/end-others/").data == {"ended": 1}
    assert value("ended_total", reason="owner") == 1
    call_command("header_sessions", "end", start(), stdout=StringIO())
    assert value("ended_total", reason="command") == 1
    registry.end(start())
    assert value("ended_total", reason="registry") == 1
    browser = Client()
    browser.force_login(user)
    url = f"/admin/django_header_sessions/session/{start()}/delete/"
    assert browser.post(url, {"post": "yes"}).status_code == 302
    assert value("ended_total", reason="admin") == 1
    counted = {reason for reason in metrics.REASONS if value("ended_total", reason=reason) == 1}
    assert counted == metrics.REASONS
    assert value("ended_total", reason="other") == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_what_a_caller_got_wrong_is_no_error_of_the_store(
    value: Value, mode: str, settings: Any, tmp_path: Any, listing_store: Store
) -> None:
    async def fails(verb: str, *args: Any, by: type[BaseException]) -> None:
        store: Any = get_store("default")
        if mode == "async":
            with pytest.raises(by):
                await getattr(store, f"a{verb}")(*args)
        else:
            with pytest.raises(by):
                getattr(store, verb)(*args)

    key, _ = get_store("default").create(Draft("header", {"x": b"text", "n": b"1"}), TERMS)
    for changes, by in (
        (Changes(add=("x", 1)), TypeError),
        (Changes(add=("n", 2**63 - 1)), OverflowError),
    ):
        await fails("commit", key, "header", TERMS, Commit(changes), by=by)
    assert value("commits_total", outcome="refused") == 2
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    await fails("count", by=ListingNotSupported)
    for verb in ("commit", "count"):
        assert value("store_errors_total", verb=verb) == 0
        assert value("store_seconds_count", verb=verb) >= 1


async def test_a_request_that_was_given_up_is_no_error_of_the_store(
    value: Value, settings: Any
) -> None:
    with Valkey() as server:
        settings.CACHES = {
            "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": server.url}
        }
        store = get_store("default")
        await store.acount()
        server.signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.acount(), 0.05)
    assert value("store_seconds_count", verb="count") == 2
    assert value("store_errors_total", verb="count") == 0


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


def test_a_store_that_refuses_our_password_is_a_figure_too(value: Value, settings: Any) -> None:
    with Valkey() as server:
        server.client.config_set("requirepass", "right")
        url = server.url.replace("redis://", "redis://:wrong@")
        settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}}
        assert value("store_up") == 0
        assert value("live", transport="header", signed_in="no") == 0


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
