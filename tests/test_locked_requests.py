"""What becomes of a session's lock in the course of a request, in process; over HTTP it is tested
in ``tests.http``."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf.urls.i18n import i18n_patterns
from django.core.handlers.wsgi import WSGIHandler
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path
from django.utils import translation
from django.utils.decorators import method_decorator
from django.views import View

from django_header_sessions.decorators import readonly_session, serialized_session
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionBusy
from django_header_sessions.observer import observers
from django_header_sessions.resolvers import Transport

KEY = "X-Session-Key"

during: list[Callable[[HttpRequest], object]] = []
"""What a view does; a test adds to it."""


def plain(request: HttpRequest) -> HttpResponse:
    session: Any = request.session
    for each in during:
        each(request)
    return JsonResponse({"locked": session.locked, "n": session.get("n")})


async def aplain(request: HttpRequest) -> HttpResponse:
    session: Any = request.session
    for each in during:
        each(request)
    return JsonResponse({"locked": session.locked, "n": await session.aget("n")})


alone, aalone = serialized_session(plain), serialized_session(aplain)


def calls(request: HttpRequest) -> HttpResponse:
    """A view that says nothing of its session, and calls one that wants it alone."""
    return alone(request)


async def acalls(request: HttpRequest) -> HttpResponse:
    return await aalone(request)


@readonly_session
def reads_and_calls(request: HttpRequest) -> HttpResponse:
    return alone(request)


@readonly_session
async def areads_and_calls(request: HttpRequest) -> HttpResponse:
    return await aalone(request)


@serialized_session
def streams(request: HttpRequest) -> StreamingHttpResponse:
    plain(request)
    return StreamingHttpResponse(iter([b"a", b"b"]))


@serialized_session
async def astreams(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    await aplain(request)
    return StreamingHttpResponse(parts())


class Body:
    """It is done with its session only when it is closed."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.locked: list[bool] = []

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        self.locked.append(self.session.locked)

    def close(self) -> None:
        self.locked.append(self.session.locked)


bodies: list[Body] = []


@serialized_session
def streams_body(request: HttpRequest) -> StreamingHttpResponse:
    plain(request)
    bodies.append(Body(request.session))
    return StreamingHttpResponse(bodies[-1])


@serialized_session
def sends_file(request: HttpRequest) -> FileResponse:
    plain(request)
    return FileResponse(io.BytesIO(b"a"))


class Alone(View):
    @method_decorator(serialized_session)
    def get(self, request: HttpRequest) -> HttpResponse:
        return plain(request)


class AsyncAlone(View):
    @method_decorator(serialized_session)
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await aplain(request)


@method_decorator(serialized_session, name="dispatch")
class Reads(View):
    @method_decorator(readonly_session)
    def get(self, request: HttpRequest) -> HttpResponse:
        return plain(request)


@method_decorator(serialized_session, name="dispatch")
class AsyncReads(View):
    @method_decorator(readonly_session)
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await aplain(request)


VIEWS: dict[str, dict[str, Any]] = {
    "sync": {
        "plain": plain,
        "alone": alone,
        "calls": calls,
        "reads": reads_and_calls,
        "cls": Alone.as_view(),
        "clsreads": Reads.as_view(),
    },
    "async": {
        "plain": aplain,
        "alone": aalone,
        "calls": acalls,
        "reads": areads_and_calls,
        "cls": AsyncAlone.as_view(),
        "clsreads": AsyncReads.as_view(),
    },
}
VIEWS["sync"]["streams"], VIEWS["async"]["streams"] = streams, astreams
VIEWS["sync"] |= {"streams_body": streams_body, "sends_file": sends_file}


def patterns(start: str = "") -> list[Any]:
    return [
        path(f"{start}{mode}/{name}/", view)
        for mode, views in VIEWS.items()
        for name, view in views.items()
    ]


class Elsewhere:
    """Another URLconf, in which all of this is another view."""

    urlpatterns = [  # noqa: RUF012
        path("sync/alone/", plain),
        path("async/alone/", aplain),
        path("admin/sync/alone/", plain),
        path("admin/async/alone/", aplain),
        path("sync/plain/", alone),
        path("async/plain/", aalone),
    ]


class Nowhere:
    urlpatterns: list[Any] = []  # noqa: RUF012


class Translated:
    """A site whose URLs begin with a language."""

    urlpatterns = i18n_patterns(*patterns())


urlpatterns = [*patterns(), *patterns("admin/")]


class Redirecting:
    """A middleware inside the session's that chooses the URLconf, as that of a tenant."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        where = {"elsewhere": Elsewhere, "nowhere": Nowhere}.get(request.GET.get("urls"))
        if where is not None:
            request.urlconf = where
        if "block" not in request.GET:
            return self.get_response(request)
        if iscoroutinefunction(self.get_response):
            return self._in_block(request)
        with request.session.serialized() as session:
            session["after"] = 1
            return self.get_response(request)

    async def _in_block(self, request: Any) -> Any:
        async with request.session.serialized() as session:
            session["after"] = 1
            return await self.get_response(request)


pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(autouse=True)
def _site(settings: Any) -> Iterator[None]:
    settings.HEADER_SESSIONS_LOCK_WAIT = 0
    settings.MIDDLEWARE = [
        "django_header_sessions.middleware.HeaderSessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        f"{__name__}.Redirecting",
    ]
    yield
    during.clear()
    translation.activate("en-us")


class Caller:
    """Calls views with one session, sync under WSGI and async under ASGI."""

    def __init__(self, mode: str, transport: Transport) -> None:
        self.mode, self.transport = mode, transport
        session = SessionStore(transport=transport)
        session["n"] = 1
        session.save()
        self.key = str(session.session_key)

    async def __call__(
        self, view: str, query: str = "", method: str = "get", **headers: str
    ) -> Any:
        start = "admin/" if self.transport == "cookie" else ""
        client: Any = (AsyncClient if self.mode == "async" else Client)(
            raise_request_exception=False
        )
        if self.transport == "cookie":
            client.cookies["sessionid"] = self.key
        else:
            headers[KEY] = self.key
        headers |= {"Accept": "application/json"}
        where = f"/{start}{self.mode}/{view}/{query}"
        return await self._get(client, where, headers, method)

    async def at(self, where: str) -> Any:
        """The answer at another place, which is no cookie path."""
        client = AsyncClient() if self.mode == "async" else Client()
        return await self._get(client, where, {KEY: self.key})

    async def _get(
        self, client: Any, where: str, headers: dict[str, str], method: str = "get"
    ) -> Any:
        call = getattr(client, method)
        if self.mode == "async":
            return await call(where, headers=headers)
        return await sync_to_async(call)(where, headers=headers)

    def other(self) -> SessionStore:
        """The same session in another request."""
        session = SessionStore(self.key, transport=self.transport)
        session.for_one_request = True  # nobody else is in this event loop
        return session

    def free(self) -> bool:
        """Whether another request could have the session at this moment."""
        session = self.other()
        try:
            session.lock(wait=0)
        except SessionBusy:
            return False
        session.unlock()
        return True


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["header", "cookie"])
def caller(mode: str, request: pytest.FixtureRequest) -> Caller:
    return Caller(mode, request.param)


@pytest.fixture
def by_header(mode: str) -> Caller:
    return Caller(mode, "header")


# A view that does not get to its end.


async def test_a_view_that_stops_its_process_unlocks(caller: Caller) -> None:
    def stop(request: Any) -> None:
        assert request.session.locked
        assert not caller.free()
        raise SystemExit

    during.append(stop)
    with pytest.raises(SystemExit):
        await caller("alone")
    assert caller.free()


async def test_a_view_that_leaves_what_cannot_be_stored_unlocks(caller: Caller) -> None:
    def leave(request: Any) -> None:
        request.session["n"] = object()

    during.append(leave)
    assert (await caller("alone")).status_code == 500
    during.clear()
    answer = await caller("alone")
    assert (answer.status_code, answer.json()) == (200, {"locked": True, "n": 1})


async def test_a_streamed_answer_keeps_the_lock_until_its_end(caller: Caller) -> None:
    def write(request: Any) -> None:
        request.session["n"] = 2

    during.append(write)
    answer = await caller("streams")
    # What is stored before it is not stored to unlock.
    assert caller.other()["n"] == 2
    assert not caller.free()
    # The test client closes it at its end.
    if caller.mode == "async":
        assert [part async for part in answer.streaming_content] == [b"a", b"b"]
    else:
        assert list(answer.streaming_content) == [b"a", b"b"]
    assert caller.free()


def test_a_body_has_the_lock_until_it_is_closed() -> None:
    caller = Caller("sync", "header")
    answer = async_to_sync(caller)("streams_body")
    assert list(answer.streaming_content) == [b"a"]
    assert bodies.pop().locked == [True, True]
    assert caller.free()


@pytest.mark.django_db  # a request that begins and one that ends have Django look at connections
def test_a_file_is_left_to_the_server_and_unlocks_when_it_is_closed() -> None:
    caller = Caller("sync", "header")
    sent: list[Any] = []
    factory: Any = RequestFactory()
    environ = factory._base_environ(PATH_INFO="/sync/sends_file/", HTTP_X_SESSION_KEY=caller.key)

    def send(file: Any, size: int) -> list[bytes]:
        sent.append(file)
        return [file.read()]

    environ["wsgi.file_wrapper"] = send
    application: Any = WSGIHandler()
    assert b"".join(application(environ, lambda *args: None)) == b"a"
    (file,) = sent
    assert isinstance(file, io.BytesIO)
    assert not caller.free()
    file.close()
    assert caller.free()


# A session that is in use.


class Counting:
    """An observer, as the metrics have one."""

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def asked(self, verb: str, seconds: float, outcome: str) -> None:
        pass

    def refused(self, kind: str) -> None:
        self.refusals.append(kind)


@pytest.fixture
def refusals() -> Iterator[list[str]]:
    counting = Counting()
    observers.append(counting)
    yield counting.refusals
    observers.remove(counting)


@pytest.mark.parametrize(
    ("view", "policy", "executed"),
    [
        ("alone", "merge", False),
        ("plain", "serialized", False),
        ("calls", "merge", True),
        ("reads", "merge", True),
    ],
)
async def test_a_refusal_is_counted_once_and_tells_whether_a_view_ran(
    caller: Caller, refusals: list[str], settings: Any, view: str, policy: str, *, executed: bool
) -> None:
    settings.HEADER_SESSIONS_POLICY = policy
    other = caller.other()
    other.lock()
    answer = await caller(view)
    if policy == "serialized" and caller.transport == "cookie":
        # What a browser does is Django's.
        assert (answer.status_code, refusals) == (200, [])
    else:
        assert answer.status_code == 409
        assert answer.json()["type"].endswith(":busy")
        assert answer.json()["executed"] is executed
        assert refusals == ["busy"]
    other.unlock()
    # And has no place in the queue.
    assert caller.free()
    assert (await caller(view)).status_code == 200
    assert caller.free()


# A view that was foreseen by its URL, and not called.


async def test_what_was_locked_for_a_view_that_is_not_called_is_given_back(
    caller: Caller,
) -> None:
    seen: list[bool] = []
    during.append(lambda request: seen.append(caller.free()))
    answer = await caller("alone", "?urls=elsewhere")
    assert answer.json() == {"locked": False, "n": 1}
    assert seen == [True]
    # As it is where there is no view at all.
    assert (await caller("alone", "?urls=nowhere")).status_code == 404
    assert caller.free()


async def test_a_place_that_was_taken_for_a_view_that_is_not_called_is_given_back(
    caller: Caller,
) -> None:
    other = caller.other()
    other.lock()
    for query, status in (("?urls=elsewhere", 200), ("?urls=nowhere", 404)):
        assert (await caller("alone", query)).status_code == status
    other.unlock()
    assert caller.free()


async def test_a_view_that_was_not_foreseen_has_its_session_alone_all_the_same(
    by_header: Caller, settings: Any
) -> None:
    seen: list[bool] = []
    during.append(lambda request: seen.append(by_header.free()))
    assert (await by_header("plain", "?urls=elsewhere")).json() == {"locked": True, "n": 1}
    mode = by_header.mode
    # Its language is not known before LocaleMiddleware has run.
    settings.ROOT_URLCONF = Translated
    for language in ("de", "fr"):
        answer = await by_header.at(f"/{language}/{mode}/alone/")
        assert answer.json() == {"locked": True, "n": 1}
        answer = await by_header.at(f"/{language}/{mode}/plain/")
        assert answer.json() == {"locked": False, "n": 1}
    assert seen == [False, False, True, False, True]
    assert by_header.free()


@pytest.mark.parametrize("where", ["plain/?block=1", "alone/?block=1&urls=elsewhere"])
async def test_a_block_of_a_middleware_is_around_whatever_view_is_called(
    caller: Caller, where: str
) -> None:
    seen: list[bool] = []
    during.append(lambda request: seen.append(caller.free()))
    answer = await caller(*where.split("/"))
    assert answer.json() == {"locked": True, "n": 1}
    assert seen == [False]
    assert caller.free()
    assert caller.other()["after"] == 1


# What is said of a view and of its methods.


async def test_decorators_without_arguments_are_told_apart_by_what_they_say(
    by_header: Caller,
) -> None:
    """``method_decorator`` makes such a one anew for each call."""
    other = by_header.other()
    other.lock()
    answer = await by_header("cls")
    assert (answer.status_code, answer.json()["executed"]) == (409, False)
    other.unlock()
    assert (await by_header("cls")).json() == {"locked": True, "n": 1}
    other.lock()
    # The method's own counts, and HEAD is GET's.
    for method in ("get", "head"):
        assert (await by_header("clsreads", method=method)).status_code == 200


# What answers depend on.


async def test_answers_vary_with_the_context_that_a_request_may_name(
    caller: Caller, settings: Any
) -> None:
    async def vary(view: str) -> set[str]:
        return {name.strip() for name in (await caller(view)).headers["Vary"].split(",")}

    assert KEY in await vary("plain")
    assert "X-Context" not in await vary("plain")
    settings.HEADER_SESSIONS_CONTEXT_HEADER = "X-Context"
    assert {KEY, "X-Context"} <= await vary("plain")
    other = caller.other()
    other.lock()
    # A refusal, too.
    assert {KEY, "X-Context"} <= await vary("alone")


def test_every_view_is_asked_in_its_own_mode() -> None:
    for mode, views in VIEWS.items():
        for view in views.values():
            assert iscoroutinefunction(view) is (mode == "async")
