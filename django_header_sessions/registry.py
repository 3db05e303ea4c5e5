"""Which sessions are live, and how to end them: the one door for the admin, APIs and commands.

Everything here goes by the session id, which opens nothing. Where the cache keeps no list, what
needs one raises ``ListingNotSupported``; looking at and ending a session by its id always work.
"""

from __future__ import annotations

from collections.abc import Collection

from django.conf import settings

from . import keys
from .signals import session_ended
from .stores import Store, get_store
from .stores.base import Cursor, Kind, LiveSession, Opened, Page

__all__ = [
    "Cursor",
    "Kind",
    "LiveSession",
    "Page",
    "acount",
    "aend",
    "aget",
    "aof_user",
    "apage",
    "count",
    "end",
    "get",
    "lists",
    "of_user",
    "page",
]


def lists() -> bool:
    """Whether the cache behind the sessions can list them."""
    return _store().lists


def count() -> dict[Kind, int]:
    """How many live sessions there are, by transport and by whether somebody is signed in."""
    return _store().count()


async def acount() -> dict[Kind, int]:
    return await _store().acount()


def page(limit: int = 100, after: Cursor | None = None, kinds: Collection[Kind] = ()) -> Page:
    """At most ``limit`` live sessions, latest to expire first; go on with ``after=page.next``."""
    return _store().page(limit, after, kinds)


async def apage(
    limit: int = 100, after: Cursor | None = None, kinds: Collection[Kind] = ()
) -> Page:
    return await _store().apage(limit, after, kinds)


def of_user(user: str) -> list[LiveSession]:
    """The live sessions of the user with this primary key (as text), oldest first."""
    return _store().of_user(user)


async def aof_user(user: str) -> list[LiveSession]:
    return await _store().aof_user(user)


def get(session_id: str) -> LiveSession | None:
    """One live session, None where there is none of this id; not a use of it."""
    return _face(_store().get(session_id)) if keys.is_id(session_id) else None


async def aget(session_id: str) -> LiveSession | None:
    return _face(await _store().aget(session_id)) if keys.is_id(session_id) else None


def end(session_id: str, reason: str = "registry") -> bool:
    """End a session for ever, whatever its key is by now; False where there was none."""
    ended = keys.is_id(session_id) and _store().end(session_id)
    if ended:
        session_ended.send(__name__, session_id=session_id, reason=reason)
    return ended


async def aend(session_id: str, reason: str = "registry") -> bool:
    ended = keys.is_id(session_id) and await _store().aend(session_id)
    if ended:
        await session_ended.asend(__name__, session_id=session_id, reason=reason)
    return ended


def _store() -> Store:
    return get_store(settings.SESSION_CACHE_ALIAS)


def _face(opened: Opened | None) -> LiveSession | None:
    return opened.session if opened else None
