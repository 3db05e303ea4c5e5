"""A filter for ``logging`` that keeps session keys out of what is logged.

The package itself logs no key. This is for those who log headers: an access log, a client library
that is being debugged, a middleware that writes down what came in. ``docs/logging.md`` shows where
to put it.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from django.conf import settings

from .conf import conf
from .keys import ID_LENGTH
from .resolvers import NEW

MASK = "***"
"""What stands for a secret; ASCII, since a log's stream may take nothing else."""

DEPTH = 10
"""How deep within one another dicts and lists are looked at: a log may be given one that holds
itself."""

# A sha1 in hexadecimal, such as the name of a commit, has as many characters. That a key looks
# like one happens once in 10^14.
_NO_SHA1 = r"(?![0-9a-f]{40}(?![a-z0-9]))"
# A URL may write what stands before a key as %20, and the repr of a text, or JSON, as \n, \xe9 or
# \u00e9; a terminal's colour ends with an m.
_BEFORE = (
    r"(?:(?<![a-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=%25[0-9A-Fa-f]{2})"
    r"|(?<=\\[nrt])|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4})"
    r"|(?<=\x1b\[[0-9]m)|(?<=\x1b\[[0-9]{2}m)|(?<=;[0-9]m)|(?<=;[0-9]{2}m))"
)
_KEY = rf"{_BEFORE}{_NO_SHA1}([a-z0-9]{{{ID_LENGTH}}})[a-z0-9]{{25}}(?![a-z0-9])"
_TEXT, _BYTES = re.compile(_KEY), re.compile(_KEY.encode())
_LONG_ENOUGH = re.compile(r"[a-z0-9]{40}")
"""What most texts fail, at a third of the price."""

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class SessionKeyFilter(logging.Filter):
    """Leaves of each session key in a log record its id, as in ``9yvw6jgbg8bg0n9***``.

    Looks at the message, at the traceback, and at the texts, bytes, mappings, lists and tuples
    that ``extra`` added; what these have under the session header's name is masked whatever it
    looks like. Lets every record pass, and changes only one that has something to hide, or that
    cannot be looked at.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        # The arguments keep their places and their classes: formatters of servers count on it, and
        # show some that the message has not.
        record.msg = _surely(_masked, record.msg)
        if isinstance(record.args, tuple):
            args = tuple(_surely(_masked, each) for each in record.args)
            if any(one is not other for one, other in zip(args, record.args, strict=True)):
                record.args = args
        else:
            record.args = _surely(_masked, record.args)
        if _holds_key(record):
            # It is in an object of some other kind, whose text is all that can be masked.
            record.msg, record.args = _masked(record.getMessage()), None
        if extra := vars(record).keys() - _STANDARD:
            header = _header()
            for name in extra:
                mask = partial(_entry, name, header=header)
                setattr(record, name, _surely(mask, getattr(record, name)))
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            # Another handler may have written it already.
            traceback = record.exc_text or logging.Formatter().formatException(record.exc_info)
            if _has_key(traceback):
                # Where there is an exception, some formatters write it out anew.
                record.exc_text, record.exc_info = traceback, None
        record.exc_text = _masked(record.exc_text)
        record.stack_info = _masked(record.stack_info)
        return True


def _surely(mask: Callable[[Any], Any], value: Any) -> Any:
    """``value`` masked, or what says that it could not be: a logger must not fail over what another
    thread changes, or over what cannot tell what it holds."""
    try:
        return mask(value)
    except Exception as error:
        return f"<{type(value).__name__} left out: {type(error).__name__}>"


def _holds_key(record: logging.LogRecord) -> bool:
    try:
        return _has_key(record.getMessage())
    except Exception:
        # Arguments that do not fit, or a __str__ that fails: logging says so in its own way.
        return False


def _has_key(text: str) -> bool:
    return bool(_LONG_ENOUGH.search(text) and _TEXT.search(text))


def _masked(value: Any, header: str = "", depth: int = DEPTH) -> Any:
    """``value`` without secrets; itself where there is nothing to hide. ``header`` names what is
    secret altogether, in its canonical form."""
    if isinstance(value, str):
        return _TEXT.sub(rf"\1{MASK}", value) if _has_key(value) else value
    if isinstance(value, bytes):
        return _BYTES.sub(rb"\1" + MASK.encode(), value) if _BYTES.search(value) else value
    if not depth:
        return value
    if isinstance(value, Mapping):
        held = list(value.items())
        shown = [(_masked(name), _entry(name, each, header, depth - 1)) for name, each in held]
        if all(a is b and c is d for (a, c), (b, d) in zip(shown, held, strict=True)):
            return value
        if not isinstance(value, dict):
            return dict(shown)
        changed = copy.copy(value)
        for (name, _), (new, masked) in zip(held, shown, strict=True):
            if new is not name:
                del changed[name]
            changed[new] = masked
        return changed
    if type(value) in (list, tuple):
        if len(value) == 2 and isinstance(value[0], str | bytes):
            # As ASGI and HTTP libraries have headers.
            parts = [_masked(value[0]), _entry(value[0], value[1], header, depth - 1)]
        else:
            parts = [_masked(each, header, depth - 1) for each in value]
        same = all(part is each for part, each in zip(parts, value, strict=True))
        return value if same else type(value)(parts)
    return value


def _entry(name: object, value: Any, header: str, depth: int = DEPTH) -> Any:
    """What stands under ``name``, of which all is secret if that is the header's."""
    masked = _masked(value, header, depth)
    if masked is not value or not header or _canonical(name) != header:
        return masked
    if isinstance(value, str):
        return value if value in ("", NEW) else MASK
    if isinstance(value, bytes):
        return value if value in (b"", NEW.encode()) else MASK.encode()
    if type(value) in (list, tuple) and depth:
        return [_entry(name, each, header, depth - 1) for each in value]
    return value


def _header() -> str:
    # A server's own log is set up, and written to, before there are settings.
    return _canonical(conf.HEADER_SESSIONS_HEADER if settings.configured else "X-Session-Key")


def _canonical(name: object) -> str:
    """One form of a header's name, as HTTP, a WSGI environ, or Python writes it."""
    text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
    return text.lower().replace("-", "_").removeprefix("http_")
