from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient, Client

from django_header_sessions.resolvers import Transport
from django_header_sessions.stores.base import Store
from django_header_sessions.testing import AsyncHeaderSessionClient, HeaderSessionClient
from tests.engine.face import Half, Sessions

from . import site

CLIENTS: dict[tuple[str, str], type[Any]] = {
    ("cookie", "sync"): Client,
    ("cookie", "async"): AsyncClient,
    ("header", "sync"): HeaderSessionClient,
    ("header", "async"): AsyncHeaderSessionClient,
}


class Visitor:
    """Who comes back: a browser with its cookies, or a program that keeps its key."""

    def __init__(self, transport: Transport, half: Half) -> None:
        self.transport = transport
        self.half = half
        self.client: Any = CLIENTS[transport, half]()

    async def visits(self, does: site.Does, **request: Any) -> Any:
        """The answer of the view that does this; an error where the view raised one."""
        site.now.append(does)
        try:
            return await self.get(f"/{self.half}/", **request)
        finally:
            site.now.pop()

    async def does(self, does: site.Does) -> Any:
        """What came of it, as JSON has it; an error where the view did not answer."""
        answer = await self.visits(does)
        assert answer.status_code == 200, answer
        return answer.json()["did"]

    async def get(self, path: str, **request: Any) -> Any:
        if self.half == "async":
            return await self.client.get(path, **request)
        return await sync_to_async(self.client.get)(path, **request)

    @property
    def key(self) -> str | None:
        """The session key that is sent with the next request."""
        if self.transport == "header":
            return str(self.client.session_key) if self.client.session_key else None
        cookie = self.client.cookies.get("sessionid")
        return cookie.value or None if cookie else None

    @key.setter
    def key(self, key: str) -> None:
        if self.transport == "header":
            self.client.session_key = key
        else:
            self.client.cookies["sessionid"] = key

    async def stored(self) -> dict[str, Any] | None:
        """What the store has of the visitor's session; None where there is none."""
        key = self.key
        return await Sessions(self.transport, self.half).stored(key) if key else None


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> Half:
    chosen: Half = request.param
    return chosen


@pytest.fixture(params=["header", "cookie"])
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    return chosen


@pytest.fixture
def project(listing_store: Store, settings: Any) -> Any:
    """A project's settings, on each store that keeps all promises. Browsers have their cookie
    everywhere, as on a site that was there before; who sends the header has a header session."""
    settings.ROOT_URLCONF = "tests.django.site"
    settings.HEADER_SESSIONS_COOKIE_PATHS = ("/",)
    return settings


@pytest.fixture
def newcomer(project: Any, transport: Transport, half: Half) -> Callable[[], Visitor]:
    """Makes visitors who were never here."""
    return lambda: Visitor(transport, half)


@pytest.fixture
def visitor(newcomer: Callable[[], Visitor]) -> Visitor:
    return newcomer()


@pytest.fixture
def browser(project: Any, half: Half) -> Visitor:
    """One with cookies, for what only cookies have."""
    return Visitor("cookie", half)


@pytest.fixture
def program(project: Any, half: Half) -> Visitor:
    """One with the header, for what only header sessions have."""
    return Visitor("header", half)


@pytest.fixture
def store(project: Any, transport: Transport, half: Half) -> Sessions:
    """Sessions without a request."""
    return Sessions(transport, half)
