"""Programs that call the shop, with each library."""

from typing import assert_type

import aiohttp
import httpx
import httpx2
import requests

from django_header_sessions.clients.aiohttp import HeaderSession as AiohttpSession
from django_header_sessions.clients.flow import SessionKey, SessionLost
from django_header_sessions.clients.httpx import HeaderSession as HttpxSession
from django_header_sessions.clients.httpx2 import HeaderSession as Httpx2Session
from django_header_sessions.clients.requests import HeaderSession as RequestsSession


def call_with_httpx() -> None:
    session = HttpxSession(origin="https://shop.example", max_wait=3)
    with httpx.Client(auth=session) as client:
        session.start(lambda: client.post("/api/sessions/"))
        try:
            client.get("/visit/")
        except SessionLost as lost:
            assert_type(lost.session_id, str)
            assert_type(lost.executed, bool | None)
        key = assert_type(session.key, SessionKey | None)
        if key is not None:
            assert_type(key.id, str)
        assert_type(session.expires_in, float | None)
        assert_type(session.keep_alive(client), float | None)
        session.end(client)


async def call_with_httpx2() -> None:
    session = Httpx2Session()
    async with httpx2.AsyncClient(auth=session) as client:
        await session.astart()
        assert_type(await session.akeep_alive(client), float | None)
        await session.aend(client)


def call_with_requests() -> None:
    session = RequestsSession(key="a" * 40)
    with requests.Session() as client:
        client.auth = session
        assert_type(session.keep_alive(client), float | None)
        session.end(client)


async def call_with_aiohttp() -> None:
    session = AiohttpSession(insecure=True)
    async with aiohttp.ClientSession(middlewares=[session]) as client:
        await session.start()
        assert_type(await session.keep_alive(client), float | None)
        await session.end(client)
