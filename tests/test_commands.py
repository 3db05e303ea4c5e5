"""``manage.py header_sessions``, as people and as cron call it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command, get_commands

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.fields import TAG
from django_header_sessions.keys import make
from django_header_sessions.origin import Origin
from django_header_sessions.signals import session_ended
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft, Expiry, Store, Terms

from .processes import ROOT, Valkey, free_port

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


@pytest.mark.usefixtures("quiet_cache")
def test_memory_that_may_not_be_asked_for_is_not_in_the_stats() -> None:
    start()
    text = run("stats")
    assert "live sessions  1\n" in text
    assert "memory" not in text
    assert json.loads(run("stats", "--json"))["memory"] is None


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
        assert error.returncode == 3
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
    assert [one["id"] for one in listed["sessions"]] == [ids[1], ids[2], ids[0]]
    assert listed["sessions"][0]["user"] is None
    assert listed["next"] is None
    assert str(refused("list", "--user", "bob")) == "No user is called that."


@on_both
@pytest.mark.parametrize("of", [[], ["--user", "alice"]])
def test_list_goes_on_where_it_ended(
    alice: User, monkeypatch: pytest.MonkeyPatch, of: list[str]
) -> None:
    # However many are asked for, the store is asked for some at a time.
    monkeypatch.setattr(registry, "MOST", 3)
    asked = Spy()
    monkeypatch.setattr(registry, "page", asked.spying_on(registry.page))
    ids = [start(alice, idle=600 + 60 * n) for n in range(8)][::-1]
    assert [line.split()[0] for line in run("list", "--limit", "100", *of).splitlines()] == ids
    assert asked.counts == [3, 3, 2]
    out, err = StringIO(), StringIO()
    call_command("header_sessions", "list", "--limit", "5", *of, stdout=out, stderr=err)
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ids[:5]
    found = re.fullmatch(r"There are more: --after (\S+)\n", err.getvalue())
    assert found is not None
    rest = json.loads(run("list", "--after", found[1], "--limit", "2", "--json", *of))
    assert [one["id"] for one in rest["sessions"]] == ids[5:7]
    rest = json.loads(run("list", "--after", rest["next"], "--json", *of))
    assert ([one["id"] for one in rest["sessions"]], rest["next"]) == (ids[7:], None)


class Spy:
    """Counts what a function of the registry answers with."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def spying_on(self, ask: Any) -> Any:
        def asked(*args: Any, **kwargs: Any) -> Any:
            page = ask(*args, **kwargs)
            self.counts.append(len(page.sessions))
            return page

        return asked


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
    (listed,) = json.loads(run("list", "--json"))["sessions"]
    assert shown["size"] == listed["size"] == sum(field["size"] for field in shown["fields"])
    shown = json.loads(run("show", session_id, "--json", "--values"))
    values = {field["name"]: field["value"] for field in shown["fields"]}
    assert values["api_key"] == values["_auth_user_hash"] == "*" * 20


@on_both
def test_contexts_are_shown_with_their_session_and_ended_alone() -> None:
    session = SessionStore(transport="header")
    session.update({"n": 1})
    session.context("draft", idle_timeout=600)["lines"] = ["a watch"]
    handle = session.new_context()
    session.save()
    assert session.session_key is not None
    session_id = session.session_key.id
    lines = run("show", session_id, "--values").splitlines()
    assert re.fullmatch(r"  context draft  17 bytes  expires in (9 min( \d+ s)?|10 min)", lines[-2])
    assert lines[-1].startswith(f"  context {handle}  0 bytes  expires in ")
    assert "a watch" not in "\n".join(lines)
    shown = json.loads(run("show", session_id, "--json"))["contexts"]
    assert [(one["name"], one["size"]) for one in shown] == [("draft", 17), (handle, 0)]
    assert 590 <= shown[0]["expires_in"] <= 600
    assert run("end", session_id, "--context", handle) == "1 ended.\n"
    assert json.loads(run("end", session_id, "--context", "draft", "--json")) == {"ended": 1}
    assert registry.contexts(session_id) == []
    for arguments in ((session_id, "--context", "draft"), ("a" * 15, "--context=draft")):
        error = refused("end", *arguments)
        assert str(error) == "There is no live session of that id with a context of that name."
    assert registry.get(session_id)


@pytest.mark.parametrize("name", ["a" * 15, "no id", ""])
def test_show_of_no_session_is_an_error(name: str) -> None:
    assert str(refused("show", name)) == "There is no live session of that id."


@pytest.mark.parametrize("arguments", [("show",), ("end", "a" * 15)])
def test_who_names_a_session_by_its_key_is_told_what_its_id_is(arguments: tuple[str, ...]) -> None:
    session = SessionStore(transport="header")
    session.create()
    key = str(session.session_key)
    error = str(refused(*arguments, key))
    assert "first 15 characters" in error
    assert key[15:] not in error
    assert registry.get(key[:15])


def test_djangos_own_options_may_come_last() -> None:
    run("stats", "--no-color", "--traceback", "--verbosity", "0", "--settings=tests.settings")


def test_a_password_that_is_refused_is_an_error_in_one_line(settings: Any) -> None:
    with Valkey() as valkey:
        valkey.client.config_set("requirepass", "right")
        settings.CACHES = {
            "default": {
                "BACKEND": "django_redis.cache.RedisCache",
                "LOCATION": f"redis://:wrong@127.0.0.1:{valkey.port}/0",
            }
        }
        for verb in (["stats"], ["doctor"], ["watch", "--times", "2", "--every", "1"]):
            assert "refuses the user name or password" in str(refused(*verb))


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
def test_end_ends_anonymous_sessions_of_an_age(
    forward: Callable[[float], None], alice: User
) -> None:
    signed_in = start(alice)
    start()
    forward(120)
    young = start()
    assert run("end", "--anonymous-older-than", "180") == "0 ended.\n"
    assert len(registry.page().sessions) == 3
    assert run("end", "--anonymous-older-than", "60") == "1 ended.\n"
    assert {one.id for one in registry.page().sessions} == {signed_in, young}


@on_both
def test_a_walk_that_ends_nobody_says_how_far_it_is() -> None:
    for _ in range(1100):
        start()
    out, err = StringIO(), StringIO()
    call_command("header_sessions", "end", "--anonymous-older-than", "3600", stdout=out, stderr=err)
    assert (out.getvalue(), err.getvalue()) == ("0 ended.\n", "0 ended of 1000 looked at\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["end"],
        ["end", "a" * 15, "--user", "alice"],
        ["end", "--context", "draft"],
        ["end", "ID", "a" * 15, "--context", "draft"],
        ["end", "ID", "--user", "alice", "--context", "draft"],
        ["end", "--user", "alice", "--context", "draft"],
        ["end", "--user", "alice", "--anonymous-older-than", "7"],
        ["end", "--anonymous-older-than", "-1"],
        ["list", "--limit", "0"],
        ["watch", "--every", "9" * 20],
        ["end", "--anonymous-older-than", "9" * 20],
        ["list", "--limit", "x"],
        ["list", "--after", "x"],
        ["list", "--after", "1.AAAAAAAAAAAAAAA"],
        ["nothing"],
        [],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    session_id = start()
    refused(*(session_id if each == "ID" else each for each in arguments))
    assert registry.get(session_id)


def test_long_work_says_how_far_it_is(listing_store: Store) -> None:
    ids = [start() for _ in range(2100)]
    out, err = StringIO(), StringIO()
    call_command("header_sessions", "end", *ids, stdout=out, stderr=err)
    assert out.getvalue() == "2100 ended.\n"
    assert err.getvalue() == "1000 ended of 1000 looked at\n2000 ended of 2000 looked at\n"
    ids = [start() for _ in range(1000)]
    err = StringIO()
    call_command("header_sessions", "end", *ids, "--json", stdout=out, stderr=err)
    ids = [start() for _ in range(1000)]
    call_command("header_sessions", "end", *ids, stdout=out, stderr=err, verbosity=0)
    assert err.getvalue() == ""


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


@pytest.mark.parametrize("djangos", [True, False])
def test_clearsessions_sweeps_too(
    time_machine: Any, settings: Any, tmp_path: Any, djangos: bool
) -> None:
    """Where Django's own app is not installed, it is a command of ours."""
    if not djangos:
        settings.INSTALLED_APPS = [
            app for app in settings.INSTALLED_APPS if app != "django.contrib.sessions"
        ]
    known: Any = get_commands
    known.cache_clear()
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
    known.cache_clear()
    assert sum(one.expired for one in get_store("default").activity()) == 1


@on_both
def test_watch_shows_the_figures_again_and_again() -> None:
    start()
    text = run("watch", "--times", "2", "--every", "1")
    assert text.count("live sessions  1") == 2
    lines = run("watch", "--times", "1", "--json").splitlines()
    assert [json.loads(line)["live"] for line in lines] == [1]


def test_watch_outlives_an_outage(settings: Any) -> None:
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0

    class Screen(StringIO):
        """Loses the server after the first look, and brings it back after the second."""

        looks = 0

        def flush(self) -> None:
            self.looks += 1
            if self.looks == 1:
                first.kill()
            elif self.looks == 2:
                stack.enter_context(Valkey(port=first.port))

    with ExitStack() as stack:
        first = stack.enter_context(Valkey())
        settings.CACHES = {
            "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": first.url}
        }
        start()
        for more in ([], ["--json"]):
            screen = Screen()
            call_command(
                "header_sessions", "watch", "--times", "3", "--every", "1", *more, stdout=screen
            )
            text = screen.getvalue()
            assert "\x1b" not in text
            if more:
                lines = [json.loads(line) for line in text.splitlines()]
                assert [line.get("live") for line in lines] == [0, None, 0]
                assert "cannot be used at the moment" in lines[1]["error"]
            else:
                assert text.index("live sessions  1") < text.index("DOWN: The session store")
                assert text.index("DOWN") < text.index("live sessions  0")
            first = Valkey(port=free_port())
            stack.enter_context(first)
            settings.CACHES = {
                "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": first.url}
            }
    # One that ends in an outage is an error.
    assert "cannot be used" in str(refused("watch", "--times", "1"))


def test_a_watch_that_is_left_before_it_saw_anything_has_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(get_store("default"), "count", leave)
    assert run("watch") == ""


def test_a_cache_that_cannot_list_is_said_to_be_one(settings: Any, tmp_path: Any) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    for verb in (["stats"], ["list"]):
        assert "cannot list its sessions" in str(refused(*verb))
    assert "keeps no list" in run("sweep")
    session_id = start(n=b"1")
    assert session_id in run("show", session_id)
    assert run("end", session_id) == "1 ended.\n"


def test_a_store_that_is_down_is_an_error(settings: Any) -> None:
    with Valkey() as server:
        url = server.url
    settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url}}
    assert "cannot be used at the moment" in str(refused("stats"))


COMMAND = [sys.executable, "-m", "django", "header_sessions"]


@pytest.fixture
def outside(redis_cache: dict[str, Any], settings: Any) -> dict[str, str]:
    """The environment of a process that has its sessions where this one has them."""
    settings.CACHES = {"default": redis_cache}
    return os.environ | {
        "REDIS_URL": redis_cache["LOCATION"],
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }


def test_cron_sees_the_exit_status(outside: dict[str, str]) -> None:
    def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=outside | env, cwd=ROOT, capture_output=True, text=True
        )

    start()
    start()
    done = call("stats", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["live"] == 2
    assert call("show", "x").returncode == 1
    # A crontab with a slip in it does not look like an alarm.
    assert call("statz").returncode == call("end").returncode == 2
    assert call("stats", DJANGO_SETTINGS_MODULE="tests.alarmed").returncode == 3


@pytest.mark.parametrize("verb", [["stats"], ["list"], ["watch", "--every", "1"]])
def test_whoever_has_seen_enough_is_not_complained_to(
    outside: dict[str, str], verb: list[str]
) -> None:
    start()
    ended_at_once = f"{shlex.join([*COMMAND, *verb])} | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"{ended_at_once}; exit ${{PIPESTATUS[0]}}"],
        env=outside,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert len(done.stdout) == 1
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_letters_that_an_output_does_not_have_are_replaced(outside: dict[str, str]) -> None:
    start()
    for verb in ("stats", "list"):
        done = subprocess.run(
            [*COMMAND, verb],
            env=outside | {"PYTHONIOENCODING": "ascii"},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "?" in done.stdout or verb == "list"


def test_a_project_without_users_has_its_sessions_listed(outside: dict[str, str]) -> None:
    session_id = start()
    done = subprocess.run(
        [*COMMAND, "list"],
        env=outside | {"DJANGO_SETTINGS_MODULE": "tests.userless"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert session_id in done.stdout, done.stderr


@pytest.mark.parametrize(("settings_of", "status"), [("tests.settings", 0), ("tests.alarmed", 3)])
def test_a_watch_that_is_left_tells_whether_an_alarm_stands(
    outside: dict[str, str], settings_of: str, status: int
) -> None:
    start()
    start()
    with subprocess.Popen(
        [*COMMAND, "watch", "--every", "60"],
        env=outside | {"DJANGO_SETTINGS_MODULE": settings_of, "PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Whatever runs the tests in the background ignores it, and so would this.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as watch:
        assert watch.stdout is not None
        while watch.stdout.readline().strip():
            pass  # what it says, to the empty line behind it
        watch.send_signal(signal.SIGINT)
        watch.wait(30)
        assert watch.returncode == status


def test_on_a_terminal_progress_comes_and_goes(outside: dict[str, str]) -> None:
    ids = [start() for _ in range(450)]
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen(
            [*COMMAND, "end", *ids],
            env=outside,
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as ending:
            os.close(theirs)
            seen = b""
            with suppress(OSError):  # how Linux says that the other end was closed
                while some := terminal.read(4096):
                    seen += some
        assert ending.returncode == 0
    shown = seen.decode().replace("\r\n", "\n")
    *steps, last = shown.split("\r")
    assert [step for step in steps if step] == [
        f"{n} ended of {n} looked at …\x1b[K" for n in (200, 400, 450)
    ]
    assert last == "\x1b[K450 ended.\n"


def test_a_watch_on_a_terminal_stays_in_its_place(outside: dict[str, str]) -> None:
    start()
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen(
            [*COMMAND, "watch", "--times", "1"],
            env=outside,
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as watch:
            os.close(theirs)
            seen = b""
            with suppress(OSError):
                while some := terminal.read(4096):
                    seen += some
        assert watch.returncode == 0
    shown = seen.decode()
    assert shown.startswith("\x1b[Hlive sessions  1\x1b[K")
    assert shown.endswith("\x1b[J")
