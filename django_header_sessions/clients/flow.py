"""What a client of header sessions does, decided without any I/O.

`Flow` holds one session key and one origin. `Flow.call()` is a generator: it yields *steps* (send
the request with this key, wait for that, sleep so long) and is sent an `Answer` for each request
that went out. The modules named for a library turn steps into that library's calls and responses
into answers; nothing is decided there. Needs the standard library only.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from .answers import HEADER, REDIRECTS, Answer, seconds_of
from .exceptions import (
    InsecureOrigin,
    SessionError,
    SessionLost,
    SessionNotStarted,
)
from .keys import ID_LENGTH, KEY, SessionKey
from .origins import is_loopback, origin_of
from .steps import (
    Flight,
    Held,
    Launch,
    Lead,
    Renew,
    Sleep,
    Step,
    Steps,
    Wait,
    aside,
    drive,
)

__all__ = [
    "Flow",
    "InsecureOrigin",
    "SessionError",
    "SessionKey",
    "SessionLost",
    "SessionNotStarted",
]

# A call is repeated this often in all for a newer key; more means that somebody rotates in a loop.
MAX_TAKES = 3
# A server that says "Retry-After: 0" for ever must not be asked as fast as the network allows.
LEAST_WAIT = 0.05

logger = logging.getLogger("django_header_sessions.clients")

# The renewals that the running code is part of, so that the calls a `renew` makes do not wait
# for the renewal to end.
_renewing: contextvars.ContextVar[tuple[Flight, ...]] = contextvars.ContextVar(
    "django_header_sessions_renewing", default=()
)


class Flow:
    """One session as its client sees it. Safe to share between threads, and between tasks.

    `key` continues a session that an earlier process had, on the server that `origin` names;
    without a key the first call says which server that is, unless `origin` does. `renew` takes no
    arguments and makes a new session through the same client, or returns a key; it may be a
    coroutine function where the library is asynchronous, has `renew_timeout` seconds, and is
    called once for all calls that need it. `max_wait` bounds the seconds one call spends on being
    put off with 503; 0 never waits. `insecure` lets the key travel over plain HTTP to other hosts
    than this one. `resource` is the URL, or path on the origin, where GET keeps the session alive
    and DELETE ends it.

    Raises `ValueError` for a key that cannot be one or comes without its origin, and for an origin
    that is none; `InsecureOrigin` for an origin the key may not be sent to.
    """

    # Seconds after which calls stop waiting for the first one. A library that tells us how every
    # call ends needs no such bound.
    leader_timeout: float | None = None

    def __init__(
        self,
        *,
        key: str | None = None,
        origin: str | None = None,
        renew: Renew | None = None,
        renew_timeout: float = 30.0,
        max_wait: float = 10.0,
        insecure: bool = False,
        header: str = HEADER,
        resource: str = "/api/sessions/current/",
    ) -> None:
        if key is not None and KEY.fullmatch(key) is None:
            # The value may be a real key with a typing error: it stays out of the message.
            raise ValueError("A session key is 40 characters of a-z and 0-9; this is none.")
        if key is not None and origin is None:
            # Else it would go to whatever happens to be called first.
            raise ValueError("A session key is for one server: name it with origin=…, too.")
        self.header = header
        self.header_lower = header.lower()
        self.renew = renew
        self.renew_timeout = renew_timeout
        self.max_wait = max_wait
        self.insecure = insecure
        self.resource = resource
        self.origin: str | None = None
        self._held = Held(None if key is None else SessionKey(key))
        self._flight: Flight | None = None
        self._stir: concurrent.futures.Future[None] | None = None
        self._ending = 0
        # Re-entrant, because a generator may be closed by the garbage collector anywhere.
        self._lock = threading.RLock()
        if origin is not None:
            bare = origin_of(origin)
            if bare is None:
                raise ValueError(f"Not the origin of an http or https URL: {origin!r}")
            self.owns(bare)

    def __repr__(self) -> str:
        held = self._held.key
        state = "no session" if held is None else f"session {held.id}"
        return f"<{type(self).__name__} {state}, origin {self.origin}>"

    @property
    def key(self) -> SessionKey | None:
        """The key held, `None` before there is one. For an agent that must survive a restart."""
        return self._held.key

    @property
    def id(self) -> str | None:
        """The public id of the session, `None` before there is one."""
        key = self._held.key
        return None if key is None else key.id

    @property
    def expires_in(self) -> float | None:
        """Seconds until the session is over if nothing is called; `None` while that is unknown."""
        expires_at = self._held.expires_at
        return None if expires_at is None else max(0.0, expires_at - time.monotonic())

    @property
    def resource_url(self) -> str:
        """The absolute URL of the session itself. Raises `SessionError` before any call."""
        if origin_of(self.resource) is not None:
            return self.resource
        if self.origin is None:
            raise SessionError("No call was made yet and no origin given: there is no session.")
        return f"{self.origin}/{self.resource.removeprefix('/')}"

    def owns(self, origin: str | None) -> bool:
        """Whether requests to `origin` carry the session. The first origin asked about is it.

        Raises `InsecureOrigin` when that first one would make the key travel in the clear.
        """
        if origin == self.origin:
            return origin is not None
        if self.origin is not None or origin is None:
            return False
        if origin.startswith("http:") and not self.insecure and not is_loopback(origin):
            raise InsecureOrigin(
                f"{origin} is plain HTTP: a session key sent there can be read on the way. "
                "Use https, or say insecure=True where the network is yours."
            )
        with self._lock:
            self.origin = self.origin or origin
        return origin == self.origin

    def is_own(self, value: str | None) -> bool:
        """Whether a header's value is a key of this session, also one that was replaced since."""
        return value is not None and bool(KEY.fullmatch(value)) and value[:ID_LENGTH] == self.id

    def current(self) -> Held:
        """What is held now: for a hop of a redirect chain, which waits for nobody."""
        return self._held

    # One call

    def call(self, sent: Held | None = None) -> Steps:
        """The steps of one call to the session's origin; `sent`, where it has been sent already.

        Ends when the last answer is the caller's. Raises `SessionLost`. Close the generator when
        a request fails or is given up: others may be waiting for it.
        """
        takes = 0
        renewed = False
        give_up: float | None = None
        while True:
            lead = None
            if sent is None:
                sent = self._held
                if sent.key is None or self._flight is not None or _renewing.get():
                    sent, lead = yield from self._enter()
            token = object()
            sent.awaited.add(token)
            answer = None
            try:
                answer = yield sent
            finally:
                # Without a lock: adding to a set and taking from it are atomic.
                sent.awaited.discard(token)
                if answer is None or lead is not None or self._stir is not None:
                    self._leave(sent, answer, lead)
                elif answer.announced or answer.expires_in is not None:
                    self.capture(answer.sent or sent, answer)
            assert answer is not None
            if answer.status < 400:
                return
            sent = answer.sent or sent
            kind = answer.kind
            safe = answer.replayable and (answer.executed is False or answer.idempotent)
            if kind in ("unknown", "ended") and sent.key is not None:
                yield from self._lose(sent, kind, answer, renewed)
                renewed = True
                if not safe:
                    raise self._lost(sent.key, kind, answer, renewed=True)
            elif kind == "superseded" and sent.key is not None:
                takes += 1
                yield from self._take_newer(sent, answer, takes)
                if not safe:
                    return
            elif answer.status == 503:
                pause = seconds_of(answer.retry_after)
                now = time.monotonic()
                if give_up is None:
                    give_up = now + self.max_wait
                if pause is None or not safe or now + pause > give_up or self.max_wait <= 0:
                    return
                yield Sleep(max(pause, LEAST_WAIT))
            else:
                return
            sent = None

    def _enter(self) -> Generator[Step, Answer | None, tuple[Held, Lead | None]]:
        """Wait for what this call must not overtake; answer what to send, and the lead, if any."""
        nested = _renewing.get()
        while True:
            with self._lock:
                held, flight = self._held, self._flight
                if nested and flight in nested:
                    return held, None
                if nested and any(old.error is not None for old in nested):
                    raise SessionError("This renewal was given up; what it calls is not sent.")
                if flight is None:
                    if held.key is not None:
                        return held, None
                    if held.lost is not None and self.renew is not None and not self._ending:
                        flight = self._take_off(self.renew, held.lost)
                    elif held.tried:
                        return held, None
                    elif held.leader is None:
                        held.leader = concurrent.futures.Future()
                        held.owner = self._me()
                        return held, held.leader
                    elif held.owner == self._me():
                        # Whoever is here again has given up the call that went alone, or makes
                        # this one as a part of it: it must not wait for itself.
                        return held, held.leader
                leader = held.leader
            if flight is not None:
                yield from self._land(flight)
                if flight.error is not None and flight.lost is not None:
                    raise self._not_renewed(flight, executed=False)
            else:
                assert leader is not None  # else this one had taken the lead, or off
                yield Wait(leader, self.leader_timeout)
                self._pass_lead(held, leader)

    def _leave(self, sent: Held, answer: Answer | None, lead: Lead | None) -> None:
        """Settle a request that was answered, or came to nothing (`None`)."""
        with self._lock:
            if answer is not None and answer.status:
                self.capture(answer.sent or sent, answer)
            if lead is not None:
                # Where a redirect leads belongs to the same call, and is asked alone as well.
                if answer and answer.status < 500 and answer.status not in REDIRECTS:
                    sent.tried = True
                self._pass_lead(sent, lead)
            self._stirred()

    def _pass_lead(self, held: Held, leader: Lead) -> None:
        """Let those waiting for the call that went alone go on, or choose the next one."""
        with self._lock:
            if held.leader is leader:
                held.leader = held.owner = None
            _finish(leader)

    def _stirred(self) -> None:
        stir, self._stir = self._stir, None
        if stir is not None:
            _finish(stir)

    def capture(self, sent: Held, answer: Answer) -> None:
        """Take what `answer` announces, if what its request carried is still what is held."""
        if answer.announced:
            self._capture_key(sent, list(answer.announced))
        said = answer.expires_in
        if said is not None and said.isdecimal() and said.isascii() and len(said) < 10:
            held = self._held
            # Of this session, or of the one that this very answer announced.
            if held is sent or held.key in answer.announced:
                held.expires_at = time.monotonic() + int(said)

    def _capture_key(self, sent: Held, values: list[str]) -> None:
        with self._lock:
            if self._held is not sent:
                if sent.key is None and any(KEY.fullmatch(value) for value in values):
                    logger.warning(
                        "A call made a session of its own, because it overlapped the one that "
                        "made session %s; what it stored is lost. Call start() first.",
                        self.id,
                    )
            elif len(values) == 1 and KEY.fullmatch(values[0]):
                key = SessionKey(values[0])
                if key != sent.key:
                    same = sent.lost is not None or (sent.key is not None and key.id == sent.key.id)
                    held = Held(key, line=sent.line if same else None)
                    held.through = _renewing.get() or (sent.through if same else ())
                    self._replace(held)
                    if sent.key is not None and not same:
                        logger.warning(
                            "%s goes on with session %s in the place of session %s; what that one "
                            "held is not in it.",
                            self.origin,
                            key.id,
                            sent.key.id,
                        )
            elif values == [""]:
                logger.info("%s says that session %s is over.", self.origin, self.id)
                self._replace(Held(None))
            else:
                logger.warning(
                    "%s announced %s; ignored. Session: %s.",
                    self.origin,
                    f"{len(values)} session keys" if len(values) > 1 else "no valid session key",
                    self.id,
                )

    def _replace(self, held: Held) -> None:
        self._held = held
        self._stirred()

    # A session that is gone

    def _lose(self, sent: Held, kind: str, answer: Answer, renewed: bool) -> Steps:
        """Forget a key that the server does not know; have the session renewed.

        Ends when there is a session that the call may be repeated on; else raises.
        """
        assert sent.key is not None
        with self._lock:
            nested = self._flight is not None and self._flight in _renewing.get()
            mine = self._held is sent
            if mine:
                self._forget_lost(sent)
                may_renew = not (self._ending or nested or renewed)
                if self.renew is not None and may_renew and self._flight is None:
                    self._take_off(self.renew, sent.key.id)
            flight = self._flight
            held = self._held
        if nested or (renewed and mine):
            raise self._lost(sent.key, kind, answer, renewed=False)
        if flight is None or flight.lost is None:
            # Rotated meanwhile, or renewed by another call. What somebody began anew after
            # being told of the loss is not this call's session: it has to be told, too.
            if held.key is not None and held.line is sent.line:
                return
            if held.failed is not None and held.line is sent.line:
                raise self._not_renewed(held.failed, executed=answer.executed)
            raise self._lost(sent.key, kind, answer, renewed=False)
        yield from self._land(flight)
        if flight.error is not None:
            raise self._not_renewed(flight, executed=answer.executed)

    def _forget_lost(self, sent: Held) -> None:
        """Forget a key whose session is out of reach; with `renew`, renew it before going on."""
        if self.renew is not None and not self._ending and sent.key is not None:
            self._replace(Held(None, sent.key.id, sent.line))
        else:
            self._replace(Held(None))

    def _take_newer(self, sent: Held, answer: Answer, takes: int) -> Steps:
        """Wait until another call has brought the key that replaced `sent`; else raise."""
        assert sent.key is not None
        patience = time.monotonic() + self.renew_timeout
        while True:
            with self._lock:
                held = self._held
                if held is not sent:
                    break
                # Before it is looked who is awaited: who is answered then looks for this, unlocked.
                if self._stir is None:
                    self._stir = concurrent.futures.Future()
                stir = self._stir
                remaining = patience - time.monotonic()
                if not sent.awaited or remaining <= 0:
                    if not self._ending:
                        self._forget_lost(sent)
                    raise self._lost(sent.key, "superseded", answer, renewed=False)
            yield Wait(stir, remaining)
        # Without a key but in the same line, it is about to be renewed; the next round waits.
        if held.line is not sent.line or takes > MAX_TAKES:
            raise self._lost(sent.key, "superseded", answer, renewed=False)

    def _lost(self, key: SessionKey, kind: str, answer: Answer, *, renewed: bool) -> SessionLost:
        detail = {
            "unknown": "the server does not know it (expired, ended, or its store was emptied)",
            "ended": "it was ended while this call ran",
            "superseded": "its key was replaced, and not through this client",
        }[kind]
        return SessionLost(
            key.id,
            kind,
            executed=answer.executed,
            renewed=renewed,
            detail=detail,
            outlook=self._outlook(renewed),
        )

    def _outlook(self, renewed: bool) -> str:
        """What becomes of the next call, for a person who reads of a loss."""
        held = self._held
        if renewed:
            return "A renewed session is in place: make the call again if that is right."
        if held.key is not None:
            return f"The key held by now is another one, of session {held.key.id}."
        if held.lost is not None:
            return "The next call has it renewed first."
        return (
            "The key is forgotten: the next call begins a new, empty session. "
            "Give renew=… to have it rebuilt (sign in again, initialise again)."
        )

    def _not_renewed(self, flight: Flight, *, executed: bool | None) -> SessionLost:
        error = flight.error
        lost = SessionLost(
            flight.lost or "(none)",
            "renewal",
            executed=executed,
            renewed=False,
            detail=f"it had ended, and renewing it failed ({type(error).__name__})",
            outlook=self._outlook(renewed=False),
        )
        lost.__cause__ = error
        return lost

    # Renewing

    def _take_off(self, renew: Renew, lost: str | None) -> Flight:
        self._flight = Flight(renew, lost, self.renew_timeout)
        return self._flight

    def _land(self, flight: Flight) -> Steps:
        """Have a renewal run, and wait for it; give it up when its time is over."""
        with self._lock:
            launched, flight.launched = flight.launched, True
        if not launched:
            yield Launch(flight)
        yield Wait(flight.done, max(0.0, flight.deadline - time.monotonic()))
        if not flight.done.done():
            self._landed(flight, TimeoutError(f"renew took over {self.renew_timeout:g} s"))

    def _landed(self, flight: Flight, error: BaseException | None) -> None:
        with self._lock:
            if flight.done.done():
                return
            if error is None and self._held.key is None:
                error = SessionError(
                    f"what was called returned, and no session key was announced in {self.header}: "
                    "it has to write to the session, through this client"
                )
            held = self._held
            brought = held.key is None or flight.lost is not None or flight in held.through
            if error is not None and brought:
                # What a renewal that was given up may still bring does not count any more. One
                # that another call has made meanwhile, while this was to start one, stays.
                line = None if flight.lost is None else self._held.line
                held = Held(None, flight.lost, line)
                held.failed = flight
                self._replace(held)
            flight.error = error
            if self._flight is flight:
                self._flight = None
            _finish(flight.done)

    def _adopt(self, flight: Flight, result: object) -> None:
        """Take a key that a `renew` returned instead of having it announced."""
        if isinstance(result, str) and KEY.fullmatch(result):
            if self.origin is None:
                raise SessionError("renew returned a key, and no origin was given that it is for.")
            with self._lock:
                given_up = any(each.error is not None for each in _renewing.get())
                if not given_up and self._held.key != result:
                    line = None if flight.lost is None else self._held.line
                    self._replace(Held(SessionKey(result), line=line))

    def run(self, flight: Flight) -> None:
        """Run a renewal in this thread. Never raises: the outcome is the flight's."""
        token = _renewing.set((*_renewing.get(), flight))
        try:
            result = flight.renew()
            if inspect.isawaitable(result):
                if inspect.iscoroutine(result):
                    result.close()
                raise TypeError("renew is a coroutine function, and this client is synchronous")
            self._adopt(flight, result)
        except BaseException as error:
            self._landed(flight, error)
        else:
            self._landed(flight, None)
        finally:
            _renewing.reset(token)

    async def arun(self, flight: Flight) -> None:
        """Run a renewal in a task of its own, whose end must be told to `grounded`."""
        _renewing.set((*_renewing.get(), flight))
        try:
            async with asyncio.timeout(flight.deadline - time.monotonic()):
                if inspect.iscoroutinefunction(flight.renew):
                    result = flight.renew()
                else:
                    # A plain function may block, and may return something to await.
                    result = await asyncio.wrap_future(aside(flight.renew))
                if inspect.isawaitable(result):
                    result = await result
                self._adopt(flight, result)
        except Exception as error:
            self._landed(flight, error)
        else:
            self._landed(flight, None)

    def grounded(self, flight: Flight) -> None:
        """Settle a renewal whose task is over: cancelled, maybe before it began."""
        self._landed(flight, asyncio.CancelledError())

    def starting(self, call: Renew | None) -> Steps:
        """The steps of `start()`: at most one session is made, however many ask for it."""
        call = call or self.renew
        while True:
            with self._lock:
                held, flight = self._held, self._flight
                # What renews may start, too: it must not wait for itself.
                within = flight if flight in _renewing.get() else None
                if flight is None or within is not None:
                    if held.key is not None:
                        return
                    if held.leader is None:
                        if call is None or (within is not None and within.renew == call):
                            raise ValueError("start() needs a call that writes to the session")
                        if within is None:
                            flight = self._take_off(call, held.lost)
                        else:
                            flight = Flight(call, within.lost, within.deadline - time.monotonic())
                leader = held.leader
            if flight is not None:
                yield from self._land(flight)
                if flight.error is not None:
                    reason = (
                        str(flight.error)
                        if isinstance(flight.error, SessionError)
                        else "the call that was to make it failed "
                        f"({type(flight.error).__name__}); see the cause"
                    )
                    raise SessionNotStarted(f"No session was started: {reason}.") from flight.error
            else:
                assert leader is not None  # else this one had taken the lead, or off
                yield Wait(leader, self.leader_timeout)
                self._pass_lead(held, leader)

    # Ending

    @property
    def is_there(self) -> bool:
        """Whether there is a session, or a renewal is about to bring one back."""
        return self._held.key is not None or self._flight not in (None, *_renewing.get())

    @contextmanager
    def ending(self) -> Iterator[Callable[[int], None]]:
        """The time in which we end the session: nothing is renewed in it, and nothing after it.

        Tell what it yields the status that ending was answered with. Raises `SessionError` when
        that is none of success, or somebody else has replaced the key; what is held is kept then.
        """
        with self._lock:
            line = self._held.line
            self._ending += 1
        answered: list[int] = []
        try:
            yield answered.append
        except SessionLost as lost:
            # Else it was over before we came to end it.
            if lost.reason == "superseded":
                raise SessionError(
                    f"Session {lost.session_id} was not ended: its key was replaced, and not "
                    "through this client. Somebody else has it."
                ) from lost
        finally:
            with self._lock:
                self._ending -= 1
        with self._lock:
            held = self._held
            if answered and answered[0] >= 300 and held.key is not None:
                raise SessionError(f"The session was not ended: the server answered {answered[0]}.")
            if held.line is line and (held.key is not None or held.lost is not None):
                self._replace(Held(None))

    def forget(self) -> None:
        """Let go of the key without telling the server. The next call begins a new session."""
        with self._lock:
            self._replace(Held(None))

    def _me(self) -> object:
        """Who is calling: a call must never wait for itself."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        return threading.get_ident() if task is None else id(task)


class Response(Protocol):
    """What is asked of an answer."""

    status_code: int


class Client(Protocol):
    """What is asked of a client that blocks."""

    def get(self, url: str, *, auth: Any) -> Response: ...
    def delete(self, url: str, *, auth: Any) -> Response: ...


class BlockingFlow(Flow):
    """A flow whose library may block, and has auth objects."""

    def start(self, call: Renew | None = None) -> None:
        """Make the session now, through `call` (else `renew`), unless there is one.

        For a client whose first calls run in parallel and whose very first one may not write.
        However many threads ask, `call` runs once. Raises `SessionNotStarted`.
        """
        drive(self, self.starting(call))

    def keep_alive(self, client: Client) -> float | None:
        """Restart the idle timeout; answers `expires_in`, `None` when there is no session."""
        if self.key is not None:
            client.get(self.resource_url, auth=self)
        return self.expires_in

    def end(self, client: Client) -> None:
        """End the session on the server and forget it; nothing when there is none.

        One that is being renewed is ended once it is there. Raises `SessionError`, and keeps the
        key, when the server does not end it or somebody else has the session by now.
        """
        with self.ending() as answered:
            if self.is_there:
                answered(client.delete(self.resource_url, auth=self).status_code)


def _finish(future: concurrent.futures.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
