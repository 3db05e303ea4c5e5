"""A page of the list of sessions: which are on it, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from .. import registry
from ..registry import Cursor, LiveSession, Page
from .people import ids_named
from .query import Query, written_ip


@dataclass(frozen=True, slots=True)
class Listing:
    """Some sessions, latest to expire first, and the addresses around them."""

    query: Query
    sessions: list[LiveSession]
    newer: str = ""
    older: str = ""
    how: Literal["all", "id", "scan", "nothing"] = "all"
    """How they were found: ``scan`` looked at no more than ``registry.SEARCHED`` sessions, and may
    go on; ``nothing`` is what a search for no known thing finds."""
    users: list[str] = field(default_factory=list)
    """The primary keys of the users whose sessions alone are listed."""
    total: int | None = None
    """How many sessions these users have, ``registry.OF_USERS`` at the most; None where only some
    of them were looked for."""

    @property
    def goes_on(self) -> bool:
        """Whether there is more in the direction that was asked for."""
        return bool(self.newer if self.query.backward else self.older)


def listed(query: Query, limit: int) -> Listing:
    """The page that ``query`` asks for."""
    if query.user:
        return _page(query, limit, [query.user])
    if query.session_id and (session := registry.get_many([query.session_id])):
        return Listing(query, [one for one in session if _passes(query)(one)], how="id")
    if query.text and (users := ids_named(query.text)):
        return _page(query, limit, users)
    if query.ip:
        return _found(query, lambda one: (written_ip(one.ip) or one.ip) == query.ip, limit)
    if query.prefix:
        return _found(query, lambda one: one.id.startswith(query.prefix), limit)
    if query.text:
        return Listing(query, [], how="nothing")
    if query.turned:
        return _idle(query, limit)
    return _page(query, limit)


def _page(query: Query, limit: int, users: Sequence[str] = ()) -> Listing:
    if users and query.filtered:
        return _found(query, lambda one: True, limit, users)
    page = registry.page(limit, _place(query), query.kinds, query.backward, users)
    if query.backward and page.next is None:
        # The beginning of the list: as it is now, and a whole page of it.
        query = replace(query, place=None, backward=False)
        page = registry.page(limit, None, query.kinds, users=users)
    return _listing(query, page, "all", users)


def _idle(query: Query, limit: int) -> Listing:
    longer_than = timedelta(seconds=query.idle)
    place = query.place if isinstance(query.place, Mapping) else {}
    page = registry.idle(longer_than, limit, place, query.kinds, query.backward)
    if query.backward and not page.more:
        query = replace(query, place=None, backward=False)
        page = registry.idle(longer_than, limit, {}, query.kinds)
    goes_on = query.backward or page.more
    return Listing(
        query,
        page.sessions,
        newer=query.address(place=page.start, backward=True) if page.start else "",
        older=query.address(place=page.end) if goes_on else "",
        how="scan",
    )


def _found(
    query: Query,
    matches: Callable[[LiveSession], bool],
    limit: int,
    users: Sequence[str] = (),
) -> Listing:
    passes = _passes(query)
    page = registry.search(
        lambda one: matches(one) and passes(one),
        limit,
        _place(query),
        query.kinds,
        query.backward,
        users,
    )
    return _listing(query, page, "scan", users)


def _passes(query: Query) -> Callable[[LiveSession], bool]:
    kinds = query.kinds

    def passes(one: LiveSession) -> bool:
        kind = registry.Kind(one.transport, one.user is not None)
        return (not kinds or kind in kinds) and not one.idle_ms < query.idle * 1000

    return passes


def _place(query: Query) -> Cursor | None:
    return query.place if isinstance(query.place, Cursor) else None


def _listing(
    query: Query, page: Page, how: Literal["all", "scan"], users: Sequence[str]
) -> Listing:
    sessions, places = page.sessions, page.places
    # Where the list was left: behind the last session, or where a search stopped looking.
    first = places[0] if places else _place(query)
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
        users=list(users),
        total=page.total,
    )
