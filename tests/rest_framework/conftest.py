from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from rest_framework.test import APIClient

from django_header_sessions.pytest_plugin import (  # noqa: F401  fixtures
    async_header_session_api_client,
    async_header_session_client,
    header_session_api_client,
    header_session_client,
)
from django_header_sessions.rest_framework.testing import HeaderSessionAPIClient

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.rest_framework.urls"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]


@pytest.fixture(autouse=True)
def _uncounted() -> None:
    """No attempts to sign in were counted before a test."""
    caches["default"].clear()


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann", password=PASSWORD)


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", password=PASSWORD)


def signed_in(user: User) -> HeaderSessionAPIClient:
    """A client whose header session the user is signed in with."""
    client = HeaderSessionAPIClient()
    client.force_login(user)
    return client


def by_cookie(user: User, *, csrf: bool = True) -> APIClient:
    """A browser in which the user is signed in, by cookie."""
    client = APIClient(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client
