"""The checks and the doctor: what would make an outage a logout is said before there is one."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.core.checks import Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import AsyncClient, Client

from django_header_sessions.stores import get_store
from tests import test_checks
from tests.test_checks import LOCMEM, cache, cases, override, raised

from .conftest import Failing, alias, cluster_alias
from .topologies import Cluster, wait_until

DJANGO_REDIS = "django_redis.cache.RedisCache"
BUILT_IN = "django.core.cache.backends.redis.RedisCache"
TIMEOUTS: dict[str, Any] = dict(test_checks.TIMEOUTS)
URL = "redis://127.0.0.1:1/0"


def redis_cache(location: Any = URL, backend: str = DJANGO_REDIS, **options: Any) -> dict[str, Any]:
    return cache(backend, LOCATION=location, OPTIONS=options)


RAISED: dict[str, list[dict[str, Any]]] = {
    "W020": [
        redis_cache(),
        redis_cache(SOCKET_TIMEOUT=1),
        redis_cache(SOCKET_CONNECT_TIMEOUT=1),
        redis_cache(backend=BUILT_IN),
        redis_cache(backend=BUILT_IN, socket_timeout=1),
    ],
    "W021": [
        redis_cache(**TIMEOUTS, CONNECTION_POOL_KWARGS={"retry_on_timeout": True}),
        redis_cache(**TIMEOUTS, CONNECTION_POOL_KWARGS={"retry": object()}),
        redis_cache(
            backend=BUILT_IN, socket_timeout=1, socket_connect_timeout=1, retry_on_error=[OSError]
        ),
    ],
    "W022": [
        cache(LOCMEM, OPTIONS={"MAX_ENTRIES": 10_000}) | {"WEB_CONCURRENCY": "4"},
    ],
    "W023": [
        cache(LOCMEM),
        cache(LOCMEM, OPTIONS={"MAX_ENTRIES": 500}),
        cache(LOCMEM, OPTIONS={"MAX_ENTRIES": 5000}) | {"HEADER_SESSIONS_ALERT_COUNT": 6000},
    ],
    "E020": [
        redis_cache(**TIMEOUTS, IGNORE_EXCEPTIONS=True),
        redis_cache(**TIMEOUTS) | {"DJANGO_REDIS_IGNORE_EXCEPTIONS": True},
    ],
    "E021": [
        redis_cache([URL, "redis://127.0.0.1:2/0"], **TIMEOUTS),
        redis_cache(f"{URL},redis://127.0.0.1:2/0", **TIMEOUTS),
        redis_cache(**TIMEOUTS, CLIENT_CLASS="django_redis.client.SentinelClient"),
        redis_cache("redis://mymaster/0?is_master=0", **TIMEOUTS),
    ],
    "E022": [{"HEADER_SESSIONS_RETRY_AFTER": value} for value in (-1, 1.5, "1", None, True)],
    "E023": [
        {"HEADER_SESSIONS_BREAKER_SECONDS": value}
        for value in (-1, "1", None, True, float("inf"), float("nan"))
    ],
    "E024": [
        redis_cache(**TIMEOUTS, CONNECTION_POOL_KWARGS={"decode_responses": True}),
        redis_cache(
            backend=BUILT_IN, socket_timeout=1, socket_connect_timeout=1, decode_responses=True
        ),
    ],
    "E025": [
        redis_cache([URL, URL], **TIMEOUTS, CLIENT_CLASS="django_redis.client.ShardClient"),
    ],
    "W024": [
        redis_cache(**TIMEOUTS, SENTINELS=[("h", 1)]),
        redis_cache(**TIMEOUTS, SENTINELS=[("h", 1)], SENTINEL_KWARGS={"socket_timeout": 1}),
        redis_cache(
            **TIMEOUTS,
            SENTINELS=[("h", 1)],
            SENTINEL_KWARGS={"socket_timeout": 1, "socket_connect_timeout": 1},
        ),
    ],
    "W025": [
        redis_cache(**TIMEOUTS, CLOSE_CONNECTION=True),
        redis_cache(**TIMEOUTS) | {"DJANGO_REDIS_CLOSE_CONNECTION": True},
    ],
}
NOT_RAISED: dict[str, list[dict[str, Any]]] = {
    "W020": [
        redis_cache(**TIMEOUTS),
        redis_cache(
            CONNECTION_POOL_KWARGS={"socket_timeout": 1, "socket_connect_timeout": 1},
        ),
        redis_cache(f"{URL}?socket_timeout=1&socket_connect_timeout=1"),
        redis_cache(backend=BUILT_IN, socket_timeout=1, socket_connect_timeout=1),
    ],
    "W021": [redis_cache(**TIMEOUTS, CONNECTION_POOL_KWARGS={"retry_on_timeout": False})],
    "W022": [
        {"WEB_CONCURRENCY": "1"},
        redis_cache(**TIMEOUTS) | {"WEB_CONCURRENCY": "4"},
    ],
    "W023": [cache(LOCMEM, OPTIONS={"MAX_ENTRIES": 1000}), redis_cache(**TIMEOUTS)],
    "E020": [
        redis_cache(**TIMEOUTS, IGNORE_EXCEPTIONS=False) | {"DJANGO_REDIS_IGNORE_EXCEPTIONS": True},
    ],
    "E021": [
        redis_cache([URL], **TIMEOUTS),
        redis_cache("redis://mymaster/0?is_master=1", **TIMEOUTS),
    ],
    "E022": [{"HEADER_SESSIONS_RETRY_AFTER": value} for value in (0, 30)],
    "E023": [{"HEADER_SESSIONS_BREAKER_SECONDS": value} for value in (0, 0.5, 5)],
    "E024": [redis_cache(**TIMEOUTS, CONNECTION_POOL_KWARGS=None)],
    "E025": [redis_cache(**TIMEOUTS, CLIENT_CLASS="django_redis.client.HerdClient")],
    "W024": [
        redis_cache(
            **TIMEOUTS,
            SENTINELS=[("h", 1)],
            SENTINEL_KWARGS={"socket_timeout": 1, "socket_connect_timeout": 1, "retry": None},
        ),
    ],
    "W025": [
        redis_cache(**TIMEOUTS, CLOSE_CONNECTION=False) | {"DJANGO_REDIS_CLOSE_CONNECTION": True},
    ],
}


def nobody_probes() -> bool:
    """Whether there are no probes of other tests' stores, which would read what is set here. They
    end with their stores, which a probe holds while it is on its way."""
    if "header-sessions-probe" not in str(threading.enumerate()):
        return True
    gc.collect()
    return False


def prepare(settings: Any, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any]) -> None:
    wait_until(nobody_probes)
    overrides = dict(overrides)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    if "WEB_CONCURRENCY" in overrides:
        monkeypatch.setenv("WEB_CONCURRENCY", overrides.pop("WEB_CONCURRENCY"))
    override(settings, overrides)


@pytest.mark.parametrize(("number", "overrides"), cases(RAISED))
def test_a_danger_is_named_with_a_hint_and_no_other_with_it(
    settings: Any, monkeypatch: pytest.MonkeyPatch, number: str, overrides: dict[str, Any]
) -> None:
    prepare(settings, monkeypatch, overrides)
    found = raised()
    assert found.keys() == {number}
    assert found[number].hint
    assert isinstance(found[number], Error if number[0] == "E" else Warning)


@pytest.mark.parametrize(("number", "overrides"), cases(NOT_RAISED))
def test_what_is_near_a_danger_is_none(
    settings: Any, monkeypatch: pytest.MonkeyPatch, number: str, overrides: dict[str, Any]
) -> None:
    prepare(settings, monkeypatch, overrides)
    assert number not in raised()


@pytest.mark.parametrize("atomic", [False, True])
def test_a_table_of_a_database_that_takes_back_what_a_failed_request_did_is_none_for_sessions(
    settings: Any, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)
    assert "E026" not in raised()
    override(settings, cache("django.core.cache.backends.db.DatabaseCache", LOCATION="sessions"))
    assert ("E026" in raised()) is atomic


def test_a_client_that_spreads_sessions_over_servers_is_told_so(settings: Any) -> None:
    override(settings, redis_cache([URL], CLIENT_CLASS="django_redis.client.ShardClient"))
    with pytest.raises(ImproperlyConfigured, match="ShardClient"):
        get_store("default")


def doctor(*options: str) -> tuple[str, str]:
    """What the doctor says, and what it complains of in the end."""
    out = StringIO()
    try:
        call_command("header_sessions", "doctor", *options, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def test_the_doctor_finds_nothing_wrong_with_a_server_that_keeps_all(store: Failing) -> None:
    said, complaint = doctor()
    assert said.startswith("ok: 'default' answers; its version is ")
    assert said.count("\n") == 1
    assert complaint == ""


def test_the_doctor_speaks_json(store: Failing) -> None:
    (finding,) = json.loads(doctor("--json")[0])
    assert finding["level"] == "ok"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_the_doctor_knows_a_policy_that_throws_sessions_away(store: Failing, policy: str) -> None:
    store.valkey.client.config_set("maxmemory-policy", policy)
    said, complaint = doctor()
    assert f"warning: 'default' has the maxmemory-policy {policy}" in said
    assert complaint == ""
    store.valkey.client.config_set("maxmemory", "100mb")
    said, complaint = doctor()
    assert f"error: 'default' has the maxmemory-policy {policy}" in said
    assert "noeviction" in said
    assert complaint == "1 of these lose sessions."


def test_the_doctor_knows_a_replica(store: Failing) -> None:
    store.valkey.client.replicaof("127.0.0.1", "1")
    said, complaint = doctor()
    assert "error: 'default' is a replica" in said
    assert complaint


def test_the_doctor_of_a_store_that_is_down_says_so(store: Failing) -> None:
    store.stop()
    said, complaint = doctor()
    assert said == ""
    assert "cannot be used at the moment" in complaint


def test_the_doctor_of_another_cache_asks_it(settings: Any) -> None:
    assert doctor() == ("ok: The cache 'default' answers.\n", "")


@pytest.fixture
def covered(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    for node in cluster.nodes:
        node.client.config_set("cluster-require-full-coverage", "no")


def test_the_doctor_asks_every_primary_of_a_cluster_whether_it_needs_the_others(
    covered: Cluster, settings: Any
) -> None:
    settings.CACHES = {"default": cluster_alias(covered)}
    said, complaint = doctor()
    assert said.count("ok: ") == 3
    assert complaint == ""
    covered.nodes[1].client.config_set("cluster-require-full-coverage", "yes")
    said, complaint = doctor()
    assert said.count("warning: ") == 1
    assert f":{covered.nodes[1].port}) has cluster-require-full-coverage set" in said


def test_the_doctor_needs_no_more_rights_than_it_is_given(cluster: Cluster, settings: Any) -> None:
    for node in cluster.nodes[:3]:
        node.client.acl_setuser(
            "few",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            commands=["+@all", "-config"],
        )
    settings.CACHES = {
        "default": alias(
            cluster.url.replace("redis://", "redis://few:secret@"),
            CONNECTION_FACTORY="django_header_sessions.stores.cluster.ClusterConnectionFactory",
        )
    }
    said, complaint = doctor()
    assert said.count("does not tell whether cluster-require-full-coverage is set") == 3
    assert complaint == ""


def test_the_doctor_of_a_cluster_takes_a_server_without_config_for_a_sound_one(
    settings: Any,
) -> None:
    """As hosted ones are."""
    with Cluster("--rename-command", "CONFIG", "") as cluster:
        settings.CACHES = {"default": cluster_alias(cluster)}
        said, complaint = doctor()
    assert said.count("ok: ") == 3
    assert said.count("does not tell whether cluster-require-full-coverage is set") == 3
    assert complaint == ""


@pytest.mark.parametrize("when", ["before", "while it is asked"])
def test_the_doctor_of_a_cluster_names_the_server_that_is_down(
    settings: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    with Cluster() as cluster:
        settings.CACHES = {"default": cluster_alias(cluster)}
        doctor()
        store: Any = get_store("default")
        (server,) = [
            each for each in store._servers.every() if f":{cluster.nodes[2].port})" in each.name
        ]
        ask = server.client.execute_command

        def losing(*command: Any) -> Any:
            if when == "before" or command[0] == "CONFIG GET":
                cluster.nodes[2].kill()
            return ask(*command)

        monkeypatch.setattr(server.client, "execute_command", losing)
        said, complaint = doctor()
    assert said.count("ok: ") == 2
    assert f":{cluster.nodes[2].port}) does not answer" in said
    assert complaint == "1 of these lose sessions."


@pytest.mark.parametrize(
    ("several", "on_redis", "warnings"), [(True, False, 1), (False, False, 0), (True, True, 0)]
)
def test_sessions_in_the_memory_of_one_process_of_several_are_warned_of_once(
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    store: Failing,
    several: bool,
    on_redis: bool,
    warnings: int,
) -> None:
    if not on_redis:
        settings.CACHES = {"default": {"BACKEND": LOCMEM, "LOCATION": "tests"}}
    client = Client()
    for _ in range(2):
        extra: Any = {"wsgi.multiprocess": several}
        client.get("/sync/read/", **extra)
    said = [record for record in caplog.records if "has others" in record.getMessage()]
    assert len(said) == warnings


async def test_an_asgi_server_says_nothing_of_its_processes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await AsyncClient().get("/async/read/")
    assert "has others" not in caplog.text
