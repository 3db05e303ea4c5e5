"""What views ask for of their sessions, as decorators.

They take function views and, with Django's ``method_decorator``, the ``dispatch`` or single methods
of class-based views, sync and async. Where several name a policy for requests at the same time, the
innermost decides; where none does, ``HEADER_SESSIONS_POLICY``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import isawaitable
from typing import Any, ParamSpec, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from .policies import MARK, Policy, checked, serialized_views, session_of
from .resolvers import told_apart_by
from .steps import in_event_loop

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["merged_session", "readonly_session", "serialized_session", "vary_on_session"]


def merged_session(view: Callable[P, R]) -> Callable[P, R]:
    """Requests of one session run side by side, and what each changed is merged."""
    return _under(Policy("merge"), view)


def readonly_session(view: Callable[P, R]) -> Callable[P, R]:
    """The view only reads its session: whatever would write to it raises ``SessionReadOnly`` where
    it is written. Nothing is stored, and nobody waits.

    Who is signed in is looked up before the view runs, as that may end a session.
    """
    return _under(Policy("readonly"), view)


@overload
def serialized_session(view: Callable[P, R]) -> Callable[P, R]: ...


@overload
def serialized_session(
    *, wait: float | None = None, lease: float | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def serialized_session(
    view: Callable[P, R] | None = None, *, wait: float | None = None, lease: float | None = None
) -> Any:
    """Of the views so decorated one at a time has the session, in order of arrival.

    A request that waited ``wait`` seconds in vain is answered with 409 and ``Retry-After``, and one
    that took longer than ``lease`` seconds with 409 too, with nothing stored. By default both are
    settings.
    """
    for name, seconds in (("wait", wait), ("lease", lease)):
        if seconds is not None:
            checked(name, seconds)
    policy = Policy("serialized", wait, lease)
    if view is not None:
        return _under(policy, view)
    return lambda view: _under(policy, view)


def _under(policy: Policy, view: Callable[P, R]) -> Callable[P, R]:
    if hasattr(view, MARK):
        return view  # which says itself what it needs

    async def arun(request: Any, *args: Any, **kwargs: Any) -> Any:
        await policy.abegin(request)
        answer = view(request, *args, **kwargs)
        return await answer if isawaitable(answer) else answer

    def run(request: Any, *args: Any, **kwargs: Any) -> Any:
        if in_event_loop() and not session_of(request).is_sync:
            # The dispatch of an async view is itself no coroutine function, but it is awaited.
            return arun(request, *args, **kwargs)
        policy.begin(request)
        return view(request, *args, **kwargs)

    wrapped: Any = wraps(view)(arun if iscoroutinefunction(view) else run)
    setattr(wrapped, MARK, policy)
    if policy.name == "serialized":
        serialized_views.add(wrapped.__name__)
    return wrapped  # type: ignore[no-any-return]


def vary_on_session(view: Callable[P, R]) -> Callable[P, R]:
    """Have caches keep an answer of ``view`` for each session apart, on both transports.

    What Django's ``vary_on_cookie`` does for cookies, and likewise inside of ``cache_page``::

        @cache_page(60)
        @vary_on_session
        def basket(request): ...

    Callers without a session share one answer, so one that started a session is ``private``: it
    is its caller's alone, and no cache keeps it for the next.
    """

    ask: Callable[..., Any] = view

    @wraps(view)
    def varying(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # The key alone may be that of a cookie which opens nothing.
        session: Any = request.session
        came_without = getattr(session, "live", session.session_key) is None
        answer = ask(request, *args, **kwargs)
        if isawaitable(answer):
            return _awaited(answer, request, came_without)
        return _told(answer, request, came_without)

    if iscoroutinefunction(view):
        markcoroutinefunction(varying)
    return cast("Callable[P, R]", varying)


async def _awaited(
    answer: Awaitable[HttpResponseBase], request: HttpRequest, came_without: bool
) -> HttpResponseBase:
    return _told(await answer, request, came_without)


def _told(response: HttpResponseBase, request: HttpRequest, came_without: bool) -> HttpResponseBase:
    """Tell caches of ``response``; of one that is rendered later, when it was: a template may
    start a session, too, and ``cache_page`` waits for it as well."""

    def tell(response: HttpResponseBase) -> None:
        patch_vary_headers(response, (*told_apart_by(), "Cookie"))
        session = getattr(request, "session", None)
        if came_without and getattr(session, "modified", False):
            patch_cache_control(response, private=True)

    later: Any = getattr(response, "add_post_render_callback", None)
    if later is None:
        tell(response)
    else:
        later(tell)
    return response
