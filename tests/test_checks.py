"""The system checks: each id is raised by one condition, and by nothing else."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.middleware import AuthenticationMiddleware, RemoteUserMiddleware
from django.contrib.auth.models import User
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import signing
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import BaseMemcachedCache
from django.core.checks import Error, Warning, run_checks
from django.core.management import call_command
from django.test import Client
from django.urls import include, path
from django.utils.translation import gettext_lazy
from django.views.debug import SafeExceptionReporterFilter

from django_header_sessions import checks
from django_header_sessions.engine import SessionStore
from django_header_sessions.middleware import HeaderSessionMiddleware

OURS = "django_header_sessions.middleware.HeaderSessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


class OwnMiddleware(HeaderSessionMiddleware):
    """A project's own, made of ours."""


class OwnRemoteUser(RemoteUserMiddleware):
    """A project's own, made of Django's."""


class OwnMemcached(BaseMemcachedCache):
    """As Django's are, of a library that need not be there."""

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        library: Any = SimpleNamespace(Client=None)
        super().__init__(server, params, library, value_not_found_exception=KeyError)

    def close(self, **kwargs: Any) -> None:
        """Nothing was opened."""


class OwnDummy(DummyCache):
    """A project's own, which keeps nothing either."""


class OwnLocMem(LocMemCache):
    """A project's own, made of Django's."""


class OwnAuthentication(AuthenticationMiddleware):
    """A project's own, made of Django's."""


class OwnStorage(FallbackStorage):
    """A project's own, made of Django's."""


class OwnFilter(SafeExceptionReporterFilter):
    """A project's own, which knows more words."""

    hidden_settings = re.compile("SID")


class FailingFilter(SafeExceptionReporterFilter):
    """A project's own, which wants to know who is signed in."""

    def get_safe_request_meta(self, request: Any) -> dict[str, Any]:
        return {"user": request.user.pk}


class NoSerializer:
    """A class without the methods."""


class Pickling:
    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj)


class OldPickling(Pickling):
    def dumps(self, obj: Any) -> bytes:
        return pickle.dumps(obj, protocol=0)


class Dotted(Pickling):
    """Not pickled, though it begins as a pickle could end: compressed and signed."""

    def dumps(self, obj: Any) -> bytes:
        return signing.dumps([obj] * 100, compress=True).encode()


class Texts(Pickling):
    def dumps(self, obj: Any) -> Any:
        return str(obj)


def middleware(*changes: tuple[str, str]) -> list[str]:
    """The MIDDLEWARE of the tests with some replaced, or dropped."""
    from tests import settings

    replacements = dict(changes)
    found = [replacements.get(path, path) for path in settings.MIDDLEWARE]
    return [path for path in found if path]


def cache(backend: str, **more: Any) -> dict[str, Any]:
    return {"CACHES": {"default": {"BACKEND": backend, **more}}}


def redis(location: str) -> dict[str, Any]:
    return cache(DJANGO_REDIS, LOCATION=location, OPTIONS=TIMEOUTS)


def shared(sessions: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The cache of the sessions beside another."""
    return {"CACHES": sessions["CACHES"] | {"other": other}}


TIMEOUTS = {"SOCKET_TIMEOUT": 1, "SOCKET_CONNECT_TIMEOUT": 1}
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DJANGO_REDIS = "django_redis.cache.RedisCache"
BUILT_IN_REDIS = "django.core.cache.backends.redis.RedisCache"
REMOTE_USER = "django.contrib.auth.middleware.RemoteUserMiddleware"

DJANGO = "django.middleware."
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
CSRF = f"{DJANGO}csrf.CsrfViewMiddleware"
FILES = "django.core.cache.backends.filebased.FileBasedCache"
DUMMY = "django.core.cache.backends.dummy.DummyCache"
JSON = "django.contrib.sessions.serializers.JSONSerializer"
STORAGES = "django.contrib.messages.storage"


def before_ours(path: str) -> dict[str, Any]:
    """A middleware of the tests that stands before that of the sessions."""
    return {"MIDDLEWARE": [path, *middleware((path, ""))]}


OPTIONAL = "ABSOLUTE_TIMEOUT MAX_BYTES MAX_PER_USER ALERT_COUNT ALERT_BYTES BUCKETS".split()

# By id, settings that raise it, and settings near those that do not.
RAISED: dict[str, list[dict[str, Any]]] = {
    "E001": [
        {"SESSION_ENGINE": "django.contrib.sessions.backends.db"},
        {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"},
        {"SESSION_ENGINE": "nowhere"},
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
        {"CORS_ALLOWED_ORIGIN_REGEXES": [r"^https?://.*$"], "CORS_ALLOW_CREDENTIALS": True},
        {"CORS_ORIGIN_REGEX_WHITELIST": [re.compile("https")], "CORS_ALLOW_CREDENTIALS": True},
    ],
    "E007": [
        {"HEADER_SESSIONS_COOKIE_PATHS": paths}
        for paths in ("/admin/", ["admin/"], ["/admin/", ""], ["/admin/", 1], None, 5, True)
    ],
    "E008": [
        {f"HEADER_SESSIONS_{name}": value}
        for name in ("IDLE_TIMEOUT", "MAX_CONTEXTS", *OPTIONAL)
        for value in (0, -1, 1.5, "60", True)
    ]
    + [{"HEADER_SESSIONS_IDLE_TIMEOUT": None}, {"HEADER_SESSIONS_MAX_CONTEXTS": None}],
    "E009": [{"HEADER_SESSIONS_UNKNOWN": value} for value in ("ignore", None, True)],
    "E010": [{"HEADER_SESSIONS_UNKNOWN_STATUS": status} for status in (200, 302, 500, "401", None)],
    "E011": [
        {"HEADER_SESSIONS_CLIENT_IP": "nowhere.at_all"},
        {"HEADER_SESSIONS_CLIENT_IP": f"{__name__}.not_there"},
        {"HEADER_SESSIONS_CLIENT_IP": f"{__name__}.LOCMEM"},
        {"HEADER_SESSIONS_CLIENT_IP": str},
        {"HEADER_SESSIONS_CLIENT_IP": 5},
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
        cache("django_redis.cache.RedisCache", KEY_PREFIX="{site}", OPTIONS=TIMEOUTS)
        | {
            "DJANGO_REDIS_CONNECTION_FACTORY": (
                "django_header_sessions.stores.cluster.ClusterConnectionFactory"
            )
        },
    ],
    "E015": [
        cache("django.core.cache.backends.filebased.FileBasedCache", LOCATION="/nowhere")
        | {"HEADER_SESSIONS_MAX_PER_USER": 2},
    ],
    "E016": [
        cache(f"{__name__}.OwnMemcached", LOCATION=location)
        for location in (["a:1", "b:1"], "a:1;b:1")
    ],
    "E030": [
        before_ours(AUTHENTICATION),
        before_ours(MESSAGES),
        before_ours(f"{__name__}.OwnAuthentication"),
        before_ours(CSRF) | {"CSRF_USE_SESSIONS": True},
    ],
    "E031": [
        {"SESSION_SERIALIZER": path}
        for path in ("nowhere.at_all", f"{__name__}.NoSerializer", f"{__name__}.Texts")
    ],
    "E032": [{"SESSION_SERIALIZER": f"{__name__}.{name}"} for name in ("Pickling", "OldPickling")],
    "E036": [{"HEADER_SESSIONS_POLICY": value} for value in ("serialised", None, True)],
    "E037": [
        {f"HEADER_SESSIONS_LOCK_{name}": value}
        for name in ("WAIT", "LEASE")
        for value in (-1, "10", None, True)
    ]
    + [{"HEADER_SESSIONS_LOCK_LEASE": 0}],
    "E038": [
        {"HEADER_SESSIONS_CONTEXT_HEADER": name}
        for name in ("", "X_Context", "X Context", 7, "X-Session-Key", "x-session-key")
    ],
    "E033": [
        {f"HEADER_SESSIONS_{name}": value}
        for name in ("SECURE", "RECORD_ORIGIN")
        for value in ("False", "", None)
    ],
    "E034": [
        {"MIDDLEWARE": [*middleware(), f"{DJANGO}cache.{name}"]}
        for name in ("UpdateCacheMiddleware", "CacheMiddleware")
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
    "W030": [before_ours(CSRF)],
    "W031": [{"HEADER_SESSIONS_IDLE_TIMOUT": 60}, {"HEADER_SESSIONS_X": 60}],
    "W032": [
        {"HEADER_SESSIONS_IDLE_TIMEOUT": 86400},
        {"HEADER_SESSIONS_IDLE_TIMEOUT": 61, "HEADER_SESSIONS_ABSOLUTE_TIMEOUT": 60},
    ],
    "W034": [
        {"MESSAGE_STORAGE": f"{STORAGES}.fallback.FallbackStorage"},
        {"MESSAGE_STORAGE": f"{STORAGES}.cookie.CookieStorage"},
        {"MESSAGE_STORAGE": f"{__name__}.OwnStorage"},
        {
            "MESSAGE_STORAGE": f"{STORAGES}.cookie.CookieStorage",
            "HEADER_SESSIONS_COOKIE_PATHS": ("/admin/", "/accounts/"),
        },
    ],
    "W035": [
        shared(cache(LOCMEM), {"BACKEND": f"{__name__}.OwnLocMem"}),
        shared(redis("redis://h/0"), {"BACKEND": DJANGO_REDIS, "LOCATION": "redis://h/0"}),
        *(
            shared(redis("redis://localhost:6379/0"), {"BACKEND": DJANGO_REDIS, "LOCATION": same})
            for same in (
                "redis://127.0.0.1",
                "redis://:secret@127.0.0.1:6379",
                "redis://127.0.0.1/0?socket_timeout=1",
                "rediss://localhost?db=0",
            )
        ),
        shared(redis("unix:///r?db=1"), {"BACKEND": DJANGO_REDIS, "LOCATION": "unix:///r?db=1"}),
        shared(redis("redis://h/0"), {"BACKEND": BUILT_IN_REDIS, "LOCATION": ["redis://h/0"]}),
        shared(
            redis("redis://h/0"),
            {"BACKEND": DJANGO_REDIS, "LOCATION": "redis://h/0", "KEY_PREFIX": "pages"},
        ),
    ],
    "W036": [{"HEADER_SESSIONS_HEADER": name} for name in ("X-Sid", "Mcp-Session-Id")],
}
NOT_RAISED: dict[str, list[dict[str, Any]]] = {
    "E016": [
        cache(f"{__name__}.OwnMemcached", LOCATION="a:1"),
        redis("redis://h/0,redis://h/1"),
    ],
    "E001": [{"SESSION_ENGINE": "tests.django.engine"}],
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
    "E030": [
        before_ours("django.middleware.common.CommonMiddleware"),
        before_ours(CSRF),
        {"MIDDLEWARE": [AUTHENTICATION, MESSAGES]},
    ],
    "E031": [{"SESSION_SERIALIZER": f"{__name__}.{name}"} for name in ("Pickling", "Dotted")],
    "E032": [{"SESSION_SERIALIZER": f"{__name__}.{name}"} for name in ("Dotted", "Texts")]
    + [{"SESSION_SERIALIZER": JSON}],
    "E036": [{"HEADER_SESSIONS_POLICY": value} for value in ("merge", "serialized", "readonly")],
    "E037": [
        {"HEADER_SESSIONS_LOCK_WAIT": 0},
        {"HEADER_SESSIONS_LOCK_WAIT": 0.5, "HEADER_SESSIONS_LOCK_LEASE": 0.5},
    ],
    "E038": [{"HEADER_SESSIONS_CONTEXT_HEADER": name} for name in (None, "X-Session-Context")],
    "E033": [
        {f"HEADER_SESSIONS_{name}": value}
        for name in ("SECURE", "RECORD_ORIGIN")
        for value in (True, False, 1)
    ],
    "E034": [
        {"MIDDLEWARE": [f"{DJANGO}cache.UpdateCacheMiddleware", *middleware()]},
        {"MIDDLEWARE": [*middleware(), f"{DJANGO}cache.FetchFromCacheMiddleware"]},
        {"MIDDLEWARE": [f"{DJANGO}cache.UpdateCacheMiddleware"]},
    ],
    "W001": [{"MIDDLEWARE": [*middleware(), "django.middleware.gzip.GZipMiddleware"]}],
    "W002": [
        cache("django_redis.cache.RedisCache"),
        cache("django.core.cache.backends.redis.RedisCache"),
        cache(f"{__name__}.OwnLocMem"),
    ],
    "W030": [
        before_ours(CSRF) | {"HEADER_SESSIONS_COOKIE_PATHS": ("/",)},
        before_ours(CSRF) | {"HEADER_SESSIONS_COOKIE_PATHS": "/"},
    ],
    "W031": [{"HEADER_SESSIONS_IDLE_TIMEOUT": 60}, {"HEADERS_SESSIONS_X": 60}],
    "W032": [
        {"HEADER_SESSIONS_IDLE_TIMEOUT": 60, "HEADER_SESSIONS_ABSOLUTE_TIMEOUT": 60},
        {"HEADER_SESSIONS_IDLE_TIMEOUT": 10**6, "HEADER_SESSIONS_ABSOLUTE_TIMEOUT": None},
        {"HEADER_SESSIONS_IDLE_TIMEOUT": None},
    ],
    "W034": [
        {"MESSAGE_STORAGE": f"{STORAGES}.session.SessionStorage"},
        {"MESSAGE_STORAGE": "nowhere.at_all"},
        {
            "MESSAGE_STORAGE": f"{STORAGES}.fallback.FallbackStorage",
            "HEADER_SESSIONS_COOKIE_PATHS": ("/",),
        },
        {
            "MESSAGE_STORAGE": f"{STORAGES}.fallback.FallbackStorage",
            "MIDDLEWARE": middleware((MESSAGES, "")),
        },
    ],
    "W035": [
        shared(cache(LOCMEM), {"BACKEND": LOCMEM, "LOCATION": "pages"}),
        shared(cache(DUMMY), {"BACKEND": DUMMY}),
        *(
            shared(redis("redis://h/0"), {"BACKEND": DJANGO_REDIS, "LOCATION": other})
            for other in (
                *("redis://h/1", "redis://h?db=1", "redis://h:6380/0", "redis://i/0"),
                *("redis://h:x/0", "unix:///h"),
            )
        ),
        shared(
            cache(BUILT_IN_REDIS, LOCATION="redis://h", OPTIONS={"db": 1}),
            {"BACKEND": BUILT_IN_REDIS, "LOCATION": "redis://h", "OPTIONS": {"db": 2}},
        ),
        shared(cache(FILES, LOCATION=Path("/a,c")), {"BACKEND": FILES, "LOCATION": Path("/b,c")}),
        {"SESSION_CACHE_ALIAS": "nowhere"},
    ],
    "W036": [
        {"HEADER_SESSIONS_HEADER": "X-Session-Key"},
        {"HEADER_SESSIONS_HEADER": "Cookie"},
        *(
            {
                "HEADER_SESSIONS_HEADER": "X-Sid",
                "DEFAULT_EXCEPTION_REPORTER_FILTER": reporter_filter,
            }
            for reporter_filter in (
                "django_header_sessions.reporting.SessionKeyReporterFilter",
                f"{__name__}.OwnFilter",
                f"{__name__}.FailingFilter",
            )
        ),
    ],
}


CHAPTER = {*RAISED, "W003"}
"""The checks that are tested here; CORS, DRF and the servers' own have tests beside theirs."""


client_ip = str
"""What is called with a request, and answers a text."""


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


def test_a_site_that_keeps_all_its_paths_on_cookies_hears_nothing(settings: Any) -> None:
    """Django's own defaults are right there, and any URL."""
    settings.HEADER_SESSIONS_COOKIE_PATHS = ("/",)
    settings.LOGIN_URL = "login"
    settings.ROOT_URLCONF = (
        path("accounts/", include("django.contrib.auth.urls")),
        path("backoffice/", admin.site.urls),
    )
    settings.MESSAGE_STORAGE = f"{STORAGES}.fallback.FallbackStorage"
    settings.MIDDLEWARE = [
        f"{DJANGO}cache.UpdateCacheMiddleware",
        CSRF,
        *middleware((CSRF, "")),
        f"{DJANGO}cache.FetchFromCacheMiddleware",
    ]
    assert raised() == {}


def test_w003_plain_http_is_a_warning_of_check_deploy_alone(settings: Any) -> None:
    assert "W003" in raised(deploy=True)
    assert "W003" not in raised()
    settings.HEADER_SESSIONS_SECURE = True
    assert "W003" not in raised(deploy=True)


@pytest.mark.parametrize("location", [Path("/nowhere"), gettext_lazy("/nowhere"), None])
@pytest.mark.parametrize("alias", ["default", "other"])
def test_a_location_may_be_whatever_django_takes(settings: Any, alias: str, location: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": DJANGO_REDIS, "LOCATION": location, "OPTIONS": TIMEOUTS},
        "other": {"BACKEND": LOCMEM, "LOCATION": location, "OPTIONS": {"MAX_ENTRIES": 1000}},
    }
    if isinstance(location, Path):
        files = "django.core.cache.backends.filebased.FileBasedCache"
        settings.CACHES["thumbs"] = {"BACKEND": files, "LOCATION": location}
    settings.SESSION_CACHE_ALIAS = alias
    assert raised() == {}


@pytest.mark.parametrize(
    "backend", ["filebased.FileBasedCache", "db.DatabaseCache"], ids=["files", "database"]
)
def test_w023_and_w035_of_other_caches_of_djangos(settings: Any, backend: str) -> None:
    backend = f"django.core.cache.backends.{backend}"
    override(settings, cache(backend, LOCATION="/nowhere"))
    assert raised().keys() == {"W002", "W023"}
    override(settings, shared({"CACHES": settings.CACHES}, settings.CACHES["default"]))
    assert raised().keys() == {"W002", "W023", "W035"}
    override(settings, cache(backend, LOCATION="/nowhere", OPTIONS={"MAX_ENTRIES": 10_000}))
    assert raised().keys() == {"W002"}


def test_django_finds_its_own_session_middleware_in_ours() -> None:
    """The admin's check asks for it."""
    assert issubclass(HeaderSessionMiddleware, SessionMiddleware)
    call_command("check")


def test_a_hint_puts_right_what_it_is_about(settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.db"
    exec(str(raised()["E001"].hint).removeprefix("Set ").removesuffix("."), values := {})  # type: ignore[var-annotated]
    settings.SESSION_ENGINE = values["SESSION_ENGINE"]
    assert raised() == {}


# What some of the checks are there for, and that what they ask for mends it.


KEY = "X-Session-Key"


def begun(**fields: str) -> str:
    """The key of a new header session that holds these fields."""
    session = SessionStore(transport="header")
    session.update(fields)
    session.save()
    return str(session.session_key)


@pytest.mark.parametrize("first", [True, False])
def test_a_page_cache_within_the_sessions_hands_one_clients_page_to_another(
    settings: Any, first: bool
) -> None:
    update, fetch = (
        f"{DJANGO}cache.UpdateCacheMiddleware",
        f"{DJANGO}cache.FetchFromCacheMiddleware",
    )
    settings.MIDDLEWARE = (
        [update, *middleware(), fetch] if first else [*middleware(), update, fetch]
    )
    settings.CACHES = {**settings.CACHES, "pages": {"BACKEND": LOCMEM, "LOCATION": "pages"}}
    settings.CACHE_MIDDLEWARE_ALIAS = "pages"
    keys = [begun(name=name) for name in ("ann", "bob")]
    path = '/sync/?do=[["get","name"]]'
    seen = [Client().get(path, headers={KEY: key}).json()["did"] for key in keys]
    assert seen == [["ann"], ["bob"] if first else ["ann"]]
    caches["pages"].clear()
    assert ("E034" in raised()) is not first


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.django_db
def test_a_csrf_middleware_around_the_sessions_sends_its_cookie_to_clients_of_the_header(
    settings: Any, first: bool
) -> None:
    if first:
        override(settings, before_ours(CSRF))
    User.objects.create_user("ann")
    answer = Client().get('/sync/?do=[["login","ann"]]', headers={KEY: "new"})
    assert len(answer.headers[KEY]) == 40
    assert ("csrftoken" in answer.cookies) is first
    assert ("W030" in raised()) is first


def test_to_clear_a_cache_of_the_same_place_ends_all_sessions(
    settings: Any, redis_cache: dict[str, Any]
) -> None:
    settings.CACHES = {"default": redis_cache, "pages": redis_cache | {"KEY_PREFIX": "pages"}}
    assert "W035" in raised()
    key = begun(name="ann")
    caches["pages"].clear()
    assert not SessionStore().exists(key)

    elsewhere = redis_cache["LOCATION"].replace("/0", "/1")
    settings.CACHES = {"default": redis_cache, "pages": redis_cache | {"LOCATION": elsewhere}}
    assert "W035" not in raised()
    key = begun(name="ann")
    caches["pages"].clear()
    assert SessionStore().exists(key)


@pytest.mark.parametrize("storage", ["fallback.FallbackStorage", "session.SessionStorage"])
def test_messages_in_a_cookie_do_not_reach_a_client_of_the_header(
    settings: Any, storage: str
) -> None:
    settings.MESSAGE_STORAGE = f"{STORAGES}.{storage}"
    answer = Client().get('/sync/?do=[["set","n",1],["say","hello"]]')
    key = answer.headers[KEY]
    told = Client().get('/sync/?do=[["said"]]', headers={KEY: key}).json()["did"]
    assert told == [["hello"] if "session" in storage else []]
    assert ("messages" in answer.cookies) is ("W034" in raised()) is ("fallback" in storage)


SOURCE = "\n".join(
    path.read_text("utf-8") for path in sorted(Path(checks.__file__).parent.glob("*.py"))
)
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


def test_the_documentation_lists_every_check() -> None:
    docs = (TESTS.parent / "docs" / "checks.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| `header_sessions\.(\w+)` \| (.+?) \| (.+?) \|$", docs)
    listed = [number for number, _, _ in rows]
    assert sorted(listed) == sorted(re.findall(r'id="header_sessions\.(\w+)"', SOURCE))
    assert all(what and fix for _, what, fix in rows)
