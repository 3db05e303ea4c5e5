"""Where sessions are kept: one store for each kind of cache, one contract for all of them."""

from __future__ import annotations

from typing import Any

from django.core.cache import caches
from django.utils.module_loading import import_string

from .base import Store

__all__ = ["Store", "get_store"]

_stores: dict[str, tuple[Any, Store]] = {}


def get_store(alias: str) -> Store:
    """The store of a cache alias: one a process, made anew where the settings were.

    The one place that knows which cache asks for which store.
    """
    config = caches.settings[alias]
    known = _stores.get(alias)
    if known is None or known[0] is not config:
        known = _stores[alias] = (config, _make(alias, import_string(config["BACKEND"])))
    return known[1]


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
