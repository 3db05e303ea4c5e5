from __future__ import annotations

from typing import Any

import pytest

from django_header_sessions.resolvers import Transport
from django_header_sessions.stores.base import Store

from .face import Half, Sessions


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> Half:
    chosen: Half = request.param
    return chosen


@pytest.fixture(params=["header", "cookie"])
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    return chosen


@pytest.fixture
def sessions(listing_store: Store, transport: Transport, half: Half) -> Sessions:
    """Sessions of each transport through each half of the API, on the stores that most will use;
    the contract of the stores is run on all."""
    return Sessions(transport, half)


@pytest.fixture
def header_sessions(listing_store: Store, half: Half) -> Sessions:
    return Sessions("header", half)


@pytest.fixture
def cookie_sessions(listing_store: Store, half: Half) -> Sessions:
    return Sessions("cookie", half)


@pytest.fixture
def local_sessions(transport: Transport, half: Half) -> Sessions:
    """Sessions on LocMem, for what does not depend on the store."""
    return Sessions(transport, half)


@pytest.fixture(params=["locmem", "file"])
def clocked(request: pytest.FixtureRequest, settings: Any, tmp_path: Any) -> None:
    """A store whose clock is this process's, so that a test may set it."""
    if request.param == "file":
        backend = "django.core.cache.backends.filebased.FileBasedCache"
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
