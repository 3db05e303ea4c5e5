"""How the tests use a session: through the sync half of its API or through the async one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Literal, ParamSpec

from asgiref.sync import async_to_sync, sync_to_async

from django_header_sessions.engine import SessionStore
from django_header_sessions.keys import SessionKey
from django_header_sessions.resolvers import Transport

P = ParamSpec("P")
Half = Literal["sync", "async"]


class Face:
    """One session. ``await face.pop("n")`` is ``pop`` in the sync half, ``apop`` in the async."""

    def __init__(self, session: SessionStore, half: Half) -> None:
        self.session = session
        self.half = half

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if self.half == "async":
            method: Callable[..., Awaitable[Any]] = getattr(self.session, "a" + name)
            return method
        sync = getattr(self.session, "__setitem__" if name == "set" else name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return sync(*args, **kwargs)

        return call

    @property
    def key(self) -> SessionKey:
        """The session's key; an error where it has none."""
        key = self.session.session_key
        assert key is not None
        return key


class Sessions:
    """Sessions of one transport, in one store, through one half of the API."""

    def __init__(self, transport: Transport, half: Half) -> None:
        self.transport = transport
        self.half = half

    def new(self, key: str | None = None, **options: Any) -> Face:
        """What a request has that presents ``key``, before it touched its session."""
        session = SessionStore(key, transport=self.transport, **options)
        # As in a sync server, where no event loop is held up.
        session.for_one_request = self.half == "sync"
        return Face(session, self.half)

    def again(self, face: Face) -> Face:
        """The same session in another request."""
        return self.new(face.key)

    async def opened(self, key: str) -> Face:
        """What a view has: a session that was opened before; an error where there is none."""
        face = self.new(key)
        assert await face.open()
        return face

    async def saved(self, **fields: Any) -> Face:
        """A session that is stored and holds these fields."""
        face = self.new()
        await face.update(fields)
        await face.save()
        return face

    async def stored(self, face: Face | str) -> dict[str, Any] | None:
        """What the next request finds in the session; None where it finds no session."""
        other = self.new(face if isinstance(face, str) else face.key)
        return dict(await other.items()) if await other.open() else None

    async def call(
        self, sync: Callable[..., Any], async_: Callable[..., Awaitable[Any]], *args: Any
    ) -> Any:
        """Call one of two twins of Django's, which may use the database."""
        if self.half == "async":
            return await async_(*args)
        return await sync_to_async(sync)(*args)


def beside_database(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in a loop of its own, and what it does in sync on the thread of the
    test, whose transaction holds what the test put into the database."""

    @wraps(test)
    def in_loop(*args: P.args, **kwargs: P.kwargs) -> None:
        async_to_sync(test)(*args, **kwargs)

    return in_loop
