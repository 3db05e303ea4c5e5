"""The fields of one session: encoded one by one, decoded when asked for, changes remembered."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, MutableMapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

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


class Fields(MutableMapping[str, Any]):
    """The data of a session as it was opened, and what was done to it since.

    A value is decoded when it is first asked for: a request that reads one field of a large
    session does not pay for the others.
    """

    __slots__ = (
        *("_assigned", "_codec", "_raw", "_sent", "_sent_before", "_since", "_values"),
        *("cleared", "read_only", "session_id", "stored"),
    )

    def __init__(
        self,
        codec: Codec,
        raw: dict[str, bytes] | None = None,
        *,
        cleared: bool = False,
        stored: dict[str, bytes] | None = None,
        session_id: str = "",
    ) -> None:
        self._codec = codec
        self._raw = raw if raw is not None else {}
        self.stored = stored if stored is not None else self._raw
        """What the store held when it was asked last; more than these where they were cleared."""
        self._values: dict[str, Any] = {}
        self._assigned: dict[str, bool] = {}  # True where assigned, False where deleted
        self._since: set[str] = set()  # those of them that the commit under way does not send
        self.cleared = cleared
        self.session_id = session_id
        # What was sent since these were copied first, and how much of it before this copy.
        self._sent: list[Changes] | None = None
        self._sent_before = 0
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
        self._assigned[name] = True
        self._since.add(name)

    def __delitem__(self, name: object) -> None:
        self.check_writable()
        name = field_name(name)
        if name not in self:
            raise KeyError(name)
        self._values.pop(name, None)
        self._assigned[name] = False
        self._since.add(name)

    def __contains__(self, name: object) -> bool:
        name = field_name(name)
        return self._assigned.get(name, name in self._raw)

    def __iter__(self) -> Iterator[str]:
        for name in self._raw:
            if self._assigned.get(name, True):
                yield name
        for name, there in self._assigned.items():
            if there and name not in self._raw:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<fields {', '.join(self)}>"

    def check_writable(self) -> None:
        if self.read_only:
            raise SessionReadOnly("The session is only to be read here: nothing would be stored.")

    def rebased(self, raw: dict[str, bytes]) -> Fields:
        """These fields as the store has them by now, with what was changed here still to be sent.
        What was only read is read anew; no value is shared with these."""
        changes = self.changes()
        fields = Fields(
            self._codec,
            ({} if self.cleared else raw) | changes.set,
            cleared=self.cleared,
            stored=raw,
            session_id=self.session_id,
        )
        fields._assigned = dict.fromkeys(changes.set, True) | dict.fromkeys(changes.delete, False)
        fields._sent, fields.read_only = self._sent, self.read_only
        return fields

    def emptied(self, session_id: str) -> Fields:
        """None of these fields, nor any that others have added meanwhile."""
        fields = Fields(self._codec, cleared=True, stored=self.stored, session_id=session_id)
        fields._sent = self._sent
        return fields

    def copy(self) -> Fields:
        """These fields as they are now, for ``undone``."""
        if self._sent is None:
            self._sent = []
        copy = self.rebased(self.stored)
        copy._sent_before = len(self._sent)
        return copy

    def undone(self, before: Fields | None) -> Fields:
        """These fields without what was changed since they were copied to ``before``. What a commit
        has sent since stays, and what was to be sent before is still to be sent."""
        untouched = Fields(self._codec, self.stored, session_id=self.session_id)
        untouched._sent, untouched.read_only = self._sent, self.read_only
        if before is None or self._sent is None:
            return self._keeping(untouched)
        sent = self._sent[before._sent_before :]
        if any(changes.clear for changes in sent):
            return self._keeping(untouched)
        fields = before.rebased(self.stored)
        fields.read_only = self.read_only
        for name in chain.from_iterable((*changes.set, *changes.delete) for changes in sent):
            if fields._assigned.pop(name, False):
                del fields._raw[name]
            if name in self.stored and not fields.cleared:
                fields._raw[name] = self.stored[name]
        return self._keeping(fields)

    def _keeping(self, fields: Fields) -> Fields:
        """``fields``, with the very objects that were handed out and are still as they are there:
        whoever has one may go on to change it."""
        for name, value in self._values.items():
            if name in fields and self._codec.holds(name, value, fields._raw[name]):
                fields._values[name] = value
        return fields

    def merged(self, stored: dict[str, bytes]) -> None:
        """The store has set these fields, whatever was to be sent of them."""
        self._raw.update(stored)
        self.stored.update(stored)
        for name in stored:
            self._values.pop(name, None)
            self._assigned.pop(name, None)
            if self.cleared:
                # Or what clears the session would take them along.
                self._assigned[name] = True
        if self._sent is not None:
            self._sent.append(Changes(set=stored))

    def touched(self, name: str) -> bool:
        """Whether ``name`` was assigned, deleted or cleared away since the last commit."""
        return self.cleared or name in self._assigned

    def begin_sending(self) -> None:
        """What is assigned or deleted from here on is left to be sent when what there is now has
        been."""
        self._since.clear()

    def changes(self) -> Changes:
        """What a commit has to send: what was assigned or deleted, and what was changed in place.

        What says who is signed in always travels together, so that two sign-ins at once cannot
        make a session that is half one user's and half another's.
        """
        names = dict.fromkeys(self._assigned)
        if not names.keys().isdisjoint(AUTH_FIELDS):
            names.update(dict.fromkeys(AUTH_FIELDS))
        for name, value in list(self._values.items()):
            if name not in names and self._codec.differs(name, value, self._raw[name]):
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
        """The store has made these changes."""
        self._raw = self.stored = changes.applied_to(self._raw)
        if self._sent is not None:
            self._sent.append(changes)
        if changes.clear:
            self.cleared = False
        sent = list(self._assigned) if changes.clear else [*changes.set, *changes.delete]
        for name in sent:
            if name not in self._since:
                self._assigned.pop(name, None)

    def counted(self, name: str, total: int) -> None:
        """The store has raised this counter."""
        self._raw[name] = self.stored[name] = b"%d" % total
        if name not in self._since:
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
