"""The settings: their defaults, and that they are as they were overridden last."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import override_settings

from django_header_sessions.conf import Settings, conf

DEFAULTS: dict[str, Any] = {
    "HEADER": "X-Session-Key",
    "COOKIE_PATHS": ("/admin/",),
    "IDLE_TIMEOUT": 1800,
    "ABSOLUTE_TIMEOUT": 43200,
    "UNKNOWN": "reject",
    "UNKNOWN_STATUS": 401,
    "MAX_BYTES": 65536,
    "MAX_PER_USER": None,
    "RECORD_ORIGIN": True,
    "CLIENT_IP": None,
    "ALERT_COUNT": None,
    "ALERT_BYTES": None,
    "BUCKETS": None,
    "SECURE": False,
    "RETRY_AFTER": 1,
    "BREAKER_SECONDS": 1,
}


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_a_setting_has_its_documented_default(name: str, default: Any) -> None:
    assert getattr(conf, f"HEADER_SESSIONS_{name}") == default


def names() -> list[str]:
    return [name for name, value in vars(Settings).items() if isinstance(value, cached_property)]


@pytest.mark.parametrize("name", names())
def test_a_setting_is_what_it_was_overridden_with(name: str) -> None:
    before = getattr(conf, name)
    value: Any = "tests.test_conf.client_ip" if name.endswith("CLIENT_IP") else object()
    with override_settings(**{name: value}):
        after = getattr(conf, name)
        assert after is (client_ip if name.endswith("CLIENT_IP") else value)
    assert getattr(conf, name) == before


@pytest.mark.parametrize("name", names())
def test_a_setting_is_named_for_the_app_and_says_what_it_is(name: str) -> None:
    assert name.startswith("HEADER_SESSIONS_")
    assert vars(Settings)[name].__doc__


def client_ip(request: HttpRequest) -> str:
    return "192.0.2.1"


def test_the_client_ip_is_a_dotted_path_to_a_callable() -> None:
    with override_settings(HEADER_SESSIONS_CLIENT_IP="tests.test_conf.client_ip"):
        found: Callable[[HttpRequest], str] | None = conf.HEADER_SESSIONS_CLIENT_IP
        assert found is client_ip
        assert found(HttpRequest()) == "192.0.2.1"
    missing = override_settings(HEADER_SESSIONS_CLIENT_IP="tests.test_conf.not_there")
    with missing, pytest.raises(ImportError):
        conf.HEADER_SESSIONS_CLIENT_IP  # noqa: B018  to ask for it imports it


def test_a_setting_is_not_written_back() -> None:
    with pytest.raises(AttributeError):
        conf.HEADER_SESSIONS_HEADER = "X-Sid"
