"""``manage.py header_sessions``, as people and as cron call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from django_header_sessions import registry
from django_header_sessions.fields import TAG
from django_header_sessions.keys import make
from django_header_sessions.origin import Origin
from django_header_sessions.signals import session_ended
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft, Expiry, Store, Terms

from .processes import ROOT, Valkey

pytestmark = pytest.mark.django_db
on_both = pytest.mark.usefixtures("listing_store")
TERMS = Terms(1_800_000, 43_200_000)


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("header_sessions", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def refused(*arguments: str) -> CommandError:
    with pytest.raises(CommandError) as raised:
        run(*arguments)
    return raised.value


def start(user: User | None = None, idle: int = 1800, **fields: bytes) -> str:
    draft = Draft(
        "header",
        fields,
        str(user.pk) if user else None,
        Expiry("idle", idle * 1000),
        Origin("192.0.2.9", "curl/8.9"),
    )
    return get_store("default").create(draft, TERMS)[0].id


@pytest.fixture
def alice() -> User:
    return User.objects.create_user("alice")


@on_both
def test_stats_for_people(alice: User) -> None:
    start(alice)
    start()
    text = run("stats")
    assert "live sessions  2\n" in text
    assert "  header signed in  1\n" in text
    assert "  header anonymous  1\n" in text
    assert "  cookie anonymous  0\n" in text
    assert "created, " in text
    assert "memory " in text
    assert "ALARM" not in text


@on_both
def test_stats_for_machines(alice: User) -> None:
    session_id = start(alice, n=b"1")
    stats = json.loads(run("stats", "--json"))
    assert stats["live"] == 1
    assert {"transport": "header", "signed_in": True, "count": 1} in stats["counts"]
    assert stats["oldest"]["id"] == session_id
    assert stats["oldest"]["user"] == str(alice.pk)
    assert len(stats["last_hour"]) == 60
    assert sum(minute["created"] for minute in stats["last_hour"]) >= 1
    assert stats["memory"]["used"] > 0
    assert stats["alarms"] == []


@on_both
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_an_alarm_is_an_exit_status(settings: Any, more: list[str]) -> None:
    start()
    start(n=b"1")
    settings.HEADER_SESSIONS_ALERT_COUNT = 1
    for verb in (["stats"], ["watch", "--times", "1"]):
        error = refused(*verb, *more)
        assert error.returncode == 2
        assert str(error) == "ALARM: 2 live sessions, more than 1."
    settings.HEADER_SESSIONS_ALERT_COUNT = None
    settings.HEADER_SESSIONS_ALERT_BYTES = 1
    assert "of memory, more than" in str(refused("stats", *more))
    settings.HEADER_SESSIONS_ALERT_BYTES = None
    run("stats", *more)


@on_both
def test_list_shows_the_latest_to_expire_first(alice: User) -> None:
    ids = [start(alice, idle=600), start(idle=1200), start(alice, idle=900)]
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines] == [ids[1], ids[2], ids[0]]
    assert lines[1].split()[1:5] == ["alice", "header", "192.0.2.9", "curl"]
    assert [line.split()[0] for line in run("list", "--limit", "1").splitlines()] == [ids[1]]
    assert [line.split()[0] for line in run("list", "--user", "alice").splitlines()] == [
        ids[2],
        ids[0],
    ]
    listed = json.loads(run("list", "--json"))
    assert [one["id"] for one in listed] == [ids[1], ids[2], ids[0]]
    assert listed[0]["user"] is None
    assert str(refused("list", "--user", "bob")) == "No user is called that."


@on_both
def test_show_masks_what_looks_like_a_secret(alice: User) -> None:
    session_id = start(
        alice,
        cart=TAG + b'["a watch"]',
        api_key=b"swordfish",
        broken=TAG + b"{",
        _auth_user_hash=b"h" * 64,
    )
    text = run("show", session_id)
    for part in (session_id, "alice", "curl/8.9", "cart  16", "api_key  16", "broken  8"):
        assert part in text
    assert "a watch" not in text
    text = run("show", session_id, "--values")
    assert '"a watch"' in text
    assert "Cannot be read" in text
    for secret in ("swordfish", "h" * 64):
        assert secret not in text
    shown = json.loads(run("show", session_id, "--json"))
    assert {"name": "api_key", "size": 16} in shown["fields"]
    shown = json.loads(run("show", session_id, "--json", "--values"))
    values = {field["name"]: field["value"] for field in shown["fields"]}
    assert values["api_key"] == values["_auth_user_hash"] == "*" * 20


@pytest.mark.parametrize("name", ["a" * 15, "no id", ""])
def test_show_of_no_session_is_an_error(name: str) -> None:
    assert str(refused("show", name)) == "There is no live session of that id."


@on_both
def test_what_clients_sent_does_not_steer_the_terminal() -> None:
    fields: dict[str, Any] = {"\x1b[2J": b"\x1b]0;x\x07\x9b", "half \ud800": b"1"}
    session_id = start(**fields)
    text = run("show", session_id, "--values")
    assert not any(c in text for c in "\x1b\x07\x9b")
    assert "half \\ud800" in text


@on_both
def test_end_ends_those_that_are_named(alice: User) -> None:
    told: list[str] = []

    def receive(reason: str, **kwargs: Any) -> None:
        told.append(reason)

    session_ended.connect(receive)
    ids = [start(alice), start(), start()]
    assert run("end", *ids[:2]) == "2 ended.\n"
    session_ended.disconnect(receive)
    assert [one.id for one in registry.page().sessions] == ids[2:]
    assert told == ["command", "command"]
    key = str(make())
    error = refused("end", ids[0], key, ids[2])
    assert "2 of these ids are of no live session." in str(error)
    assert key[15:] not in str(error)
    assert registry.page().sessions == []


@on_both
def test_end_ends_all_of_a_user(alice: User) -> None:
    start(alice)
    start(alice)
    other = start()
    assert json.loads(run("end", "--user", "alice", "--json")) == {"ended": 2}
    assert [one.id for one in registry.page().sessions] == [other]
    assert str(refused("end", "--user", "bob")) == "No user is called that."


@on_both
def test_end_ends_anonymous_sessions_of_an_age(alice: User) -> None:
    start(alice)
    start()
    assert run("end", "--anonymous-older-than", "1000") == "0 ended.\n"
    assert len(registry.page().sessions) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["end"],
        ["end", "a" * 15, "--user", "alice"],
        ["end", "--user", "alice", "--anonymous-older-than", "7"],
        ["end", "--anonymous-older-than", "-1"],
        ["list", "--limit", "0"],
        ["list", "--limit", "x"],
        ["nothing"],
        [],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    session_id = start()
    refused(*arguments)
    assert registry.get(session_id)


def test_long_work_says_how_far_it_is(listing_store: Store) -> None:
    ids = [start() for _ in range(2100)]
    out, err = StringIO(), StringIO()
    call_command("header_sessions", "end", *ids, stdout=out, stderr=err)
    assert out.getvalue() == "2100 ended.\n"
    assert err.getvalue() == "1000 so far\n2000 so far\n"


def test_sweep_drops_what_expired(time_machine: Any, settings: Any, tmp_path: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": str(tmp_path),
        }
    }
    time_machine.move_to(2_000_000_000, tick=False)
    for _ in range(3):
        start(idle=60)
    time_machine.shift(100)
    assert run("sweep") == "3 expired sessions swept.\n"
    assert json.loads(run("sweep", "--json")) == {"swept": 0}


def test_clearsessions_sweeps_too(time_machine: Any, settings: Any, tmp_path: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": str(tmp_path),
        }
    }
    time_machine.move_to(2_000_000_000, tick=False)
    start(idle=60)
    time_machine.shift(100)
    call_command("clearsessions")
    assert sum(one.expired for one in get_store("default").activity()) == 1


@on_both
def test_watch_shows_the_figures_again_and_again() -> None:
    start()
    text = run("watch", "--times", "2", "--every", "1")
    assert text.count("live sessions  1") == 2
    lines = run("watch", "--times", "1", "--json").splitlines()
    assert [json.loads(line)["live"] for line in lines] == [1]


def test_a_cache_that_cannot_list_is_said_to_be_one(settings: Any, tmp_path: Any) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    for verb in (["stats"], ["list"]):
        assert "cannot list its sessions" in str(refused(*verb))
    session_id = start(n=b"1")
    assert session_id in run("show", session_id)
    assert run("end", session_id) == "1 ended.\n"


def test_a_store_that_is_down_is_an_error(settings: Any) -> None:
    with Valkey() as server:
        url = server.url
    settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}}
    assert "cannot be used at the moment" in str(refused("stats"))


def test_cron_sees_the_exit_status(redis_cache: dict[str, Any], settings: Any) -> None:
    settings.CACHES = {"default": redis_cache}
    start()
    env = os.environ | {
        "REDIS_URL": redis_cache["LOCATION"],
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }
    command = [sys.executable, "-m", "django", "header_sessions"]
    done = subprocess.run(
        [*command, "stats", "--json"], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["live"] == 1
    unknown = subprocess.run([*command, "show", "x"], env=env, cwd=ROOT, capture_output=True)
    assert unknown.returncode == 1
