"""The ``HEADER_SESSIONS_*`` settings as typed properties.

Each is read when it is first asked for, and kept: a request asks for a dozen, and Django raises
and catches an exception for each that a project leaves out. One that a test overrides is forgotten,
as Django tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, NoReturn, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.module_loading import import_string


class Settings:
    @cached_property
    def HEADER_SESSIONS_HEADER(self) -> str:
        """Name of the request and response header that carries the session key."""
        return getattr(settings, "HEADER_SESSIONS_HEADER", "X-Session-Key")

    @cached_property
    def HEADER_SESSIONS_COOKIE_PATHS(self) -> Sequence[str]:
        """Beginnings of paths on which a request without the header uses Django's cookie."""
        return getattr(settings, "HEADER_SESSIONS_COOKIE_PATHS", ("/admin/",))

    @cached_property
    def HEADER_SESSIONS_IDLE_TIMEOUT(self) -> int:
        """Seconds without a request after which a header session is over."""
        return getattr(settings, "HEADER_SESSIONS_IDLE_TIMEOUT", 1800)

    @cached_property
    def HEADER_SESSIONS_ABSOLUTE_TIMEOUT(self) -> int | None:
        """Seconds from creation or sign-in after which it is over in any case; None: never."""
        return getattr(settings, "HEADER_SESSIONS_ABSOLUTE_TIMEOUT", 43200)

    @cached_property
    def HEADER_SESSIONS_UNKNOWN(self) -> Literal["reject", "renew"]:
        """What a key that opens nothing gets: a refusal, or an empty session and a new key."""
        return getattr(settings, "HEADER_SESSIONS_UNKNOWN", "reject")

    @cached_property
    def HEADER_SESSIONS_UNKNOWN_STATUS(self) -> int:
        """Status of the refusal of an unknown key."""
        return getattr(settings, "HEADER_SESSIONS_UNKNOWN_STATUS", 401)

    @cached_property
    def HEADER_SESSIONS_MAX_BYTES(self) -> int | None:
        """Most bytes that the names and values of one session may take; None: no limit."""
        return getattr(settings, "HEADER_SESSIONS_MAX_BYTES", 65536)

    @cached_property
    def HEADER_SESSIONS_MAX_PER_USER(self) -> int | None:
        """Most header sessions one user may have; a sign-in beyond it ends the oldest."""
        return getattr(settings, "HEADER_SESSIONS_MAX_PER_USER", None)

    @cached_property
    def HEADER_SESSIONS_RECORD_ORIGIN(self) -> bool:
        """Whether the IP and a summary of the user agent are kept with a session."""
        return getattr(settings, "HEADER_SESSIONS_RECORD_ORIGIN", True)

    @cached_property
    def HEADER_SESSIONS_CLIENT_IP(self) -> Callable[[HttpRequest], str] | None:
        """What tells a request's IP (set as a dotted path); None: ``REMOTE_ADDR``."""
        path = getattr(settings, "HEADER_SESSIONS_CLIENT_IP", None)
        return cast("Callable[[HttpRequest], str]", import_string(path)) if path else None

    @cached_property
    def HEADER_SESSIONS_ALERT_COUNT(self) -> int | None:
        """Live sessions above which the alarm is raised; None: never."""
        return getattr(settings, "HEADER_SESSIONS_ALERT_COUNT", None)

    @cached_property
    def HEADER_SESSIONS_ALERT_BYTES(self) -> int | None:
        """Bytes of store memory above which the alarm is raised; None: never."""
        return getattr(settings, "HEADER_SESSIONS_ALERT_BYTES", None)

    @cached_property
    def HEADER_SESSIONS_BUCKETS(self) -> int | None:
        """Parts the sessions of a Redis are split into; None: 1, or 256 on Redis Cluster."""
        return getattr(settings, "HEADER_SESSIONS_BUCKETS", None)

    @cached_property
    def HEADER_SESSIONS_POLICY(self) -> Literal["merge", "serialized", "readonly"]:
        """What a view that says nothing does about others that use its header session at the same
        time."""
        return getattr(settings, "HEADER_SESSIONS_POLICY", "merge")

    @cached_property
    def HEADER_SESSIONS_LOCK_WAIT(self) -> float:
        """Seconds that a serialised request waits for its session before it is refused."""
        return getattr(settings, "HEADER_SESSIONS_LOCK_WAIT", 10)

    @cached_property
    def HEADER_SESSIONS_LOCK_LEASE(self) -> float:
        """Seconds that a serialised request has its session for; after them it stores nothing."""
        return getattr(settings, "HEADER_SESSIONS_LOCK_LEASE", 30)

    @cached_property
    def HEADER_SESSIONS_CONTEXT_HEADER(self) -> str | None:
        """Name of the request header that names a call's context; None: there is none."""
        return getattr(settings, "HEADER_SESSIONS_CONTEXT_HEADER", None)

    @cached_property
    def HEADER_SESSIONS_MAX_CONTEXTS(self) -> int:
        """Most contexts that one session may have."""
        return getattr(settings, "HEADER_SESSIONS_MAX_CONTEXTS", 100)

    @cached_property
    def HEADER_SESSIONS_SECURE(self) -> bool:
        """Whether header sessions are refused over plain HTTP."""
        return getattr(settings, "HEADER_SESSIONS_SECURE", False)

    @cached_property
    def HEADER_SESSIONS_RETRY_AFTER(self) -> int:
        """Seconds after which a client is asked to try again while the store is unavailable."""
        return getattr(settings, "HEADER_SESSIONS_RETRY_AFTER", 1)

    @cached_property
    def HEADER_SESSIONS_BREAKER_SECONDS(self) -> float:
        """Seconds between two probes of a server that does not answer; until one passes, requests
        fail at once. 0: each request waits for its own time-out."""
        return getattr(settings, "HEADER_SESSIONS_BREAKER_SECONDS", 1)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} is set in the project's settings.")


conf = Settings()


@receiver(setting_changed)
def forget(*, setting: str, **kwargs: object) -> None:
    vars(conf).pop(setting, None)
