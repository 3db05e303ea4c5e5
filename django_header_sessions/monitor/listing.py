"""A page of the list of sessions: which are on it, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from .. import registry
from ..registry import Cursor, LiveSession, Page
from .people import ids_named
from .query import Query

OF_USER = 1000
"""Sessions of one user that are listed at the most."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Some sessions, latest to expire first, and the addresses around them."""

    query: Query
    sessions: list[LiveSession]
    newer: str = ""
    older: str = ""
    how: Literal["all", "id", "user", "scan", "nothing"] = "all"
    """How they were found: ``scan`` looked at no more than ``registry.SEARCHED`` sessions, and may
    go on; ``nothing`` is what a search for no known thing finds."""
    users: list[str] = field(default_factory=list)
    """The primary keys of the users whose sessions these are."""

    @property
    def goes_on(self) -> bool:
        """Whether there are more sessions to look at than were."""
        return self.how == "scan" and bool(self.newer if self.query.backward else self.older)


def listed(query: Query, limit: int) -> Listing:
    """The page that ``query`` asks for."""
    if query.user:
        return _of_users(query, [query.user], limit)
    if query.session_id and (session := registry.get_many([query.session_id])):
        return Listing(query, [one for one in session if _passes(query)(one)], how="id")
    if query.text and not query.ip:
        users = ids_named(query.text)
        if users:
            return _of_users(query, users, limit)
    if query.ip:
        return _found(query, lambda one: one.ip == query.ip, limit)
    if query.prefix:
        return _found(query, lambda one: one.id.startswith(query.prefix), limit)
    if query.text:
        return Listing(query, [], how="nothing")
    if query.idle:
        return _found(query, lambda one: True, limit)
    return _page(query, limit)


def _page(query: Query, limit: int) -> Listing:
    page = registry.page(limit, query.place, query.kinds, query.backward)
    if query.backward and page.next is None:
        # The beginning of the list: as it is now, and a whole page of it.
        query = replace(query, place=None, backward=False)
        page = registry.page(limit, None, query.kinds)
    return _listing(query, page, "all")


def _found(query: Query, matches: Callable[[LiveSession], bool], limit: int) -> Listing:
    passes = _passes(query)
    page = registry.search(
        lambda one: matches(one) and passes(one),
        limit,
        query.place,
        query.kinds,
        backward=query.backward != query.turned,
    )
    return _listing(query, page, "scan")


def _passes(query: Query) -> Callable[[LiveSession], bool]:
    kinds = query.kinds

    def passes(one: LiveSession) -> bool:
        kind = registry.Kind(one.transport, one.user is not None)
        return (not kinds or kind in kinds) and not one.idle_ms < query.idle * 1000

    return passes


def _listing(query: Query, page: Page, how: Literal["all", "scan"]) -> Listing:
    sessions, places = page.sessions, page.places
    # Where the list was left: behind the last session, or where a search stopped looking.
    first = places[0] if places else query.place
    if query.backward:
        newer, older = page.next, first
        sessions = sessions[::-1]
    else:
        newer, older = (first if query.place else None), page.next
    return Listing(
        query,
        sessions,
        newer=query.address(place=newer, backward=True) if newer else "",
        older=query.address(place=older) if older else "",
        how=how,
    )


def _of_users(query: Query, users: list[str], limit: int) -> Listing:
    """Of one user there are few enough to be put in order here."""
    passes = _passes(query)
    found = [one for user in users for one in registry.of_user(user) if passes(one)]
    found.sort(key=_place, reverse=True)
    found = found[:OF_USER]
    before = [one for one in found if query.place and _place(one) > _pair(query.place)]
    behind = [one for one in found if not query.place or _place(one) < _pair(query.place)]
    if query.backward:
        here, newer, older = before[-limit:], before[:-limit], behind
    else:
        here, newer, older = behind[:limit], before, behind[limit:]
    return Listing(
        query,
        here,
        newer=query.address(place=_cursor(here[:1]), backward=True) if newer and here else "",
        older=query.address(place=_cursor(here[-1:])) if older and here else "",
        how="user",
        users=users,
    )


def _place(one: LiveSession) -> tuple[int, str]:
    return one.expires_ms, one.id


def _pair(place: Cursor) -> tuple[int, str]:
    return place.expires, place.session_id


def _cursor(some: Iterable[LiveSession]) -> Cursor | None:
    return next((Cursor(*_place(one)) for one in some), None)
