"""A lock with a lease is no lock without a fence: who outlives its lease can store nothing."""

from __future__ import annotations

from typing import Any

from tests.fencing import stale_writes


def test_a_holder_that_was_stopped_past_its_lease_stores_nothing(
    redis_cache: dict[str, Any], settings: Any
) -> None:
    settings.CACHES = {"default": redis_cache}
    assert set(stale_writes(redis_cache["LOCATION"], runs=60)) == {"refused"}
