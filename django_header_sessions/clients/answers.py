"""What a response says about the session, and about the call."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .steps import Held


HEADER = "X-Session-Key"
EXPIRES_IN = "X-Session-Expires-In"
PROBLEM_TYPE = "urn:django-header-sessions:"
PROBLEM_MEDIA_TYPE = "application/problem+json"
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(slots=True)
class Answer:
    """What a response says about the session. `status` 0: nothing that concerns it.

    `announced` holds every value of the session header; `sent` what the request carried where
    that is not what the step asked for (a later hop of a redirect chain); `idempotent` and
    `replayable` tell of the request that was answered.
    """

    status: int
    announced: Sequence[str] = field(default=(), repr=False)
    expires_in: str | None = None
    retry_after: str | None = None
    problem: Mapping[str, Any] | None = None
    idempotent: bool = False
    replayable: bool = True
    sent: Held | None = None

    @property
    def kind(self) -> str | None:
        """The last part of the problem's type, `None` when it is none of the session's.

        Nothing else will do: applications answer 401, with the same challenge, for reasons of
        their own. So a HEAD, which is answered without a body, never loses a session.
        """
        named = None if self.problem is None else self.problem.get("type")
        if isinstance(named, str) and named.startswith(PROBLEM_TYPE):
            return named[len(PROBLEM_TYPE) :]
        return None

    @property
    def executed(self) -> bool | None:
        """Whether the server ran the call; `None` where the answer does not say."""
        said = None if self.problem is None else self.problem.get("executed")
        return said if isinstance(said, bool) else None


def problem_of(body: bytes) -> Mapping[str, Any] | None:
    """The problem document that a body holds, `None` when there is none that can be read."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def is_problem(content_type: str | None) -> bool:
    """Whether a Content-Type announces a problem document."""
    return (content_type or "").partition(";")[0].strip().lower() == PROBLEM_MEDIA_TYPE


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds a Retry-After asks for, whichever form it takes; `None` when it says nothing."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", retry_after):
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
        return max(0.0, when.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
