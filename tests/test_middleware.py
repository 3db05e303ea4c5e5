"""The middleware among Django's own parts, in process; over HTTP it is tested in ``tests.http``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any
from urllib.parse import quote

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.backends.cache import SessionStore as DjangosOwn
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookies
from django.contrib.sessions.middleware import SessionMiddleware
from django.contrib.sessions.serializers import JSONSerializer
from django.core.cache import cache
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path
from django.utils.decorators import async_only_middleware, sync_only_middleware

from django_header_sessions import registry
from django_header_sessions.decorators import vary_on_session
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionBusy, SessionUnavailable
from django_header_sessions.middleware import HeaderSessionMiddleware
from tests import views

OURS = "django_header_sessions.middleware.HeaderSessionMiddleware"
KEY = "X-Session-Key"


def asking(*actions: list[Any], view: str = "/sync/") -> str:
    return f"{view}?do={quote(json.dumps(actions))}"


class OtherSerializer(JSONSerializer):
    """Reads the same, but is another: the store keeps everything through it."""


def test_it_is_djangos_own_and_runs_natively_in_both_modes() -> None:
    assert issubclass(HeaderSessionMiddleware, SessionMiddleware)
    assert HeaderSessionMiddleware.sync_capable
    assert HeaderSessionMiddleware.async_capable
    assert not iscoroutinefunction(HeaderSessionMiddleware(lambda request: HttpResponse()))

    assert iscoroutinefunction(HeaderSessionMiddleware(views.ado))


# What a response that is replaced would have closed is closed all the same.


def closers_of(response: Any) -> list[Any]:
    """What a server calls when it has sent the response."""
    found: list[Any] = response._resource_closers
    return found


def closing(closed: list[str]) -> HttpResponse:
    """A response that has something to close."""
    response = HttpResponse()
    closers_of(response).append(lambda: closed.append("closed"))
    return response


def stored_key() -> str:
    session = SessionStore(transport="header")
    session["here"] = True
    session.save()
    return str(session.session_key)


def session_id_of(request: HttpRequest) -> str:
    return str(request.session.session_key)[:15]


def assert_closed(response: Any, closed: list[str]) -> None:
    """What replaced the response closes it when it is closed itself."""
    assert response.status_code == 401
    for close in closers_of(response):
        close()
    assert closed == ["closed"]


def test_a_response_that_is_replaced_is_closed() -> None:
    closed: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        registry.end(session_id_of(request))
        request.session["n"] = 1
        return closing(closed)

    request = RequestFactory().get("/", headers={KEY: stored_key()})
    assert_closed(HeaderSessionMiddleware(view)(request), closed)


async def test_a_response_that_is_replaced_is_closed_in_async() -> None:
    closed: list[str] = []

    async def view(request: HttpRequest) -> HttpResponse:
        await registry.aend(session_id_of(request))
        await request.session.aset("n", 1)
        return closing(closed)

    session = SessionStore(transport="header")
    await session.acreate()
    request = AsyncRequestFactory().get("/", headers={KEY: str(session.session_key)})
    answering = HeaderSessionMiddleware(view)(request)
    assert isinstance(answering, Awaitable)
    assert_closed(await answering, closed)


# Django's test clients.


@pytest.mark.django_db
def test_djangos_test_client_signs_in_by_cookie() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    assert client.get("/admin/").status_code == 200
    session = client.session
    session["n"] = 1
    session.save()
    assert client.get(asking(["get", "n"], view="/admin/sync/")).json() == {"did": [1]}
    client.logout()
    assert client.get("/admin/").status_code == 302


async def test_djangos_async_test_client_speaks_the_header() -> None:
    client = AsyncClient()
    first = await client.get(asking(["set", "n", 1], view="/async/"))
    headers = {KEY: first.headers[KEY]}
    again = await client.get(asking(["item", "n"], view="/async/"), headers=headers)
    assert again.json() == {"did": [1]}
    assert not client.cookies


# Django's caches.


def test_a_page_cache_hands_no_key_on_to_the_next_client(settings: Any) -> None:
    settings.MIDDLEWARE = [
        "django.middleware.cache.UpdateCacheMiddleware",
        *settings.MIDDLEWARE,
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    cache.clear()
    public = ["answer", 200, {"Cache-Control": "public, max-age=3600"}]
    path = asking(["increment", "n"], public)
    first, second = Client().get(path), Client().get(path)
    assert first.headers[KEY] != second.headers[KEY]

    seen = asking(["get", "n"], public)
    mine = Client().get(seen, headers={KEY: first.headers[KEY]})
    nobodys = Client().get(seen)
    assert (mine.json(), nobodys.json()) == ({"did": [1, None]}, {"did": [None, None]})


# Cookie sessions as Django has them.


def test_a_cookie_session_is_saved_on_every_request_where_django_is_told_to(
    settings: Any,
) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = True
    client = Client()
    client.get(asking(["set", "n", 1], view="/admin/sync/"))
    client.cookies["sessionid"]["max-age"] = ""
    again = client.get(asking(view="/admin/sync/"))
    assert again.cookies["sessionid"]["max-age"] == settings.SESSION_COOKIE_AGE


def test_a_header_session_is_not(settings: Any) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = True
    assert KEY not in Client().get(asking()).headers
    key = stored_key()
    answer = Client().get(asking(["write_elsewhere", "n", 1]), headers={KEY: key})
    assert KEY not in answer.headers
    assert Client().get(asking(["get", "n"]), headers={KEY: key}).json() == {"did": [1]}


def test_a_cookie_of_a_browsers_session_is_one(settings: Any) -> None:
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    answer = Client().get(asking(["set", "n", 1], view="/admin/sync/"))
    assert answer.cookies["sessionid"]["max-age"] == ""
    answer = Client().get(asking(["set_expiry", 60], view="/admin/sync/"))
    assert answer.cookies["sessionid"]["max-age"] == 60


@pytest.mark.parametrize("view", ["/admin/sync/", "/admin/async/"])
async def test_a_view_that_saves_a_cookie_session_that_ended_is_answered_as_by_django(
    view: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = AsyncClient()
    await client.get(asking(["set", "n", 1], view=view))
    over = asking(["get", "n"], ["end_elsewhere"], ["set", "n", 2], ["save"], view=view)
    answer = await client.get(over)
    assert answer.status_code == 400
    assert "Internal Server Error" not in caplog.text
    assert (await client.get(asking(["get", "n"], view=view))).json() == {"did": [None]}


def test_a_5xx_on_a_cookie_path_stores_nothing_and_sets_no_cookie() -> None:
    answer = Client().get(asking(["set", "n", 1], ["answer", 500], view="/admin/sync/"))
    assert "sessionid" not in answer.cookies


# What else may stand in ``request.session``.


class Outside:
    """A middleware outside of the session's that looks into the session, as debug toolbars do."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        response = self.get_response(request)
        return self.awaited(request, response) if isawaitable(response) else look(request, response)

    async def awaited(self, request: HttpRequest, response: Awaitable[HttpResponse]) -> Any:
        return look(request, await response)


def look(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    response["Seen"] = json.dumps(dict(getattr(request, "session", {})))
    return response


@pytest.fixture
def looked_into(settings: Any) -> None:
    settings.MIDDLEWARE = [f"{__name__}.Outside", *settings.MIDDLEWARE]


@pytest.mark.usefixtures("looked_into")
@pytest.mark.parametrize("view", ["/sync/", "/async/"])
async def test_who_looks_from_outside_sees_the_session_or_leaves_the_refusal_as_it_is(
    view: str,
) -> None:
    client = AsyncClient()
    old = str((await client.get(asking(["set", "n", 1], view=view))).headers[KEY])
    rotated = await client.get(asking(["cycle_key"], view=view), headers={KEY: old})
    assert rotated.headers["Seen"] == '{"n": 1}'
    for key, status in ((old, 409), ("a" * 40, 401), ("a", 400)):
        refused = await client.get(asking(view=view), headers={KEY: key})
        assert (refused.status_code, refused.headers["Seen"]) == (status, "{}")


@pytest.mark.usefixtures("looked_into")
def test_who_looks_from_outside_leaves_the_refusal_as_it_is_under_wsgi_too() -> None:
    client = Client()
    old = client.get(asking(["set", "n", 1])).headers[KEY]
    client.get(asking(["cycle_key"]), headers={KEY: old})
    refused = client.get(asking(), headers={KEY: old})
    assert (refused.status_code, refused.headers["Seen"]) == (409, "{}")


def test_a_session_of_another_engine_that_a_view_puts_in_place_is_djangos_business() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session = SignedCookies()
        request.session["n"] = 1
        return HttpResponse()

    response = HeaderSessionMiddleware(view)(RequestFactory().get("/"))
    assert isinstance(response, HttpResponse)
    assert KEY not in response.headers
    assert SignedCookies(response.cookies["sessionid"].value)["n"] == 1


def test_a_field_that_the_serializer_cannot_read_is_the_projects_fault_and_said_so(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(raise_request_exception=False)
    key = client.get(asking(["set_expiry", 60], ["set", "n", 1])).headers[KEY]
    settings.SESSION_SERIALIZER = f"{__name__}.OtherSerializer"
    answer = client.get(asking(["get", "n"]), headers={KEY: key})
    assert answer.status_code == 500
    assert "cannot be read with SESSION_SERIALIZER" in caplog.text
    # Who does not ask for it is not in its way.
    others: list[list[Any]] = [["set", "m", 1], ["get", "m"]]
    for actions in ([], others):
        assert client.get(asking(*actions), headers={KEY: key}).status_code == 200


@pytest.mark.parametrize("left", [None, {}])
def test_a_fault_is_answered_where_the_view_has_put_something_else_in_the_sessions_place(
    settings: Any, left: Any
) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        if left is None:
            del request.session
        else:
            request.session = left
        raise SessionUnavailable("The registry was asked, and the store is down.")

    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
    response = Client(raise_request_exception=False).get("/")
    assert response.status_code == 503
    assert response.json()["type"].endswith(":unavailable")
    assert response["Retry-After"]


def test_a_view_that_failed_stores_nothing_in_the_session_it_put_in_its_place(
    settings: Any,
) -> None:
    left = DjangosOwn()

    def view(request: HttpRequest) -> HttpResponse:
        request.session = left
        request.session["n"] = 1
        raise SessionBusy("Somebody else has it.")

    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
    response = Client().get("/")
    assert response.status_code == 409
    assert left.session_key is None
    assert not response.cookies


@pytest.mark.parametrize("headers", [{KEY: "new"}, {}])
def test_why_plain_http_was_refused_is_logged(
    settings: Any, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    settings.HEADER_SESSIONS_SECURE = True
    response = Client(headers=headers).get(asking(["set", "n", 1]))
    assert response.status_code == 403
    assert any("SECURE_PROXY_SSL_HEADER" in logged for logged in caplog.messages)


# Whose event loop an async view runs in.


@sync_only_middleware
def sync_inside(get_response: Any) -> Any:
    return lambda request: get_response(request)


@async_only_middleware
def async_inside(get_response: Any) -> Any:
    async def middleware(request: HttpRequest) -> Any:
        return await get_response(request)

    return middleware


async def tells_its_loop(request: HttpRequest) -> JsonResponse:
    """Whether the session may wait in this loop, by a ``with``; and what a task of it asks by."""
    may_wait = True
    session: Any = request.session
    try:
        with session.serialized():
            pass
    except SynchronousOnlyOperation:
        may_wait = False
    await session.aset("n", 1)
    return JsonResponse({"may_wait": may_wait, "loop": id(asyncio.get_running_loop())})


@pytest.mark.parametrize("inside", [(), ("sync_inside",), ("async_inside",)])
async def test_an_async_view_is_asked_in_the_loop_that_it_runs_in(
    settings: Any, inside: tuple[str, ...]
) -> None:
    """Whatever the middlewares between have Django run ours in."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *(f"{__name__}.{each}" for each in inside)]
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", tells_its_loop)]})
    headers = {KEY: stored_key()}
    answer = (await AsyncClient().get("/", headers=headers)).json()
    # The server's own, which nothing may hold up.
    assert answer == {"may_wait": False, "loop": id(asyncio.get_running_loop())}
    answer = (await sync_to_async(Client().get)("/", headers=headers)).json()
    # One that lives for this view alone, and so do connections that are made in it.
    assert answer["may_wait"]


async def counts(request: HttpRequest) -> HttpResponse:
    session: Any = request.session
    await session.aset("n", 1)
    await session.acycle_key()
    return HttpResponse(await session.aincrement("m"))


@pytest.mark.parametrize("inside", [(), ("async_inside",)])
def test_a_table_of_a_database_keeps_sessions_of_async_views_under_wsgi(
    settings: Any, transactional_db: None, inside: tuple[str, ...]
) -> None:
    """Which no event loop may ask."""
    backend = "django.core.cache.backends.db.DatabaseCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "sessions_in_a_table"}}
    call_command("createcachetable")
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *(f"{__name__}.{each}" for each in inside)]
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", counts)]})
    first = Client().get("/")
    assert (first.status_code, first.content) == (200, b"1")
    second = Client().get("/", headers={KEY: first[KEY]})
    assert (second.status_code, second.content) == (200, b"2")


# Errors that come in company.


async def together(request: HttpRequest) -> HttpResponse:
    async def fail(at: int) -> None:
        if at == 2:
            raise ZeroDivisionError
        raise SessionBusy("Somebody else has it.")

    async with asyncio.TaskGroup() as group:
        for at in range(int(request.GET["times"])):
            group.create_task(fail(at))
    return HttpResponse()


@pytest.mark.parametrize(("times", "status"), [(0, 200), (1, 409), (2, 409), (3, 500)])
async def test_what_a_task_of_a_group_let_pass_is_answered_as_what_a_view_lets_pass(
    settings: Any, times: int, status: int
) -> None:
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", together)]})
    client = AsyncClient(raise_request_exception=False)
    assert (await client.get("/", {"times": times})).status_code == status


# Sessions that a view puts in the place of its own.


def hands_over(request: HttpRequest) -> HttpResponse:
    session: Any = request.session
    request.session = session.another("header")
    request.session["n"] = 1
    return HttpResponse()


@pytest.mark.parametrize("secure", [False, True])
def test_a_session_that_is_handed_over_is_recorded_and_refused_as_any(
    settings: Any, secure: bool
) -> None:
    settings.HEADER_SESSIONS_SECURE = secure
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("admin/", hands_over)]})
    response = Client().get("/admin/", headers={"User-Agent": "curl/8"}, REMOTE_ADDR="192.0.2.7")
    assert response.status_code == (403 if secure else 200)
    assert (KEY in response.headers) is not secure
    if not secure:
        live = registry.get(response[KEY][:15])
        assert live is not None
        assert (live.ip, live.user_agent, live.transport) == ("192.0.2.7", "curl/8", "header")


@pytest.mark.parametrize("view", [views.do, vary_on_session(views.do)])
def test_an_answer_without_a_session_varies_all_the_same(settings: Any, view: Any) -> None:
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
    response = Client().get(asking(["remove_session"], view="/"))
    assert response.status_code == 200
    assert KEY in response["Vary"]


def test_what_an_answer_announces_shows_no_key_to_who_asks_for_it_by_name() -> None:
    response = Client().get(asking(["set", "n", 1]))
    key = dict(response.items())[KEY]
    assert len(key) == 40
    assert type(key) is str  # wsgiref takes nothing else
    for value in (response[KEY], response.headers.get(KEY), list(response.headers.values())):
        assert key not in repr(value)
        assert key[:15] in repr(value)
    assert response[KEY] == key
