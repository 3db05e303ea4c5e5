"""The monitor where it cannot show a list, in admin sites of other names, in other languages."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import translation

from django_header_sessions import registry
from django_header_sessions.admin import SessionAdmin
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft

from ..processes import ROOT, Valkey
from . import lost
from .conftest import LIST, TERMS, SignIn, cache_of, page_of, start


@pytest.fixture
def _file_cache(settings: Any, tmp_path: Any) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}


@pytest.mark.usefixtures("_file_cache")
def test_a_cache_that_cannot_list_gets_a_page_that_says_why_and_what_to_do(
    sign_in: SignIn,
) -> None:
    client = sign_in("view", "delete")
    user = User.objects.get()
    for url in (LIST, LIST + "?q=staff", f"{LIST}user/{user.pk}/end/"):
        response = client.get(url)
        page = response.content.decode()
        assert response.status_code == 200
        assert "These sessions cannot be listed." in page
        assert "cannot list its sessions" in page
        assert "django_redis.cache.RedisCache" in page
    key, _ = get_store("default").create(Draft("header", {"n": b"1"}), TERMS)
    assert key.id in client.get(page_of(key.id)).content.decode()
    client.post(page_of(key.id, "delete"), {"post": "yes"})
    assert registry.get(key.id) is None


@pytest.mark.usefixtures("_file_cache")
def test_a_cache_that_cannot_list_is_no_business_of_those_who_may_not_view(
    sign_in: SignIn,
) -> None:
    assert sign_in().get(LIST).status_code == 403


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "url",
    [
        LIST,
        *(page_of("a" * 15, view) for view in ("change", "delete", "history")),
        f"{LIST}user/7/end/",
    ],
)
def test_a_store_that_goes_away_while_a_page_is_made_gets_a_page_that_says_so(
    sign_in: SignIn, settings: Any, url: str, method: str
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.admin.lost.lose"]
    data = {"action": "end_selected", "_selected_action": "a" * 15, "post": "yes"}
    with Valkey() as server:
        settings.CACHES = {"default": cache_of(server)}
        client = sign_in("view", "delete")
        lost.servers.append(server)
        response = getattr(client, method)(url, data if method == "post" else {})
    assert response.status_code == 503
    assert response["Retry-After"] == "1"
    page = response.content.decode()
    assert "The store of the sessions does not answer." in page
    assert "Django administration" in page
    assert "sessionid" not in response.cookies
    # Who does not answer, and since when, as this process knows it.
    assert "its breaker is open" in page
    assert "&#x27;default&#x27; has not answered since" in page


def test_a_store_that_is_down_already_gets_a_page_that_says_so(
    sign_in: SignIn, settings: Any
) -> None:
    with Valkey() as server:
        settings.CACHES = {"default": cache_of(server)}
        client = sign_in("view", "delete")
    # The session of whoever looks cannot be opened either, so that this is not the admin's page.
    for url in (LIST, page_of("a" * 15), page_of("a" * 15, "history")):
        response = client.get(url, headers={"accept": "text/html"})
        assert response.status_code == 503
        assert response["Retry-After"] == "1"
        page = response.content.decode()
        assert "Sessions cannot be reached at the moment." in page
        assert "Nobody was signed out." in page
        assert "session key" not in page
        assert "sessionid" not in response.cookies


def test_a_page_whose_sessions_were_thrown_out_is_not_the_end(
    sign_in: SignIn,
    redis_cache: dict[str, Any],
    valkey: Valkey,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.CACHES = {"default": redis_cache}
    monkeypatch.setattr(SessionAdmin, "list_per_page", 2)
    client = sign_in("view")
    ids = [start(idle=600 + n) for n in range(40)]
    for gone in ids[-7:]:
        valkey.client.delete(*valkey.client.keys(f"*:s:{gone}"))
    page = client.get(LIST, {"transport": "header"}).content.decode()
    assert "The sessions that stood here are gone: the cache threw them out." in page
    assert 'rel="next"' in page
    page = client.get(LIST, {"transport": "header"}).content.decode()
    assert ids[32] in page


@pytest.mark.parametrize(
    ("query", "most"),
    [("", 20), ("?idle=300", 25), ("?user=77", 20), ("?q=192.0.2.1", 25), ("?q=aa", 25)],
)
def test_a_page_takes_as_many_round_trips_however_many_sessions_there_are(
    sign_in: SignIn,
    redis_cache: dict[str, Any],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    most: int,
) -> None:
    settings.CACHES = {"default": redis_cache}
    client = sign_in("view", "delete")

    class Service:
        pk = 77

    sent = 0
    send: Any = redis.connection.AbstractConnection.send_packed_command

    def counted(connection: Any, command: Any, check_health: bool = True) -> Any:
        nonlocal sent
        sent += 1
        return send(connection, command, check_health)

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
    trips = []
    for _ in range(120):  # more than a page of each kind that there is in the end
        start()
    for whose in (Service, None):
        for _ in range(450):
            start(whose)
        client.get(LIST + query)
        before = sent
        client.get(LIST + query)
        trips.append(sent - before)
    assert trips[0] == trips[1] <= most


@pytest.fixture
def back_office(settings: Any, db: None) -> Client:
    settings.ROOT_URLCONF = "tests.admin.urls"
    settings.HEADER_SESSIONS_COOKIE_PATHS = ("/admin/", "/back/")
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


HERE = "/back/office/django_header_sessions/session/"


def test_all_links_stay_in_the_site_they_are_in(back_office: Client) -> None:
    user = User.objects.create_user("alice")
    session_id = start(user)
    for url in (
        HERE + "?q=alice",
        f"{HERE}{session_id}/change/",
        f"{HERE}{session_id}/delete/",
        f"{HERE}{session_id}/history/",
        f"{HERE}user/{user.pk}/end/",
    ):
        page = back_office.get(url).content.decode()
        assert session_id in page
        assert '"/admin/' not in page
        assert f'"{HERE}' in page
    response = back_office.post(f"{HERE}{session_id}/delete/", {"post": "yes"})
    assert response["Location"] == HERE


def test_the_page_of_a_user_links_to_their_sessions(back_office: Client) -> None:
    user = User.objects.create_user("alice")
    start(user)
    start(user)
    page = back_office.get(f"/back/office/auth/user/{user.pk}/change/").content.decode()
    assert f'<a href="{HERE}?user={user.pk}">2 sessions</a>' in page
    assert page.count("2 sessions") == 1
    # Adding a user, and those who may not view sessions, get the page as it was.
    for url in ("add/", f"{user.pk}/change/"):
        assert "live sessions" not in back_office.get(f"/admin/auth/user/{url}").content.decode()
    assert "live sessions" not in back_office.get("/back/office/auth/user/add/").content.decode()
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "change_user"]))
    back_office.force_login(clerk)
    page = back_office.get(f"/back/office/auth/user/{user.pk}/change/").content.decode()
    assert "alice" in page
    assert "2 sessions" not in page


@pytest.mark.parametrize("site", ["plain", "lone"])
def test_the_page_of_a_user_that_names_no_fields_shows_sessions_to_those_who_may_view_them(
    back_office: Client, site: str
) -> None:
    """``plain`` has a ModelAdmin without fieldsets, ``lone`` no page of sessions besides."""
    user = User.objects.create_user("alice")
    start(user)
    url = f"/back/{site}/auth/user/{user.pk}/change/"
    page = back_office.get(url).content.decode()
    assert page.count("1 session") == 1
    assert ("?user=" in page) is (site == "plain")
    add = f"/back/{site}/auth/user/add/"
    assert "ive sessions" not in back_office.get(add).content.decode()
    clerk = User.objects.create_user("clerk", is_staff=True)
    codenames = ["view_user", "change_user", "add_user"]
    clerk.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    back_office.force_login(clerk)
    for each in (url, add):
        response = back_office.get(each)
        assert "live_sessions" not in response.context["adminform"].readonly_fields
        page = response.content.decode()
        assert "1 session" not in page
        assert "ive sessions" not in page


def test_the_page_of_a_user_shows_their_sessions_once_wherever_its_fields_have_them(
    back_office: Client,
) -> None:
    user = User.objects.create_user("alice")
    start(user)
    url = f"/back/lines/auth/user/{user.pk}/change/"
    page = back_office.get(url).content.decode()
    assert page.count("1 session") == 1
    assert 'name="username"' in page
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_user", "change_user"]))
    back_office.force_login(clerk)
    page = back_office.get(url).content.decode()
    assert "1 session" not in page
    assert 'name="username"' in page


def test_a_user_whose_page_has_an_address_of_its_own_is_named_and_not_linked(
    back_office: Client,
) -> None:
    user = User.objects.create_user("alice")
    session_id = start(user)
    for site, linked in (("office", True), ("elsewhere", False)):
        here = f"/back/{site}/django_header_sessions/session/"
        page = back_office.get(f"{here}{session_id}/change/").content.decode()
        assert "alice" in page
        assert (">alice</a>" in page) is linked


def test_the_page_of_a_user_counts_no_further_than_it_says(
    back_office: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST", 3)
    user = User.objects.create_user("alice")
    for _ in range(4):
        start(user)
    page = back_office.get(f"/back/office/auth/user/{user.pk}/change/").content.decode()
    assert ">3 sessions or more</a>" in page


def test_what_an_admin_of_ones_own_adds_to_a_page_is_on_it(back_office: Client) -> None:
    """``tests.admin.urls`` gives the pages of ``own`` titles and a template."""
    session_id = start()
    here = "/back/own/django_header_sessions/session/"
    page = back_office.get(here).content.decode()
    assert "<h1>Who is here</h1>" in page
    assert session_id in page
    page = back_office.get(f"{here}{session_id}/change/").content.decode()
    assert "<h1>One of them</h1>" in page
    assert '<a href="/then/" class="historylink">' in page
    page = back_office.get(f"{here}{session_id}/delete/").content.decode()
    assert "<h1>Sure?</h1>" in page
    page = back_office.get(f"{here}{session_id}/history/").content.decode()
    assert "<h1>What was</h1>" in page
    chosen = {"action": "end_selected", "_selected_action": session_id}
    assert back_office.post(here, chosen).content.decode() == f"Really? {session_id}\n"


def test_the_page_of_a_user_can_be_saved(back_office: Client) -> None:
    user = User.objects.create_user("alice")
    data = {
        "username": "alice b",
        "date_joined_0": "2026-01-01",
        "date_joined_1": "00:00:00",
    }
    back_office.post(f"/back/office/auth/user/{user.pk}/change/", {**data, "username": "alice.b"})
    user.refresh_from_db()
    assert user.username == "alice.b"


@pytest.mark.usefixtures("_file_cache")
def test_the_page_of_a_user_says_where_sessions_cannot_be_listed(back_office: Client) -> None:
    user = User.objects.create_user("alice")
    page = back_office.get(f"/back/office/auth/user/{user.pk}/change/").content.decode()
    assert "The cache behind the sessions cannot list them." in page


def test_the_page_of_a_user_outlives_the_store(back_office: Client, settings: Any) -> None:
    user = User.objects.create_user("alice")
    with Valkey() as server:
        settings.CACHES = {"default": cache_of(server)}
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "tests.admin.lost.lose"]
        back_office.force_login(User.objects.get(username="root"))
        lost.servers.append(server)
        response = back_office.get(f"/back/office/auth/user/{user.pk}/change/")
    assert "Sessions cannot be reached at the moment." in response.content.decode()


def test_numbers_in_the_drawing_are_for_machines(sign_in: SignIn) -> None:
    client = sign_in("view")
    for _ in range(3):
        registry.end(start())
    with translation.override("de"):
        page = client.get(LIST, headers={"accept-language": "de"}).content.decode()
    drawing = page[page.index("<svg viewBox") :]
    drawing = drawing[: drawing.index("</svg>")]
    assert "hs-created" in drawing
    for name in ("height", "y", "x", "width"):
        for part in drawing.split(f' {name}="')[1:]:
            float(part.split('"')[0].removesuffix("%"))


@pytest.mark.parametrize(
    ("kind", "users", "passed"),
    [
        ("people/with_email.py", "settings", 2),
        ("people/with_email.py", "employees", 2),
        ("workers/with_number.py", "settings", 9),
    ],
)
def test_users_with_names_and_keys_of_another_kind_are_found(
    kind: str, users: str, passed: int
) -> None:
    """A user model of one's own is chosen once a process: this one is another's."""
    tests = ROOT / "tests" / "admin" / kind
    settings = f"--ds=tests.admin.{tests.parent.name}.{users}"
    command = [sys.executable, "-m", "pytest", "-q", settings, str(tests)]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert f"{passed} passed" in done.stdout


THEME = {
    # Of these a theme has more than Django, and outside of the content.
    "admin/change_form.html": '{% extends "admin/base_site.html" %}{% load admin_modify %}'
    "{% block footer %}{% block submit_buttons_top %}{% submit_row %}{% endblock %}"
    "{% block submit_buttons_bottom %}{% submit_row %}{% endblock %}{% endblock %}",
    "admin/change_list.html": '{% extends "admin/base_site.html" %}{% load admin_list %}'
    "{% block content %}{% block pagination_top %}{% pagination cl %}{% endblock %}"
    "{% block result_list %}{% endblock %}"
    "{% block pagination_bottom %}{% pagination cl %}{% endblock %}{% endblock %}",
}


@pytest.mark.django_db
def test_a_themes_own_templates_do(settings: Any, sign_in: SignIn) -> None:
    (templates,) = settings.TEMPLATES
    options = dict(templates["OPTIONS"])
    options["loaders"] = [
        ("django.template.loaders.locmem.Loader", THEME),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = [{**templates, "APP_DIRS": False, "OPTIONS": options}]
    session_id = start(n=1)
    client = sign_in("view", "delete")
    for url in (LIST, page_of(session_id), page_of(session_id, "delete")):
        response = client.get(url)
        assert response.status_code == 200
        assert session_id in response.content.decode()
