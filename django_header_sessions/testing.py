"""Test clients that speak the session header, for Django's ``TestCase`` and for pytest.

They keep the key as a real client does: ``new`` until one is announced, then that one, until an
answer says to forget it. ``login()``, ``force_login()``, ``logout()`` and ``session`` are Django's,
for the header session.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import aget_user, alogin, alogout, get_user, login, logout
from django.http import HttpRequest
from django.test import AsyncClient, Client

from . import keys
from .conf import conf
from .engine import SessionStore
from .problems import CONTENT_TYPE, URN
from .resolvers import HEADER, NEW, meta_name

__all__ = ["AsyncHeaderSessionClient", "HeaderSessionClient"]

OVER = {URN + name for name in ("unknown", "ended", "superseded")}
"""Problems of a key that will never work again."""


class HeldKey:
    """What the clients have in common: one session key, or none yet, and Django's methods for it.

    The methods are there in both colours, as in Django's clients: a test of either may need the
    other.
    """

    session_key: keys.SessionKey | None = None
    """What the next request is sent with; None: it is sent ``new``."""

    @property
    def session(self) -> SessionStore:
        """The session as stored, made first where there is none. ``save()`` what you change."""
        session = self._open()
        if self.session_key is None:
            session.create()
            self.session_key = session.session_key
        return session

    async def asession(self) -> SessionStore:
        session = self._open()
        if self.session_key is None:
            await session.acreate()
            self.session_key = session.session_key
        return session

    def logout(self) -> None:
        """Sign out, as ``django.contrib.auth.logout`` does: the session has ended."""
        request = self._request()
        request.user = get_user(request)
        logout(request)
        self.session_key = None

    async def alogout(self) -> None:
        request = self._request()
        request.auser = partial(aget_user, request)
        await alogout(request)
        self.session_key = None

    def _login(self, user: Any, backend: str | None = None) -> None:
        request = self._request()
        login(request, user, backend)
        request.session.save()
        self.session_key = keys.parse(request.session.session_key)

    async def _alogin(self, user: Any, backend: str | None = None) -> None:
        request = self._request()
        await alogin(request, user, backend)
        await request.session.asave()
        self.session_key = keys.parse(request.session.session_key)

    def _learn(self, sent: str, response: Any) -> None:
        if sent != self._sends():
            # About another session: the header was given with the call.
            return
        announced = response.headers.get(conf.HEADER_SESSIONS_HEADER)
        if announced is not None:
            self.session_key = keys.parse(announced)
        elif response.headers.get("Content-Type") == CONTENT_TYPE and (
            # What answers a HEAD has no body that could say what is the matter.
            response.content and response.json().get("type") in OVER
        ):
            self.session_key = None

    def _sends(self) -> str:
        return self.session_key or NEW

    def _open(self) -> SessionStore:
        # The project's engine, which may be a subclass of ours.
        engine = import_module(settings.SESSION_ENGINE)
        return cast("SessionStore", engine.SessionStore(self.session_key, transport=HEADER))

    def _request(self) -> Any:
        request = HttpRequest()
        request.session = self._open()
        return request


class HeaderSessionClient(HeldKey, Client):
    """Django's test client with a header session.

    A header given with a call, or to the client for all of them, wins over the key that is held,
    ``headers={"X-Session-Key": …}``, and what is then answered changes nothing about that key.
    """

    def request(self, **request: Any) -> Any:
        name = meta_name(conf.HEADER_SESSIONS_HEADER)
        sent = request.setdefault(name, self.defaults.get(name, self._sends()))
        response = super().request(**request)
        self._learn(sent, response)
        return response


class AsyncHeaderSessionClient(HeldKey, AsyncClient):
    """``HeaderSessionClient`` for async tests."""

    async def request(self, **request: Any) -> Any:
        name = conf.HEADER_SESSIONS_HEADER.lower().encode()
        headers = request.setdefault("headers", [])
        # Before 5.2.13 Django wrote them with underscores here.
        given = [sent for each, sent in headers if each.replace(b"_", b"-") == name]
        if not given:
            given = [self._sends().encode()]
            headers.append((name, given[0]))
        response = await super().request(**request)
        self._learn(given[0].decode(), response)
        return response
