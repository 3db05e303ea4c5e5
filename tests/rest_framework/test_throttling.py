"""Attempts to sign in are limited, by user name and by origin, however they come."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.http import HttpRequest
from rest_framework.test import APIClient

from django_header_sessions.rest_framework.throttling import (
    SignInByName,
    SignInByOrigin,
    folded,
)

from .conftest import PASSWORD
from .test_resource import SESSIONS, problem, sign_in

NAME, ORIGIN = SignInByName.scope, SignInByOrigin.scope

pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture
def rates(settings: Any) -> dict[str, str | None]:
    """The rates of the project, two attempts a minute each."""
    rates: dict[str, str | None] = {NAME: "2/min", ORIGIN: "2/min"}
    settings.REST_FRAMEWORK = {"DEFAULT_THROTTLE_RATES": rates}
    return rates


def statuses(times: int, *, name: str = "ann", **meta: str) -> list[int]:
    credentials = {"username": name, "password": "wrong"}
    return [
        APIClient().post(SESSIONS, credentials, format="json", **meta).status_code  # type: ignore[arg-type]
        for _ in range(times)
    ]


def test_by_default_ten_attempts_a_minute_under_one_name() -> None:
    with time_machine.travel(60_000_000, tick=False):
        assert statuses(11) == [401] * 10 + [429]


def test_by_default_sixty_attempts_a_minute_from_one_origin() -> None:
    with time_machine.travel(60_000_000, tick=False):
        answers = [statuses(1, name=f"user{n}")[0] for n in range(61)]
    assert answers == [401] * 60 + [429]


def test_too_many_attempts_are_told_when_to_come_back(
    ann: User, rates: dict[str, str | None]
) -> None:
    with time_machine.travel(60_000_000, tick=False) as clock:
        statuses(2)
        clock.shift(20)
        response = sign_in(APIClient())
        assert (response.status_code, problem(response)) == (429, "throttled")
        assert response["Retry-After"] == "40"
        assert "X-Session-Key" not in response.headers
        clock.shift(40)
        assert sign_in(APIClient()).status_code == 201


@pytest.mark.parametrize(
    "name",
    [
        *("ODDISSEY", " oddissey ", "ｏｄｄｉｓｓｅｙ"),
        # In capitals it is the same, and so it is for a backend that asks the database for them.
        *("oddıssey", "oddißey", "oddiſſey"),
        # MySQL compares so by default.
        *("öddissèy", "øđđissey", "oddissey\u0301", "oddis\u200bsey", "od\u00addissey"),
    ],
)
def test_one_name_written_otherwise_is_the_same_name(
    name: str, rates: dict[str, str | None]
) -> None:
    rates[ORIGIN] = None
    statuses(2, name="oddissey")
    assert statuses(1, name=name) == [429]
    assert statuses(1, name="bob") == [401]


def test_every_character_can_be_folded_and_its_case_does_not_matter() -> None:
    every = [chr(number) for number in range(sys.maxunicode + 1)]
    assert folded("".join(every))
    cased = [each for each in every if each.upper() != each.lower()]
    assert [each for each in cased if folded(each.upper()) != folded(each)] == []
    assert [each for each in cased if folded(each.lower()) != folded(each)] == []


@pytest.mark.parametrize("written", ["12.5", '"12.5"', "1.25e1"])
def test_a_name_is_counted_as_the_backends_are_asked_for_it(
    written: str, db: None, rates: dict[str, str | None]
) -> None:
    """DRF takes a number for text."""
    User.objects.create_user("12.5", password=PASSWORD)
    rates[ORIGIN] = None
    statuses(2, name="12.5")
    body = f'{{"username": {written}, "password": "{PASSWORD}"}}'
    response = APIClient().generic("POST", SESSIONS, body, "application/json")
    assert response.status_code == 429


def test_names_in_a_form_are_counted_too(rates: dict[str, str | None]) -> None:
    rates[ORIGIN] = None
    form = {"username": "ann", "password": "wrong"}
    assert [APIClient().post(SESSIONS, form).status_code for _ in range(3)] == [401, 401, 429]
    assert statuses(1) == [429]


def test_names_are_counted_from_wherever_they_come(rates: dict[str, str | None]) -> None:
    statuses(1, REMOTE_ADDR="192.0.2.1")
    statuses(1, REMOTE_ADDR="192.0.2.2")
    assert statuses(1, REMOTE_ADDR="192.0.2.3") == [429]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("unix", "unix", True),
        # The server does not know who calls, as behind a unix socket.
        ("", "", True),
    ],
)
def test_origins_are_told_apart_by_address(
    one: str, other: str, together: bool, rates: dict[str, str | None]
) -> None:
    rates[NAME] = None
    statuses(2, REMOTE_ADDR=one)
    assert statuses(1, REMOTE_ADDR=other) == [429 if together else 401]


def test_where_nobody_knows_who_calls_the_log_says_so_once(
    rates: dict[str, str | None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignInByOrigin, "has_warned", False)
    statuses(2, REMOTE_ADDR="")
    told = [one.message for one in caplog.records if "HEADER_SESSIONS_CLIENT_IP" in one.message]
    assert len(told) == 1


def test_a_forwarded_header_makes_no_other_origin(rates: dict[str, str | None]) -> None:
    rates[NAME] = None
    forged = [statuses(1, HTTP_X_FORWARDED_FOR=f"192.0.2.{n}") for n in range(3)]
    assert forged == [[401], [401], [429]]


def client_ip(request: HttpRequest) -> str:
    return str(request.META["HTTP_X_REAL_IP"])


def test_the_origin_is_what_the_project_says(rates: dict[str, str | None], settings: Any) -> None:
    rates[NAME] = None
    settings.HEADER_SESSIONS_CLIENT_IP = f"{__name__}.client_ip"
    statuses(2, HTTP_X_REAL_IP="192.0.2.1")
    assert statuses(1, HTTP_X_REAL_IP="192.0.2.1") == [429]
    assert statuses(1, HTTP_X_REAL_IP="192.0.2.2") == [401]


def test_starting_without_credentials_is_no_attempt(rates: dict[str, str | None]) -> None:
    assert [APIClient().post(SESSIONS).status_code for _ in range(4)] == [201] * 4


@pytest.mark.parametrize("body", ["[]", '"x"', '{"username": {}}', '{"username": null}'])
def test_what_names_nobody_is_refused_and_not_counted_by_name(
    body: str, rates: dict[str, str | None]
) -> None:
    rates[ORIGIN] = None
    for _ in range(4):
        response = APIClient().generic("POST", SESSIONS, body, "application/json")
        assert response.status_code == 400


def test_none_lifts_a_limit(rates: dict[str, str | None]) -> None:
    rates[NAME] = rates[ORIGIN] = None
    assert statuses(20) == [401] * 20


def test_attempts_at_the_same_time_are_all_counted(
    rates: dict[str, str | None], redis_cache: dict[str, Any], settings: Any
) -> None:
    """DRF's own throttles read a list and write it back, which loses what came in between."""
    rates[NAME] = "5/hour"
    rates[ORIGIN] = None
    settings.CACHES = {"default": redis_cache}
    barrier, refused = threading.Barrier(8), []

    def guess() -> None:
        # Half of the credentials: counted as an attempt, and answered without the database.
        barrier.wait(10)
        for _ in range(5):
            response = APIClient().post(SESSIONS, {"username": "ann"}, format="json")
            refused.append(response.status_code)

    threads = [threading.Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(refused) == [400] * 5 + [429] * 35


def test_a_count_that_vanished_begins_anew(
    rates: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache may throw an entry out between two of its commands."""
    cache = SignInByName.cache
    monkeypatch.setattr(type(cache), "add", lambda *args, **kwargs: False, raising=False)
    assert statuses(1) == [401]


def test_a_cache_of_files_forgets_no_count_before_its_time(
    rates: dict[str, str | None], settings: Any, tmp_path: Path
) -> None:
    """Django counts there by storing anew, for as long as the cache keeps what says nothing."""
    rates[NAME] = "3/hour"
    rates[ORIGIN] = None
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
            "LOCATION": str(tmp_path),
            "TIMEOUT": 60,
        }
    }
    hour = datetime(2030, 1, 1, 12, tzinfo=UTC)
    with time_machine.travel(hour, tick=False) as clock:
        assert statuses(4) == [401, 401, 401, 429]
        clock.shift(timedelta(minutes=58))
        assert statuses(1) == [429]
        clock.shift(timedelta(minutes=2))
        assert statuses(1) == [401]


def test_a_cache_that_can_count_is_asked_no_more_than_that(
    rates: dict[str, str | None], redis_cache: dict[str, Any], settings: Any, valkey: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    statuses(1)
    valkey.client.config_resetstat()
    statuses(1)
    asked = valkey.client.info("commandstats")
    assert not {"cmdstat_expire", "cmdstat_pexpire"} & asked.keys()


def test_the_cache_holds_neither_names_nor_addresses(
    rates: dict[str, str | None], redis_cache: dict[str, Any], settings: Any, valkey: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    statuses(1, name="ann@example.org", REMOTE_ADDR="192.0.2.1")
    kept = b" ".join(valkey.client.keys("*"))
    assert kept.count(b"header_sessions_") == 2
    assert b"ann" not in kept
    assert b"192" not in kept


def test_a_right_password_counts_too(ann: User, rates: dict[str, str | None]) -> None:
    assert [sign_in(APIClient(), "ann", PASSWORD).status_code for _ in range(3)] == [201, 201, 429]
