"""Policies on views of every kind. What they do to requests is tested in ``tests.http``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.decorators import api_view
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from django_header_sessions.decorators import (
    merged_session,
    readonly_session,
    serialized_session,
)
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionReadOnly

alone = serialized_session(wait=0.05, lease=5)


def state(request: Any) -> dict[str, bool]:
    session = request.session
    return {"locked": session.locked, "read_only": session.read_only}


def function(request: HttpRequest) -> HttpResponse:
    return JsonResponse(state(request))


async def async_function(request: HttpRequest) -> HttpResponse:
    return JsonResponse(state(request))


@method_decorator(alone, name="dispatch")
class Whole(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))


@method_decorator(alone, name="dispatch")
class AsyncWhole(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))


@method_decorator(alone, name="post")
class OneMethod(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))

    def post(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))


@method_decorator(alone, name="dispatch")
@method_decorator(readonly_session, name="get")
class Both(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))


@method_decorator(alone, name="dispatch")
class AsyncBoth(View):
    @method_decorator(readonly_session)
    async def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))


class AsyncOneMethod(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))

    @method_decorator(alone)
    async def post(self, request: HttpRequest) -> HttpResponse:
        return JsonResponse(state(request))


@alone
@api_view(["GET", "POST"])
def rest_function(request: Any) -> Response:
    return Response(state(request))


@method_decorator(alone, name="dispatch")
class RestWhole(APIView):
    def get(self, request: Any) -> Response:
        return Response(state(request))


class RestOneMethod(APIView):
    def get(self, request: Any) -> Response:
        return Response(state(request))

    @method_decorator(alone)
    def post(self, request: Any) -> Response:
        return Response(state(request))


class RestSet(ViewSet):
    def list(self, request: Any) -> Response:
        return Response(state(request))

    @method_decorator(alone)
    def create(self, request: Any) -> Response:
        return Response(state(request))


router = SimpleRouter()
router.register("set", RestSet, basename="set")

urlpatterns = [
    path("function/", alone(function)),
    path("async-function/", alone(async_function)),
    path("whole/", Whole.as_view()),
    path("async-whole/", AsyncWhole.as_view()),
    path("one-method/", OneMethod.as_view()),
    path("async-one-method/", AsyncOneMethod.as_view()),
    path("both/", Both.as_view()),
    path("async-both/", AsyncBoth.as_view()),
    path("rest-function/", rest_function),
    path("rest-whole/", RestWhole.as_view()),
    path("rest-one-method/", RestOneMethod.as_view()),
    path("inner/serialized/", readonly_session(alone(function))),
    path("inner/readonly/", alone(readonly_session(function))),
    path("inner/merged/", readonly_session(merged_session(function))),
    path("plain/", function),
    path("plain/async/", async_function),
    path("rest-", include(router.urls)),
]

WHOLE = "function async-function whole async-whole rest-function rest-whole".split()
BY_METHOD = "one-method async-one-method rest-one-method rest-set".split()

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]


@pytest.fixture
def key() -> str:
    session = SessionStore(transport="header")
    session["n"] = 1
    session.save()
    return str(session.session_key)


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, key: str) -> Callable[..., Awaitable[Any]]:
    """Ask a view, with a session, on either side of the sync/async divide."""

    async def ask(path: str, method: str = "get") -> Any:
        headers = {"X-Session-Key": key}
        if request.param == "asgi":
            return await getattr(AsyncClient(), method)(path, headers=headers)
        return await sync_to_async(getattr(Client(), method))(path, headers=headers)

    return ask


@contextmanager
def held(key: str) -> Iterator[None]:
    """Somebody else has the session."""
    session = SessionStore(key, transport="header")
    session.for_one_request = True  # nobody else is in this event loop
    assert session.open()
    session.lock()
    try:
        yield
    finally:
        session.unlock()


@pytest.mark.parametrize("name", WHOLE)
async def test_a_view_of_any_kind_has_its_session_to_itself(
    ask: Callable[..., Awaitable[Any]], key: str, name: str
) -> None:
    for _ in range(2):
        assert (await ask(f"/{name}/")).json() == {"locked": True, "read_only": False}
    with held(key):
        refused = await ask(f"/{name}/")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith(":busy")
    assert refused.json()["executed"] is False


@pytest.mark.parametrize("name", BY_METHOD)
async def test_a_single_method_has_its_session_to_itself(
    ask: Callable[..., Awaitable[Any]], key: str, name: str
) -> None:
    assert (await ask(f"/{name}/")).json() == {"locked": False, "read_only": False}
    assert (await ask(f"/{name}/", "post")).json() == {"locked": True, "read_only": False}
    with held(key):
        assert (await ask(f"/{name}/")).status_code == 200
        assert (await ask(f"/{name}/", "post")).status_code == 409


async def test_what_a_method_says_counts_for_more_than_what_its_view_does(
    ask: Callable[..., Awaitable[Any]], key: str
) -> None:
    with held(key):
        for name in ("both", "async-both"):
            assert (await ask(f"/{name}/")).json() == {"locked": False, "read_only": True}, name


async def test_the_innermost_policy_decides(ask: Callable[..., Awaitable[Any]]) -> None:
    for name, expected in {
        "serialized": {"locked": True, "read_only": False},
        "readonly": {"locked": False, "read_only": True},
        "merged": {"locked": False, "read_only": False},
    }.items():
        assert (await ask(f"/inner/{name}/")).json() == expected, name


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("merge", {"locked": False, "read_only": False}),
        ("serialized", {"locked": True, "read_only": False}),
        ("readonly", {"locked": False, "read_only": True}),
    ],
)
async def test_a_view_that_says_nothing_goes_by_the_setting(
    ask: Callable[..., Awaitable[Any]], settings: Any, policy: str, expected: dict[str, bool]
) -> None:
    settings.HEADER_SESSIONS_POLICY = policy
    for name in ("plain", "plain/async"):
        assert (await ask(f"/{name}/")).json() == expected
    # Single methods name a policy too, though nobody knows it before they are called.
    assert (await ask("/one-method/", "post")).json()["locked"] is True
    assert (await ask("/function/")).json() == {"locked": True, "read_only": False}


def test_a_decorated_view_is_still_what_it_was() -> None:
    for decorate in (merged_session, readonly_session, serialized_session, alone):
        sync, coroutine = decorate(function), decorate(async_function)
        assert sync.__name__ == "function"
        assert not iscoroutinefunction(sync)
        assert iscoroutinefunction(coroutine)


@pytest.mark.parametrize("terms", [{"wait": -1}, {"lease": 0}, {"lease": -0.5}])
def test_terms_that_make_no_sense_are_refused_where_they_are_written(
    terms: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        serialized_session(**terms)


@pytest.mark.parametrize("decorate", [merged_session, readonly_session, alone])
async def test_without_the_middleware_the_view_says_what_is_missing(decorate: Any) -> None:
    request = RequestFactory().get("/")
    for view in (function, async_function):
        with pytest.raises(ImproperlyConfigured, match="HeaderSessionMiddleware"):
            await decorate(view)(request)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_what_was_written_before_a_view_that_only_reads_is_stored(
    key: str, mode: str
) -> None:
    """As by an inner middleware, and by a view that calls it, which keeps its lock."""
    request: Any = RequestFactory().get("/")

    @readonly_session
    async def view(request: Any) -> None:
        with pytest.raises(SessionReadOnly):
            request.session["late"] = 1

    @readonly_session
    def sync_view(request: Any) -> None:
        with pytest.raises(SessionReadOnly):
            request.session["late"] = 1

    def run() -> None:
        request.session = session = SessionStore(key, transport="header")
        assert session.open()
        session.lock()
        session["early"] = 1
        sync_view(request)
        assert session.locked
        session.finish(commit=True)

    if mode == "sync":
        await sync_to_async(run)()
    else:
        request.session = session = SessionStore(key, transport="header")
        assert await session.aopen()
        await session.alock()
        session["early"] = 1
        await view(request)
        assert session.locked
        await session.afinish(commit=True)
    stored = SessionStore(key, transport="header")
    assert await stored.aopen()
    assert dict(stored.items()) == {"n": 1, "early": 1}
