"""Where sessions are kept: one store for each kind of cache, one contract for all of them."""

from __future__ import annotations

from typing import Any, cast

from django.core.cache import caches
from django.utils.module_loading import import_string

from ..conf import conf
from ..observer import observers
from .base import Store
from .observed import ObservedStore

__all__ = ["Store", "get_store"]

_stores: dict[str, tuple[Any, int | None, Store, Store]] = {}


def get_store(alias: str) -> Store:
    """The store of a cache alias: one a process, made anew where the settings were.

    The one place that knows which cache asks for which store.
    """
    config, buckets = caches.settings[alias], conf.HEADER_SESSIONS_BUCKETS
    known = _stores.get(alias)
    if known is None or known[0] is not config or known[1] != buckets:
        store = _make(alias, import_string(config["BACKEND"]))
        known = _stores[alias] = (config, buckets, store, cast("Store", ObservedStore(store)))
    return known[3] if observers else known[2]


def _make(alias: str, backend: type) -> Store:
    names = {f"{each.__module__}.{each.__qualname__}" for each in backend.__mro__}
    if names & {"django_redis.cache.RedisCache", "django.core.cache.backends.redis.RedisCache"}:
        from .redis import RedisStore  # needs redis-py, which other caches do without

        return RedisStore(alias)
    if "django.core.cache.backends.locmem.LocMemCache" in names:
        from .locmem import LocMemStore

        return LocMemStore(alias)
    from .cache import CacheStore

    return CacheStore(alias)
