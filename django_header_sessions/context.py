"""Contexts: small mappings of their own inside a session, for calls that run side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import keys
from .conf import conf
from .exceptions import ContextNameInvalid, ContextUnknown
from .fields import Changes, Fields, field_name
from .steps import Steps, Verb
from .stores.base import ContextChange, LiveContext
from .turn import Turn, in_turn

if TYPE_CHECKING:
    from .engine import SessionStore

HANDLE = "~"
"""Begins the names that are made here; no name that others give does."""

# No comma: it is what servers put between two headers of the same name.
_well_formed = re.compile(r"[!-+\--~]{1,64}", re.ASCII).fullmatch


def make_handle() -> str:
    """A name that was never used before."""
    return HANDLE + keys.make()[:20]


def check_name(name: object) -> str:
    """``name``, if a context can have it; raises ``ContextNameInvalid``."""
    if not isinstance(name, str) or not _well_formed(name):
        raise ContextNameInvalid(
            "The name of a context is 1 to 64 visible ASCII characters, without spaces and commas."
        )
    return name


class Context(MutableMapping[str, Any]):
    """Some fields of a session's own that its other contexts do not see.

    It is stored with the answer, as the session is, or by ``save``; what was changed in place is
    found without being told of. A name that begins with an underscore would be Django's own in the
    session that ``promote`` writes to, and is refused with ``ValueError``.
    """

    def __init__(self, contexts: Contexts, name: str, fields: Fields, idle: int | None) -> None:
        self.name = name
        self._fields = fields
        self._idle = idle  # of one that is made when it is stored; None: it is there
        self._contexts = contexts
        self._before: list[Fields] = []

    def __getitem__(self, name: object) -> Any:
        return self._fields[name]

    def __setitem__(self, name: object, value: Any) -> None:
        if field_name(name).startswith("_"):
            raise ValueError(f"the field {name!r} would be Django's own")
        self._fields[name] = value

    def __delitem__(self, name: object) -> None:
        del self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<context {self.name}: {', '.join(self)}>"

    def save(self) -> None:
        """Send what was changed. Raises as the session's ``save``; ``ContextUnknown`` where it was
        ended meanwhile, ``TooManyContexts`` where it is new and one too many."""
        self._contexts.run(self._contexts.save(self))

    async def asave(self) -> None:
        await self._contexts.arun(self._contexts.save(self))

    def promote(self) -> None:
        """Make its fields the session's own, in one commit, and end it. Those of the session that
        have the same names are replaced."""
        self._contexts.run(self._contexts.promote(self))

    async def apromote(self) -> None:
        await self._contexts.arun(self._contexts.promote(self))

    def end(self) -> bool:
        """End it alone; False where there was none in the store."""
        return self._contexts.run(self._contexts.end(self.name))

    async def aend(self) -> bool:
        return await self._contexts.arun(self._contexts.end(self.name))

    def change(self, *, promote: bool) -> ContextChange:
        """What a commit does to it."""
        self._fields.begin_sending()
        changes = self._fields.changes()
        self._fields.check_size(changes, conf.HEADER_SESSIONS_MAX_BYTES)
        return ContextChange(self.name, changes, self._idle, promote)

    def committed(self, change: ContextChange) -> None:
        """The store has made this change."""
        self._fields.committed(change.changes)
        self._idle = None

    def reread(self, raw: dict[str, bytes] | None) -> None:
        """The store has this by now; what was changed here is still to be sent."""
        if raw is not None:
            self._idle = None
        elif self._idle is None and not self.name.startswith(HANDLE):
            self._idle = self._contexts.default_idle()
        self._fields = self._fields.rebased(raw or {})

    def undo(self, before: Fields | None) -> None:
        """Forget what was changed since, but for what was stored."""
        self._fields = self._fields.undone(before)

    def __enter__(self) -> Self:
        self._before.append(self._fields.copy())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before = self._before.pop()
        if error is None:
            self.save()
        else:
            self.undo(before)

    async def __aenter__(self) -> Self:
        self._before.append(self._fields.copy())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before = self._before.pop()
        if error is None:
            await self.asave()
        else:
            self.undo(before)


class Contexts:
    """Those contexts of a session that one request uses."""

    def __init__(self, session: SessionStore, own_name: str | None) -> None:
        self.run, self.arun = session._run, session._arun
        self._session = session
        self._own_name = own_name
        self._used: dict[str, Context] = {}

    @property
    def turn(self) -> Turn:
        return self._session.turn

    def set_read_only(self, value: bool) -> None:
        for context in self._used.values():
            context._fields.read_only = value

    def default_idle(self) -> int:
        return self._session._idle_ms(None)

    def reread(self) -> Steps[None]:
        """Have them all as the store has them by now."""
        for context in list(self._used.values()):
            context.reread((yield from self._stored_as(context.name)))

    def forget(self) -> None:
        """The session is over, and they with it."""
        self._used.clear()

    def copies(self) -> list[tuple[Context, Fields]]:
        """Their fields by now, for ``undo``."""
        return [(context, context._fields.copy()) for context in self._used.values()]

    def undo(self, before: list[tuple[Context, Fields]]) -> None:
        """Forget what was changed since, but for what was stored already."""
        for context in self._used.values():
            # Not by its name, which may be that of another that was ended meanwhile.
            context.undo(next((fields for one, fields in before if one is context), None))

    @property
    def changed(self) -> list[Context]:
        """Those that have something to store. One that was only looked for is not made."""
        return [
            context
            for context in self._used.values()
            if not context._fields.read_only and context._fields.changes()
        ]

    @in_turn
    def open(self, name: str | None, idle_timeout: float | None) -> Steps[Context]:
        if name is None:
            name = self._own_name
            if name is None:
                raise ContextNameInvalid("The request names no context.")
        known, session = self._used.get(check_name(name)), self._session
        if known is not None:
            return known
        session.accessed = True
        session._face_the_unknown()
        raw = yield from self._stored_as(name)
        if raw is None and name.startswith(HANDLE):
            raise ContextUnknown("There is no such context in this session.")
        return self._made(name, raw, idle_timeout)

    @in_turn
    def _stored_as(self, name: str) -> Steps[dict[str, bytes] | None]:
        session = self._session
        if session.session_key is None:
            return None
        asked = (session.session_key, session.transport, session._terms(), name)
        raw: dict[str, bytes] | None = yield Verb("open_context", asked)
        return raw

    @in_turn
    def make(self, idle_timeout: float | None) -> Steps[str]:
        self._session._check_writable()
        context = self._made(make_handle(), None, idle_timeout)
        try:
            yield from self.save(context)
        except BaseException:
            self._used.pop(context.name, None)
            raise
        return context.name

    @in_turn
    def save(self, context: Context) -> Steps[None]:
        """Store one of them, and nothing else of the session."""
        if context._fields.changes() or context._idle is not None:
            self._session._check_writable()
            self._check_there(context)
            yield from self._session._save_contexts([context])

    @in_turn
    def promote(self, context: Context) -> Steps[None]:
        session = self._session
        fields = yield from session._loaded()
        session._check_writable()
        self._check_there(context)
        merged = Changes(set=context._fields.encoded())
        fields.check_size(merged, conf.HEADER_SESSIONS_MAX_BYTES)
        fields.begin_sending()
        yield from session._save_contexts([context], promote=True)
        self._used.pop(context.name, None)

    def _check_there(self, context: Context) -> None:
        if self._used.get(context.name) is not context:
            raise ContextUnknown(f"The context {context.name} was ended by this request.")

    @in_turn
    def stored(self) -> Steps[list[LiveContext]]:
        yield from self._session._loaded()
        key = self._session.session_key
        return [] if key is None else (yield Verb("contexts", (key.id,)))

    @in_turn
    def end(self, name: str) -> Steps[bool]:
        self._session._check_writable()
        self._used.pop(check_name(name), None)
        # Whoever knows no more than the id of a session is not to end anything of it.
        yield from self._session._loaded()
        key = self._session.session_key
        return key is not None and (yield Verb("end_context", (key.id, name)))

    def _made(self, name: str, raw: dict[str, bytes] | None, idle_timeout: float | None) -> Context:
        session = self._session
        if idle_timeout is not None and not idle_timeout > 0:
            raise ValueError(f"idle_timeout is a positive number of seconds, not {idle_timeout!r}")
        idle = session._idle_ms(idle_timeout) if raw is None else None
        key = session.session_key
        fields = Fields(session._codec, raw, session_id=key.id if key else "")
        fields.read_only = session.read_only
        context = self._used[name] = Context(self, name, fields, idle)
        return context
