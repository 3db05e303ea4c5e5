"""Contexts: small mappings of their own inside a session, for calls that run side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import keys
from .conf import conf
from .exceptions import ContextNameInvalid, ContextUnknown, SessionError
from .fields import Changes, Fields, field_name
from .steps import Steps, Verb
from .stores.base import ContextCommit, LiveContext

if TYPE_CHECKING:
    from .engine import SessionStore

HANDLE = "~"
"""Begins the names that are made here; no name that others give does."""

_well_formed = re.compile(r"[!-~]{1,64}", re.ASCII).fullmatch


def make_handle() -> str:
    """A name that was never used before."""
    return HANDLE + keys.make()[:20]


def check_name(name: object) -> str:
    """``name``, if a context can have it; raises ``ContextNameInvalid``."""
    if not isinstance(name, str) or not _well_formed(name):
        raise ContextNameInvalid(
            "The name of a context is 1 to 64 visible ASCII characters, without spaces."
        )
    return name


class Context(MutableMapping[str, Any]):
    """Some fields of a session's own that its other contexts do not see.

    It is stored with the answer, as the session is, or by ``save``; what was changed in place is
    found without being told of. A name that begins with an underscore would be Django's own in the
    session that ``promote`` writes to, and is refused with ``ValueError``.
    """

    def __init__(
        self,
        session: SessionStore,
        contexts: Contexts,
        name: str,
        fields: Fields,
        idle: int,
        *,
        new: bool,
    ) -> None:
        self.name = name
        self.fields = fields
        self.idle = idle
        """Milliseconds without a use after which it is over; of one that is stored the store
        knows."""
        self.new = new
        """Whether it is to be made when it is stored."""
        self._session = session
        self._contexts = contexts

    def __getitem__(self, name: object) -> Any:
        return self.fields[name]

    def __setitem__(self, name: object, value: Any) -> None:
        if field_name(name).startswith("_"):
            raise ValueError(f"the field {name!r} would be Django's own")
        self.fields[name] = value

    def __delitem__(self, name: object) -> None:
        del self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        return f"<context {self.name}: {', '.join(self)}>"

    def save(self) -> None:
        """Send what was changed. Raises as the session's ``save``; ``ContextUnknown`` where it was
        ended meanwhile, ``TooManyContexts`` where it is new and one too many."""
        self._session._run(self._contexts.save(self))

    async def asave(self) -> None:
        await self._session._arun(self._contexts.save(self))

    def promote(self) -> None:
        """Make its fields the session's own, in one commit, and end it. Those of the session that
        have the same names are replaced."""
        self._session._run(self._contexts.promote(self))

    async def apromote(self) -> None:
        await self._session._arun(self._contexts.promote(self))

    def end(self) -> bool:
        """End it alone; False where there was none in the store."""
        return self._session._run(self._contexts.end(self.name))

    async def aend(self) -> bool:
        return await self._session._arun(self._contexts.end(self.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.save()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.asave()


class Contexts:
    """Those contexts of a session that one request uses."""

    def __init__(self, session: SessionStore, own_name: str | None) -> None:
        self._session = session
        self._own_name = own_name
        self._used: dict[str, Context] = {}

    def set_read_only(self, value: bool) -> None:
        for context in self._used.values():
            context.fields.read_only = value

    def forget(self) -> None:
        """The session has ended, and its contexts with it."""
        self._used.clear()

    def open(self, name: str | None, idle_timeout: float | None) -> Steps[Context]:
        if name is None:
            name = self._own_name
            if name is None:
                raise ContextNameInvalid("The request names no context.")
        known, session = self._used.get(check_name(name)), self._session
        if known is not None:
            return known
        raw: dict[str, bytes] | None = None
        if session.session_key is not None:
            raw = yield self._ask("open_context", name)
        if raw is None and name.startswith(HANDLE):
            raise ContextUnknown("There is no such context in this session.")
        return self._made(name, raw, idle_timeout)

    def make(self, idle_timeout: float | None) -> Steps[str]:
        self._session._check_writable()
        context = self._made(make_handle(), None, idle_timeout)
        try:
            yield from self.save(context)
        except SessionError:
            del self._used[context.name]
            raise
        return context.name

    def save(self, context: Context) -> Steps[None]:
        changes, session = context.fields.changes(), self._session
        if not changes and not context.new:
            return
        session._check_writable()
        if session.session_key is None:
            yield from session._create()
        context.fields.check_size(changes, conf.HEADER_SESSIONS_MAX_BYTES)
        commit = ContextCommit(
            changes, context.new, context.idle, conf.HEADER_SESSIONS_MAX_CONTEXTS, session._ticket
        )
        yield self._ask("commit_context", context.name, commit)
        context.fields.committed(changes)
        context.new = False

    def save_changed(self) -> Steps[None]:
        for context in list(self._used.values()):
            # One that was only looked for is not made.
            if not context.fields.read_only and context.fields.changes():
                yield from self.save(context)

    def promote(self, context: Context) -> Steps[None]:
        session = self._session
        fields = yield from session._loaded()
        fields.check_size(Changes(set=context.fields.encoded()), conf.HEADER_SESSIONS_MAX_BYTES)
        if context.new:
            # Nobody else knows of it, so there is nothing to merge that is not here.
            for name, value in context.items():
                session[name] = value
            yield from session._save(must_create=False)
        else:
            session._check_writable()
            changes = context.fields.changes()
            fields.merged((yield self._ask("promote", context.name, changes, session._ticket)))
        self._used.pop(context.name, None)

    def stored(self) -> Steps[list[LiveContext]]:
        key = self._session.session_key
        return [] if key is None else (yield Verb("contexts", (key.id,)))

    def end(self, name: str) -> Steps[bool]:
        self._session._check_writable()
        self._used.pop(check_name(name), None)
        key = self._session.session_key
        return key is not None and (yield Verb("end_context", (key.id, name)))

    def _made(self, name: str, raw: dict[str, bytes] | None, idle_timeout: float | None) -> Context:
        session = self._session
        idle = session._terms().idle if idle_timeout is None else int(idle_timeout * 1000)
        key = session.session_key
        fields = Fields(session._codec, raw, session_id=key.id if key else "")
        fields.read_only = session.read_only
        context = self._used[name] = Context(session, self, name, fields, idle, new=raw is None)
        return context

    def _ask(self, verb: str, *args: Any) -> Verb:
        session = self._session
        return Verb(verb, (session.session_key, session.transport, session._terms(), *args))
