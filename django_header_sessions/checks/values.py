"""The values of our settings, and of Django's that say what is written into a session."""

from __future__ import annotations

import difflib
import math
import pickletools
import re
from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.utils.module_loading import import_string

from ..conf import conf
from .checker import check, cookie_paths


@check(Tags.security)
def check_values() -> Iterator[CheckMessage]:
    if cookie_paths() is None:
        yield Error(
            f"HEADER_SESSIONS_COOKIE_PATHS {conf.HEADER_SESSIONS_COOKIE_PATHS!r} is not a list of "
            "beginnings of paths.",
            hint='Set a tuple of strings that begin with a slash, such as ("/admin/",).',
            id="header_sessions.E007",
        )
    for name, optional in (
        ("IDLE_TIMEOUT", False),
        ("ABSOLUTE_TIMEOUT", True),
        ("MAX_BYTES", True),
        ("MAX_PER_USER", True),
        ("ALERT_COUNT", True),
        ("ALERT_BYTES", True),
        ("BUCKETS", True),
        ("MAX_CONTEXTS", False),
    ):
        value = getattr(conf, f"HEADER_SESSIONS_{name}")
        if value is None and optional:
            continue
        if not _is_number(value, 1, int) or value >= 2**32:
            yield Error(
                f"HEADER_SESSIONS_{name} {value!r} is not a positive whole number.",
                hint="Set a whole number" + (", or None for no limit." if optional else "."),
                id="header_sessions.E008",
            )
    if conf.HEADER_SESSIONS_UNKNOWN not in ("reject", "renew"):
        yield Error(
            f"HEADER_SESSIONS_UNKNOWN {conf.HEADER_SESSIONS_UNKNOWN!r} is not known.",
            hint='Set "reject" or "renew".',
            id="header_sessions.E009",
        )
    status = conf.HEADER_SESSIONS_UNKNOWN_STATUS
    if not isinstance(status, int) or not 400 <= status < 500:
        yield Error(
            f"HEADER_SESSIONS_UNKNOWN_STATUS {status!r} is not a status of a refused request.",
            hint="Set 401, 404 or another status from 400 to 499.",
            id="header_sessions.E010",
        )
    try:
        client_ip = conf.HEADER_SESSIONS_CLIENT_IP
        wrong = "" if client_ip is None or callable(client_ip) else "it is not callable"
    except Exception as error:  # what is no text, or whatever its module raises
        wrong = str(error)
    if wrong:
        yield Error(
            f"HEADER_SESSIONS_CLIENT_IP cannot be used: {wrong}",
            hint="Set the dotted path of a callable that takes a request and returns its IP.",
            id="header_sessions.E011",
        )
    after = conf.HEADER_SESSIONS_RETRY_AFTER
    if not _is_number(after, 0, int):
        yield Error(
            f"HEADER_SESSIONS_RETRY_AFTER {after!r} is not a number of whole seconds.",
            hint="Set a whole number, such as 1.",
            id="header_sessions.E022",
        )
    seconds = conf.HEADER_SESSIONS_BREAKER_SECONDS
    if not _is_number(seconds, 0):
        yield Error(
            f"HEADER_SESSIONS_BREAKER_SECONDS {seconds!r} is not a number of seconds.",
            hint="Set a number, such as 1; or 0 to do without the breaker.",
            id="header_sessions.E023",
        )
    for name in ("RECORD_ORIGIN", "SECURE"):
        value = getattr(conf, f"HEADER_SESSIONS_{name}")
        if value not in (True, False):
            yield Error(
                f"HEADER_SESSIONS_{name} {value!r} is neither True nor False, and counts as "
                f"{bool(value)}.",
                hint="Set True or False; what comes from the environment is text, and 'False' is "
                "true.",
                id="header_sessions.E033",
            )
    policy = conf.HEADER_SESSIONS_POLICY
    if policy not in ("merge", "serialized", "readonly"):
        yield Error(
            f"HEADER_SESSIONS_POLICY {policy!r} is not known.",
            hint='Set "merge", "serialized" or "readonly".',
            id="header_sessions.E036",
        )
    for name, least, example in (
        ("LOCK_WAIT", 0, "10; or 0 not to wait"),
        ("LOCK_LEASE", 0.001, "30"),
    ):
        seconds = getattr(conf, f"HEADER_SESSIONS_{name}")
        if not _is_number(seconds, least):
            yield Error(
                f"HEADER_SESSIONS_{name} {seconds!r} is not a number of seconds.",
                hint=f"Set a number, such as {example}.",
                id="header_sessions.E037",
            )
    header = conf.HEADER_SESSIONS_CONTEXT_HEADER
    if header is None:
        return
    own = conf.HEADER_SESSIONS_HEADER
    same = isinstance(own, str) and str(header).lower() == own.lower()
    if same or not isinstance(header, str) or not re.fullmatch(r"[A-Za-z0-9-]+", header):
        yield Error(
            f"HEADER_SESSIONS_CONTEXT_HEADER {header!r} is "
            + ("the header of the session." if same else "not a header's name."),
            hint="Use a name of its own, of letters, digits and hyphens, such as "
            "'X-Session-Context'.",
            id="header_sessions.E038",
        )


@check(Tags.security)
def check_names() -> Iterator[CheckMessage]:
    known = [name for name in dir(type(conf)) if name.startswith("HEADER_SESSIONS_")]
    for name in dir(settings):
        if name.startswith(("HEADER_SESSIONS_", "HEADER_SESSION_")) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            yield Warning(
                f"There is no setting {name}, so it means nothing.",
                hint=f"Write {near[0]}." if near else "Remove it; the README lists the settings.",
                id="header_sessions.W031",
            )


@check(Tags.security)
def check_timeouts() -> Iterator[CheckMessage]:
    idle, absolute = conf.HEADER_SESSIONS_IDLE_TIMEOUT, conf.HEADER_SESSIONS_ABSOLUTE_TIMEOUT
    # What is no positive number is an error already.
    if type(idle) is int and type(absolute) is int and 1 <= absolute < idle:
        yield Warning(
            f"HEADER_SESSIONS_IDLE_TIMEOUT ({idle}) is longer than "
            f"HEADER_SESSIONS_ABSOLUTE_TIMEOUT ({absolute}), which ends sessions before.",
            hint=f"Set HEADER_SESSIONS_ABSOLUTE_TIMEOUT = None, or to more than {idle}.",
            id="header_sessions.W032",
        )


@check(Tags.security)
def check_serializer() -> Iterator[CheckMessage]:
    try:
        written = import_string(settings.SESSION_SERIALIZER)().dumps({"field": "value"})
        wrong = "" if isinstance(written, bytes) else "its dumps does not return bytes"
    except Exception as error:  # whatever a serializer of the project's own raises
        wrong = str(error)
    if wrong:
        yield Error(
            f"SESSION_SERIALIZER {settings.SESSION_SERIALIZER!r} cannot be used: {wrong}",
            hint="Set the dotted path of a class whose dumps takes a dict and returns bytes, such "
            "as 'django.contrib.sessions.serializers.JSONSerializer'.",
            id="header_sessions.E031",
        )
    elif _is_pickle(written):
        yield Error(
            f"SESSION_SERIALIZER {settings.SESSION_SERIALIZER!r} pickles, so whoever can write to "
            "the store can run code here.",
            hint="Set 'django.contrib.sessions.serializers.JSONSerializer', or write a serializer "
            "that makes JSON of what you keep.",
            id="header_sessions.E032",
        )


def _is_number(value: object, least: float, kind: type = float) -> bool:
    whole = isinstance(value, int | kind) and not isinstance(value, bool)
    return whole and least <= value < math.inf  # type: ignore[operator]


def _is_pickle(written: bytes) -> bool:
    """Whether all of this is a pickle, told without unpickling it."""
    try:
        *_, (_, _, end) = pickletools.genops(written)
    except ValueError:
        return False
    return end == len(written) - 1
