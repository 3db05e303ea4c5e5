"""The contract of the stores, on a real Redis Cluster."""

from __future__ import annotations

from typing import Any

import pytest

from django_header_sessions.stores import get_store
from tests.stores.bench import _LEVEL, RedisBench
from tests.stores.contract import ListContract, ListRaceContract, RaceContract, StoreContract
from tests.stores.sharing import ContextContract, LockContract

from .conftest import cluster_alias
from .topologies import Cluster

_LATEST = """#!lua flags=allow-cross-slot-keys
local moment = 0
for _, key in ipairs(redis.call('KEYS', '*:s:*')) do
  moment = math.max(moment, redis.call('PEXPIRETIME', key))
end
return moment
"""


class _Primaries:
    """Asks all primaries what a bench asks one Redis."""

    def __init__(self, cluster: Cluster) -> None:
        self._clients: list[Any] = [node.client for node in cluster.nodes[:3]]

    def eval(self, script: str, keys: int, *args: Any) -> list[Any]:
        if script == _LEVEL:
            moment = max(client.eval(_LATEST, 0) for client in self._clients)
            script = script.replace("local moment = 0", f"local moment = {moment}")
        # Written for one Redis, where keys have no slots.
        script = script.replace("#!lua flags=", "#!lua flags=allow-cross-slot-keys,")
        answers = [client.eval(script, keys, *args) for client in self._clients]
        return [part for answer in answers for part in answer or ()]

    def keys(self, pattern: str) -> list[bytes]:
        return [key for client in self._clients for key in client.keys(pattern)]

    def delete(self, key: bytes) -> int:
        (owner,) = [client for client in self._clients if key in client.keys("*")]
        return int(owner.delete(key))


class TestCluster(
    StoreContract, ListContract, RaceContract, ListRaceContract, LockContract, ContextContract
):
    rounds, rotations = 100, 125  # the scripts that race are those that do so on one Redis

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest, cluster: Cluster, settings: Any) -> RedisBench:
        for node in cluster.nodes[:3]:
            node.client.flushall()
        settings.CACHES = {"default": cluster_alias(cluster)}
        if "each_kind" not in request.node.name:
            # Several on each server. A page asks all of them, and a sweep takes one at least from
            # each, which tests count in tens. The 256 that there are else are left to one test.
            settings.HEADER_SESSIONS_BUCKETS = 16
        primaries: Any = _Primaries(cluster)
        return RedisBench(get_store("default"), primaries)
