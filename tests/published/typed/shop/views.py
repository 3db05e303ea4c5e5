"""Views, sync and async, by function and by class."""

from datetime import timedelta
from typing import Literal, assert_type

from django.http import HttpResponse
from django.views import View

from django_header_sessions.engine import SessionStore
from django_header_sessions.http import HttpRequest
from django_header_sessions.keys import SessionKey
from django_header_sessions.registry import LiveSession


def visit(request: HttpRequest) -> HttpResponse:
    session = assert_type(request.session, SessionStore)
    visits = assert_type(session.increment("visits"), int)
    assert_type(session.transport, Literal["header", "cookie"])
    assert_type(session.expires_in, int | None)
    assert_type(session.user_id, str | None)
    key = assert_type(session.session_key, SessionKey | None)
    if key is not None:
        assert_type(key.id, str)
    live = assert_type(session.live, LiveSession | None)
    if live is not None:
        assert_type(live.age_ms, int)
        assert_type(live.ip, str)
    session["query"] = request.GET["q"]
    session.set_expiry(timedelta(hours=1))
    session.cycle_key()
    return HttpResponse(f"{visits} visits")


async def avisit(request: HttpRequest) -> HttpResponse:
    visits = assert_type(await request.session.aincrement("visits", by=2), int)
    await request.session.aset_expiry(300)
    return HttpResponse(f"{visits} visits")


class Visits(View):
    request: HttpRequest

    def get(self, request: HttpRequest) -> HttpResponse:
        assert_type(self.request.session, SessionStore)
        return HttpResponse(f"{request.session.increment('visits')} visits")
