"""Opens the session before the view and closes it after: one class, sync and async."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from . import problems
from .conf import conf
from .exceptions import (
    SessionEnded,
    SessionError,
    SessionInsecure,
    SessionSuperseded,
    SessionTooLarge,
    SessionUnavailable,
)
from .origin import Origin, origin_of
from .problems import Problem
from .resolvers import (
    COOKIE,
    EXPIRES_IN_HEADER,
    HEADER,
    Claim,
    Transport,
    announcement,
    resolve,
)

PROBLEMS: dict[type[SessionError], Problem] = {
    SessionEnded: problems.ENDED,
    SessionSuperseded: problems.SUPERSEDED,
    SessionTooLarge: problems.TOO_LARGE,
    SessionInsecure: problems.INSECURE,
    SessionUnavailable: problems.UNAVAILABLE,
}


class HeaderSessionMiddleware(SessionMiddleware):
    """Gives each request its session, by header or by cookie.

    It stands where Django's own would, before whatever uses ``request.session``.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.async_mode:
            return self.__acall__(request)
        claim = resolve(request)
        refusal = refuse_unopened(request, claim)
        if refusal is not None:
            return refusal
        session = request.session = self._session(request, claim)
        try:
            opened = session.open()
        except SessionError as error:
            return answer_fault(request, claim.transport, error, executed=False)
        refusal = refuse_unknown(request, claim, opened)
        if refusal is not None:
            return refusal

        response = cast("HttpResponseBase", self.get_response(request))

        session = cast("Any", request.session)  # ours, or what a view put in its place
        if transport_of(session) == COOKIE:
            return self._close_cookie(request, response)
        fault = session.fault
        if fault is None and must_commit(session, response):
            try:
                session.save()
            except SessionError as error:
                fault = error
        return close(request, claim, session, response, fault)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        claim = resolve(request)
        refusal = refuse_unopened(request, claim)
        if refusal is not None:
            return refusal
        session = request.session = self._session(request, claim)
        try:
            opened = await session.aopen()
        except SessionError as error:
            return answer_fault(request, claim.transport, error, executed=False)
        refusal = refuse_unknown(request, claim, opened)
        if refusal is not None:
            return refusal

        response = await cast("Awaitable[HttpResponseBase]", self.get_response(request))

        session = cast("Any", request.session)
        if transport_of(session) == COOKIE:
            return await sync_to_async(self._close_cookie)(request, response)
        fault = session.fault
        if fault is None and must_commit(session, response):
            try:
                await session.asave()
            except SessionError as error:
                fault = error
        return close(request, claim, session, response, fault)

    def process_exception(
        self, request: HttpRequest, exception: Exception
    ) -> HttpResponseBase | None:
        """Answer what a view let pass, so that it is not logged as a fault of the view's."""
        session = getattr(request, "session", None)
        of_this_session = exception is getattr(session, "fault", None)
        if of_this_session or isinstance(
            exception, SessionUnavailable | SessionTooLarge | SessionInsecure
        ):
            return answer_fault(
                request, transport_of(session), cast("SessionError", exception), executed=True
            )
        return None

    def _session(self, request: HttpRequest, claim: Claim) -> Any:
        if claim.carries_header:
            # A page of another site cannot add a header without CORS consent, and no cookie was
            # read. Django's and DRF's own test clients rely on the same attribute.
            request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        if claim.transport == COOKIE:
            return self.SessionStore(claim.key)
        return cast("Any", self.SessionStore)(
            claim.key,
            transport=HEADER,
            origin=lambda: recorded_origin(request),
            refusal=SessionInsecure(problems.INSECURE.title) if insecure(request) else None,
        )

    def _close_cookie(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """What Django does; and where the store is down, 503 without touching the cookie."""
        session = request.session
        fault = getattr(session, "fault", None)
        if fault is None:
            try:
                response = self.process_response(request, cast("HttpResponse", response))
            except (SessionUnavailable, SessionTooLarge) as error:
                fault = error
        if fault is not None:
            return replaced(response, answer_fault(request, COOKIE, fault, executed=True))
        if getattr(session, "accessed", False):
            # The same request with a session header would have had another session.
            patch_vary_headers(response, (conf.HEADER_SESSIONS_HEADER,))
        return response


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
        return problems.respond(request, problems.INSECURE, executed=False)
    return None


def refuse_unknown(request: HttpRequest, claim: Claim, opened: bool) -> HttpResponse | None:
    """The answer to a request whose key opened nothing; an unknown cookie is Django's business."""
    if opened or claim.key is None or claim.transport == COOKIE:
        return None
    if conf.HEADER_SESSIONS_UNKNOWN == "renew":
        return None
    return problems.respond(request, problems.UNKNOWN, executed=False)


def must_commit(session: Any, response: HttpResponseBase) -> bool:
    """Whether there is something to store. A view that failed stores nothing, as in Django."""
    return session.modified and not session.is_empty() and response.status_code < 500


def close(
    request: HttpRequest,
    claim: Claim,
    session: Any,
    response: HttpResponseBase,
    fault: SessionError | None,
) -> HttpResponseBase:
    """The answer to a request whose session is a header session, with all it says of it."""
    if fault is not None:
        response = replaced(response, answer_fault(request, HEADER, fault, executed=True))
    sent = claim.key if claim.transport == HEADER else None
    announced = announcement(sent, session.session_key)
    if announced is not None:
        response.headers[conf.HEADER_SESSIONS_HEADER] = announced
        # A key in a shared cache would be handed to the next client, in spite of Vary: all who
        # have no key yet share one variant.
        response.headers["Cache-Control"] = "private, no-store"
    if session.expires_in is not None and fault is None:
        response.headers[EXPIRES_IN_HEADER] = str(session.expires_in)
    if claim.carries_header or (announced and session.user_id is not None):
        # Signing in makes Django send a CSRF cookie, which this client has no use for.
        response.cookies.pop(settings.CSRF_COOKIE_NAME, None)
    patch_vary_headers(response, (conf.HEADER_SESSIONS_HEADER,))
    session.sealed = True
    return response


def answer_fault(
    request: HttpRequest, transport: Transport, fault: SessionError, *, executed: bool
) -> HttpResponse:
    problem = PROBLEMS[type(fault)]
    return problems.respond(request, problem, executed=executed, html=transport == COOKIE)


def replaced(response: HttpResponseBase, by: HttpResponse) -> HttpResponse:
    """``by``, which also closes what ``response`` would have closed when it was sent."""
    by._resource_closers.extend(response._resource_closers)  # type: ignore[attr-defined]
    return by
