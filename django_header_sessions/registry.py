"""Which sessions are live, and how to end them: the one door for the admin, APIs and commands.

Everything here goes by the session id, which opens nothing. Where the cache keeps no list, what
needs one raises ``ListingNotSupported``; looking at and ending a session by its id always work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import keys
from .conf import conf
from .exceptions import SessionUnavailable, SessionUnreadable
from .fields import Codec, size
from .signals import session_alarm, session_ended
from .steps import Send, Steps, Verb, adrive, drive
from .stores import Store, get_store
from .stores.base import (
    KINDS,
    Activity,
    Cursor,
    Finding,
    Kind,
    LiveContext,
    LiveSession,
    Memory,
    Opened,
    Outage,
    Page,
    Places,
)

__all__ = [
    "KINDS",
    "Activity",
    "Alarm",
    "Cursor",
    "Field",
    "Finding",
    "Health",
    "IdlePage",
    "Kind",
    "LiveContext",
    "LiveSession",
    "Memory",
    "Outage",
    "Overview",
    "Page",
    "acontexts",
    "acount",
    "acount_of_users",
    "aend",
    "aend_anonymous",
    "aend_context",
    "aend_many",
    "aend_user",
    "afields",
    "aget",
    "aget_many",
    "ahealth",
    "aidle",
    "aof_user",
    "aoverview",
    "apage",
    "asearch",
    "asizes",
    "asweep",
    "contexts",
    "count",
    "count_of_users",
    "end",
    "end_anonymous",
    "end_context",
    "end_many",
    "end_user",
    "examine",
    "fields",
    "get",
    "get_many",
    "health",
    "idle",
    "lists",
    "of_user",
    "outages",
    "overview",
    "page",
    "search",
    "sizes",
    "sweep",
]

T = TypeVar("T")
Progress = Callable[[int, int], object]
"""Told from time to time how many sessions were ended so far, and how many were looked at."""

MOST = 1000
"""Sessions of one page at the most, whatever is asked for."""

SEARCHED = 400
"""Sessions that one search looks at, so that it answers in a tenth of a second."""

OF_USERS = 5000
"""Sessions of one user, or of a few, that are put in order at the most."""

BATCH = 200
"""Sessions that are looked at or ended at once where many are."""

FIRST = 16
"""Sessions of each kind, the first to expire, of which the oldest is taken."""

TRIES = 3
"""Parts of the list that a page asks for where all sessions of a part were thrown out."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A limit of the settings that is passed."""

    of: Literal["count", "bytes"]
    value: int
    limit: int


@dataclass(frozen=True, slots=True)
class Overview:
    """All live sessions, in figures."""

    counts: dict[Kind, int]
    activity: list[Activity]
    """The last hour, minute by minute, of all servers together."""
    memory: Memory | None
    oldest: LiveSession | None
    """The one that was last used longest ago, of the first few of each kind to expire: that is the
    oldest of all where the time-outs within a kind are alike. Where they are not, and whose
    creation lies furthest back, only a look at every session would tell."""
    alarms: list[Alarm]

    @property
    def live(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class IdlePage:
    """Some live sessions, longest idle first.

    ``start`` and ``end`` tell how far each kind of sessions was looked through before this page and
    with it; ``more`` is whether any are left in the direction that was asked for.
    """

    sessions: list[LiveSession]
    start: Mapping[Kind, Cursor]
    end: Mapping[Kind, Cursor]
    more: bool


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a session: its name, and the bytes that name and value take."""

    name: str
    size: int
    _raw: bytes = field(repr=False)

    def value(self) -> Any:
        """What the field holds. Raises ``SessionUnreadable`` where that cannot be told."""
        codec = Codec(import_string(settings.SESSION_SERIALIZER))
        try:
            return codec.decode(self.name, self._raw)
        except Exception as error:  # whatever a project's own serializer raises
            raise SessionUnreadable(f"The field {self.name!r} cannot be read.") from error


@dataclass(frozen=True, slots=True)
class Health:
    """Whether sessions can be used just now."""

    usable: bool
    problem: str
    """Why the store could not say, where it could not."""
    outages: list[Outage]
    """The servers that this process knows not to answer: those whose breaker is open. On Redis
    Cluster there may be some while the sessions of the others are usable."""
    seconds: float = field(default=0, compare=False)
    """How long the answer took."""


def lists() -> bool:
    """Whether the cache behind the sessions can list them."""
    return _store().lists


def count() -> dict[Kind, int]:
    """How many live sessions there are, by transport and by whether somebody is signed in."""
    return _store().count()


async def acount() -> dict[Kind, int]:
    return await _store().acount()


def count_of_users(users: Collection[object], most: int = MOST) -> int:
    """How many live sessions these users have, given as such or by primary key. It counts no
    further than ``most``, however many there are, and looks at no session."""
    return _run(_count_of_users(users, most))


async def acount_of_users(users: Collection[object], most: int = MOST) -> int:
    return await _arun(_count_of_users(users, most))


def page(
    limit: int = 100,
    after: Cursor | None = None,
    kinds: Collection[Kind] = (),
    backward: bool = False,
    users: Collection[object] = (),
) -> Page:
    """At most ``limit`` live sessions and at most ``MOST``, latest to expire first; go on with
    ``after=page.next``. ``backward`` turns the list round. Raises ``ValueError``, as all that take
    a limit, where it is below 1.

    ``users`` are those, or the primary keys of those whose sessions alone are listed, and counted
    as ``total``: ``OF_USERS`` at the most, and where they have more, it is left open which.
    """
    return _run(_page(limit, after, kinds, backward, users))


async def apage(
    limit: int = 100,
    after: Cursor | None = None,
    kinds: Collection[Kind] = (),
    backward: bool = False,
    users: Collection[object] = (),
) -> Page:
    return await _arun(_page(limit, after, kinds, backward, users))


def search(
    matches: Callable[[LiveSession], bool],
    limit: int = 100,
    after: Cursor | None = None,
    kinds: Collection[Kind] = (),
    backward: bool = False,
    users: Collection[object] = (),
) -> Page:
    """At most ``limit`` live sessions for which ``matches`` is true.

    It looks at ``SEARCHED`` sessions and no more, one by one: where ``next`` is not None, there
    are more to look at, however few were found.
    """
    return _run(_search(matches, limit, after, kinds, backward, users))


async def asearch(
    matches: Callable[[LiveSession], bool],
    limit: int = 100,
    after: Cursor | None = None,
    kinds: Collection[Kind] = (),
    backward: bool = False,
    users: Collection[object] = (),
) -> Page:
    return await _arun(_search(matches, limit, after, kinds, backward, users))


def idle(
    longer_than: timedelta,
    limit: int = 100,
    after: Mapping[Kind, Cursor] | None = None,
    kinds: Collection[Kind] = (),
    backward: bool = False,
) -> IdlePage:
    """At most ``limit`` live sessions that were not used for ``longer_than``, longest idle first;
    go on with ``after=page.end``. ``backward`` gives those before ``after``, a page's ``start``.

    It looks at ``SEARCHED`` sessions and no more, of each kind those that expire first, and merges
    the kinds by how long they were idle. A kind whose time-outs are alike is in order, whatever the
    time-outs of the others; one whose sessions have time-outs of their own is so only roughly.
    """
    return _run(_idle(longer_than, limit, after or {}, kinds or KINDS, backward))


async def aidle(
    longer_than: timedelta,
    limit: int = 100,
    after: Mapping[Kind, Cursor] | None = None,
    kinds: Collection[Kind] = (),
    backward: bool = False,
) -> IdlePage:
    return await _arun(_idle(longer_than, limit, after or {}, kinds or KINDS, backward))


def overview() -> Overview:
    """All live sessions in figures, in a few round trips however many there are.

    Sends ``session_alarm`` for each limit of the settings that is passed.
    """
    return _run(_overview())


async def aoverview() -> Overview:
    return await _arun(_overview())


def of_user(user: object) -> list[LiveSession]:
    """The live sessions of this user, or the one with this primary key, oldest first; a thousand at
    the most, and where there are more, it is left open which."""
    return _store().of_user(user_key(user))


async def aof_user(user: object) -> list[LiveSession]:
    return await _store().aof_user(user_key(user))


def get(session_id: str) -> LiveSession | None:
    """One live session, None where there is none of this id; not a use of it."""
    return _face(_store().get(session_id)) if keys.is_id(session_id) else None


async def aget(session_id: str) -> LiveSession | None:
    return _face(await _store().aget(session_id)) if keys.is_id(session_id) else None


def get_many(session_ids: Collection[str]) -> list[LiveSession]:
    """Those of these sessions that there are; not a use of them."""
    return _store().get_many([found for found in session_ids if keys.is_id(found)])


async def aget_many(session_ids: Collection[str]) -> list[LiveSession]:
    return await _store().aget_many([found for found in session_ids if keys.is_id(found)])


def sizes(session_id: str) -> tuple[LiveSession, dict[str, int]] | None:
    """One live session and the bytes that each of its fields takes, its name included; None where
    there is none of this id. Not a use of it, and no value is decoded."""
    return _sizes(_store().get(session_id)) if keys.is_id(session_id) else None


async def asizes(session_id: str) -> tuple[LiveSession, dict[str, int]] | None:
    return _sizes(await _store().aget(session_id)) if keys.is_id(session_id) else None


def fields(session_id: str) -> tuple[LiveSession, list[Field]] | None:
    """One live session and its fields; None where there is none of this id. Not a use of it."""
    return _fields(_store().get(session_id)) if keys.is_id(session_id) else None


async def afields(session_id: str) -> tuple[LiveSession, list[Field]] | None:
    return _fields(await _store().aget(session_id)) if keys.is_id(session_id) else None


def contexts(session_id: str) -> list[LiveContext]:
    """The contexts of one session by name, their sizes not part of its own; none where there is no
    session of this id. Not a use of them."""
    return _store().contexts(session_id) if keys.is_id(session_id) else []


async def acontexts(session_id: str) -> list[LiveContext]:
    return await _store().acontexts(session_id) if keys.is_id(session_id) else []


def end_context(session_id: str, name: str) -> bool:
    """End one context of a session, which goes on without it; False where there was none."""
    return _names_context(session_id, name) and _store().end_context(session_id, name)


async def aend_context(session_id: str, name: str) -> bool:
    return _names_context(session_id, name) and await _store().aend_context(session_id, name)


def end(session_id: str, reason: str = "registry") -> bool:
    """End a session for ever, whatever its key is by now; False where there was none."""
    ended = keys.is_id(session_id) and _store().end(session_id)
    if ended:
        session_ended.send_robust(__name__, session_id=session_id, reason=reason)
    return ended


async def aend(session_id: str, reason: str = "registry") -> bool:
    ended = keys.is_id(session_id) and await _store().aend(session_id)
    if ended:
        await session_ended.asend_robust(__name__, session_id=session_id, reason=reason)
    return ended


def end_many(
    session_ids: Collection[str], reason: str = "registry", progress: Progress | None = None
) -> list[str]:
    """End these sessions, in steps that hold no other client of the store up; the ids of those
    that there were."""
    return _run(_end_many(session_ids, reason, progress))


async def aend_many(
    session_ids: Collection[str], reason: str = "registry", progress: Progress | None = None
) -> list[str]:
    return await _arun(_end_many(session_ids, reason, progress))


def end_user(
    user: object, reason: str = "registry", progress: Progress | None = None
) -> list[LiveSession]:
    """End all sessions of this user, or the one with this primary key; those that there were."""
    return _run(_end_user(user_key(user), reason, progress))


async def aend_user(
    user: object, reason: str = "registry", progress: Progress | None = None
) -> list[LiveSession]:
    return await _arun(_end_user(user_key(user), reason, progress))


def end_anonymous(
    older_than: timedelta, reason: str = "registry", progress: Progress | None = None
) -> int:
    """End the sessions in which nobody is signed in and that were created longer ago than this;
    how many. Looks at every anonymous session, in bounded steps."""
    return _run(_end_anonymous(older_than, reason, progress))


async def aend_anonymous(
    older_than: timedelta, reason: str = "registry", progress: Progress | None = None
) -> int:
    return await _arun(_end_anonymous(older_than, reason, progress))


def sweep(limit: int = BATCH) -> int:
    """Drop about ``limit`` entries of sessions that expired; how many, 0 where none are left."""
    _check_limit(limit)
    return _store().sweep(limit)


async def asweep(limit: int = BATCH) -> int:
    _check_limit(limit)
    return await _store().asweep(limit)


def health() -> Health:
    """Whether the store answers, as a request would learn it: asked of one server in one round
    trip, and of none while all requests are refused anyway. One that refuses our password is of no
    use either."""
    store, start = _store(), time.perf_counter()
    try:
        store.exists(keys.make())
    except (SessionUnavailable, ImproperlyConfigured) as error:
        return Health(False, str(error), store.outages(), time.perf_counter() - start)
    return Health(True, "", store.outages(), time.perf_counter() - start)


async def ahealth() -> Health:
    store, start = _store(), time.perf_counter()
    try:
        await store.aexists(keys.make())
    except (SessionUnavailable, ImproperlyConfigured) as error:
        return Health(False, str(error), store.outages(), time.perf_counter() - start)
    return Health(True, "", store.outages(), time.perf_counter() - start)


def outages() -> list[Outage]:
    """The servers that this process knows not to answer, and since when. Asks nobody."""
    return _store().outages()


def examine() -> list[Finding]:
    """How the servers of the store are set up, where that endangers sessions."""
    return _store().examine()


def _store() -> Store:
    return get_store(settings.SESSION_CACHE_ALIAS)


def user_key(user: object) -> str:
    """The primary key by which sessions know a user, who may be given as such or by it already."""
    meta = getattr(user, "_meta", None)
    return str(user if meta is None else meta.pk.value_to_string(user))


def _check_limit(limit: int) -> None:
    # To Redis, one below 0 means all there are.
    if limit < 1:
        raise ValueError(f"limit is a number of sessions, at least 1, not {limit!r}")


def _names_context(session_id: str, name: str) -> bool:
    # No context has a name of anything else, and not every store could be asked for it.
    return keys.is_id(session_id) and name.isascii()


def _face(opened: Opened | None) -> LiveSession | None:
    return opened.session if opened else None


def _sizes(opened: Opened | None) -> tuple[LiveSession, dict[str, int]] | None:
    if opened is None:
        return None
    return opened.session, {
        name: len(name.encode("utf-8", "surrogatepass")) + len(raw)
        for name, raw in opened.fields.items()
    }


def _fields(opened: Opened | None) -> tuple[LiveSession, list[Field]] | None:
    if opened is None:
        return None
    return opened.session, [
        Field(name, size({name: raw}), raw) for name, raw in sorted(opened.fields.items())
    ]


def _count_of_users(users: Collection[object], most: int) -> Steps[int]:
    return len((yield from _places(list(map(user_key, users)), most)))


def _places(users: Collection[str], most: int) -> Steps[list[tuple[Cursor, str]]]:
    """Where the sessions of these users stand in the list, and whose they are."""
    found: list[tuple[Cursor, str]] = []
    for user in users:
        after: str | None = ""
        while after is not None and len(found) < most:
            part: Places = yield Verb("places_of_user", (user, most - len(found), after))
            found += [(place, user) for place in part.places]
            after = part.next
    return found


def _page(
    limit: int,
    after: Cursor | None,
    kinds: Collection[Kind],
    backward: bool,
    users: Collection[object],
) -> Steps[Page]:
    _check_limit(limit)
    for _ in range(TRIES):
        page = yield from _part(min(limit, MOST), after, kinds, backward, users)
        if page.sessions or page.next is None:
            break
        after = page.next
    return page


def _part(
    limit: int,
    after: Cursor | None,
    kinds: Collection[Kind],
    backward: bool,
    users: Collection[object],
) -> Steps[Page]:
    if not users:
        page: Page = yield Verb("page", (limit, after, kinds, backward))
        return page
    called = list(map(user_key, users))
    listed = yield from _places(called, OF_USERS)
    order = sorted(
        ((place.expires, place.session_id, user) for place, user in listed), reverse=not backward
    )
    if after is not None:
        left = (after.expires, after.session_id)
        order = [one for one in order if (one[:2] > left if backward else one[:2] < left)]
    here = order[:limit]
    there: dict[str, LiveSession] = {}
    for user in called:
        ids = [session_id for _, session_id, whose in here if whose == user]
        found: list[LiveSession] = yield Verb("get_many", (ids, user))
        there |= {one.id: one for one in found if one.user == user and _is_of(kinds, one)}
    places = [Cursor(expires, session_id) for expires, session_id, _ in here]
    return Page(
        [there[place.session_id] for place in places if place.session_id in there],
        places[-1] if order[limit:] else None,
        tuple(place for place in places if place.session_id in there),
        len(listed),
    )


def _is_of(kinds: Collection[Kind], session: LiveSession) -> bool:
    return not kinds or Kind(session.transport, session.user is not None) in kinds


def _search(
    matches: Callable[[LiveSession], bool],
    limit: int,
    after: Cursor | None,
    kinds: Collection[Kind],
    backward: bool,
    users: Collection[object],
) -> Steps[Page]:
    _check_limit(limit)
    found: list[tuple[Cursor, LiveSession]] = []
    for _ in range(SEARCHED // BATCH):
        page = yield from _part(BATCH, after, kinds, backward, users)
        matching = (
            (place, session)
            for place, session in zip(page.places, page.sessions, strict=True)
            if matches(session)
        )
        found += islice(matching, limit - len(found))
        after = page.next
        if len(found) == limit and found[-1][0] != page.places[-1]:
            after = found[-1][0]
        if len(found) == limit or after is None:
            break
    return Page([session for _, session in found], after, tuple(place for place, _ in found))


def _idle(
    longer_than: timedelta,
    limit: int,
    after: Mapping[Kind, Cursor],
    kinds: Collection[Kind],
    backward: bool,
) -> Steps[IdlePage]:
    _check_limit(limit)
    least = longer_than / timedelta(milliseconds=1)
    waiting: dict[Kind, deque[tuple[Cursor, LiveSession]]] = {}
    reached: dict[Kind, Cursor | None] = dict(after)
    behind: dict[Kind, Cursor | None] = {}
    goes_on, idle_to_the_end = False, set()
    places = {kind: after[kind] for kind in kinds if kind in after}
    if backward:
        # With the sessions that stand there: they are the last before the page. Of a kind that has
        # no place, nothing lies before.
        kinds = list(places)
        places = {kind: Cursor(at.expires, at.session_id + "~") for kind, at in places.items()}
    each = SEARCHED // max(len(kinds), 1)
    pages: dict[Kind, Page] = yield Verb("page_each", (each, places, kinds, not backward))
    for kind, page in pages.items():
        looked = list(zip(page.places, page.sessions, strict=True))
        if backward:
            # What is before the first of the list has no place: of the rest, one is left to be it.
            behind[kind] = page.next
            looked = [one for one in looked if one[0] != page.next]
        else:
            behind[kind] = page.next or (page.places[-1] if page.places else after.get(kind))
        waiting[kind] = deque(one for one in looked if one[1].idle_ms >= least)
        if page.next is not None:
            goes_on = True
            if looked and looked[-1][1].idle_ms >= least:
                idle_to_the_end.add(kind)

    found: list[LiveSession] = []
    which = max if backward else min
    while len(found) < limit:
        heads = [kind for kind, rest in waiting.items() if rest]
        # Those of a kind that were not looked at may have been idle longer than what is left.
        if not heads or any(not waiting[kind] for kind in idle_to_the_end):
            break
        kind = which(heads, key=lambda kind: waiting[kind][0][1].last_seen_ms)
        reached[kind], session = waiting[kind].popleft()
        found.append(session)

    # Where the time-outs of a kind differ, it was not in order.
    found.sort(key=lambda session: session.last_seen_ms)
    for kind, rest in waiting.items():
        if not rest:
            reached[kind] = behind[kind]
        elif backward:
            reached[kind] = rest[0][0]
    left = {kind: place for kind, place in reached.items() if place is not None}
    if backward:
        return IdlePage(found, left, after, bool(left))
    return IdlePage(found, after, left, goes_on or any(waiting.values()))


def _overview() -> Steps[Overview]:
    counts = yield Verb("count")
    activity = yield Verb("activity")
    memory = yield Verb("memory")
    firsts: dict[Kind, Page] = yield Verb("page_each", (FIRST, {}, KINDS, True))
    first = [session for page in firsts.values() for session in page.sessions]
    alarms = list(_alarms(sum(counts.values()), memory))
    for alarm in alarms:
        alarmed = {"of": alarm.of, "value": alarm.value, "limit": alarm.limit}
        yield Send(session_alarm, __name__, alarmed)
    oldest = min(first, key=lambda session: session.last_seen_ms, default=None)
    return Overview(counts, activity, memory, oldest, alarms)


def _alarms(live: int, memory: Memory | None) -> Iterator[Alarm]:
    limit = conf.HEADER_SESSIONS_ALERT_COUNT
    if limit is not None and live > limit:
        yield Alarm("count", live, limit)
    limit = conf.HEADER_SESSIONS_ALERT_BYTES
    if limit is not None and memory is not None and memory.used > limit:
        yield Alarm("bytes", memory.used, limit)


def _end_many(
    session_ids: Collection[str], reason: str, progress: Progress | None
) -> Steps[list[str]]:
    ids = [session_id for session_id in dict.fromkeys(session_ids) if keys.is_id(session_id)]
    done: list[str] = []
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        answers = yield Verb("end_many", (some,))
        ended = [session_id for session_id, there in zip(some, answers, strict=True) if there]
        for session_id in ended:
            yield Send(session_ended, __name__, {"session_id": session_id, "reason": reason})
        done += ended
        if progress:
            progress(len(done), start + len(some))
    return done


def _end_user(user: str, reason: str, progress: Progress | None) -> Steps[list[LiveSession]]:
    done: list[LiveSession] = []
    looked = 0
    # In parts, until there are none: those of one question may be fewer than there are.
    while found := (yield Verb("of_user", (user, BATCH))):
        known = {session.id: session for session in found}
        ended = yield from _end_many(known, reason, None)
        done += map(known.__getitem__, ended)
        looked += len(found)
        if progress:
            progress(len(done), looked)
    return done


def _end_anonymous(older_than: timedelta, reason: str, progress: Progress | None) -> Steps[int]:
    least = older_than / timedelta(milliseconds=1)
    anonymous = [kind for kind in KINDS if not kind.signed_in]
    done, looked, after = 0, 0, None
    while True:
        page: Page = yield Verb("page", (BATCH, after, anonymous, True))
        old = [session.id for session in page.sessions if session.age_ms > least]
        done += len((yield from _end_many(old, reason, None)))
        looked += len(page.sessions)
        if progress:
            progress(done, looked)
        after = page.next
        if after is None:
            return done


def _run(steps: Steps[T]) -> T:
    store = _store()
    return drive(steps, lambda step: step.ask(store) if isinstance(step, Verb) else step.send())


async def _arun(steps: Steps[T]) -> T:
    store = _store()
    return await adrive(
        steps, lambda step: step.aask(store) if isinstance(step, Verb) else step.asend()
    )
