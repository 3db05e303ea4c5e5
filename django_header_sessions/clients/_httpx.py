"""The auth class of httpx and httpx2, which differ in name only. Imports neither."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from typing import Any, ClassVar, Protocol

from . import answers
from .answers import IDEMPOTENT, Answer, is_problem, problem_of
from .exceptions import SessionError
from .flow import BlockingFlow, Response
from .steps import Held, Launch, Renew, Steps, adrive, aperform, perform

EXPIRES_IN = answers.EXPIRES_IN.lower().encode("ascii")
EXPIRES_IN_LENGTH = len(EXPIRES_IN)
# Where a request keeps what it was sent with, for the hook that sees its response.
SENT = "django_header_sessions"


class AsyncClient(Protocol):
    """What is asked of an async client of either library."""

    async def get(self, url: str, *, auth: Any) -> Response: ...
    async def delete(self, url: str, *, auth: Any) -> Response: ...


class Trip:
    """One call, over all its hops: the response that a hook has seen and the call has not, yet."""

    __slots__ = ("response",)

    def __init__(self) -> None:
        self.response: Any = None


class Hop:
    """What one request was sent with, and whether what it announced has been taken."""

    __slots__ = ("held", "session", "settled", "trip")

    def __init__(self, session: HttpxSession, held: Held, trip: Trip) -> None:
        self.session = session
        self.held = held
        self.trip = trip
        self.settled = False


class KeysMasked(logging.Filter):
    """Leaves of a session key in a record the id alone.

    At level DEBUG the library's own library logs all headers that come in.
    """

    pairs = re.compile(r"(b'([^']*)', b'[^']{0,15})([^']*)(?=')")
    names: ClassVar[set[str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        masked = self.pairs.sub(self._masked, text)
        if masked != text:
            record.msg, record.args = masked, ()
        return True

    def _masked(self, pair: re.Match[str]) -> str:
        hides = pair[3] and pair[2].lower() in self.names
        return f"{pair[1]}…" if hides else pair[0]


def mask_keys(*loggers: str) -> None:
    """Have these loggers show no session key."""
    for name in loggers:
        logging.getLogger(name).addFilter(KeysMasked())


class Done:
    """Awaitable, and done: a hook that returns it serves a synchronous client and an async one."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


DONE = Done()


def keyed_headers(plain: type[Any]) -> type[Any]:
    """A subclass of a library's `Headers` that sends a session key and never hands it on.

    On a redirect the library copies a request's headers, whatever the next host is. A copy of
    these has no session header in it; all who read them see it. Their `repr` masks it. Raises
    `RuntimeError` when the library's `Headers` copies in another way than the ones known to us.
    """

    get_item = plain.__getitem__

    class KeyedHeaders(plain):  # type: ignore[misc]
        def __init__(self, headers: Any, name: str, value: str) -> None:
            # With its encoding, which costs as much to find out as all the rest.
            super().__init__(headers, headers.encoding)
            self._session_name = name.lower()
            self._session_key = name.lower().encode("ascii")
            self._session_header = (name.encode("ascii"), value.encode("ascii"))

        def _shown(self) -> Any:
            shown = plain(self)
            name, value = self._session_header
            shown[name.decode("ascii")] = value.decode("ascii")
            return shown

        @property
        def raw(self) -> list[tuple[bytes, bytes]]:
            # Whoever has set it after us has not set a second one.
            others = [pair for pair in super().raw if pair[0].lower() != self._session_key]
            return [*others, self._session_header]

        def keys(self) -> Any:
            # Asked on every call, by the cookie jar; the plain way costs three times as much.
            return {**dict.fromkeys(super().keys()), self._session_name: None}.keys()

        def values(self) -> Any:
            return self._shown().values()

        def items(self) -> Any:
            return self._shown().items()

        def multi_items(self) -> Any:
            return self._shown().multi_items()

        def get_list(self, key: str, split_commas: bool = False) -> Any:
            return self._shown().get_list(key, split_commas)

        def __getitem__(self, key: str) -> Any:
            if len(key) == len(self._session_name) and key.lower() == self._session_name:
                return self._session_header[1].decode("ascii")
            return get_item(self, key)

        def __setitem__(self, key: str, value: str) -> None:
            # The key is where no copy takes it along, and stays there alone.
            if key.lower() != self._session_name:
                super().__setitem__(key, value)

        def __delitem__(self, key: str) -> None:
            if key.lower() != self._session_name:
                super().__delitem__(key)

        def __contains__(self, key: Any) -> bool:
            return key.lower() == self._session_name or bool(super().__contains__(key))

        def __len__(self) -> int:
            return int(super().__len__()) + 1

        def on(self, headers: Any) -> KeyedHeaders:
            """Other headers, with the same session key, and not in a place where it is copied."""
            name, value = (part.decode("ascii") for part in self._session_header)
            bare = plain(headers)
            bare.pop(name, None)
            return KeyedHeaders(bare, name, value)

        def __repr__(self) -> str:
            return f"<{type(self).__name__} {plain(self)!r} and a session key>"

        def __reduce__(self) -> Any:
            return plain, (plain(self),)

    probe = KeyedHeaders(plain({"a": "b"}), "X-Probe", "c")
    if "X-Probe" in plain(probe) or (b"X-Probe", b"c") not in probe.raw:
        raise RuntimeError(
            f"{plain.__module__}.Headers of this version would hand a session key on to other "
            "hosts when it is redirected; this module does not support it."
        )
    return KeyedHeaders


def keyed_request(plain: type[Any], keyed: type[Any]) -> type[Any]:
    """A subclass of a library's `Request` that sends its session key whatever headers it is given,
    and to its own origin alone.

    Tracing gives it others in the last moment, copied from those that it had; a transport may turn
    it to another host where its own is down.
    """

    class KeyedRequest(plain):  # type: ignore[misc]
        @property
        def headers(self) -> Any:
            return self.__dict__["headers"]

        @headers.setter
        def headers(self, headers: Any) -> None:
            had = self.__dict__["headers"]
            if isinstance(had, keyed) and not isinstance(headers, keyed):
                headers = had.on(headers)
            self.__dict__["headers"] = headers
            self._keep_the_key_at_home()

        @property
        def url(self) -> Any:
            return self.__dict__["url"]

        @url.setter
        def url(self, url: Any) -> None:
            self.__dict__["url"] = url
            self._keep_the_key_at_home()

        def _keep_the_key_at_home(self) -> None:
            hop = self.extensions.get(SENT)
            if hop is not None and not hop.session._is_ours(self):
                if isinstance(self.headers, keyed):
                    self.__dict__["headers"] = hop.session._plain(self.headers)
                hop.session._strip(self)

        def __reduce__(self) -> Any:
            # For who keeps answers: without the key.
            return plain.__new__, (plain,), self.__getstate__()

    KeyedRequest.__name__ = plain.__name__
    return KeyedRequest


class HttpxSession(BlockingFlow):
    """What `HeaderSession` of `clients.httpx` and `clients.httpx2` share."""

    # Set by the module that is named for the library.
    _plain: type[Any]
    _keyed: type[Any]
    _request: type[Any]
    _keyed_request: type[Any]
    _byte_stream: type[Any]
    _async_byte_stream: type[Any]

    @property
    def event_hooks(self) -> dict[str, list[Callable[..., Any]]]:
        """For a client, synchronous or async, that follows redirects by itself.

        An auth object sees the end of a redirect chain only. With these hooks every hop to the
        session's origin carries the key. Without, the later ones do not: one that comes back to
        the origin is then made again with the key when it is a GET or HEAD, and is a
        `SessionError` when it is not.

        They go before hooks of the client's own: one that raises for the status keeps the answer
        from an auth object, and only what these have seen before it counts.
        """
        return {"request": [self._on_request], "response": [self._on_response]}

    def _on_request(self, request: Any) -> Done:
        # A hop inherits the mark of the request it comes from, but not its session header.
        hop = self._hop(request)
        if hop is not None and not self._is_keyed(request) and self._is_ours(request):
            self._dress(request, self.current(), hop.trip)
        return DONE

    def _hop(self, request: Any) -> Hop | None:
        """How `request` was sent; `None` for a call of another session: a client may serve many."""
        hop: Hop | None = request.extensions.get(SENT)
        return None if hop is None or hop.session is not self else hop

    def _on_response(self, response: Any) -> Any:
        hop = self._settle_hop(response)
        if hop is None:
            return DONE
        hop.trip.response = response
        if response.status_code >= 400 and self._is_problem(response):
            # Now: what another hook raises for is closed unread.
            if isinstance(response.stream, self._async_byte_stream):
                return response.aread()
            response.read()
        return DONE

    def _is_ours(self, request: Any) -> bool:
        url = request.url
        return self.owns(f"{url.scheme}://{url.netloc.decode('ascii')}")

    def _is_keyed(self, request: Any) -> bool:
        return isinstance(request.headers, self._keyed)

    def _strip(self, request: Any) -> None:
        # A default header of the client goes along on every call.
        if self.is_own(request.headers.get(self.header)):
            del request.headers[self.header]

    def _dress(self, request: Any, held: Held, trip: Trip) -> None:
        headers = request.headers
        if self.header in headers:
            if isinstance(headers, self._keyed):
                headers = self._plain(headers)
            else:
                del headers[self.header]
        if type(request) is self._request:
            request.__class__ = self._keyed_request
        request.headers = self._keyed(headers, self.header, held.value)
        KeysMasked.names.add(self.header_lower)
        request.extensions[SENT] = Hop(self, held, trip)

    def _settle_hop(self, response: Any) -> Hop | None:
        """Take what one hop announced, once; `None` for one that went out without the key."""
        hop = self._hop(response.request)
        if hop is None or not self._is_keyed(response.request):
            return None
        if not hop.settled:
            hop.settled = True
            self.capture(hop.held, self._announcement(response, hop.held, announced=True))
        return hop

    def _announcement(self, response: Any, held: Held, *, announced: bool) -> Answer:
        headers = response.headers
        answer = Answer(response.status_code, sent=held)
        # One look at all names costs half of what two lookups by name do, on every call.
        name_length = len(self.header)
        for name, value in headers.raw:
            length = len(name)
            if length == EXPIRES_IN_LENGTH and name.lower() == EXPIRES_IN:
                answer.expires_in = value.decode("latin-1")
            if length == name_length and announced:
                text = name.decode("latin-1").lower()
                if text == self.header_lower:
                    answer.announced = (*answer.announced, value.decode("latin-1"))
        return answer

    def _answer(self, response: Any, hop: Hop) -> Answer:
        answer = self._announcement(response, hop.held, announced=not hop.settled)
        if answer.status >= 400:
            headers, request = response.headers, response.request
            answer.idempotent = request.method in IDEMPOTENT
            answer.replayable = isinstance(request.stream, self._byte_stream)
            answer.retry_after = headers.get("Retry-After")
            if self._is_problem(response):
                answer.problem = problem_of(response.content)
        return answer

    def _is_problem(self, response: Any) -> bool:
        return is_problem(response.headers.get("Content-Type")) and self._is_keyed(response.request)

    def _judge(self, response: Any, seen: int) -> tuple[Answer | None, Any]:
        """What the chain that ends in `response` comes to, and the request to repeat if any.

        The first `seen` entries of its history are the ends of the chains before it.

        No answer: the request went out without the key because the client followed a redirect
        by itself, and has to be made again.
        """
        if len(response.history) > seen:
            for hop in [*response.history[seen:], response]:
                self._settle_hop(hop)
                if not self._is_keyed(hop.request) and self._is_ours(hop.request):
                    if hop.request.method in ("GET", "HEAD"):
                        return None, hop.request
                    raise SessionError(
                        f"A {hop.request.method} was redirected and sent without the session. "
                        "Give the client the session's event_hooks, or do not follow redirects."
                    )
        request = response.request
        if not self._is_keyed(request):
            return Answer(0), request
        hop = request.extensions[SENT]
        return self._answer(response, hop), request

    def _overtaken(self, steps: Steps, trip: Trip) -> Launch | None:
        """Take the answer that a hook kept from a call by raising; a renewal to begin, if any.

        Raises `SessionLost` in the place of what the hook raised.
        """
        response, trip.response = trip.response, None
        if response is not None:
            with suppress(StopIteration):
                step = steps.send(self._answer(response, response.request.extensions[SENT]))
                return step if isinstance(step, Launch) else None
        return None

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """One call of a synchronous client; called by the library."""
        if not self._is_ours(request):
            self._strip(request)
            yield request
            return
        steps = self.call()
        trip = Trip()
        seen = 0
        try:
            step = next(steps)
            while True:
                if isinstance(step, Held):
                    answer = None
                    self._dress(request, step, trip)
                    while answer is None:
                        response = yield request
                        trip.response = None
                        if response.status_code >= 400 and self._is_problem(response):
                            response.read()
                        answer, request = self._judge(response, seen)
                        seen += 1
                        if answer is None:
                            self._dress(request, self.current(), trip)
                    step = steps.send(answer)
                else:
                    perform(self, step)
                    step = next(steps)
        except StopIteration:
            return
        except GeneratorExit:
            launch = self._overtaken(steps, trip)
            if launch is not None:
                perform(self, launch)
            raise
        finally:
            steps.close()

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """One call of an async client; called by the library."""
        if not self._is_ours(request):
            self._strip(request)
            yield request
            return
        steps = self.call()
        trip = Trip()
        seen = 0
        try:
            step = next(steps)
            while True:
                if isinstance(step, Held):
                    answer = None
                    self._dress(request, step, trip)
                    while answer is None:
                        response = yield request
                        trip.response = None
                        if response.status_code >= 400 and self._is_problem(response):
                            await response.aread()
                        answer, request = self._judge(response, seen)
                        seen += 1
                        if answer is None:
                            self._dress(request, self.current(), trip)
                    step = steps.send(answer)
                else:
                    await aperform(self, step)
                    step = next(steps)
        except StopIteration:
            return
        except GeneratorExit:
            launch = self._overtaken(steps, trip)
            if launch is not None:
                await aperform(self, launch)
            raise
        finally:
            steps.close()

    async def astart(self, call: Renew | None = None) -> None:
        """`start()` of an async client; `call` may be a coroutine function."""
        await adrive(self, self.starting(call))

    async def akeep_alive(self, client: AsyncClient) -> float | None:
        """`keep_alive()` of an async client."""
        if self.key is not None:
            await client.get(self.resource_url, auth=self)
        return self.expires_in

    async def aend(self, client: AsyncClient) -> None:
        """`end()` of an async client."""
        with self.ending() as answered:
            if self.is_there:
                answered((await client.delete(self.resource_url, auth=self)).status_code)
