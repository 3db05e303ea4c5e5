"""The Sentinel settings that the README gives: a failover is 503s, and then everybody is there."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_header_sessions import registry

from ..pages import Page
from .conftest import TIMEOUT, Caller, until
from .test_faults import SLACK, assert_unavailable
from .topologies import Sentinels


@pytest.fixture
def sentinels(tmp_path: Path, settings: Any) -> Iterator[Sentinels]:
    with Sentinels(tmp_path) as started:
        settings.CACHES = {"default": sentinel_alias(started)}
        yield started


def sentinel_alias(sentinels: Sentinels) -> dict[str, Any]:
    """The README's, at these Sentinels."""
    told: dict[str, Any] = {}
    snippets = Page.named("README.md").chapter("## Running on Redis").snippets("python")
    exec(next(each for each in snippets if "SENTINELS" in each), told)
    alias: dict[str, Any] = told["CACHES"]["default"]
    alias["LOCATION"] = alias["LOCATION"].replace("mymaster", sentinels.name)
    alias["OPTIONS"]["SENTINELS"] = [("127.0.0.1", port) for port in sentinels.ports]
    assert alias["OPTIONS"]["SOCKET_TIMEOUT"] == TIMEOUT
    return alias


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_after_a_failover_everybody_is_there_as_soon_as_a_probe_has_passed(
    sentinels: Sentinels, settings: Any, how: signal.Signals
) -> None:
    pause = settings.HEADER_SESSIONS_BREAKER_SECONDS = 0.5
    callers = [
        await Caller(mode, transport).started()
        for mode in ("sync", "async")
        for transport in ("header", "cookie")
        for _ in range(2)
    ]
    # Several connections to the primary, all of which will lead to one that is none any more.
    for answer in await asyncio.gather(*[caller("read") for caller in callers]):
        assert answer.status == 200
    sentinels.replicated()
    sentinels.primary.signal(how)
    for answer in await asyncio.gather(*[caller("read") for caller in callers]):
        assert_unavailable(answer, executed=False)
        assert answer.took < TIMEOUT + SLACK
    while not sentinels.switched():
        answer = await callers[0]("read")
        assert answer.status in (200, 503)
    switched = time.monotonic()
    await until(lambda: registry.health().usable)
    for answer in await asyncio.gather(*[caller("read") for caller in callers]):
        assert (answer.status, answer.body) == (200, {"n": 1})
    # The probe on its way may have been of the old primary.
    assert time.monotonic() - switched < TIMEOUT + pause + SLACK
    assert (await callers[0]("write", n=2)).status == 200

    if how is signal.SIGSTOP:
        # What ends now stays ended, though the old primary still has it.
        for caller in callers:
            assert registry.end(caller.key[:15])
        sentinels.primary.signal(signal.SIGCONT)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            for caller in callers:
                answer = await caller("read")
                assert answer.status == (401 if caller.transport == "header" else 200)
                assert answer.body.get("n") is None
