"""What the fault tests serve: views that read, write, count, and wait in the middle of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_header_sessions.decorators import serialized_session

ran: list[str] = []
"""Names of the views that ran, in turn."""

meanwhile: list[Callable[[], object]] = []
"""What a view does between its first look at the session and its answer."""


def read(request: HttpRequest) -> JsonResponse:
    ran.append("read")
    return JsonResponse({"n": request.session.get("n")})


async def aread(request: HttpRequest) -> JsonResponse:
    ran.append("read")
    return JsonResponse({"n": await request.session.aget("n")})


def write(request: HttpRequest) -> JsonResponse:
    ran.append("write")
    request.session["n"] = int(request.GET["n"])
    for each in meanwhile:
        each()
    return JsonResponse({"n": request.session["n"]})


async def awrite(request: HttpRequest) -> JsonResponse:
    ran.append("write")
    await request.session.aset("n", int(request.GET["n"]))
    for each in meanwhile:
        await sync_to_async(each, thread_sensitive=False)()
    return JsonResponse({"n": await request.session.aget("n")})


def count(request: HttpRequest) -> JsonResponse:
    ran.append("count")
    session: Any = request.session
    return JsonResponse({"n": session.increment("n")})


async def acount(request: HttpRequest) -> JsonResponse:
    ran.append("count")
    session: Any = request.session
    return JsonResponse({"n": await session.aincrement("n")})


def swallow(request: HttpRequest) -> JsonResponse:
    """Claims success whatever becomes of the session."""
    ran.append("swallow")
    for each in meanwhile:
        each()
    with contextlib.suppress(Exception):
        request.session.cycle_key()
    return JsonResponse({"n": "kept"})


async def aswallow(request: HttpRequest) -> JsonResponse:
    ran.append("swallow")
    for each in meanwhile:
        await asyncio.to_thread(each)
    with contextlib.suppress(Exception):
        await request.session.acycle_key()
    return JsonResponse({"n": "kept"})


def block(request: HttpRequest) -> JsonResponse:
    """Has its session to itself in a part of it."""
    ran.append("block")
    session: Any = request.session
    for each in meanwhile:
        each()
    with session.serialized():
        return JsonResponse({"n": session.get("n")})


async def ablock(request: HttpRequest) -> JsonResponse:
    ran.append("block")
    session: Any = request.session
    for each in meanwhile:
        await asyncio.to_thread(each)
    async with session.serialized():
        return JsonResponse({"n": await session.aget("n")})


SYNC = {"read": read, "write": write, "count": count, "swallow": swallow, "block": block}
ASYNC = {"read": aread, "write": awrite, "count": acount, "swallow": aswallow, "block": ablock}

ALONE = ("read", "write")
"""Those that there are with the session to themselves, too."""

urlpatterns = [
    path(f"{prefix}{mode}/{name}/", view)
    # Under /admin/, which is a cookie path.
    for prefix in ("", "admin/")
    for mode, views in (
        ("sync", SYNC | {f"alone/{name}": serialized_session(SYNC[name]) for name in ALONE}),
        ("async", ASYNC | {f"alone/{name}": serialized_session(ASYNC[name]) for name in ALONE}),
    )
    for name, view in views.items()
]
