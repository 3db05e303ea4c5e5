"""Header sessions for aiohttp: `aiohttp.ClientSession(middlewares=[HeaderSession()])`."""

from __future__ import annotations

import aiohttp

from .answers import (
    EXPIRES_IN,
    IDEMPOTENT,
    Answer,
    is_problem,
    problem_of,
)
from .flow import (
    Flow,
    InsecureOrigin,
    SessionError,
    SessionKey,
    SessionLost,
    SessionNotStarted,
)
from .origins import origin_of
from .steps import Held, Renew, adrive, aperform

__all__ = [
    "HeaderSession",
    "InsecureOrigin",
    "SessionError",
    "SessionKey",
    "SessionLost",
    "SessionNotStarted",
]


def mask(response: aiohttp.ClientResponse, header: str) -> None:
    """Have what is announced show its id only, wherever the library shows an answer's headers.

    It does in the exceptions that `raise_for_status` makes; who asks for the value still gets it.
    """
    shown = response.headers.copy()
    for value in shown.popall(header):
        shown.add(header, SessionKey(value))
    response._headers = type(response.headers)(shown)
    response._cache.pop("headers", None)


def is_replayable(body: object) -> bool:
    """Whether a body that was sent can be sent once more."""
    if isinstance(body, aiohttp.MultipartWriter):
        parts = [is_replayable(part) for part, *_ in body]
        if not all(parts):
            return False
    # Before 3.14.4 it has been consumed only when all of it was sent.
    if isinstance(body, aiohttp.AsyncIterablePayload):
        return False
    # The first versions with middlewares do not tell.
    consumed = getattr(body, "consumed", None)
    return isinstance(body, bytes | aiohttp.BytesPayload) if consumed is None else not consumed


class HeaderSession(Flow):
    """One server-side session, as a client middleware. See `flow.Flow`.

    The library calls a middleware once for each hop of a redirect chain, with a fresh request:
    nothing is carried over from one hop to the next.
    """

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """One request, and its repetitions; called by the library."""
        if not self.owns(origin_of(str(request.url))):
            # A default header of the client goes along on every call, and every redirect.
            if self.is_own(request.headers.get(self.header)):
                del request.headers[self.header]
            return await handler(request)
        steps = self.call()
        response: aiohttp.ClientResponse | None = None
        try:
            step = next(steps)
            while True:
                if isinstance(step, Held):
                    # A `str` whose repr is masked: the library's exceptions show their headers.
                    request.headers[self.header] = SessionKey(step.value)
                    response = await handler(request)
                    step = steps.send(await self._answer(request, response))
                    # Going on: this answer is nobody's.
                    await response.read()
                else:
                    await aperform(self, step)
                    step = next(steps)
        except StopIteration:
            assert response is not None
            return response
        except BaseException:
            if response is not None:
                response.close()
            raise
        finally:
            steps.close()

    async def _answer(
        self, request: aiohttp.ClientRequest, response: aiohttp.ClientResponse
    ) -> Answer:
        headers = response.headers
        answer = Answer(response.status, headers.getall(self.header, ()))
        if answer.announced:
            mask(response, self.header)
        answer.expires_in = headers.get(EXPIRES_IN)
        if response.status >= 400:
            answer.idempotent = request.method in IDEMPOTENT
            answer.replayable = is_replayable(request.body)
            answer.retry_after = headers.get("Retry-After")
            if is_problem(headers.get("Content-Type")):
                answer.problem = problem_of(await response.read())
        return answer

    async def start(self, call: Renew | None = None) -> None:
        """As `flow.BlockingFlow.start`; `call` may be a coroutine function."""
        await adrive(self, self.starting(call))

    async def keep_alive(self, client: aiohttp.ClientSession) -> float | None:
        """As `flow.BlockingFlow.keep_alive`."""
        if self.key is not None:
            async with client.get(self.resource_url, middlewares=self._among(client)):
                pass
        return self.expires_in

    async def end(self, client: aiohttp.ClientSession) -> None:
        """As `flow.BlockingFlow.end`."""
        with self.ending() as answered:
            if self.is_there:
                async with client.delete(
                    self.resource_url, middlewares=self._among(client), raise_for_status=False
                ) as response:
                    answered(response.status)

    def _among(self, client: aiohttp.ClientSession) -> tuple[aiohttp.ClientMiddlewareType, ...]:
        """The client's own middlewares, which have no public name, with this one among them, and no
        other session."""
        own = [
            each
            for each in client._middlewares
            if not isinstance(each, HeaderSession) or each is self
        ]
        return tuple(own if self in own else [self, *own])
