"""How often somebody may try to sign in: by user name and by origin.

Rates are DRF's, ``REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"]``, under the scopes named here; None
there lifts the limit. Counts are kept in Django's default cache, as all of DRF's throttles do.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import math
import unicodedata
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from django.core.cache import BaseCache
from django.views.decorators.debug import sensitive_variables
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import SimpleRateThrottle

from ..conf import conf
from .exceptions import NotCounted

logger = logging.getLogger("django_header_sessions")


class SignInThrottle(SimpleRateThrottle):
    """Counts attempts in windows of the rate's period; starting without credentials is none.

    The count is raised in one step: DRF's own list of moments is read, then written, and loses
    most of what a guesser sends at the same time.
    """

    scope: str
    default_rate: str
    num_requests: int
    duration: int

    def get_rate(self) -> str | None:
        # Read when needed: DRF's own is frozen when the class is made.
        rates: dict[str, Any] = api_settings.DEFAULT_THROTTLE_RATES
        rate: str | None = rates.get(self.scope, self.default_rate)
        return rate

    @sensitive_variables("attempt")
    def get_cache_key(self, request: Request, view: Any) -> str | None:
        attempt = request.data
        if not attempt or not isinstance(attempt, Mapping):
            return None
        ident = self.ident(request, attempt, view)
        if ident is None:
            return None
        # Hashed, so that neither names nor addresses are kept, and the key is one for any cache.
        digest = hashlib.sha256(ident.encode("utf-8", "surrogatepass")).hexdigest()
        return self.cache_format % {"scope": self.scope, "ident": digest}

    @abstractmethod
    def ident(self, request: Request, attempt: Mapping[str, Any], view: Any) -> str | None:
        """Whose attempts are counted together; None for nobody's.

        ``attempt`` holds a password, for which Django has ``sensitive_variables``.
        """

    def allow_request(self, request: Request, view: Any) -> bool:
        if self.rate is None:
            return True
        key = self.get_cache_key(request, view)
        if key is None:
            return True
        window, self.into_window = divmod(float(self.timer()), self.duration)
        try:
            return self._count(f"{key}_{int(window)}") <= self.num_requests
        except Exception as error:  # a cache that cannot be reached raises what it likes
            logger.warning("Attempts to sign in cannot be counted: %s", error)
            raise NotCounted from error

    def _count(self, key: str) -> int:
        if self.cache.add(key, 1, self.duration):
            return 1
        try:
            count = int(self.cache.incr(key))
        except ValueError:
            # It expired, or was thrown out, just now.
            self.cache.set(key, 1, self.duration)
            return 1
        if getattr(self.cache.incr, "__func__", None) is BaseCache.incr:
            # Caches that cannot count store anew, for as long as they keep what says nothing.
            self.cache.touch(key, self.duration)
        return count

    def wait(self) -> float:
        return math.ceil(self.duration - self.into_window)


class SignInByName(SignInThrottle):
    """Attempts under one user name, from wherever they come."""

    scope = "header_sessions_user"
    default_rate = "10/min"

    @sensitive_variables("attempt")
    def ident(self, request: Request, attempt: Mapping[str, Any], view: Any) -> str | None:
        field = view.credentials().fields.get(getattr(view.credentials, "name_field", "username"))
        try:
            # As the backends will be asked for it: DRF takes numbers for text, too.
            name = None if field is None else field.to_internal_value(field.get_value(attempt))
        except ValidationError:
            # Refused, before any backend is asked.
            return None
        return None if name is None else folded(str(name))


def folded(name: str) -> str:
    """``name`` without what a backend, or the database it asks, may not tell names apart by.

    That is case, accents and other marks, width, spaces, and what nobody sees: MySQL compares so by
    default. Who goes by more, such as that ``æ`` is ``ae``, is limited by origin alone.
    """
    letters = []
    for letter in unicodedata.normalize("NFKD", name.upper().casefold()):
        # Marks, separators, and what controls or is not assigned.
        if unicodedata.category(letter)[0] in "MZC":
            continue
        # Strokes are no marks of their own: "LATIN SMALL LETTER O WITH STROKE".
        plain, is_marked, _ = unicodedata.name(letter, "").partition(" WITH ")
        if is_marked:
            with suppress(KeyError):  # "LATIN SMALL LETTER LAMBDA WITH STROKE", which has no other
                letter = unicodedata.lookup(plain)
        letters.append(letter)
    return "".join(letters).upper().casefold()


class SignInByOrigin(SignInThrottle):
    """Attempts from one IP address, as ``HEADER_SESSIONS_CLIENT_IP`` says, else ``REMOTE_ADDR``.

    Behind a proxy, or a unix socket, that setting is needed, or all callers share one limit. An
    IPv6 client has the 64 bits of its network to itself, so these are counted together.
    """

    scope = "header_sessions_origin"
    default_rate = "60/min"
    has_warned: ClassVar[bool] = False

    @sensitive_variables("attempt")
    def ident(self, request: Request, attempt: Mapping[str, Any], view: Any) -> str:
        client_ip = conf.HEADER_SESSIONS_CLIENT_IP
        ip = client_ip(request._request) if client_ip else request.META.get("REMOTE_ADDR", "")
        if not ip and not self.has_warned:
            SignInByOrigin.has_warned = True
            logger.warning(
                "Nobody knows where attempts to sign in come from (REMOTE_ADDR is empty, as behind "
                "a unix socket), so all share one limit. Set HEADER_SESSIONS_CLIENT_IP."
            )
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return str(ip)
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
        return str(address)
