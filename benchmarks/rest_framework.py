"""What a signed-in call costs a DRF project: ``python benchmarks/rest_framework.py``.

The same view behind six ways of knowing who calls: our header session, Django's cookie session with
sliding expiry, knox with auto refresh, allauth's ``X-Session-Token`` as it is and made to slide,
and DRF's own ``TokenAuthentication``, which never expires. Each lives in a process of its own,
since each has other settings; they take turns in small batches, so that a machine that is busy for
a while is busy for all of them, and are started anew several times, since how a process happens to
lie in memory makes a tenth of its speed. Calls go through the WSGI handler, without a socket.
Sessions lie on a Valkey that the script starts; users and tokens in an SQLite file, the cheapest
database to ask: behind a network every query costs more than here.

As it is allauth's token does not slide: its authentication class loads the session and never saves
it, and ``SESSION_SAVE_EVERY_REQUEST`` is about ``request.session``, which is another one. Made to
slide it saves the session that it found, as a project would have to do.

A full run writes ``rest_framework.md`` beside this file. Needs djangorestframework,
django-rest-knox and django-allauth.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
# In the place of this folder, where this very module would be taken for DRF.
sys.path[0] = str(ROOT)

from benchmarks.machine import described  # noqa: E402

FULL = 120
STARTS = 6
BATCH = 25
COUNTED = 20

OURS = "HeaderSessionAuthentication"
TOKEN = "TokenAuthentication"
DATA = {"search": {"query": "stainless steel hinges", "page_size": 25, "page": 3}, "calls": 12}

DJANGOS_SESSIONS = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way of knowing who calls: settings, and the authentication class of the view."""

    authentication: str
    slides: bool
    expiry: str
    settings: dict[str, Any]
    apps: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()


CACHED = {"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}

ALLAUTH = "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication"
ALLAUTH_PROJECT: tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]] = (
    CACHED | {"HEADLESS_ONLY": True, "HEADLESS_CLIENTS": ("app",)},
    ("allauth", "allauth.account", "allauth.headless"),
    (*DJANGOS_SESSIONS, "allauth.account.middleware.AccountMiddleware"),
)

KINDS = {
    OURS: Kind(
        "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication",
        True,
        "slides, written every 56 s",
        {"SESSION_ENGINE": "django_header_sessions.engine"},
        ("django_header_sessions",),
        (
            "django_header_sessions.middleware.HeaderSessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ),
    ),
    "cookie session, sliding": Kind(
        "rest_framework.authentication.SessionAuthentication",
        True,
        "slides, written on every call",
        CACHED | {"SESSION_SAVE_EVERY_REQUEST": True},
        (),
        tuple(DJANGOS_SESSIONS),
    ),
    "knox, auto refresh": Kind(
        "knox.auth.TokenAuthentication",
        True,
        "slides, written every 60 s",
        {"REST_KNOX": {"AUTO_REFRESH": True}},
        ("knox",),
    ),
    "allauth, made to slide": Kind(
        ALLAUTH, True, "slides, written on every call", *ALLAUTH_PROJECT
    ),
    "allauth X-Session-Token": Kind(ALLAUTH, False, "from the last write on", *ALLAUTH_PROJECT),
    TOKEN: Kind(
        "rest_framework.authentication.TokenAuthentication",
        False,
        "never",
        {},
        ("rest_framework.authtoken",),
    ),
}


# In a process of each kind.


def configure(name: str, url: str, database: str) -> None:
    kind = KINDS[name]
    module = ModuleType("benchmark_settings")
    vars(module).update(
        SECRET_KEY="only for benchmarks, and long enough for whoever signs with it",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="benchmark_urls",
        USE_TZ=True,
        CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": database,
                "CONN_MAX_AGE": None,
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "rest_framework",
            *kind.apps,
        ],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", *kind.middleware],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        **kind.settings,
    )
    sys.modules[module.__name__] = module
    os.environ["DJANGO_SETTINGS_MODULE"] = module.__name__

    import django

    django.setup()

    from django.urls import path
    from django.utils.module_loading import import_string
    from rest_framework.permissions import IsAuthenticated
    from rest_framework.renderers import JSONRenderer
    from rest_framework.response import Response
    from rest_framework.views import APIView

    authentication: Any = import_string(kind.authentication)
    if name == "allauth, made to slide":

        class Saving(authentication):  # type: ignore[misc]
            def authenticate(self, request: Any) -> Any:
                found = super().authenticate(request)
                if found is not None:
                    found[1].save()
                return found

        authentication = Saving

    class Whoami(APIView):
        authentication_classes = (authentication,)
        permission_classes = (IsAuthenticated,)
        renderer_classes = (JSONRenderer,)

        def get(self, request: Any) -> Response:
            return Response({"user": request.user.get_username()})

    urls = ModuleType("benchmark_urls")
    vars(urls)["urlpatterns"] = [path("whoami/", Whoami.as_view())]
    sys.modules[urls.__name__] = urls


def credentials(name: str) -> dict[str, str]:
    """What a signed-in client of this kind sends, as the server's environment holds it."""
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.http import HttpRequest

    call_command("migrate", verbosity=0)
    user = User.objects.create_user("ann")
    if name == TOKEN:
        from rest_framework.authtoken.models import Token

        return {"HTTP_AUTHORIZATION": f"Token {Token.objects.create(user=user).key}"}
    if name.startswith("knox"):
        from knox.models import AuthToken  # type: ignore[import-untyped]

        return {"HTTP_AUTHORIZATION": f"Token {AuthToken.objects.create(user)[1]}"}

    from importlib import import_module

    from django.conf import settings

    engine = import_module(settings.SESSION_ENGINE)
    request = HttpRequest()
    request.session = engine.SessionStore(**{"transport": "header"} if name == OURS else {})
    request.session.update(DATA)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    request.session.save()
    key = str(request.session.session_key)
    if name == OURS:
        return {"HTTP_X_SESSION_KEY": key}
    if name.startswith("allauth"):
        return {"HTTP_X_SESSION_TOKEN": key}
    return {"HTTP_COOKIE": f"sessionid={key}"}


def serve(name: str, url: str, database: str) -> None:
    """Run batches of calls when told to, and tell what they took."""
    configure(name, url, database)
    sent = credentials(name)

    from django.core.wsgi import get_wsgi_application
    from django.db import connection
    from django.test import RequestFactory
    from redis.connection import AbstractConnection

    application: Any = get_wsgi_application()
    factory: Any = RequestFactory()
    connections: Any = AbstractConnection
    environ = factory._base_environ(PATH_INFO="/whoami/", **sent)

    def call() -> None:
        statuses: list[str] = []
        answer = application(dict(environ), lambda status, headers: statuses.append(status))
        body = b"".join(answer)
        answer.close()
        if statuses != ["200 OK"] or body != b'{"user":"ann"}':
            raise RuntimeError(f"{name}: {statuses} {body!r}")

    def count() -> list[float]:
        """Queries and round trips of one call."""
        made = {"queries": 0, "round trips": 0}
        send = connections.send_packed_command

        def query(execute: Callable[..., Any], *args: Any) -> Any:
            made["queries"] += 1
            return execute(*args)

        def trip(*args: Any, **kwargs: Any) -> Any:
            made["round trips"] += 1
            return send(*args, **kwargs)

        connections.send_packed_command = trip
        try:
            with connection.execute_wrapper(query):
                for _ in range(COUNTED):
                    call()
        finally:
            connections.send_packed_command = send
        return [made["queries"] / COUNTED, made["round trips"] / COUNTED]

    for _ in range(2 * BATCH):
        call()
    gc.collect()
    gc.disable()
    for line in sys.stdin:
        if line.strip() == "count":
            print(*count(), flush=True)
            continue
        start, spent = perf_counter(), process_time()
        for _ in range(BATCH):
            call()
        print(perf_counter() - start, process_time() - spent, flush=True)


# In the process that asks them.


class Served:
    def __init__(self, name: str, url: str, folder: str) -> None:
        self.name = name
        database = f"{folder}/{list(KINDS).index(name)}.sqlite3"
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, url, database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, word: str) -> tuple[float, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} gave up.")
        first, second = answer.split()
        return float(first), float(second)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def measure(rounds: int) -> dict[str, dict[str, float]]:
    took: dict[str, list[float]] = {name: [] for name in KINDS}
    spent: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(STARTS):
        counted = measure_once(max(rounds // STARTS, 1), took, spent)
    return {
        name: {
            "round trips": counted[name][1],
            "queries": counted[name][0],
            "microseconds": median(took[name]) * 1e6,
            "cpu microseconds": median(spent[name]) * 1e6,
            "as fast as ours": median(
                ours / theirs for ours, theirs in zip(took[OURS], took[name], strict=True)
            ),
        }
        for name in KINDS
    }


def measure_once(
    rounds: int, took: dict[str, list[float]], spent: dict[str, list[float]]
) -> dict[str, tuple[float, float]]:
    """Adds seconds a call, and those of the processor; the answer is what calls ask for."""
    from tests.processes import Valkey

    with tempfile.TemporaryDirectory() as folder, Valkey() as valkey:
        served = [Served(name, f"{valkey.url[:-1]}{at}", folder) for at, name in enumerate(KINDS)]
        try:
            for each in served:
                each.ask("run")
            for _ in range(rounds):
                for each in served:
                    seconds, cpu = each.ask("run")
                    took[each.name].append(seconds / BATCH)
                    spent[each.name].append(cpu / BATCH)
            return {each.name: each.ask("count") for each in served}
        finally:
            for each in served:
                each.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=FULL, help="batches of each kind")
    parser.add_argument("--json", action="store_true", help="figures for a program")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    found = measure(options.rounds)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    text = told(found)
    print(text)
    if options.rounds >= FULL:
        Path(__file__).with_suffix(".md").write_text(text)


def told(found: dict[str, dict[str, float]]) -> str:
    """The figures as a table, and what the project aims at."""
    lines = [
        f"A signed-in call of a DRF view, medians; {described()}.",
        "",
        "| | calls/s | µs a call | of it CPU | speed | round trips | queries | expiry |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, row in found.items():
        lines.append(
            f"| {name} | {1e6 / row['microseconds']:.0f} | {row['microseconds']:.0f} "
            f"| {row['cpu microseconds']:.0f} | {row['as fast as ours']:.2f}x "
            f"| {row['round trips']:.2f} | {row['queries']:.2f} | {KINDS[name].expiry} |"
        )
    token = 1 / found[TOKEN]["as fast as ours"]
    ahead = all(
        row["as fast as ours"] < 1
        for name, row in found.items()
        if KINDS[name].slides and name != OURS
    )
    lines += [
        "",
        "*Speed*: how many calls are made in the time of one of ours.",
        "",
        f"- ahead of all that slide: {'yes' if ahead else 'NO'}",
        f"- within a third of {TOKEN}: {'yes' if token >= 2 / 3 else 'NO'} ({token:.2f} of it)",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
