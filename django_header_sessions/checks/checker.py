"""What all checks are made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import conf

MIDDLEWARE = "django_header_sessions.middleware.HeaderSessionMiddleware"
DRF_AUTHENTICATION = (
    "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication"
)

Checker = Callable[[], Iterator[CheckMessage]]


def check(tag: str, *, deploy: bool = False) -> Callable[[Checker], Checker]:
    """Registers what yields messages; ``deploy``: for ``check --deploy`` alone."""

    def wire(checker: Checker) -> Checker:
        @register(tag, deploy=deploy)
        def run(
            app_configs: Sequence[AppConfig] | None = None, **kwargs: Any
        ) -> list[CheckMessage]:
            return list(checker())

        return checker

    return wire


def subclasses(path: object, of: str) -> bool:
    """Whether ``path`` names the class ``of`` or one derived from it, or is such a class."""
    if path == of:
        return True
    try:
        found = import_string(path) if isinstance(path, str) else path
    except (ImportError, ImproperlyConfigured):
        return False  # Django's own checks say so
    return isinstance(found, type) and any(
        f"{each.__module__}.{each.__qualname__}" == of for each in found.__mro__
    )


def places(of: str) -> list[int]:
    """Where in ``MIDDLEWARE`` the class ``of``, or one derived from it, stands."""
    return [at for at, path in enumerate(settings.MIDDLEWARE) if subclasses(path, of)]


def cookie_paths() -> tuple[str, ...] | None:
    """``HEADER_SESSIONS_COOKIE_PATHS``; None where they are no paths, which is an error itself."""
    paths = conf.HEADER_SESSIONS_COOKIE_PATHS
    if not isinstance(paths, list | tuple | set | frozenset) or not all(
        isinstance(path, str) and path.startswith("/") for path in paths
    ):
        return None
    return tuple(paths)


def has_header_paths() -> bool:
    """Whether there are paths on which a request without the header has no cookie session."""
    paths = cookie_paths()
    return paths is not None and "/" not in paths
