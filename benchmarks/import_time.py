"""What the package adds to the start of a Django process: ``python benchmarks/import_time.py``.

A fresh process loads a project's settings, apps and middleware, as a server does before its first
request; once with Django's session middleware and cache engine, once with ours in their place and
our app beside them. The kinds take turns, so that a machine that is busy for a while is busy for
both; the figures are medians, and so are the difference and the ratio, taken within each turn. They
are of what the process computes, in milliseconds: loading a program is hardly anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
DJANGO, OURS = "Django", "ours"
KINDS = (DJANGO, OURS)
MOMENTS = ("start", "first session, LocMem", "first session, Redis")
AIM = 30.0
"""Milliseconds that we mean to add to the start."""

BACKENDS = {
    "LocMem": "django.core.cache.backends.locmem.LocMemCache",
    "Redis": "django_redis.cache.RedisCache",
}

# What a process does: it says how many milliseconds each of its moments took. Nothing listens on
# the port, so a session on Redis is asked for and not found out about.
SCRIPT = """
import json, os, sys, time
ours, backend, clock = json.loads(sys.argv[1])
now = getattr(time, clock)
start = now()
import logging
from importlib import import_module
from types import ModuleType
settings = ModuleType("settings")
vars(settings).update(
    SECRET_KEY="only for benchmarks",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        *(["django_header_sessions"] if ours else []),
    ],
    MIDDLEWARE=[
        "django_header_sessions.middleware.HeaderSessionMiddleware" if ours
        else "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    SESSION_ENGINE=(
        "django_header_sessions.engine" if ours else "django.contrib.sessions.backends.cache"
    ),
    CACHES={"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1/0"}},
    ROOT_URLCONF="settings",
    urlpatterns=[],
)
sys.modules["settings"] = settings
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.wsgi import get_wsgi_application
get_wsgi_application()
started = now()
logging.disable()
session = import_module(settings.SESSION_ENGINE).SessionStore()
session._session_key = "a" * 40
try:
    session.load()
except Exception:
    pass
print(json.dumps([1000 * (started - start), 1000 * (now() - started)]))
"""


def run(kind: str, store: str, clock: str) -> list[float]:
    told = json.dumps([kind == OURS, BACKENDS[store], clock])
    command = [sys.executable, "-c", SCRIPT, told]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    taken: list[float] = json.loads(subprocess.check_output(command, env=env, cwd=ROOT))
    return taken


def measure(rounds: int, clock: str) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each moment, kind and round."""
    taken: dict[str, dict[str, list[float]]] = {
        moment: {kind: [] for kind in KINDS} for moment in MOMENTS
    }
    for turn in range(rounds + 1):
        for store in BACKENDS:
            # Each goes first as often as the other.
            for kind in KINDS if turn % 2 else KINDS[::-1]:
                started, first = run(kind, store, clock)
                # The first turn finds no compiled modules.
                if turn:
                    taken[f"first session, {store}"][kind].append(first)
                    if store == "LocMem":
                        taken["start"][kind].append(started)
    return taken


def turns(taken: dict[str, list[float]]) -> zip[tuple[float, float]]:
    return zip(taken[DJANGO], taken[OURS], strict=True)


def added(taken: dict[str, list[float]]) -> float:
    return median(ours - django for django, ours in turns(taken))


def ratio(taken: dict[str, list[float]]) -> float:
    return median(ours / django for django, ours in turns(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="turns of each kind")
    parser.add_argument("--wall", action="store_true", help="the waiting too")
    arguments = parser.parse_args()
    taken = measure(arguments.rounds, "perf_counter" if arguments.wall else "process_time")
    print(f"{'ms, medians of ' + str(arguments.rounds):24} {DJANGO:>8} {OURS:>8} {'adds':>8} ratio")
    for moment, kinds in taken.items():
        django, ours = (median(kinds[kind]) for kind in KINDS)
        print(f"{moment:24} {django:8.1f} {ours:8.1f} {added(kinds):8.1f} {ratio(kinds):5.2f}")
    start = added(taken["start"])
    verdict = "reached" if start < AIM else "missed"
    print(f"\nadds {start:.1f} ms to the start, which is to be under {AIM:g}: {verdict}")


if __name__ == "__main__":
    main()
