from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from django.core.cache import caches
from django.views.debug import (
    SafeExceptionReporterFilter,
    get_default_exception_reporter_filter,
)

from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Store

pytest.register_assert_rewrite(
    "tests.stores.contract", "tests.stores.sharing", "tests.stores.bench"
)

from .processes import Valkey  # noqa: E402
from .stores.bench import LocMemBench, RedisBench  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Runs each test in a context of its own.

    Django keeps caches in the context that asks for them, under a new variable after each change of
    the settings, and all variables are copied at each hop of a thread in all tests that follow.
    """
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    copy_context().run(runtestprotocol, item, nextitem=nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """One real Valkey for all tests of a run. ``redis`` hands it out empty."""
    with Valkey() as started:
        yield started


@pytest.fixture
def redis_cache(valkey: Valkey) -> dict[str, Any]:
    """A django-redis alias of the Valkey, which is empty; for ``settings.CACHES``."""
    valkey.client.flushall()
    return {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": valkey.url,
        "OPTIONS": {"SOCKET_TIMEOUT": 5, "SOCKET_CONNECT_TIMEOUT": 5},
    }


@pytest.fixture
def quiet_cache(valkey: Valkey, redis_cache: dict[str, Any], settings: Any) -> Iterator[None]:
    """The Valkey behind the sessions, for a user who may not ask how much memory it uses."""
    valkey.client.acl_setuser(
        "quiet", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"]
    )
    location = f"redis://quiet:x@127.0.0.1:{valkey.port}/0"
    settings.CACHES = {"default": redis_cache | {"LOCATION": location}}
    yield
    valkey.client.acl_deluser("quiet")


@pytest.fixture(params=["locmem", "redis"])
def listing_store(request: pytest.FixtureRequest, settings: Any) -> Store:
    """Each store that keeps all ten invariants, behind the alias of the sessions."""
    if request.param == "redis":
        settings.CACHES = {"default": request.getfixturevalue("redis_cache")}
    return get_store("default")


@pytest.fixture
def forward(request: pytest.FixtureRequest, listing_store: Store) -> Callable[[float], None]:
    """Lets seconds pass for the store that lists."""
    bench = (
        LocMemBench(listing_store, request.getfixturevalue("time_machine"))
        if request.node.callspec.params["listing_store"] == "locmem"
        else RedisBench(listing_store, request.getfixturevalue("valkey").client)
    )
    return lambda seconds: bench.forward(int(seconds * 1000))


@pytest.fixture(params=["locmem", "redis", "file"])
def any_store(request: pytest.FixtureRequest, settings: Any, tmp_path: Any) -> Store:
    """Each store, behind the alias of the sessions."""
    if request.param == "redis":
        settings.CACHES = {"default": request.getfixturevalue("redis_cache")}
    elif request.param == "file":
        backend = "django.core.cache.backends.filebased.FileBasedCache"
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    return get_store("default")


@pytest.fixture
def kept_filter() -> Iterator[None]:
    """The setting of the filter is read in this test, and again after it: Django keeps it."""
    kept: Any = get_default_exception_reporter_filter
    kept.cache_clear()
    yield
    kept.cache_clear()


class ShyFilter(SafeExceptionReporterFilter):
    """A project's own idea of what is a secret."""

    hidden_settings = re.compile("birthday")


@pytest.fixture
def shy_filter(settings: Any, kept_filter: None) -> None:
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = f"{__name__}.ShyFilter"


@pytest.fixture(autouse=True)
def _empty_locmem() -> Iterator[None]:
    yield
    # A LocMemCache lives as long as its process, and so do its sessions.
    caches["default"].clear()
    # A page of entries whose sessions are gone has none, and drops them.
    while get_store("default").page(1000).next:
        pass


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ten thousand tests are there for the whole run: the collector need not look at them again
    and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A skipped test is a promise that nobody kept: it fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
