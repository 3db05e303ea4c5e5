"""Pages that need a browser's cookie, on paths where no cookie is read.

A browser could never sign in there: the form is answered with a redirect, the key goes out in a
header that no browser keeps, and the next page is anonymous. Each try leaves a session behind.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning
from django.shortcuts import resolve_url
from django.urls import URLPattern, URLResolver, get_resolver, get_script_prefix
from django.urls.resolvers import LocalePrefixPattern, RoutePattern
from django.views.generic import View

from .checker import DRF_AUTHENTICATION, check, cookie_paths, subclasses

MOST = 10_000
"""Entries of the URLconf that are looked at."""

WRAPPED = 20
"""Decorators of one view that are."""

ADMIN_SITE = "django.contrib.admin.sites.AdminSite"
AUTH = "django.contrib.auth"
RESOURCE = "django_header_sessions.rest_framework.views"
BROWSERS_APPS = ("allauth", "social_django", "mozilla_django_oidc")
"""Apps that sign people in by way of other sites, or that have the forms to do so."""


@dataclass(frozen=True, slots=True)
class Place:
    """The beginning of a path; ``whole``: all of it, else what follows is not known."""

    text: str = "/"
    whole: bool = True

    def beyond(self, pattern: Any) -> list[Place]:
        """Where ``pattern`` leads from here: one place, or one for each language."""
        if not self.whole:
            return [self]
        if isinstance(pattern, LocalePrefixPattern):
            return [Place(self.text + prefix) for prefix in _prefixes(pattern)]
        text, whole = _literal(pattern)
        return [Place(self.text + text, whole)]

    def has_cookie(self, paths: tuple[str, ...]) -> bool:
        """Whether a cookie is read here, or may be as far as the place is known."""
        return self.text.startswith(paths) or (
            not self.whole and any(path.startswith(self.text) for path in paths)
        )


@dataclass(frozen=True, slots=True)
class Include:
    """One that leads to a page; ``places`` are where it is."""

    places: Sequence[Place]
    resolver: URLResolver

    def is_of(self, app: str) -> bool:
        """Whether these are the URLs of ``app`` itself."""
        name = getattr(self.resolver.urlconf_module, "__name__", "")
        return _within(app, name)


@dataclass(frozen=True, slots=True)
class Page:
    """One entry of the URLconf: where it is, what answers, and the includes that lead to it."""

    places: Sequence[Place]
    callback: Any
    includes: Sequence[Include] = ()

    def views(self) -> Iterator[Any]:
        """The callback and what decorators wrapped in it, with the classes of which they are."""
        view = self.callback
        for _ in range(WRAPPED):
            yield view
            yield from getattr(getattr(view, "view_class", None), "__mro__", ())
            view = view.func if isinstance(view, partial) else getattr(view, "__wrapped__", None)
            if view is None:
                return

    def is_of(self, app: str) -> bool:
        """Whether a view of ``app`` answers, or one derived from it."""
        return any(
            _within(app, getattr(view, "__module__", ""))
            for view in self.views()
            if not isinstance(view, type) or issubclass(view, View)
        )

    @property
    def needs(self) -> str:
        """What kind of page it is that needs a cookie: the name of an app; empty for none."""
        sites = (getattr(view, "admin_site", None) for view in self.views())
        if any(subclasses(type(site), ADMIN_SITE) for site in sites):
            return "admin"
        if self.is_of(f"{AUTH}.views"):
            return AUTH
        spaces = [include.resolver.namespace for include in self.includes]
        # allauth.headless needs no cookie for the client that it calls app, and a provider of
        # OpenID Connect has endpoints for programs.
        if ("headless" in spaces and "browser" not in spaces) or self.is_of("allauth.idp"):
            return ""
        return next((app for app in BROWSERS_APPS if self.is_of(app)), "")

    def home(self, kind: str) -> Sequence[Place]:
        """Where the first include is on the way to here that is all of one kind."""
        for each in self.includes:
            if each.is_of(kind) or each.resolver.app_name == kind == "admin":
                return [place for place in each.places if place.text != "/"]
        return ()


@dataclass(slots=True)
class Lost:
    """Pages of one kind without their cookie, and the paths to set so that they have it."""

    pages: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def add(self, place: Place, home: Sequence[Place] = ()) -> None:
        paths = [each.text for each in home if place.text.startswith(each.text)]
        self.pages.append(place.text)
        self.paths += paths or [place.text]

    def __str__(self) -> str:
        pages = list(dict.fromkeys(self.pages))
        return ", ".join(pages[:4]) + (" …" if len(pages) > 4 else "")

    @property
    def hint(self) -> str:
        paths = dict.fromkeys((*(cookie_paths() or ()), *self.paths))
        return f"HEADER_SESSIONS_COOKIE_PATHS = {tuple(paths)!r}"


@check(Tags.security)
def check_urls() -> Iterator[CheckMessage]:
    paths = cookie_paths()
    if paths is None:
        return
    login, auth, admin, apps, after = Lost(), Lost(), Lost(), Lost(), Lost()
    login_at, sent_to = _path_of(settings.LOGIN_URL), _path_of(settings.LOGIN_REDIRECT_URL)
    signs_in = False
    for page in _pages():
        kind = page.needs
        for place in page.places:
            if place.has_cookie(paths):
                signs_in = signs_in or kind not in ("", "admin")
                continue
            if kind:
                lost = {"admin": admin, AUTH: auth}.get(kind, apps)
                lost.add(place, page.home(kind))
            elif place == Place(login_at):
                login.add(place)
            elif place == Place(sent_to):
                after.add(place)
    if login.pages:
        yield Warning(
            f"No session cookie is read on the path of LOGIN_URL, {login}: a browser that is sent "
            "there cannot sign in.",
            hint=login.hint,
            id="header_sessions.W040",
        )
    if auth.pages:
        yield Warning(
            "No session cookie is read where Django's views for signing in and out and for "
            f"passwords are, so they do nothing for a browser: {auth}.",
            hint=auth.hint,
            id="header_sessions.W041",
        )
    if admin.pages:
        yield Warning(
            f"No session cookie is read in the admin, so nobody can sign in there: {admin}.",
            hint=admin.hint,
            id="header_sessions.W042",
        )
    if apps.pages:
        yield Warning(
            "No session cookie is read where an app has its pages for signing in by a browser, so "
            f"no browser comes out signed in: {apps}.",
            hint=apps.hint,
            id="header_sessions.W043",
        )
    if after.pages and signs_in:
        yield Warning(
            f"No session cookie is read on the path of LOGIN_REDIRECT_URL, {after}: a browser that "
            "has signed in is sent there, and is anonymous, as it is on any path but those of "
            "HEADER_SESSIONS_COOKIE_PATHS.",
            hint=after.hint,
            id="header_sessions.W045",
        )


@check(Tags.security)
def check_rest_framework_urls() -> Iterator[CheckMessage]:
    configured = getattr(settings, "REST_FRAMEWORK", {})
    classes = configured.get("DEFAULT_AUTHENTICATION_CLASSES", ())
    if any(subclasses(path, DRF_AUTHENTICATION) for path in classes):
        return
    if any(page.is_of(RESOURCE) for page in _pages()):
        yield Warning(
            "The session resource signs people in, and HeaderSessionAuthentication is not among "
            "DRF's default authentication classes: where a view does not name it, nobody is "
            "signed in by a header session.",
            hint="REST_FRAMEWORK['DEFAULT_AUTHENTICATION_CLASSES'] = "
            f"{[DRF_AUTHENTICATION, *classes]!r}",
            id="header_sessions.W014",
        )


def _pages() -> Iterator[Page]:
    """What the URLconf serves; nothing where it cannot be loaded, which Django's own check says."""
    try:
        waiting = deque(
            (each, [Place()], tuple[Include, ...]()) for each in get_resolver().url_patterns
        )
        # Not without end: an include may include itself.
        for _ in range(MOST):
            if not waiting:
                return
            entry, at, includes = waiting.popleft()
            places = [beyond for place in at for beyond in place.beyond(entry.pattern)]
            if isinstance(entry, URLPattern):
                yield Page(places, entry.callback, includes)
            else:
                on_the_way = (*includes, Include(places, entry))
                waiting += ((each, places, on_the_way) for each in entry.url_patterns)
    except Exception:  # a URLconf is a module, and may fail of anything
        return


def _literal(pattern: Any) -> tuple[str, bool]:
    """What ``pattern`` begins with for certain, and whether that is all there is to it."""
    is_route = isinstance(pattern, RoutePattern)
    text: object = vars(pattern).get("_route" if is_route else "_regex")
    if not isinstance(text, str):
        return "", False  # translated: another in each language
    if is_route:
        literal, _, rest = text.partition("<")
        return literal, not rest
    if not text and not pattern._is_endpoint:
        return "", True
    if not text.startswith("^") or "|" in text:
        return "", False
    found = re.match(r"(?:[^\\.+*?()\[\]{}^$]|\\[^A-Za-z0-9])*(?![+*?{])", text[1:])
    literal = found[0] if found else ""
    return re.sub(r"\\(.)", r"\1", literal), text[1 + len(literal) :] in ("", "$", r"\Z")


def _prefixes(pattern: LocalePrefixPattern) -> list[str]:
    # Without LANGUAGES of its own a project has one language in earnest, and a hundred in theory.
    own = settings.is_overridden("LANGUAGES")  # type: ignore[misc]
    languages = [code for code, _ in settings.LANGUAGES] if own else [settings.LANGUAGE_CODE]
    return [
        "" if code == settings.LANGUAGE_CODE and not pattern.prefix_default_language else f"{code}/"
        for code in languages
    ]


def _within(package: str, module: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def _path_of(to: Any) -> str:
    """The path that a setting leads to; empty where it is none, of another site, or of nothing."""
    try:
        url = urlsplit(resolve_url(to))
    except Exception:  # None, or a name that leads nowhere, or again the URLconf
        return ""
    return "" if url.netloc else "/" + url.path.removeprefix(get_script_prefix())
