"""Fixtures for pytest, found through its entry point. Nothing is imported before one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .rest_framework.testing import AsyncHeaderSessionAPIClient, HeaderSessionAPIClient
    from .testing import AsyncHeaderSessionClient, HeaderSessionClient


@pytest.fixture
def header_session_client() -> HeaderSessionClient:
    """Django's test client with a header session of its own."""
    from .testing import HeaderSessionClient

    return HeaderSessionClient()


@pytest.fixture
def async_header_session_client() -> AsyncHeaderSessionClient:
    """Django's async test client with a header session of its own."""
    from .testing import AsyncHeaderSessionClient

    return AsyncHeaderSessionClient()


@pytest.fixture
def header_session_api_client() -> HeaderSessionAPIClient:
    """DRF's ``APIClient`` with a header session of its own."""
    from .rest_framework.testing import HeaderSessionAPIClient

    return HeaderSessionAPIClient()


@pytest.fixture
def async_header_session_api_client() -> AsyncHeaderSessionAPIClient:
    """The same for async tests."""
    from .rest_framework.testing import AsyncHeaderSessionAPIClient

    return AsyncHeaderSessionAPIClient()
