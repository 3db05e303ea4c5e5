"""Opens the session before the view and closes it after: one class, sync and async."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache.backends.locmem import LocMemCache
from django.core.handlers.exception import response_for_exception
from django.core.handlers.wsgi import WSGIRequest
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.http import http_date
from django.utils.log import log_response
from django.utils.module_loading import import_string

from . import problems
from .conf import conf
from .exceptions import (
    ContextNameInvalid,
    ContextUnknown,
    LeaseExpired,
    SessionBusy,
    SessionEnded,
    SessionError,
    SessionInsecure,
    SessionSuperseded,
    SessionTooLarge,
    SessionUnavailable,
    TooManyContexts,
)
from .origin import Origin, origin_of
from .policies import foreseen, marks, policy_of
from .problems import Problem
from .reporting import AnnouncingHeaders, mask_key
from .resolvers import (
    COOKIE,
    EXPIRES_IN_HEADER,
    HEADER,
    Claim,
    Transport,
    announcement,
    context_of,
    resolve,
    told_apart_by,
)

logger = logging.getLogger("django_header_sessions")

PLAIN = (
    "It came over plain HTTP. Where a proxy speaks HTTPS for the site, SECURE_PROXY_SSL_HEADER has "
    "to say how that is seen."
)

PROBLEMS: dict[type[SessionError], Problem] = {
    SessionEnded: problems.ENDED,
    SessionSuperseded: problems.SUPERSEDED,
    SessionTooLarge: problems.TOO_LARGE,
    SessionInsecure: problems.INSECURE,
    SessionBusy: problems.BUSY,
    LeaseExpired: problems.LEASE_EXPIRED,
    ContextUnknown: problems.UNKNOWN_CONTEXT,
    ContextNameInvalid: problems.MALFORMED_CONTEXT,
    TooManyContexts: problems.TOO_MANY_CONTEXTS,
    SessionUnavailable: problems.UNAVAILABLE,
}
ANSWERED = tuple(PROBLEMS)
"""What a client is told; the rest are faults of the project, and Django's to report."""

TOLD_ON_COOKIES = tuple(kind for kind in ANSWERED if not issubclass(kind, UpdateError))
"""What a browser is told: that its session is gone is Django's business there."""


class HeaderSessionMiddleware(SessionMiddleware):
    """Gives each request its session, by header or by cookie.

    It stands where Django's own would, before whatever uses ``request.session``.
    """

    _looked = False

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        if self.async_mode:
            # Django would call the sync one in a thread, for each request.
            self.process_view = self.aprocess_view  # type: ignore[assignment,method-assign]

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.async_mode:
            return self.__acall__(request)
        if not self._looked:
            self._looked = True
            warn_of_other_processes(request)
        mask_key(request)
        claim = resolve(request)
        refusal = refuse_unopened(request, claim)
        if refusal is not None:
            return refusal
        session = self._session(request, claim)
        try:
            opened = session.open(foreseen(request, claim.transport) if claim.key else None)
        except SessionError as error:
            error.executed = False
            return answer_fault(request, claim.transport, error)
        refusal = refuse_unknown(request, claim, opened)
        if refusal is not None:
            return refusal
        # Not before: whoever stands outside and looks at the session of a request that was refused
        # would have it opened once more, and replace the refusal by an error.
        request.session = session
        try:
            response = cast("HttpResponseBase", self.get_response(request))
            # Which a view may have replaced, or removed.
            left = cast("Any", getattr(request, "session", None))
            if transport_of(left) == COOKIE:
                response = self._close_cookie(request, claim, response)
            else:
                fault, commit = left.fault, must_commit(left, response)
                try:
                    left.finish(commit=commit, unlock=not response.streaming)
                except ANSWERED as error:
                    fault = error
                except Exception as error:
                    # Answered here, as Django would, so that a key that was rotated is announced.
                    response = replaced(response, response_for_exception(request, error))
                response = close(request, claim, left, response, fault)
        except BaseException:
            session.unlock()
            raise
        if not unlock_after(response, session):
            session.unlock()
        return response

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        mask_key(request)
        claim = resolve(request)
        refusal = refuse_unopened(request, claim)
        if refusal is not None:
            return refusal
        session = self._session(request, claim)
        try:
            opened = await session.aopen(foreseen(request, claim.transport) if claim.key else None)
        except SessionError as error:
            error.executed = False
            return answer_fault(request, claim.transport, error)
        refusal = refuse_unknown(request, claim, opened)
        if refusal is not None:
            return refusal
        request.session = session
        try:
            response = await cast("Awaitable[HttpResponseBase]", self.get_response(request))
            left = cast("Any", getattr(request, "session", None))
            if transport_of(left) == COOKIE:
                response = await sync_to_async(self._close_cookie)(request, claim, response)
            else:
                fault, commit = left.fault, must_commit(left, response)
                try:
                    await left.afinish(commit=commit, unlock=not response.streaming)
                except ANSWERED as error:
                    fault = error
                except Exception as error:
                    reported = await sync_to_async(response_for_exception)(request, error)
                    response = replaced(response, reported)
                response = close(request, claim, left, response, fault)
        except BaseException:
            # A client that has gone, most of all: whoever waits for its session need not any more.
            await session.aunlock()
            raise
        if not unlock_after(response, session):
            await session.aunlock()
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        """Have the session ready for a view that says nothing of how it uses it."""
        session = cast("Any", getattr(request, "session", None))
        policy = policy_of(request, view, transport_of(session))
        if self._is_ours(session) and (policy is None or policy.name != "serialized"):
            session.unlock(only_foreseen=True)
        if policy is not None and policy not in marks(request, view):
            try:
                policy.begin(request)
            except ANSWERED as error:
                return refuse_view(request, error)
        return None

    async def aprocess_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        session = cast("Any", getattr(request, "session", None))
        policy = policy_of(request, view, transport_of(session))
        if self._is_ours(session) and (policy is None or policy.name != "serialized"):
            await session.aunlock(only_foreseen=True)
        if policy is not None and policy not in marks(request, view):
            try:
                await policy.abegin(request)
            except ANSWERED as error:
                return refuse_view(request, error)
        return None

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Answer what a view let pass, so that it is not logged as a fault of the view's."""
        session = cast("Any", getattr(request, "session", None))
        exception = alone(exception)
        if isinstance(exception, TOLD_ON_COOKIES):
            # The view did not get to its end, so that nothing it did before is kept either.
            try:
                session.fault = exception
            except AttributeError:
                # It has put something in the session's place that is no session at all.
                return answer_fault(request, resolve(request).transport, exception)
        if exception is getattr(session, "fault", None):
            error = cast("SessionError", exception)
            return answer_fault(request, transport_of(session), error, final=False)
        if isinstance(exception, UpdateError) and transport_of(session) == COOKIE:
            # As where Django finds out when it saves: 400, and no fault of the view's.
            return response_for_exception(request, SessionInterrupted(str(exception)))
        return None

    def _session(self, request: HttpRequest, claim: Claim) -> Any:
        if claim.carries_header:
            # A page of another site cannot add a header without CORS consent, and no cookie was
            # read. Django's and DRF's own test clients rely on the same attribute.
            request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        session = cast("Any", self.SessionStore)(
            claim.key,
            transport=claim.transport,
            origin=lambda: recorded_origin(request),
            refusal=SessionInsecure(PLAIN) if insecure(request) else None,
            context_name=context_of(request),
        )
        session.for_one_request = isinstance(request, WSGIRequest)
        return session

    def _is_ours(self, session: object) -> bool:
        return isinstance(session, cast("type", self.SessionStore))

    def _close_cookie(
        self, request: HttpRequest, claim: Claim, response: HttpResponseBase
    ) -> HttpResponseBase:
        """What Django does; and where the store is down, 503 with the cookie that will open it."""
        session = cast("Any", getattr(request, "session", None))
        fault, ours = getattr(session, "fault", None), self._is_ours(session)
        if fault is None:
            try:
                if ours:
                    session.last_commit = not response.streaming
                response = self.process_response(request, cast("HttpResponse", response))
            except TOLD_ON_COOKIES as error:
                fault = error
            except Exception as error:
                # Answered here, as Django would, so that the browser is told of a key that is new.
                response = replaced(response, response_for_exception(request, error))
            finally:
                if ours:
                    session.last_commit = False
                    if not response.streaming:
                        session.unlock()
        if fault is not None:
            response = replaced(response, answer_fault(request, COOKIE, fault))
        if (ours and response.status_code >= 500) or fault is not None:
            # Django leaves the cookie as it is then, which leads nowhere after a rotation.
            set_cookie_anew(response, claim, session)
        if fault is not None:
            return response
        if getattr(session, "accessed", False) or claim.transport == HEADER:
            # The same request with a session header would have had another session.
            patch_vary_headers(response, told_apart_by())
        if ours:
            session.sealed = True
        return response


def alone(exception: Exception) -> Exception:
    """What an ``asyncio.TaskGroup`` makes a group of: the one of a task, or the first where all are
    of sessions."""
    while isinstance(exception, ExceptionGroup):
        first, *others = exception.exceptions
        if others and exception.split(ANSWERED)[1] is not None:
            break
        exception = first
    return exception


def warn_of_other_processes(request: HttpRequest) -> None:
    """What no system check can know: only the server knows of its processes, and a request tells.

    An ASGI server says nothing of them.
    """
    backend = import_string(settings.CACHES[settings.SESSION_CACHE_ALIAS]["BACKEND"])
    several = isinstance(request, WSGIRequest) and request.META.get("wsgi.multiprocess")
    if several and issubclass(backend, LocMemCache):
        logger.warning(
            "Sessions are in the memory of this process, and the server has others, which do not "
            "know them: clients will be told that there is no such session. Use django-redis, or "
            "one process with threads."
        )


def insecure(request: HttpRequest) -> bool:
    return conf.HEADER_SESSIONS_SECURE and not request.is_secure()


def recorded_origin(request: HttpRequest) -> Origin:
    """The origin to keep with a session, empty where none is to be kept."""
    if not conf.HEADER_SESSIONS_RECORD_ORIGIN:
        return Origin()
    return origin_of(request, conf.HEADER_SESSIONS_CLIENT_IP)


def transport_of(session: object) -> Transport:
    """The transport of what stands in ``request.session`` now: a view may have replaced it."""
    return getattr(session, "transport", COOKIE)


def refuse_unopened(request: HttpRequest, claim: Claim) -> HttpResponse | None:
    """The answer to a request whose session need not be looked for."""
    if claim.malformed:
        return problems.respond(request, problems.MALFORMED, executed=False)
    if claim.carries_header and insecure(request):
        error = SessionInsecure(PLAIN)
        error.executed = False
        return answer_fault(request, HEADER, error)
    return None


def refuse_unknown(request: HttpRequest, claim: Claim, opened: bool) -> HttpResponse | None:
    """The answer to a request whose key opened nothing; an unknown cookie is Django's business."""
    if opened or claim.key is None or claim.transport == COOKIE:
        return None
    if conf.HEADER_SESSIONS_UNKNOWN == "renew":
        return None
    return problems.respond(request, problems.UNKNOWN, executed=False)


def must_commit(session: Any, response: HttpResponseBase) -> bool:
    """Whether what was changed is to be stored. A view that failed stores nothing, as in Django."""
    return session.fault is None and response.status_code < 500


def set_cookie_anew(response: HttpResponseBase, claim: Claim, session: Any) -> None:
    """Have the browser send the key that the store expects by now, if it is another than it sent.

    Flags and age are those that Django's own middleware gives its cookie.
    """
    key = session.session_key
    sent = claim.key if claim.transport == COOKIE else None
    if key is None or key == sent or session.deleted:
        return
    age = None if session.get_expire_at_browser_close() else session.get_expiry_age()
    response.set_cookie(
        settings.SESSION_COOKIE_NAME,
        str(key),
        max_age=age,
        expires=None if age is None else http_date(time.time() + age),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=settings.SESSION_COOKIE_HTTPONLY,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )


def refuse_view(request: HttpRequest, error: SessionError) -> HttpResponse:
    """The answer in place of a view's that did not run, as its session could not be had."""
    session = cast("Any", request.session)
    error.executed = False
    session.fault = error
    return answer_fault(request, transport_of(session), error, final=False)


def unlock_after(response: HttpResponseBase, session: Any) -> bool:
    """Keep the session locked until the body was streamed, or its client has gone; False where it
    is not locked, or the answer is there."""
    if not (isinstance(response, StreamingHttpResponse) and session.locked):
        return False
    response._resource_closers.append(session.unlock)  # type: ignore[attr-defined]
    # Django's ASGI handler closes nothing where the body raises. A file is left as it is, which a
    # server may send by itself.
    if not isinstance(response, FileResponse):
        body: Any = response.streaming_content
        response.streaming_content = (
            aunlocking(body, session) if response.is_async else unlocking(body, session)
        )
    return True


def unlocking(body: Iterator[bytes], session: Any) -> Iterator[bytes]:
    try:
        yield from body
    except BaseException:
        session.unlock()
        raise


async def aunlocking(body: AsyncIterator[bytes], session: Any) -> AsyncIterator[bytes]:
    try:
        async for part in body:
            yield part
    except BaseException:
        await session.aunlock()
        raise


def close(
    request: HttpRequest,
    claim: Claim,
    session: Any,
    response: HttpResponseBase,
    fault: SessionError | None,
) -> HttpResponseBase:
    """The answer to a request whose session is a header session, with all it says of it."""
    if fault is not None:
        response = replaced(response, answer_fault(request, HEADER, fault))
    sent = claim.key if claim.transport == HEADER else None
    announced = announcement(sent, None if session.deleted else session.session_key)
    if announced is not None:
        response.headers = AnnouncingHeaders(response.headers)
        response.headers[conf.HEADER_SESSIONS_HEADER] = str(announced)
        # A key in a shared cache would be handed to the next client, in spite of Vary: all who
        # have no key yet share one variant.
        response.headers["Cache-Control"] = "private, no-store"
        for validator in ("ETag", "Last-Modified"):
            # A 304 keeps the headers that HTTP knows, and would lose the key.
            response.headers.pop(validator, None)
    if session.expires_in is not None and fault is None:
        response.headers[EXPIRES_IN_HEADER] = str(session.expires_in)
    if claim.carries_header or (announced and session.user_id is not None):
        # Signing in makes Django send a CSRF cookie, which this client has no use for.
        response.cookies.pop(settings.CSRF_COOKIE_NAME, None)
    patch_vary_headers(response, told_apart_by())
    session.sealed = True
    return response


def answer_fault(
    request: HttpRequest, transport: Transport, fault: SessionError, *, final: bool = True
) -> HttpResponse:
    problem = next(PROBLEMS[kind] for kind in type(fault).__mro__ if kind in PROBLEMS)
    html = transport == COOKIE
    response = problems.respond(request, problem, executed=fault.executed, html=html, final=final)
    if final and (response.status_code >= 500 or isinstance(fault, SessionInsecure)):
        # As Django would, which does not know the cause.
        reason = response.reason_phrase
        log_response("%s: %s (%s)", reason, request.path, fault, response=response, request=request)
    return response


def replaced(response: HttpResponseBase, by: HttpResponse) -> HttpResponse:
    """``by``, which also closes what ``response`` would have closed when it was sent."""
    by._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]
    return by
