"""What stores and engine raise.

::

    SessionError
    ├── SessionUnavailable      the store cannot say: down, hung, read-only, full
    ├── SessionEnded            the session is over; also Django's UpdateError
    ├── SessionSuperseded       the key was good until the session was rotated; also an UpdateError
    ├── SessionTooLarge         the session would exceed a limit; nothing was stored
    ├── SessionBusy             another request has had the session for longer than one could wait
    ├── LeaseExpired            this request had the session for longer than it was lent to it
    ├── SessionReadOnly         a write where the session is only to be read
    ├── ContextUnknown          the session has no such context; also a LookupError
    ├── ContextNameInvalid      no context can have this name; also a ValueError
    ├── TooManyContexts         the session has as many contexts as it may have
    ├── SessionInsecure         a header session over plain HTTP, which the settings refuse
    ├── SessionUnreadable       a stored field that SESSION_SERIALIZER cannot read
    ├── KeyAlreadySent          the answer's headers are out, so a new key cannot be announced
    └── ListingNotSupported     this cache cannot list its sessions
"""

from __future__ import annotations

from django.contrib.sessions.backends.base import UpdateError


class SessionError(Exception):
    """Whatever can go wrong with a session."""

    executed = True
    """Whether the view had begun: False where it waited for the session in vain."""


class SessionUnavailable(SessionError):
    """The store could not say whether the session is there, or whether the write was applied.

    A write that failed in this way may have been applied: a time-out says nothing about what the
    server did after it.
    """


class SessionEnded(SessionError, UpdateError):
    """The session was ended, has expired, or never was."""


class SessionSuperseded(SessionError, UpdateError):
    """The session lives on, under a newer key."""


class SessionTooLarge(SessionError):
    """The session would exceed ``HEADER_SESSIONS_MAX_BYTES`` or the limit of fields."""


class SessionBusy(SessionError):
    """The session's lock could not be had within the time that there was to wait."""


class LeaseExpired(SessionError):
    """The session's lock was held for longer than its lease, so that others may have it now.

    Nothing was stored: what was read under the lock may be out of date.
    """


class SessionReadOnly(SessionError):
    """``readonly_session`` forbids what was about to be written."""


class ContextUnknown(SessionError, LookupError):
    """The session has no such context: never made, ended, idle for too long, or another's."""


class ContextNameInvalid(SessionError, ValueError):
    """The name of a context is 1 to 64 visible ASCII characters without commas."""


class TooManyContexts(SessionError):
    """The session would exceed ``HEADER_SESSIONS_MAX_CONTEXTS``."""


class SessionInsecure(SessionError):
    """``HEADER_SESSIONS_SECURE`` refuses to start a session over plain HTTP."""


class SessionUnreadable(SessionError):
    """A field was stored with another ``SESSION_SERIALIZER``, or was damaged."""


class KeyAlreadySent(SessionError):
    """The session's key was to change after the headers of the answer had been decided."""


class ListingNotSupported(SessionError):
    """The cache behind the sessions keeps no list of them."""
