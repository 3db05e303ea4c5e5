"""Header sessions for requests: `session.auth = HeaderSession()`."""

from __future__ import annotations

import concurrent.futures
import gc
import time
from functools import partial
from typing import Any

import requests

from .answers import (
    EXPIRES_IN,
    IDEMPOTENT,
    Answer,
    is_problem,
    problem_of,
)
from .flow import (
    BlockingFlow,
    InsecureOrigin,
    SessionError,
    SessionKey,
    SessionLost,
    SessionNotStarted,
)
from .origins import origin_of
from .steps import Held, Steps, Wait, perform

__all__ = [
    "HeaderSession",
    "InsecureOrigin",
    "SessionError",
    "SessionKey",
    "SessionLost",
    "SessionNotStarted",
]


class Trip:
    """One call on its way, over all its hops: the response hook of its requests.

    The library tells an auth object neither that a request failed nor that it was never sent. The
    requests hold the only reference to this object, and this object the only one to `steps`: when
    the library drops the request, `steps` is closed and nobody waits for it any longer.
    """

    def __init__(self, session: HeaderSession) -> None:
        self.session = session
        self.steps: Steps | None = None
        self.held: Held | None = None

    def __reduce__(self) -> Any:
        # For who keeps answers: what was sent is on its way no longer.
        return partial, (as_it_came,)

    def board(self, request: requests.PreparedRequest) -> None:
        """Make the request that the library is about to send the first of this call."""
        self.steps = self.session.call()
        self.held = advance(self.session, self.steps, None)
        dress(self.session, request, self.held)
        request.hooks["response"].append(self)

    def __call__(self, response: requests.Response, **how: Any) -> requests.Response:
        """Take the answer to one hop; called by the library. `how` is how to send another."""
        request = response.request
        if self.held is not None:
            steps = self.steps
            if steps is None or request.headers.get(self.session.header) != self.held.value:
                # A later hop with a key, or a prepared request sent once more: it waited for
                # nobody.
                steps = self.session.call(self.held)
                next(steps)
            self.steps = None
            response = self._finish(steps, response, how)
        # The library copies the headers of the request it sent, whatever the next host is.
        target = redirected_to(response, request)
        if target is not None:
            if self.session.owns(origin_of(target)):
                self.held = self.session.current()
                if self.held.key is None:
                    # As the first hop did, it goes alone or waits for who does.
                    self.steps = self.session.call()
                    self.held = advance(self.session, self.steps, None)
                dress(self.session, request, self.held)
            else:
                self.held = None
                request.headers.pop(self.session.header, None)
        return response

    def _finish(
        self, steps: Steps, response: requests.Response, how: dict[str, Any]
    ) -> requests.Response:
        """Repeat the request as often as the flow says, and answer the last response."""
        session = self.session
        try:
            while True:
                step = advance(session, steps, session.answer(response))
                # Read, so that the connection is used again.
                response.content  # noqa: B018
                again = response.request.copy()
                dress(session, again, step)
                adapter: Any = response.connection
                repeated: requests.Response = adapter.send(again, **how)
                repeated.history = [*response.history, response]
                repeated.request = again
                response = repeated
        except StopIteration:
            return response
        except BaseException:
            response.close()
            raise
        finally:
            steps.close()


def as_it_came(response: requests.Response, **how: Any) -> requests.Response:
    return response


def advance(session: HeaderSession, steps: Steps, answer: Answer | None) -> Held:
    """Do what the flow says until it says send. Raises `StopIteration` when the call is over."""
    step = next(steps) if answer is None else steps.send(answer)
    while not isinstance(step, Held):
        if isinstance(step, Wait):
            wait(step)
        else:
            perform(session, step)
        step = next(steps)
    return step


def wait(step: Wait) -> None:
    """Wait for another call, which may have failed without our being told.

    The exceptions of this library hold the request that failed, in reference cycles: nobody's
    any more, they may stay for long. Collecting them, now and then, ends the wait.
    """
    give_up = None if step.seconds is None else time.monotonic() + step.seconds
    pause = 0.25
    while not step.future.done():
        left = pause if give_up is None else min(pause, give_up - time.monotonic())
        if left <= 0:
            return
        concurrent.futures.wait([step.future], left)
        if not step.future.done():
            gc.collect()
            pause *= 2


class Sent(SessionKey):
    """A key on its way: of what is pickled or copied it leaves the id, which opens nothing."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return str, (self.id,)


def dress(session: HeaderSession, request: requests.PreparedRequest, held: Held) -> None:
    """Put the session header on a request, in a `str` whose repr is masked."""
    request.headers[session.header] = Sent(held.value)


def redirected_to(response: requests.Response, request: requests.PreparedRequest) -> str | None:
    """The URL that the library goes to next if it follows redirects, `None` if none.

    Asked of the library itself: whoever computes it a second time comes, for some spelling of a
    Location, to another host than the one that is then sent the key.
    """
    with requests.Session() as asked:
        # Only the way matters, not what proxies and passwords the environment has for it.
        asked.trust_env = False
        history = response.history
        try:
            ways: Any = asked.resolve_redirects(response, request, yield_requests=True)
            url: str | None = next(ways).url
        except (StopIteration, ValueError, requests.RequestException):
            # No redirect, or one that the library cannot follow, either.
            return None
        finally:
            response.history = history
    return url


class HeaderSession(BlockingFlow, requests.auth.AuthBase):
    """One server-side session, as an auth object. See `flow.Flow`."""

    # The library does not tell how a call ended that raised; see `Trip`.
    leader_timeout = 60.0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Prepare one call; called by the library."""
        if self.owns(origin_of(request.url or "")):
            Trip(self).board(request)
        elif self.is_own(request.headers.get(self.header)):
            # A default header of the client goes along on every call.
            del request.headers[self.header]
        return request

    def answer(self, response: requests.Response) -> Answer:
        """What a response says about the session."""
        headers = response.headers
        answer = Answer(response.status_code)
        if self.header in headers:
            # The library joins what came more than once.
            answer.announced = [value.strip() for value in headers[self.header].split(",")]
        answer.expires_in = headers.get(EXPIRES_IN)
        if response.status_code >= 400:
            request = response.request
            answer.idempotent = request.method in IDEMPOTENT
            answer.replayable = isinstance(request.body, bytes | str | None)
            answer.retry_after = headers.get("Retry-After")
            if is_problem(headers.get("Content-Type")):
                answer.problem = problem_of(response.content)
        return answer
