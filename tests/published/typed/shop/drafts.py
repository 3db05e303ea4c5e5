"""Views that share their session in other ways than merging, and the contexts inside of it."""

from typing import assert_type

from django.http import HttpResponse

from django_header_sessions.context import Context
from django_header_sessions.decorators import (
    merged_session,
    readonly_session,
    serialized_session,
    vary_on_session,
)
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import ContextUnknown, LeaseExpired, SessionBusy
from django_header_sessions.http import HttpRequest
from django_header_sessions.registry import LiveContext


@serialized_session
def buy(request: HttpRequest, item: str) -> HttpResponse:
    request.session["item"] = item
    return HttpResponse(item)


@serialized_session(wait=1, lease=2.5)
async def abuy(request: HttpRequest, item: str) -> HttpResponse:
    await request.session.aset("item", item)
    return HttpResponse(item)


@vary_on_session
@readonly_session
def search(request: HttpRequest) -> HttpResponse:
    return HttpResponse("found")


@merged_session
async def asearch(request: HttpRequest) -> HttpResponse:
    return HttpResponse("found")


async def call(request: HttpRequest) -> None:
    """What is decorated takes and gives what it did."""
    assert_type(buy(request, "a watch"), HttpResponse)
    assert_type(await abuy(request, item="a watch"), HttpResponse)
    assert_type(search(request), HttpResponse)
    assert_type(await asearch(request), HttpResponse)


def settle(request: HttpRequest) -> None:
    with request.session.serialized(wait=1, lease=2.5) as session:
        assert_type(session, SessionStore)
    with request.session.readonly() as session:
        assert_type(session.read_only, bool)


async def asettle(request: HttpRequest) -> None:
    try:
        async with request.session.serialized() as session:
            assert_type(session, SessionStore)
    except (SessionBusy, LeaseExpired):
        return
    with request.session.readonly():
        assert_type(request.session.read_only, bool)


def draft(request: HttpRequest) -> str:
    session = request.session
    context = assert_type(session.context("draft", idle_timeout=60), Context)
    assert_type(context.name, str)
    context["lines"] = "a watch"
    context.save()
    with session.context() as own:
        assert_type(own, Context)
    handle = assert_type(session.new_context(idle_timeout=0.5), str)
    try:
        session.context(handle).promote()
    except ContextUnknown:
        assert_type(session.end_context(handle), bool)
    assert_type(context.end(), bool)
    for stored in assert_type(session.contexts(), list[LiveContext]):
        assert_type((stored.name, stored.size, stored.expires_in), tuple[str, int, int])
    return handle


async def adraft(request: HttpRequest) -> str:
    session = request.session
    context = assert_type(await session.acontext("draft", idle_timeout=60), Context)
    context["lines"] = "a watch"
    await context.asave()
    async with await session.acontext() as own:
        assert_type(own, Context)
    handle = assert_type(await session.anew_context(), str)
    await (await session.acontext(handle)).apromote()
    assert_type(await session.aend_context(handle), bool)
    assert_type(await context.aend(), bool)
    assert_type(await session.acontexts(), list[LiveContext])
    return handle
