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
from typing import Any

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

    def get_cache_key(self, request: Request, view: Any) -> str | None:
        attempt = request.data
        ident = self.ident(request, attempt, view) if isinstance(attempt, Mapping) else ""
        if not attempt or not ident:
            return None
        # Hashed, so that neither names nor addresses are kept, and the key is one for any cache.
        digest = hashlib.sha256(ident.encode("utf-8", "surrogatepass")).hexdigest()
        return self.cache_format % {"scope": self.scope, "ident": digest}

    @abstractmethod
    def ident(self, request: Request, attempt: Mapping[str, Any], view: Any) -> str:
        """Whose attempts are counted together; empty for nobody's."""

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
            return int(self.cache.incr(key))
        except ValueError:
            # It expired, or was thrown out, just now.
            self.cache.set(key, 1, self.duration)
            return 1

    def wait(self) -> float:
        return math.ceil(self.duration - self.into_window)


class SignInByName(SignInThrottle):
    """Attempts under one user name, from wherever they come."""

    scope = "header_sessions_user"
    default_rate = "10/min"

    def ident(self, request: Request, attempt: Mapping[str, Any], view: Any) -> str:
        name = attempt.get(getattr(view.credentials, "name_field", "username"))
        if not isinstance(name, str | int):
            return ""
        # What a backend may take for the same name must not be another name here.
        return unicodedata.normalize("NFKC", str(name).strip()).casefold()


class SignInByOrigin(SignInThrottle):
    """Attempts from one IP address, as ``HEADER_SESSIONS_CLIENT_IP`` says, else ``REMOTE_ADDR``.

    Behind a proxy that setting is needed, or all callers share one limit. An IPv6 client has the
    64 bits of its network to itself, so these are counted together.
    """

    scope = "header_sessions_origin"
    default_rate = "60/min"

    def ident(self, request: Request, attempt: Mapping[str, Any], view: Any) -> str:
        client_ip = conf.HEADER_SESSIONS_CLIENT_IP
        ip = client_ip(request._request) if client_ip else request.META.get("REMOTE_ADDR", "")
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return str(ip)
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
        return str(address)
