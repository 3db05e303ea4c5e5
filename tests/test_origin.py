"""Who is calling: the IP, and what tells one user agent from another."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from django_header_sessions.origin import MAX_BYTES, Origin, origin_of, summary

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36"
)
ANDROID = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Mobile Safari/537.36"
)
EDGE = f"{CHROME} Edg/126.0.2592.68"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0"
SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Safari/605.1.15"
)


@pytest.mark.parametrize(
    ("user_agent", "short"),
    [
        (CHROME, "(Windows NT 10.0; Win64; x64) Chrome/126.0.0.0"),
        (ANDROID, "(Linux; Android 10; K) Chrome/126.0.0.0 Mobile"),
        (EDGE, "(Windows NT 10.0; Win64; x64) Chrome/126.0.0.0 Edg/126.0.2592.68"),
        (FIREFOX, "(X11; Linux x86_64) Firefox/127.0"),
        (SAFARI, "(Macintosh; Intel Mac OS X 10_15_7) Version/17.5 Safari/605.1.15"),
        ("python-httpx/0.27.0", "python-httpx/0.27.0"),
        ("", ""),
        ("  spaced \t out  ", "spaced out"),
        ("x" * 100, "x" * 64),
    ],
)
def test_a_user_agent_is_cut_to_what_tells_it_from_others(user_agent: str, short: str) -> None:
    assert summary(user_agent) == short
    assert len(summary(user_agent).encode()) <= MAX_BYTES


@given(st.text(max_size=1000))
def test_a_summary_is_short_printable_and_valid_whatever_was_sent(user_agent: str) -> None:
    short = summary(user_agent)
    assert len(short.encode("utf-8")) <= MAX_BYTES
    assert short.isprintable()


def test_a_summary_is_cut_between_characters() -> None:
    assert summary("a" + "é" * 40) == "a" + "é" * 31


def test_a_user_agent_of_megabytes_is_not_searched_through() -> None:
    assert summary("(" * 10_000_000) == "(" * 64


def test_the_ip_is_the_address_of_the_connection() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", headers={"User-Agent": "curl/8"})
    assert origin_of(request, None) == Origin("192.0.2.1", "curl/8")


def test_a_forwarded_header_is_not_believed() -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", headers=forwarded)
    assert origin_of(request, None).ip == "192.0.2.1"


def test_a_project_may_say_what_the_ip_is() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", headers={"X-Real-Ip": "::1"})
    assert origin_of(request, lambda request: request.headers["X-Real-Ip"]).ip == "::1"
    assert origin_of(request, lambda request: None).ip == ""  # type: ignore[arg-type,return-value]
    assert origin_of(request, lambda request: "x" * 100 + "\n").ip == "x" * 64


def test_what_is_not_known_is_empty() -> None:
    request = RequestFactory().get("/")
    del request.META["REMOTE_ADDR"]
    assert origin_of(request, None) == Origin("", "")
