"""Views that do to a session what the test that calls them asks for, in sync and in async.

``?do=[["set", "n", 1], ["get", "n"]]`` has these actions done in turn and answers what came of
each as ``{"did": [null, 1]}``. An action is a method of ``Actions``.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from inspect import isawaitable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.contrib import messages
from django.contrib.auth import (
    alogin,
    alogout,
    aupdate_session_auth_hash,
    login,
    logout,
    update_session_auth_hash,
)
from django.contrib.auth.models import User
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.test import override_settings
from django.views.decorators.csrf import csrf_exempt

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionError

PATIENCE = 20
"""Seconds that an action waits for another request to get to the same point."""

_noted: list[str] = []
_overrides: list[override_settings] = []
_meetings: defaultdict[str, threading.Barrier] = defaultdict(lambda: threading.Barrier(2))
_meetings_lock = threading.Lock()


class Actions:
    """What a view may be asked for, by the sync half of each API."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.status = 200
        self.headers: dict[str, str] = {}

    @property
    def session(self) -> Any:
        return self.request.session

    @property
    def session_id(self) -> str:
        session_id: str = self.session.session_key.id
        return session_id

    def client(self) -> Any:
        return caches["default"].client.get_client(write=True)  # type: ignore[attr-defined]

    # What the answer is to look like, and what is to go wrong.

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}

    def note(self, text: str) -> None:
        """Leave a trace in the process, which tells that the view ran."""
        _noted.append(text)

    def fail(self) -> None:
        raise RuntimeError("The view failed, as it was asked to.")

    def fail_with_key(self) -> None:
        """Fail with the session's key in several places of an error page's reach."""
        session = self.request.session
        session_key = session.session_key
        kept = {"mine": session_key, "all of it": [session_key], "session": session}
        raise RuntimeError(f"The view failed, and it held {kept!r} and {session_key!r}.")

    def fail_with_request(self) -> None:
        """Fail with all that the request brought in variables, as it is and copied."""
        request = self.request
        environ, headers, cookies = request.META, request.headers, request.COOKIES
        copied = dict(environ) | dict(headers) | dict(cookies)
        values = list(copied.values())
        scope = getattr(request, "scope", None)
        raise RuntimeError(f"The view failed, and it held {[copied, values, headers, scope]!r}.")

    def break_codec(self) -> None:
        """Put something into the session that no JSON can hold."""
        self.request.session["broken"] = object()

    def meet(self, name: str) -> Any:
        """Wait until another request has come to the meeting of this name."""
        with _meetings_lock:
            meeting = _meetings[name]
        meeting.wait(PATIENCE)

    def end_elsewhere(self) -> bool:
        return registry.end(self.session_id)

    def rotate_elsewhere(self) -> None:
        self._elsewhere().cycle_key()

    def _elsewhere(self) -> SessionStore:
        """The same session as another request has it."""
        return SessionStore(self.session.session_key, transport=self.session.transport)

    def write_elsewhere(self, name: str, value: Any) -> None:
        other = self._elsewhere()
        other[name] = value
        other.save()

    def make_read_only(self) -> None:
        """Make the store's server somebody's replica: it refuses to write from now on."""
        self.client().replicaof("127.0.0.1", "1")

    # What sync and async have in common.

    def id(self) -> str | None:
        return self.session_id if self.session.session_key else None

    def item(self, name: str) -> Any:
        """Read as most code does, which must not block in an async view."""
        return self.request.session[name]

    def fields(self) -> dict[str, Any]:
        return dict(self.request.session.items())

    def append(self, name: str, value: Any) -> None:
        """Change a value in place, which the session cannot see."""
        self.request.session[name].append(value)
        self.request.session.modified = True

    def assign(self, name: str, value: Any) -> None:
        self.request.session[name] = value

    def drop(self, name: str) -> None:
        del self.request.session[name]

    def clear(self) -> None:
        self.request.session.clear()

    def set_expiry(self, seconds: int) -> None:
        self.request.session.set_expiry(seconds)

    def replace(self, transport: Any) -> None:
        self.request.session = SessionStore(transport=transport)

    def remove_session(self) -> None:
        del self.request.session

    def token(self) -> str:
        return get_token(self.request)

    def locked(self) -> bool:
        locked: bool = self.session.locked
        return locked

    # Each of these has a twin in ``AsyncActions``.

    def context(self, name: str | None = None) -> Any:
        """What a context holds."""
        return dict(self.session.context(name))

    def in_context(self, name: str | None, field: str, value: Any) -> Any:
        """Assign a field of a context."""
        self.session.context(name)[field] = value

    def new_context(self) -> Any:
        return self.session.new_context()

    def promote(self, name: str) -> Any:
        self.session.context(name).promote()

    def contexts(self) -> Any:
        return [context.name for context in self.session.contexts()]

    def add(self, name: str) -> Any:
        """Read, think and write, as a view does that counts on being alone."""
        value = self.session.get(name)
        time.sleep(0.005)
        self.session[name] = value + 1

    def get(self, name: str) -> Any:
        return self.session.get(name)

    def set(self, name: str, value: Any) -> Any:
        self.session[name] = value

    def increment(self, name: str, by: int = 1) -> Any:
        return self.session.increment(name, by)

    def create(self) -> Any:
        self.session.create()

    def save(self) -> Any:
        self.session.save()

    def cycle_key(self) -> Any:
        self.session.cycle_key()

    def flush(self) -> Any:
        self.session.flush()

    def login(self, name: str) -> Any:
        login(self.request, User.objects.get(username=name))

    def logout(self) -> Any:
        logout(self.request)

    def change_password(self, password: str) -> Any:
        user = self.request.user
        assert isinstance(user, User)
        user.set_password(password)
        user.save()
        update_session_auth_hash(self.request, user)

    def user(self) -> Any:
        return self.request.user.get_username()

    def say(self, text: str) -> Any:
        messages.success(self.request, text)

    def said(self) -> Any:
        return [str(message) for message in messages.get_messages(self.request)]

    def swallow(self, name: str, *args: Any) -> Any:
        """Do one action more and swallow what it raises, as careless code does."""
        try:
            return getattr(self, name)(*args)
        except SessionError as error:
            return type(error).__name__


class AsyncActions(Actions):
    """The same by the async half."""

    async def meet(self, name: str) -> None:
        await asyncio.to_thread(super().meet, name)

    async def context(self, name: str | None = None) -> Any:
        return dict(await self.session.acontext(name))

    async def in_context(self, name: str | None, field: str, value: Any) -> None:
        (await self.session.acontext(name))[field] = value

    async def new_context(self) -> Any:
        return await self.session.anew_context()

    async def promote(self, name: str) -> None:
        await (await self.session.acontext(name)).apromote()

    async def contexts(self) -> Any:
        return [context.name for context in await self.session.acontexts()]

    async def add(self, name: str) -> None:
        value = await self.session.aget(name)
        await asyncio.sleep(0.005)
        await self.session.aset(name, value + 1)

    async def get(self, name: str) -> Any:
        return await self.session.aget(name)

    async def set(self, name: str, value: Any) -> None:
        await self.session.aset(name, value)

    async def increment(self, name: str, by: int = 1) -> Any:
        return await self.session.aincrement(name, by)

    async def create(self) -> None:
        await self.session.acreate()

    async def save(self) -> None:
        await self.session.asave()

    async def cycle_key(self) -> None:
        await self.session.acycle_key()

    async def flush(self) -> None:
        await self.session.aflush()

    async def login(self, name: str) -> None:
        await alogin(self.request, await User.objects.aget(username=name))

    async def logout(self) -> None:
        await alogout(self.request)

    async def change_password(self, password: str) -> None:
        user = await self.request.auser()
        assert isinstance(user, User)
        # Django 5.2 looks at this where the hash is updated; it must not be read in a coroutine.
        await sync_to_async(lambda: self.request.user.pk)()
        user.set_password(password)
        await user.asave()
        await aupdate_session_auth_hash(self.request, user)

    async def user(self) -> Any:
        return (await self.request.auser()).get_username()

    async def say(self, text: str) -> None:
        await sync_to_async(super().say)(text)

    async def said(self) -> Any:
        return await sync_to_async(super().said)()

    async def swallow(self, name: str, *args: Any) -> Any:
        try:
            done = getattr(self, name)(*args)
            return await done if isawaitable(done) else done
        except SessionError as error:
            return type(error).__name__


def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("well")


def asked(request: HttpRequest, parameter: str = "do") -> list[list[Any]]:
    found: list[list[Any]] = json.loads(request.GET.get(parameter, "[]"))
    return found


def do(request: HttpRequest) -> HttpResponse:
    actions = Actions(request)
    did = [getattr(actions, name)(*args) for name, *args in asked(request)]
    return JsonResponse({"did": did}, status=actions.status, headers=actions.headers)


async def ado(request: HttpRequest) -> HttpResponse:
    actions = AsyncActions(request)
    did = []
    for name, *args in asked(request):
        done = getattr(actions, name)(*args)
        did.append(await done if isawaitable(done) else done)
    return JsonResponse({"did": did}, status=actions.status, headers=actions.headers)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Does ``do`` at once, and ``then`` while the body is streamed, an action a line."""
    actions = Actions(request)
    for name, *args in asked(request):
        getattr(actions, name)(*args)

    def lines() -> Iterator[str]:
        for name, *args in asked(request, "then"):
            yield json.dumps(actions.swallow(name, *args)) + "\n"

    return StreamingHttpResponse(lines())


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    actions = AsyncActions(request)
    for name, *args in asked(request):
        done = getattr(actions, name)(*args)
        if isawaitable(done):
            await done

    async def lines() -> AsyncIterator[str]:
        for name, *args in asked(request, "then"):
            yield json.dumps(await actions.swallow(name, *args)) + "\n"

    return StreamingHttpResponse(lines())


class Inner:
    """A middleware inside the session's, which misbehaves as ``?inner=`` says."""

    sync_capable = async_capable = True
    parameter = "inner"

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self.__acall__(request)
        self.before(request)
        return self.after(request, self.get_response(request))

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self.before(request)
        return self.after(request, await self.get_response(request))

    def before(self, request: HttpRequest) -> None:
        request.headers.get("Accept")  # and from here on Django keeps all of them
        if request.GET.get(self.parameter) == "fail before":
            raise RuntimeError("A middleware failed before the view.")

    def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        match request.GET.get(self.parameter):
            case "fail after":
                asked, answered = request.headers, response.headers
                raise RuntimeError(f"A middleware failed after the view: {asked}, {answered}.")
            case "hide":
                return HttpResponse("All is well.")
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if request.GET.get(self.parameter) == "swallow":
            return HttpResponse("All is well.")
        return None


class Outer(Inner):
    """The same outside of the session's, where a test puts it."""

    parameter = "outer"


@csrf_exempt
def override(request: HttpRequest) -> HttpResponse:
    """Override settings of this process, all the more on each ``POST``; ``DELETE`` undoes one."""
    if request.method == "POST":
        overriding = override_settings(**json.loads(request.body))
        overriding.enable()
        _overrides.append(overriding)
    else:
        _overrides.pop().disable()
    return HttpResponse()


def noted(request: HttpRequest) -> HttpResponse:
    """What views noted since this was asked last."""
    answer = JsonResponse({"noted": list(_noted)})
    _noted.clear()
    return answer
