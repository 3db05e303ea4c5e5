"""The system checks: each id is raised by one condition, and by nothing else."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.middleware import RemoteUserMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import Error, Warning, run_checks
from django.core.management import call_command

from django_header_sessions import checks
from django_header_sessions.middleware import HeaderSessionMiddleware

OURS = "django_header_sessions.middleware.HeaderSessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


class OwnMiddleware(HeaderSessionMiddleware):
    """A project's own, made of ours."""


class OwnRemoteUser(RemoteUserMiddleware):
    """A project's own, made of Django's."""


class OwnDummy(DummyCache):
    """A project's own, which keeps nothing either."""


class OwnLocMem(LocMemCache):
    """A project's own, made of Django's."""


def middleware(*changes: tuple[str, str]) -> list[str]:
    """The MIDDLEWARE of the tests with some replaced, or dropped."""
    from tests import settings

    replacements = dict(changes)
    found = [replacements.get(path, path) for path in settings.MIDDLEWARE]
    return [path for path in found if path]


def cache(backend: str, **more: Any) -> dict[str, Any]:
    return {"CACHES": {"default": {"BACKEND": backend, **more}}}


TIMEOUTS = {"SOCKET_TIMEOUT": 1, "SOCKET_CONNECT_TIMEOUT": 1}
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
REMOTE_USER = "django.contrib.auth.middleware.RemoteUserMiddleware"

OPTIONAL = "ABSOLUTE_TIMEOUT MAX_BYTES MAX_PER_USER ALERT_COUNT ALERT_BYTES BUCKETS".split()

# By id, settings that raise it, and settings near those that do not.
RAISED: dict[str, list[dict[str, Any]]] = {
    "E001": [
        {"SESSION_ENGINE": "django.contrib.sessions.backends.db"},
        {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"},
    ],
    "E002": [
        {"MIDDLEWARE": middleware((OURS, ""))},
        {"MIDDLEWARE": middleware((OURS, DJANGOS))},
    ],
    "E003": [{"MIDDLEWARE": [*middleware(), DJANGOS]}],
    "E004": [
        {"HEADER_SESSIONS_HEADER": name}
        for name in ("", "X_Session_Key", "X Session", "X-Session:", "X-Schlüssel", None)
    ],
    "E005": [
        {"HEADER_SESSIONS_HEADER": name}
        for name in """Cookie authorization User-Agent Accept-Language Content-Type Range
        Sec-Fetch-Site sec-mine Proxy-Authorization X-Requested-With""".split()
    ],
    "E006": [
        {"CORS_ALLOW_ALL_ORIGINS": True, "CORS_ALLOW_CREDENTIALS": True},
        {"CORS_ORIGIN_ALLOW_ALL": True, "CORS_ALLOW_CREDENTIALS": True},
    ],
    "E007": [
        {"HEADER_SESSIONS_COOKIE_PATHS": paths}
        for paths in ("/admin/", ["admin/"], ["/admin/", ""], ["/admin/", 1])
    ],
    "E008": [
        {f"HEADER_SESSIONS_{name}": value}
        for name in ("IDLE_TIMEOUT", *OPTIONAL)
        for value in (0, -1, 1.5, "60", True)
    ]
    + [{"HEADER_SESSIONS_IDLE_TIMEOUT": None}],
    "E009": [{"HEADER_SESSIONS_UNKNOWN": value} for value in ("ignore", None, True)],
    "E010": [{"HEADER_SESSIONS_UNKNOWN_STATUS": status} for status in (200, 302, 500, "401", None)],
    "E011": [
        {"HEADER_SESSIONS_CLIENT_IP": "nowhere.at_all"},
        {"HEADER_SESSIONS_CLIENT_IP": f"{__name__}.not_there"},
    ],
    "E012": [{"SESSION_CACHE_ALIAS": "sessions"}],
    "E013": [
        cache("django.core.cache.backends.dummy.DummyCache"),
        cache(f"{__name__}.OwnDummy"),
    ],
    "E014": [
        cache("django_redis.cache.RedisCache", KEY_PREFIX="{site}", OPTIONS=TIMEOUTS)
        | {"HEADER_SESSIONS_BUCKETS": 256},
        cache(
            "django_redis.cache.RedisCache",
            KEY_PREFIX="{site}",
            OPTIONS=TIMEOUTS
            | {
                "CONNECTION_FACTORY": (
                    "django_header_sessions.stores.cluster.ClusterConnectionFactory"
                )
            },
        ),
    ],
    "E015": [
        cache("django.core.cache.backends.filebased.FileBasedCache", LOCATION="/nowhere")
        | {"HEADER_SESSIONS_MAX_PER_USER": 2},
    ],
    "W001": [
        {"MIDDLEWARE": [*middleware(), REMOTE_USER]},
        {
            "MIDDLEWARE": [
                *middleware(),
                "django.contrib.auth.middleware.PersistentRemoteUserMiddleware",
            ]
        },
        {"MIDDLEWARE": [*middleware(), f"{__name__}.OwnRemoteUser"]},
    ],
    "W002": [
        cache("django.core.cache.backends.filebased.FileBasedCache", LOCATION="/nowhere"),
        cache("django.core.cache.backends.db.DatabaseCache", LOCATION="sessions"),
    ],
}
NOT_RAISED: dict[str, list[dict[str, Any]]] = {
    "E002": [{"MIDDLEWARE": middleware((OURS, f"{__name__}.OwnMiddleware"))}],
    "E003": [{"MIDDLEWARE": middleware((OURS, DJANGOS))}],
    "E004": [{"HEADER_SESSIONS_HEADER": name} for name in ("sid", "X-Sid-2")],
    "E005": [{"HEADER_SESSIONS_HEADER": name} for name in ("Section", "X-Accept", "Proxied-Key")],
    "E006": [
        {"CORS_ALLOW_ALL_ORIGINS": True},
        {"CORS_ALLOW_CREDENTIALS": True, "CORS_ALLOWED_ORIGINS": ["https://app.example"]},
    ],
    "E007": [{"HEADER_SESSIONS_COOKIE_PATHS": paths} for paths in ((), ["/"], ("/a/", "/b"))],
    "E008": [{f"HEADER_SESSIONS_{name}": value} for name in OPTIONAL for value in (None, 1, 10**9)],
    "E009": [{"HEADER_SESSIONS_UNKNOWN": "renew"}],
    "E010": [{"HEADER_SESSIONS_UNKNOWN_STATUS": status} for status in (400, 404, 499)],
    "E011": [{"HEADER_SESSIONS_CLIENT_IP": path} for path in (None, f"{__name__}.client_ip")],
    "E012": [
        {"SESSION_CACHE_ALIAS": "sessions", "CACHES": {"sessions": {"BACKEND": LOCMEM}}},
    ],
    "E014": [
        cache("django_redis.cache.RedisCache", KEY_PREFIX="site"),
        cache("django_redis.cache.RedisCache", KEY_PREFIX="{site}")
        | {"HEADER_SESSIONS_BUCKETS": 1},
        cache("django_redis.cache.RedisCache", KEY_PREFIX="{site}"),
    ],
    "E015": [
        {"HEADER_SESSIONS_MAX_PER_USER": 2},
        cache("django.core.cache.backends.filebased.FileBasedCache", LOCATION="/nowhere"),
    ],
    "W001": [{"MIDDLEWARE": [*middleware(), "django.middleware.gzip.GZipMiddleware"]}],
    "W002": [
        cache("django_redis.cache.RedisCache"),
        cache("django.core.cache.backends.redis.RedisCache"),
        cache(f"{__name__}.OwnLocMem"),
    ],
}


CHAPTER = {*RAISED, "W003"}
"""The checks that are tested here; CORS, DRF and the servers' own have tests beside theirs."""


def client_ip(request: object) -> str:
    return ""


def raised(*, deploy: bool = False) -> dict[str, Error | Warning]:
    """What the checks of this app say, by the number of the check."""
    found = [
        message
        for message in run_checks(include_deployment_checks=deploy)
        if str(message.id).startswith("header_sessions.")
    ]
    ids = [str(message.id).removeprefix("header_sessions.") for message in found]
    assert len(ids) == len(set(ids)), "one condition says one thing"
    return dict(zip(ids, found, strict=True))  # type: ignore[arg-type]


def cases(table: dict[str, list[dict[str, Any]]]) -> list[Any]:
    return [
        pytest.param(number, overrides, id=f"{number}-{at}")
        for number, each in table.items()
        for at, overrides in enumerate(each)
    ]


def override(settings: Any, overrides: dict[str, Any]) -> None:
    for name, value in overrides.items():
        setattr(settings, name, value)


@pytest.mark.parametrize(("number", "overrides"), cases(RAISED))
def test_a_check_is_raised_with_a_hint_and_no_other_with_it(
    settings: Any, number: str, overrides: dict[str, Any]
) -> None:
    override(settings, overrides)
    found = raised()
    assert found.keys() & CHAPTER == {number}
    assert found[number].hint
    kind = Error if number[0] == "E" else Warning
    assert isinstance(found[number], kind)


@pytest.mark.parametrize(("number", "overrides"), cases(NOT_RAISED))
def test_a_check_is_not_raised_by_what_is_near_it(
    settings: Any, number: str, overrides: dict[str, Any]
) -> None:
    override(settings, overrides)
    assert number not in raised()


def test_a_project_that_does_all_right_hears_nothing() -> None:
    assert raised() == {}


def test_w003_plain_http_is_a_warning_of_check_deploy_alone(settings: Any) -> None:
    assert "W003" in raised(deploy=True)
    assert "W003" not in raised()
    settings.HEADER_SESSIONS_SECURE = True
    assert "W003" not in raised(deploy=True)


def test_django_finds_its_own_session_middleware_in_ours() -> None:
    """The admin's check asks for it."""
    assert issubclass(HeaderSessionMiddleware, SessionMiddleware)
    call_command("check")


def test_a_hint_puts_right_what_it_is_about(settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    exec(str(raised()["E001"].hint).removeprefix("Set ").removesuffix("."), values := {})  # type: ignore[var-annotated]
    settings.SESSION_ENGINE = values["SESSION_ENGINE"]
    assert raised() == {}


SOURCE = Path(checks.__file__).read_text("utf-8")
TESTS = Path(__file__).parent


def test_ids_are_unique_and_of_one_kind() -> None:
    ids = re.findall(r'id="(.+?)"', SOURCE)
    assert ids
    assert [each for each, times in Counter(ids).items() if times > 1] == []
    assert all(re.fullmatch(r"header_sessions\.[EW]\d{3}", each) for each in ids)
    kinds = re.findall(r'yield (\w+)\((?:(?!yield).)*?id="header_sessions\.(\w)', SOURCE, re.DOTALL)
    assert set(kinds) == {("Error", "E"), ("Warning", "W")}


def test_every_id_has_a_test() -> None:
    ids = set(re.findall(r'id="header_sessions\.(\w+)"', SOURCE))
    text = "\n".join(path.read_text("utf-8") for path in TESTS.rglob("test_*checks.py"))
    assert {each for each in ids if each not in text and each.lower() not in text} == set()
