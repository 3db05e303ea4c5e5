"""The fields of one session: encoded one by one, decoded when asked for, changes remembered."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, MutableMapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, Protocol

from django.contrib.sessions.serializers import JSONSerializer

from .exceptions import SessionReadOnly, SessionTooLarge, SessionUnreadable

TAG = b"\xff"
"""Begins a serialised value. No UTF-8 text does, so a bare ``str`` cannot be mistaken for one."""

MAX_FIELDS = 1000
"""Fields of one session: what one script can write without holding the store up for others."""

USER_ID = "_auth_user_id"
AUTH_FIELDS = (USER_ID, "_auth_user_backend", "_auth_user_hash")
EXPIRY = "_session_expiry"

INT64 = range(-(2**63), 2**63)
_bare_int = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch
_IMMUTABLE = (str, int, float, bool, type(None))


class Serializer(Protocol):
    """What ``SESSION_SERIALIZER`` names."""

    def dumps(self, obj: Any) -> bytes: ...
    def loads(self, data: bytes) -> Any: ...


class Codec:
    """Turns the value of one field into the bytes a store keeps, and back.

    With Django's own JSON serializer a ``str`` is kept as itself and an integer of up to 64 bits
    as its digits, which keeps a session small and lets Redis count. Any other serializer may
    encrypt, so everything goes through it; and as Django promises it the dictionary of a session's
    data, it is given one, of this field.
    """

    __slots__ = ("_serializer", "bare")

    def __init__(self, serializer: type[Serializer]) -> None:
        self._serializer = serializer()
        self.bare = serializer is JSONSerializer

    def encode(self, name: str, value: Any) -> bytes:
        """``value`` as a store keeps it; whatever the serializer raises for what it cannot do."""
        if self.bare:
            kind = type(value)
            if kind is str:
                try:
                    raw = value.encode()
                except UnicodeEncodeError:
                    # JSON lets half of a surrogate pair into a str; UTF-8 does not.
                    return TAG + self._serializer.dumps(value)
                if not is_counter(raw):
                    return bytes(raw)
            elif isinstance(value, int) and kind is not bool and int(value) in INT64:
                return b"%d" % value
            return TAG + self._serializer.dumps(value)
        return TAG + self._serializer.dumps({name: value})

    def decode(self, name: str, raw: bytes) -> Any:
        """The value that ``encode`` was given. Raises ``ValueError`` or what the serializer does
        where ``raw`` was written by another serializer, ``KeyError`` where for another field."""
        if raw[:1] == TAG:
            loaded = self._serializer.loads(raw[1:])
            return loaded if self.bare else loaded[name]
        if not self.bare:
            raise ValueError("not written with this serializer")
        return int(raw) if is_counter(raw) else raw.decode()

    def differs(self, name: str, value: Any, raw: bytes) -> bool:
        """Whether ``value``, decoded from ``raw`` a while ago, was changed in place since."""
        if isinstance(value, _IMMUTABLE):
            return False
        now = self.encode(name, value)
        if now == raw or self.bare:
            return now != raw
        # A serializer that encrypts writes the same value differently each time. Both are decoded,
        # as what was assigned need not equal what is read of it: a tuple is read as a list.
        return bool(self.decode(name, raw) != self.decode(name, now))

    def holds(self, name: str, value: Any, raw: bytes) -> bool:
        """Whether ``value`` is a mutable one that is as ``raw`` has it."""
        try:
            return not isinstance(value, _IMMUTABLE) and not self.differs(name, value, raw)
        except Exception:  # whatever a serializer raises for what was put into it
            return False


def is_counter(raw: bytes) -> bool:
    """Whether ``raw`` is an integer as Redis counts with it."""
    return _bare_int(raw) is not None and int(raw) in INT64


def field_name(name: object) -> str:
    """``name`` as a field's name: coerced as JSON coerces the keys of an object."""
    if isinstance(name, str):
        return name
    if name is None or isinstance(name, bool | int | float):
        return json.dumps(name)
    raise TypeError(f"a session's fields are named by strings, not by {type(name).__name__}")


@dataclass(frozen=True, slots=True)
class Changes:
    """What one commit does to the fields of a session, in this order."""

    clear: bool = False
    set: dict[str, bytes] = field(default_factory=dict)
    delete: Collection[str] = ()
    add: tuple[str, int] | None = None
    """One counter and what is added to it; not a field that is set or deleted as well."""

    def __bool__(self) -> bool:
        return bool(self.clear or self.set or self.delete or self.add)

    def applied_to(self, fields: dict[str, bytes]) -> dict[str, bytes]:
        """``fields`` after these changes. Raises ``TypeError`` where the counter is none."""
        after = {} if self.clear else dict(fields)
        after.update(self.set)
        for name in self.delete:
            after.pop(name, None)
        if self.add:
            name, by = self.add
            after[name] = b"%d" % added(name, after.get(name), by)
        return after


def added(name: str, raw: bytes | None, by: int) -> int:
    """The counter ``name``, stored as ``raw``, raised by ``by``.

    Raises ``TypeError`` where it holds no integer, ``OverflowError`` beyond 64 bits.
    """
    if raw is not None and not is_counter(raw):
        raise TypeError(f"the field {name!r} holds no integer, so it cannot be incremented")
    total = int(raw or 0) + by
    if total not in INT64:
        raise OverflowError(f"the counter {name!r} would exceed 64 bits")
    return total


class Mark(NamedTuple):
    """That a field was assigned, or deleted, and when."""

    at: int
    there: bool


_moments = count(1)
"""Numbers that tell what came first, of all fields of a process."""


class Fields(MutableMapping[str, Any]):
    """The data of a session as it was opened, and what was done to it since.

    A value is decoded when it is first asked for: a request that reads one field of a large
    session does not pay for the others.
    """

    __slots__ = (
        *("_assigned", "_cleared", "_codec", "_raw", "_sending", "_sent", "_values"),
        *("read_only", "session_id", "stored"),
    )

    def __init__(
        self,
        codec: Codec,
        raw: dict[str, bytes] | None = None,
        *,
        stored: dict[str, bytes] | None = None,
        session_id: str = "",
    ) -> None:
        self._codec = codec
        self._raw = raw if raw is not None else {}
        self.stored = stored if stored is not None else self._raw
        """What the store held when it was asked last; more than these where they were cleared."""
        self._values: dict[str, Any] = {}
        self._assigned: dict[str, Mark] = {}
        self._cleared = 0
        self.session_id = session_id
        self._sending = 0  # when the last commit began: what was assigned later, it does not send
        # When a commit began that has sent a field, or (under None) a clear; one for all copies.
        self._sent: dict[str | None, int] = {}
        self.read_only = False
        """Whether to assign or delete a field raises ``SessionReadOnly``."""

    def __getitem__(self, name: object) -> Any:
        name = field_name(name)
        try:
            return self._values[name]
        except KeyError:
            if name not in self:
                raise
        value = self._values[name] = self._decode(name)
        return value

    def _decode(self, name: str) -> Any:
        try:
            return self._codec.decode(name, self._raw[name])
        except Exception as error:  # whatever a project's own serializer raises
            raise SessionUnreadable(
                f"The field {name!r} of session {self.session_id} cannot be read with "
                "SESSION_SERIALIZER. It was probably written with another one: set that one "
                "again, or end the session."
            ) from error

    def __setitem__(self, name: object, value: Any) -> None:
        self.check_writable()
        name = field_name(name)
        self._values[name] = value
        self._assigned[name] = Mark(next(_moments), there=True)

    def __delitem__(self, name: object) -> None:
        self.check_writable()
        name = field_name(name)
        if name not in self:
            raise KeyError(name)
        self._values.pop(name, None)
        self._assigned[name] = Mark(next(_moments), there=False)

    def __contains__(self, name: object) -> bool:
        name = field_name(name)
        mark = self._assigned.get(name)
        return name in self._raw if mark is None else mark.there

    def __iter__(self) -> Iterator[str]:
        # Of what there is by now: another thread may go on to assign.
        for name in dict.fromkeys([*self._raw, *self._assigned]):
            if name in self:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<fields {', '.join(self)}>"

    def check_writable(self) -> None:
        if self.read_only:
            raise SessionReadOnly("The session is only to be read here: nothing would be stored.")

    @property
    def cleared(self) -> bool:
        """Whether a commit has to clear the session first."""
        return self._cleared > 0

    def rebased(self, raw: dict[str, bytes]) -> Fields:
        """These fields as the store has them by now, with what was changed here still to be sent.
        What was only read is read anew; no value is shared with these."""
        changes = self.changes()
        fields = self._derived(({} if self.cleared else raw) | changes.set, raw)
        fields._cleared = self._cleared
        for name in (*changes.set, *changes.delete):
            mark = self._assigned.get(name) or Mark(next(_moments), there=name in changes.set)
            fields._assigned[name] = mark
        return fields

    def emptied(self, session_id: str) -> Fields:
        """None of these fields, nor any that others have added meanwhile."""
        fields = self._derived({}, self.stored)
        fields._cleared, fields.session_id = next(_moments), session_id
        return fields

    def copy(self) -> Fields:
        """These fields as they are now, for ``undone``."""
        return self.rebased(self.stored)

    def undone(self, before: Fields | None) -> Fields:
        """These fields without what was changed since they were copied to ``before``. What a commit
        has sent since stays, and what was to be sent before is still to be sent."""
        fields = self._derived(self.stored, self.stored)
        if before is not None:
            sent = self._sent
            pending = before.changes()
            fields._raw = dict(fields._raw)
            if before._cleared > sent.get(None, 0):
                fields._cleared, fields._raw = before._cleared, {}
                for name, at in list(sent.items()):
                    if name in self.stored and at > before._cleared:
                        # A promotion has sent it, and the clear would take it along.
                        fields._raw[name] = self.stored[name]
                        fields._assigned[name] = Mark(next(_moments), there=True)
            for name, mark in before._assigned.items():
                if mark.at > max(sent.get(name, 0), sent.get(None, 0)):
                    fields._assigned[name] = mark
                    if mark.there:
                        fields._raw[name] = pending.set[name]
        return self._keeping(fields)

    def _derived(self, raw: dict[str, bytes], stored: dict[str, bytes]) -> Fields:
        fields = Fields(self._codec, raw, stored=stored, session_id=self.session_id)
        fields._sending, fields._sent, fields.read_only = self._sending, self._sent, self.read_only
        return fields

    def _keeping(self, fields: Fields) -> Fields:
        """``fields``, with the very objects that were handed out and are still as they are there:
        whoever has one may go on to change it."""
        for name, value in list(self._values.items()):
            if name in fields and self._codec.holds(name, value, fields._raw[name]):
                fields._values[name] = value
        return fields

    def merged(self, stored: dict[str, bytes]) -> None:
        """The store has set these fields, whatever was to be sent of them when that began."""
        self.stored.update(stored)
        for name, raw in stored.items():
            self._sent[name] = self._sending
            if self._is_newer(name):
                continue
            self._raw[name] = raw
            self._values.pop(name, None)
            self._assigned.pop(name, None)
            if self.cleared:
                # Or what clears the session would take them along.
                self._assigned[name] = Mark(next(_moments), there=True)

    def _is_newer(self, name: str) -> bool:
        """Whether ``name`` was assigned, deleted or cleared away since the commit began."""
        mark = self._assigned.get(name)
        return max(self._cleared, 0 if mark is None else mark.at) > self._sending

    def touched(self, name: str) -> bool:
        """Whether ``name`` was assigned, deleted or cleared away since the last commit."""
        return self.cleared or name in self._assigned

    def begin_sending(self) -> None:
        """What is assigned or deleted from here on is left to be sent when what there is now has
        been."""
        self._sending = next(_moments)

    def changes(self) -> Changes:
        """What a commit has to send: what was assigned or deleted, and what was changed in place.

        What says who is signed in always travels together, so that two sign-ins at once cannot
        make a session that is half one user's and half another's.
        """
        names = dict.fromkeys(self._assigned)
        if not names.keys().isdisjoint(AUTH_FIELDS):
            names.update(dict.fromkeys(AUTH_FIELDS))
        for name, value in list(self._values.items()):
            if name in names or name not in self._raw:
                continue
            if self._codec.differs(name, value, self._raw[name]):
                names[name] = None
        there = [name for name in names if name in self]
        return Changes(
            clear=self.cleared,
            set={name: self._encode(name) for name in there},
            delete=[name for name in names if name not in self],
        )

    def _encode(self, name: str) -> bytes:
        if name in self._values:
            return self._codec.encode(name, self._values[name])
        return self._raw[name]

    def encoded(self) -> dict[str, bytes]:
        """All fields as a store keeps them."""
        return {name: self._encode(name) for name in self}

    def committed(self, changes: Changes) -> None:
        """The store has made these changes, of what there was when sending began."""
        self.stored = changes.applied_to(self.stored)
        if changes.clear:
            self._sent[None] = self._sending
        for name in (*changes.set, *changes.delete):
            self._sent[name] = self._sending
        if self._cleared > self._sending:
            return
        newer = {
            name: self._raw[name]
            for name in list(self._assigned)
            if name in self._raw and name not in self._values and self._is_newer(name)
        }
        self._raw = changes.applied_to(self._raw) | newer
        if changes.clear:
            self._cleared = 0
        for name, mark in list(self._assigned.items()):
            gone = changes.clear and not mark.there
            if mark.at <= self._sending and (gone or name in changes.set or name in changes.delete):
                del self._assigned[name]

    def counted(self, name: str, total: int) -> None:
        """The store has raised this counter."""
        self.stored[name] = b"%d" % total
        if not self._is_newer(name):
            self._raw[name] = b"%d" % total
            self._values[name] = total

    def check_size(self, changes: Changes, max_bytes: int | None) -> None:
        """Raises ``SessionTooLarge`` where the changes make the session larger than it may be.

        A session that shrinks passes, so that one over a limit that was lowered can be mended.
        """
        if changes.add:
            # Whether it counts is for the store to say, which knows what it holds by now.
            name, by = changes.add
            raw = self._raw.get(name, b"")
            changes = Changes(set={name: b"%d" % (int(raw) + by if is_counter(raw) else by)})
        before, after = self.stored, changes.applied_to(self._raw)
        if len(after) > max(MAX_FIELDS, len(before)):
            raise SessionTooLarge(
                f"Session {self.session_id or '(new)'} would have {len(after)} fields, more than "
                f"{MAX_FIELDS}. Keep a list or a dict in one field instead."
            )
        if max_bytes is not None and size(after) > max(max_bytes, size(before)):
            raise SessionTooLarge(
                f"Session {self.session_id or '(new)'} would take {size(after)} bytes, more than "
                f"HEADER_SESSIONS_MAX_BYTES ({max_bytes}). Keep less in it, or raise the setting."
            )


def size(fields: dict[str, bytes]) -> int:
    """Bytes of the names and values of ``fields``."""
    return sum(
        len(name.encode("utf-8", "surrogatepass")) + len(raw) for name, raw in fields.items()
    )
