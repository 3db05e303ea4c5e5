"""The checks on the URLconf: pages that need a browser's cookie, where none is read."""

from __future__ import annotations

import ast
from functools import partial
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.urls import urlpatterns as auth_urls
from django.core.checks import Warning
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import (
    URLPattern,
    URLResolver,
    clear_script_prefix,
    include,
    path,
    re_path,
    reverse_lazy,
    set_script_prefix,
)
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.generic import RedirectView, View

from django_header_sessions import registry
from django_header_sessions.checks.urls import check_urls
from tests.test_checks import override, raised

Entry = URLPattern | URLResolver

own_site = AdminSite(name="own")


class OwnLogin(auth.LoginView):
    """A project's own, made of Django's."""


class Reset(auth.PasswordContextMixin, View):
    """Has something of Django's, and is none of its views."""


page = View.as_view()


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username())


def from_package(module: str) -> Any:
    """A view of an app that is not installed here."""
    view = View.as_view()
    view.__module__ = module
    return view


endless: Any = View.as_view()
endless.__wrapped__ = endless


LOGIN = auth.LoginView.as_view()

DRFS = ["/api-auth/login/", "/api-auth/logout/"]

# The check, entries of the URLconf with settings, and the paths that it says to add.
RAISED: list[tuple[str, list[Entry], dict[str, Any], list[str]]] = [
    ("W040", [path("enter/", page)], {"LOGIN_URL": "/enter/"}, ["/enter/"]),
    ("W040", [path("enter/", page, name="enter")], {"LOGIN_URL": "enter"}, ["/enter/"]),
    (
        "W040",
        [path("enter/", include([path("here/", page, name="enter")]))],
        {"LOGIN_URL": reverse_lazy("enter")},
        ["/enter/here/"],
    ),
    ("W040", [path("accounts/login/", page)], {}, ["/accounts/login/"]),
    ("W040", [re_path(r"^enter/$", page)], {"LOGIN_URL": "/enter/"}, ["/enter/"]),
    ("W041", [path("login/", LOGIN)], {}, ["/login/"]),
    ("W041", [path("login", LOGIN)], {"LOGIN_URL": "/login"}, ["/login"]),
    ("W041", [path("api/login/", OwnLogin.as_view())], {}, ["/api/login/"]),
    ("W041", [path("login/", login_required(never_cache(LOGIN)))], {}, ["/login/"]),
    ("W041", [path("login/", partial(LOGIN, next="/"))], {}, ["/login/"]),
    ("W041", [path("out/", login_required(auth.LogoutView.as_view()))], {}, ["/out/"]),
    ("W041", [path("out/", auth.logout_then_login)], {}, ["/out/"]),
    (
        "W041",
        [path("reset/<uidb64>/<token>/", auth.PasswordResetConfirmView.as_view())],
        {},
        ["/reset/"],
    ),
    ("W041", [path("accounts/", include("django.contrib.auth.urls"))], {}, ["/accounts/"]),
    (
        "W041",
        [path("", include("django.contrib.auth.urls"))],
        {},
        [
            *("/login/", "/logout/", "/password_change/", "/password_change/done/"),
            *("/password_reset/", "/password_reset/done/", "/reset/", "/reset/done/"),
        ],
    ),
    ("W041", [path("admin", LOGIN)], {}, ["/admin"]),
    (
        "W041",
        [path("a/", include(([path("b/", include([path("c/", LOGIN)]))], "a"), "b"))],
        {},
        ["/a/b/c/"],
    ),
    ("W041", [re_path(r"^accounts/login/?$", LOGIN)], {}, ["/accounts/login"]),
    ("W041", [re_path(r"^x\.y/", include([re_path(r"^login\Z", LOGIN)]))], {}, ["/x.y/login"]),
    ("W041", [re_path("", include([path("login/", LOGIN)]))], {}, ["/login/"]),
    ("W041", [path("api-auth/", include("rest_framework.urls"))], {}, DRFS),
    ("W041", [path("<slug:of>/login/", LOGIN)], {"HEADER_SESSIONS_COOKIE_PATHS": ()}, ["/"]),
    ("W042", [path("backoffice/", own_site.urls)], {}, ["/backoffice/"]),
    ("W042", [path("back/", include([path("office/", own_site.urls)]))], {}, ["/back/office/"]),
    (
        "W042",
        [path("admin/", own_site.urls)],
        {"HEADER_SESSIONS_COOKIE_PATHS": ["/accounts/"]},
        ["/admin/"],
    ),
    ("W042", [path("admin/", own_site.urls)], {"HEADER_SESSIONS_COOKIE_PATHS": ()}, ["/admin/"]),
    ("W043", [path("oauth/", from_package("social_django.views"))], {}, ["/oauth/"]),
    ("W043", [path("oidc/", from_package("mozilla_django_oidc.views"))], {}, ["/oidc/"]),
    (
        "W045",
        [path("admin/enter/", LOGIN), path("private/", page)],
        {"LOGIN_REDIRECT_URL": "/private/"},
        ["/private/"],
    ),
    # What Django sends them to where nothing is said.
    (
        "W045",
        [path("accounts/profile/", page), path("admin/enter/", LOGIN)],
        {},
        ["/accounts/profile/"],
    ),
]
NOT_RAISED: list[tuple[list[Entry], dict[str, Any]]] = [
    ([path("enter/", page)], {"LOGIN_URL": "https://sso.example/enter/"}),
    ([path("enter/", page)], {"LOGIN_URL": "nowhere"}),
    ([path("enter/", page)], {"LOGIN_URL": "/elsewhere/"}),
    ([path("enter/", page)], {"LOGIN_URL": None}),
    ([path("enter/", page)], {}),
    ([path("admin/enter/", page)], {"LOGIN_URL": "/admin/enter/"}),
    # Whatever is asked for, a page of scripts answers.
    ([re_path("", page)], {"LOGIN_URL": "/enter/"}),
    ([re_path("^.*$", page)], {"LOGIN_URL": "/enter/"}),
    ([path("<path:any>", page)], {"LOGIN_URL": "/enter/"}),
    ([path("admin/login/", LOGIN)], {}),
    ([path("login/", LOGIN)], {"HEADER_SESSIONS_COOKIE_PATHS": ("/",)}),
    ([path("", include(auth_urls))], {"HEADER_SESSIONS_COOKIE_PATHS": ["/"]}),
    ([path("reset/", Reset.as_view())], {}),
    ([path("old-login/", RedirectView.as_view(url="/admin/login/"))], {}),
    # Where it is not known what a path is, it may be a right one.
    ([path("<slug:of>/login/", LOGIN)], {}),
    ([path("a", include([path("<slug:of>/", LOGIN)]))], {}),
    ([path("<slug:of>/", include([path("login/", LOGIN)]))], {}),
    ([path("around/", endless)], {}),
    ([re_path(r"login/$", LOGIN)], {}),
    ([re_path(r"^login/$|^admin/$", LOGIN)], {}),
    ([re_path(r"^(?:admin|accounts)/login/$", LOGIN)], {}),
    ([re_path(r"^admin?/login/$", LOGIN)], {}),
    ([path(gettext_lazy("login/"), LOGIN)], {}),
    ([path("backoffice/", own_site.urls)], {"HEADER_SESSIONS_COOKIE_PATHS": ("/backoffice/",)}),
    ([path("oauth/", from_package("social_djangoes.views"))], {}),
    ([path("token", from_package("allauth.idp.oidc.views"))], {}),
    ([path("oauth/", page)], {}),
    # In the admin alone, which sends nobody there.
    ([path("private/", page)], {"LOGIN_REDIRECT_URL": "/private/"}),
    (
        [path("admin/enter/", LOGIN), path("admin/private/", page)],
        {"LOGIN_REDIRECT_URL": "/admin/private/"},
    ),
    ([path("admin/enter/", LOGIN)], {"LOGIN_REDIRECT_URL": "/nowhere/"}),
]


def prepare(settings: Any, entries: list[Entry], overrides: dict[str, Any]) -> None:
    settings.ROOT_URLCONF = (path("admin/auth/", admin.site.urls), *entries)
    override(settings, overrides)


@pytest.mark.parametrize(("number", "entries", "overrides", "paths"), RAISED)
def test_a_page_without_its_cookie_is_named_with_the_paths_that_mend_it(
    settings: Any,
    number: str,
    entries: list[Entry],
    overrides: dict[str, Any],
    paths: list[str],
) -> None:
    prepare(settings, entries, overrides)
    if overrides.get("HEADER_SESSIONS_COOKIE_PATHS") is not None:
        settings.ROOT_URLCONF = settings.ROOT_URLCONF[1:]
    before = tuple(overrides.get("HEADER_SESSIONS_COOKIE_PATHS", ("/admin/",)))
    found = raised()
    assert found.keys() == {number}
    assert isinstance(found[number], Warning)
    assert paths[0] in found[number].msg
    name, _, value = str(found[number].hint).partition(" = ")
    told = ast.literal_eval(value)
    assert told == (*before, *paths)
    setattr(settings, name, told)
    assert raised() == {}


@pytest.mark.parametrize(("entries", "overrides"), NOT_RAISED)
def test_a_page_that_has_its_cookie_or_needs_none_is_not_named(
    settings: Any, entries: list[Entry], overrides: dict[str, Any]
) -> None:
    prepare(settings, entries, overrides)
    if overrides.get("HEADER_SESSIONS_COOKIE_PATHS") is not None:
        settings.ROOT_URLCONF = settings.ROOT_URLCONF[1:]
    assert raised() == {}


LANGUAGES = [("en", "English"), ("de", "German")]


@pytest.mark.parametrize(
    ("overrides", "default_has_prefix", "paths", "lost"),
    [
        ({"LANGUAGES": LANGUAGES}, True, ("/en/login/",), ["/de/login/"]),
        ({"LANGUAGES": LANGUAGES}, True, ("/admin/",), ["/en/login/", "/de/login/"]),
        ({"LANGUAGES": LANGUAGES}, True, ("/en/", "/de/"), []),
        ({"LANGUAGES": LANGUAGES}, False, ("/de/",), ["/login/"]),
        # A project that set none is not asked for paths in a hundred languages.
        ({}, True, ("/en/",), []),
        ({}, True, ("/admin/",), ["/en/login/"]),
    ],
)
def test_paths_in_each_language_are_looked_at(
    settings: Any,
    overrides: dict[str, Any],
    default_has_prefix: bool,
    paths: tuple[str, ...],
    lost: list[str],
) -> None:
    entries = i18n_patterns(path("login/", LOGIN), prefix_default_language=default_has_prefix)
    settings.ROOT_URLCONF = tuple(entries)
    override(
        settings,
        {"LANGUAGE_CODE": "en", "HEADER_SESSIONS_COOKIE_PATHS": paths} | overrides,
    )
    found = raised()
    assert found.keys() == ({"W041"} if lost else set())
    if lost:
        told = ast.literal_eval(str(found["W041"].hint).partition(" = ")[2])
        assert told == (*paths, *lost)


def test_in_each_language_the_include_is_what_is_to_be_set(settings: Any) -> None:
    settings.ROOT_URLCONF = tuple(
        i18n_patterns(path("accounts/", include("django.contrib.auth.urls")))
    )
    override(settings, {"LANGUAGE_CODE": "en", "LANGUAGES": LANGUAGES})
    told = ast.literal_eval(str(raised()["W041"].hint).partition(" = ")[2])
    assert told == ("/admin/", "/en/accounts/", "/de/accounts/")


def test_below_a_script_the_login_url_is_told_with_it(settings: Any) -> None:
    prepare(settings, [path("enter/", page, name="enter")], {"LOGIN_URL": "enter"})
    set_script_prefix("/app/")
    try:
        assert raised().keys() == {"W040"}
    finally:
        clear_script_prefix()


def test_many_pages_are_named_in_short(settings: Any) -> None:
    prepare(settings, [path("accounts/", include("django.contrib.auth.urls"))], {})
    message = raised()["W041"].msg
    assert message.count("/accounts/") == 4
    assert message.endswith(" ….")


@pytest.mark.parametrize("urlconf", ["tests.nowhere", "tests.broken_urls", ""])
def test_a_urlconf_that_cannot_be_loaded_is_djangos_business(settings: Any, urlconf: str) -> None:
    settings.ROOT_URLCONF = urlconf
    assert list(check_urls()) == []


def test_a_project_without_urls_is_asked_nothing(settings: Any) -> None:
    del settings.ROOT_URLCONF
    assert list(check_urls()) == []


def test_a_urlconf_without_end_is_looked_at_so_far(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.looping_urls"
    (found,) = check_urls()
    assert found.id == "header_sessions.W041"


# What the checks are there for.


@pytest.mark.django_db
def test_a_browser_cannot_sign_in_without_its_cookie_and_leaves_a_session_behind(
    settings: Any,
) -> None:
    User.objects.create_user("ann", password="ann's password")
    prepare(settings, [path("login/", LOGIN), path("", whoami)], {"LOGIN_REDIRECT_URL": "/"})
    browser = Client()
    credentials = {"username": "ann", "password": "ann's password"}
    for tries in (1, 2):
        answer = browser.post("/login/", credentials, follow=True)
        assert answer.redirect_chain == [("/", 302)]
        assert answer.content == b""
        assert sum(registry.count().values()) == tries
    override(settings, {"HEADER_SESSIONS_COOKIE_PATHS": ("/",)})
    assert browser.post("/login/", credentials, follow=True).content == b"ann"


OURS = "django_header_sessions.rest_framework.authentication.HeaderSessionAuthentication"
TOKENS = "rest_framework.authentication.TokenAuthentication"
RESOURCE = path("api/sessions/", include("django_header_sessions.rest_framework.urls"))


@pytest.mark.parametrize("others", [None, [], [TOKENS]])
def test_a_resource_that_signs_in_for_views_that_do_not_know_it(
    settings: Any, others: list[str] | None
) -> None:
    prepare(settings, [RESOURCE], {})
    settings.REST_FRAMEWORK = {} if others is None else {"DEFAULT_AUTHENTICATION_CLASSES": others}
    found = raised()
    assert found.keys() == {"W014"}
    told = ast.literal_eval(str(found["W014"].hint).partition(" = ")[2])
    assert told == [OURS, *(others or [])]
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": told}
    assert raised() == {}


def test_where_the_resource_is_not_others_may_sign_in(settings: Any) -> None:
    prepare(settings, [], {})
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": [TOKENS]}
    assert raised() == {}
