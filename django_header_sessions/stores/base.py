"""The contract of a store: its verbs, their edges, and the values they exchange.

A store answers *there*, *not there*, or raises ``SessionUnavailable``; it never mistakes one for
another. Times are judged by the store's own clock: ages go in as durations in milliseconds, and
moments come out as the store saw them. Every verb has an async twin, named with a leading ``a``,
that differs in nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from ..fields import Changes
from ..keys import SessionKey
from ..origin import Origin
from .bell import Waiter

GRAIN = 60_000
"""Most milliseconds that "last seen" lags behind: a session that is used all the time is written
once in this time, or in 1/32 of its idle timeout where that is shorter. It lives at most this
much longer than its idle timeout."""

ASK_AGAIN = 1_000
"""Most milliseconds after which one who waits for a lock asks again: a wake-up can be lost."""

PATIENCE = 3 * ASK_AGAIN
"""Milliseconds after which one who waits for a lock and did not ask again is passed over."""

CREATE_TRIES = 3
"""Ids drawn before a creation gives up. One in 2^77 is taken; more than one taken is no chance."""


def grain(idle: int) -> int:
    """Milliseconds that a session of this idle timeout may be used without being written."""
    return min(GRAIN, idle // 32)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long sessions live by default, in milliseconds."""

    idle: int
    absolute: int | None


@dataclass(frozen=True, slots=True)
class Expiry:
    """A lifetime of a session's own, in milliseconds: an idle timeout, or a deadline from now.
    ``default`` gives the session back to its terms."""

    kind: Literal["default", "idle", "deadline"]
    ms: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """A session that is to be created."""

    transport: str
    fields: dict[str, bytes]
    user: str | None = None
    expiry: Expiry | None = None
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True, slots=True)
class ContextChange:
    """What one commit does to a context of the session.

    ``idle`` is the idle timeout in milliseconds of one that is made here; None: it has to be there.
    With ``promote`` its fields become the session's afterwards, and it ends. ``changes`` set and
    delete, and nothing else.
    """

    name: str
    changes: Changes = field(default_factory=Changes)
    idle: int | None = None
    promote: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit does, all of it or nothing.

    ``signed`` is whether the user changes, to ``user``; a sign-in restarts the absolute timeout.
    With a ``ticket`` it is done only by who holds the session's lock with it, and ``unlock`` gives
    the lock back afterwards. ``most`` is how many contexts the session may have, where some are
    made.
    """

    changes: Changes = field(default_factory=Changes)
    signed: bool = False
    user: str | None = None
    expiry: Expiry | None = None
    rotate_to: SessionKey | None = None
    ticket: str = ""
    unlock: bool = False
    contexts: Sequence[ContextChange] = ()
    most: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that was there when it was asked for."""

    fields: dict[str, bytes]
    session: LiveSession


@dataclass(frozen=True, slots=True)
class Queued:
    """Somebody else has the lock. Ask again when the bell rings, or after so many milliseconds."""

    ask_again: int


@dataclass(frozen=True, slots=True)
class LiveContext:
    """What people may see of a context. ``size`` is the bytes of the names and values of its
    fields, ``expires_in`` the milliseconds until it is over if it is not used."""

    name: str
    size: int
    fields: int
    expires_in: int


@dataclass(frozen=True, slots=True)
class Committed:
    """``expires_in`` is in milliseconds, None where the commit did not move it; ``total`` is the
    counter that was added to, ``promoted`` what the session has of a context now."""

    expires_in: int | None = None
    total: int | None = None
    promoted: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveSession:
    """What people may see of a session. Opens nothing.

    Moments are milliseconds since 1970 by the store's clock.
    """

    id: str
    transport: str
    user: str | None
    created_ms: int
    last_seen_ms: int
    expires_ms: int
    expires_in: int
    """Milliseconds, at the moment the store was asked, until it is over if it is not used."""
    ip: str = ""
    user_agent: str = ""
    deadline_ms: int | None = None
    signed_in_ms: int | None = None
    """When its user signed in; None where nobody has."""
    size: int | None = None
    """Bytes of the names and values of its fields; None where it was not asked for."""
    fields: int | None = None
    """How many fields it has; None where that was not asked for."""

    @property
    def age_ms(self) -> int:
        """How old it was when the store was asked."""
        return self.expires_ms - self.expires_in - self.created_ms

    @property
    def idle_ms(self) -> int:
        """How long it had not been used when the store was asked, to within a grain."""
        return self.expires_ms - self.expires_in - self.last_seen_ms

    @property
    def created(self) -> datetime:
        """When it was stored first."""
        return _moment(self.created_ms)

    @property
    def last_seen(self) -> datetime:
        """When it was used last, to within a grain."""
        return _moment(self.last_seen_ms)

    @property
    def expires(self) -> datetime:
        """The end of its idle timeout or its deadline, whichever is sooner."""
        return _moment(self.expires_ms)

    @property
    def deadline(self) -> datetime | None:
        """The end of its absolute timeout; None where it has none."""
        return None if self.deadline_ms is None else _moment(self.deadline_ms)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of the list ended."""

    expires: int
    session_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some live sessions, latest to expire first; ``next`` is None on the last page."""

    sessions: list[LiveSession]
    next: Cursor | None
    places: tuple[Cursor, ...] = ()
    """Where each of the sessions stands in the list."""
    total: int | None = None
    """How many the list holds in all; None where that was not counted."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where some live sessions of one user stand in the list, in the order of their ids; go on
    after ``next``, which is None where there are no more. There may be none, and yet a next."""

    places: list[Cursor]
    next: str | None = None


HOUR = 60
"""Minutes for which a store remembers how many sessions were created and ended."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened to sessions in one minute, which begins at ``start_ms`` since 1970."""

    start_ms: int
    created: int = 0
    ended: int = 0
    expired: int = 0
    """How many were found to have expired: by a sweep, or by whoever came upon them."""

    @property
    def start(self) -> datetime:
        return _moment(self.start_ms)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the servers of a store use, in bytes: other data that they hold is part of it."""

    used: int
    limit: int | None = None
    policy: str = ""
    """What a server does when it has used its limit; empty where there is no such thing."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A server that did not answer, and is not asked by requests before a probe has passed."""

    server: str
    since: datetime
    error: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the servers of a store say of themselves, and what to do about it."""

    level: Literal["ok", "warning", "error"]
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """What the list can be filtered by without looking at a session."""

    transport: str
    signed_in: bool


class Store(Protocol):
    """What holds the sessions of one cache alias."""

    lists: bool
    """Whether the listing verbs work; where not, they raise ``ListingNotSupported``."""

    in_own_thread: bool
    """Whether it is never asked in an event loop, but in the thread that the request has for it."""

    def open(self, key: SessionKey, transport: str, terms: Terms) -> Opened | None:
        """The session of ``key``, its idle timeout begun anew; one round trip.

        None where there is none: never issued, ended, expired, or made on another transport.
        Raises ``SessionSuperseded`` where the key was good until a rotation (one of the last
        four). An open that cannot write because memory is full still answers.
        """

    async def aopen(self, key: SessionKey, transport: str, terms: Terms) -> Opened | None: ...

    def create(self, draft: Draft, terms: Terms) -> tuple[SessionKey, int]:
        """Store a new session; its key, and the milliseconds until it expires; one round trip."""

    async def acreate(self, draft: Draft, terms: Terms) -> tuple[SessionKey, int]: ...

    def commit(self, key: SessionKey, transport: str, terms: Terms, commit: Commit) -> Committed:
        """Make the changes of ``commit`` and no others; one round trip.

        Raises ``SessionEnded`` or ``SessionSuperseded``, and then nothing was changed; likewise
        ``LeaseExpired`` where the ticket does not hold the lock any more, ``ContextUnknown`` where
        a context has to be there and is not, ``TooManyContexts``, ``TypeError`` where the counter
        holds no integer, ``OverflowError`` beyond 64 bits.
        """

    async def acommit(
        self, key: SessionKey, transport: str, terms: Terms, commit: Commit
    ) -> Committed: ...

    def waiter(self) -> Waiter:
        """A new ticket, and what its owner waits with. Asks nobody; to be closed."""

    def lock(
        self, key: SessionKey, transport: str, terms: Terms, ticket: str, lease: int
    ) -> Opened | Queued | None:
        """Take the lock of the session for ``lease`` milliseconds and open it as it is then, in
        one round trip; ``Queued`` where others have it or have waited longer.

        Who waits has a place in the order of arrival for as long as it asks again within
        ``PATIENCE``. Asked again by its holder, it opens the session. Else as ``open``.
        """

    async def alock(
        self, key: SessionKey, transport: str, terms: Terms, ticket: str, lease: int
    ) -> Opened | Queued | None: ...

    def unlock(self, session_id: str, ticket: str) -> None:
        """Give the lock back, or the place of one who waits; no error where it was neither."""

    async def aunlock(self, session_id: str, ticket: str) -> None: ...

    def open_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str
    ) -> dict[str, bytes] | None:
        """The fields of a context, its idle timeout begun anew; None where there is none of this
        name. One round trip. Raises ``SessionEnded`` or ``SessionSuperseded``."""

    async def aopen_context(
        self, key: SessionKey, transport: str, terms: Terms, name: str
    ) -> dict[str, bytes] | None: ...

    def contexts(self, session_id: str) -> list[LiveContext]:
        """The contexts of a session, by name. Not a use of them."""

    async def acontexts(self, session_id: str) -> list[LiveContext]: ...

    def end_context(self, session_id: str, name: str) -> bool:
        """End one context; False where there was none, which is not an error."""

    async def aend_context(self, session_id: str, name: str) -> bool: ...

    def end(self, session_id: str) -> bool:
        """End the session for ever, whatever its key is by now; one round trip.

        False where there was none, which is not an error.
        """

    async def aend(self, session_id: str) -> bool: ...

    def end_many(self, session_ids: Collection[str]) -> list[bool]:
        """``end`` for each of them, in few round trips that hold nobody else up for long."""

    async def aend_many(self, session_ids: Collection[str]) -> list[bool]: ...

    def exists(self, key: SessionKey) -> bool:
        """Whether ``key`` opens a session, on whichever transport. Does not count as use."""

    async def aexists(self, key: SessionKey) -> bool: ...

    def get(self, session_id: str) -> Opened | None:
        """One session by its id, with its fields; None where there is none. Not a use of it."""

    async def aget(self, session_id: str) -> Opened | None: ...

    def get_many(self, session_ids: Collection[str], user: str = "") -> list[LiveSession]:
        """Those of these sessions that there are, without their fields. Not a use of them.

        ``user`` is whose they are listed as: no list names those that are not there any longer.
        """

    async def aget_many(
        self, session_ids: Collection[str], user: str = ""
    ) -> list[LiveSession]: ...

    def count(self) -> dict[Kind, int]:
        """How many live sessions there are of each kind."""

    async def acount(self) -> dict[Kind, int]: ...

    def page(
        self,
        limit: int,
        after: Cursor | None = None,
        kinds: Collection[Kind] = (),
        backward: bool = False,
    ) -> Page:
        """At most ``limit`` live sessions behind ``after``, of some kinds (none named: of all).

        A page may hold fewer than ``limit`` and still have a next one. ``backward`` turns the
        list round: first to expire first.
        """

    async def apage(
        self,
        limit: int,
        after: Cursor | None = None,
        kinds: Collection[Kind] = (),
        backward: bool = False,
    ) -> Page: ...

    def page_each(
        self, limit: int, after: Mapping[Kind, Cursor], kinds: Collection[Kind], backward: bool
    ) -> dict[Kind, Page]:
        """A ``page`` of each of these kinds on its own, behind its own ``after``, in as few round
        trips as one page."""

    async def apage_each(
        self, limit: int, after: Mapping[Kind, Cursor], kinds: Collection[Kind], backward: bool
    ) -> dict[Kind, Page]: ...

    def of_user(self, user: str, limit: int = 1000) -> list[LiveSession]:
        """The live sessions of a user, oldest first, at most ``limit`` of them."""

    async def aof_user(self, user: str, limit: int = 1000) -> list[LiveSession]: ...

    def places_of_user(self, user: str, limit: int = 1000, after: str = "") -> Places:
        """Where at most ``limit`` live sessions of a user stand in the list; no session is looked
        at, so that one that was thrown out is still among them."""

    async def aplaces_of_user(self, user: str, limit: int = 1000, after: str = "") -> Places: ...

    def sweep(self, limit: int = 200) -> int:
        """Drop index entries of sessions that expired, at most about ``limit``; how many were.

        Zero means that none are left. Nothing depends on it but memory.
        """

    async def asweep(self, limit: int = 200) -> int: ...

    def activity(self) -> list[Activity]:
        """The last ``HOUR`` minutes by the store's clock, this one last, of all servers together.
        Where there is no list, that cannot be known either."""

    async def aactivity(self) -> list[Activity]: ...

    def memory(self) -> Memory | None:
        """How much memory the sessions' servers use; None where that cannot be known."""

    async def amemory(self) -> Memory | None: ...

    def outages(self) -> list[Outage]:
        """The servers that this process knows not to answer. Asks nobody."""

    def examine(self) -> list[Finding]:
        """How the servers are set up, where that endangers sessions; asks each of them."""


KINDS = tuple(
    Kind(transport, signed_in) for transport in ("cookie", "header") for signed_in in (False, True)
)
