"""Whose page a cache serves to whom: Django's cache decorator and middlewares, on both transports.

The views are their own, since what is looked at is what stands around them.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_control, cache_page
from django.views.decorators.vary import vary_on_cookie

from django_header_sessions.decorators import vary_on_session
from django_header_sessions.testing import AsyncHeaderSessionClient, HeaderSessionClient

pytestmark = pytest.mark.urls(__name__)

UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
OURS = "django_header_sessions.middleware.HeaderSessionMiddleware"


def write(request: HttpRequest) -> HttpResponse:
    """What stands in the session from now on."""
    request.session["name"] = request.GET["name"]
    return HttpResponse()


def greet(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"Hello, {request.session.get('name', 'stranger')}")


async def agreet(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"Hello, {await request.session.aget('name', 'stranger')}")


def start(request: HttpRequest) -> HttpResponse:
    """Starts a session, and has something of it in its answer."""
    request.session.create()
    return HttpResponse(f"The session of {request.GET['name']}")


def remember(request: HttpRequest) -> HttpResponse:
    """Starts a session by writing to it."""
    request.session["name"] = request.GET["name"]
    return HttpResponse(f"Hello, {request.session['name']}")


async def aremember(request: HttpRequest) -> HttpResponse:
    await request.session.aset("name", request.GET["name"])
    return HttpResponse(f"Hello, {await request.session.aget('name')}")


class Remembering:
    """Writes to a session when a template shows it."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request

    def __str__(self) -> str:
        self.request.session["name"] = self.request.GET["name"]
        return str(self.request.session["name"])


def rendered(request: HttpRequest) -> SimpleTemplateResponse:
    """Starts a session while it is rendered, after the view's end."""
    template: Any = engines["django"].from_string("Hello, {{ name }}")
    return SimpleTemplateResponse(template, {"name": Remembering(request)})


class Greeting(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return greet(request)


@method_decorator(vary_on_session, name="get")
class OnGet(Greeting):
    pass


@method_decorator(vary_on_session, name="dispatch")
class OnDispatch(Greeting):
    pass


@method_decorator(vary_on_session, name="dispatch")
class AsyncOnDispatch(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await agreet(request)


def patterns(prefix: str) -> list[Any]:
    return [
        path(f"{prefix}write/", write),
        path(f"{prefix}greet/", greet),
        path(f"{prefix}agreet/", agreet),
        path(f"{prefix}alone/", cache_page(60)(greet)),
        path(f"{prefix}by-cookie/", cache_page(60)(vary_on_cookie(greet))),
        path(f"{prefix}by-session/", cache_page(60)(vary_on_session(greet))),
        path(f"{prefix}aby-session/", cache_page(60)(vary_on_session(agreet))),
        path(
            f"{prefix}here-alone/",
            cache_control(private=True)(cache_page(60)(vary_on_session(greet))),
        ),
        path(f"{prefix}remember-by-cookie/", cache_page(60)(vary_on_cookie(remember))),
        path(f"{prefix}start/", cache_page(60)(vary_on_session(start))),
        path(f"{prefix}remember/", cache_page(60)(vary_on_session(remember))),
        path(f"{prefix}aremember-cached/", cache_page(60)(vary_on_session(aremember))),
        path(f"{prefix}rendered/", cache_page(60)(vary_on_session(rendered))),
        path(f"{prefix}varying/", vary_on_session(greet)),
        path(f"{prefix}avarying/", vary_on_session(agreet)),
        path(f"{prefix}aremember/", vary_on_session(aremember)),
        path(f"{prefix}on-get/", OnGet.as_view()),
        path(f"{prefix}on-dispatch/", OnDispatch.as_view()),
        path(f"{prefix}async-on-dispatch/", AsyncOnDispatch.as_view()),
    ]


urlpatterns = [*patterns(""), *patterns("site/")]


@pytest.fixture(autouse=True)
def _pages(settings: Any) -> None:
    """Pages are cached beside the sessions, and none is there yet."""
    settings.HEADER_SESSIONS_COOKIE_PATHS = ("/site/",)
    caches["default"].clear()


def named(name: str, kind: Any = HeaderSessionClient) -> Any:
    """A client whose session holds this name."""
    client = kind()
    assert client.get("/site/write/", {"name": name}).status_code == 200
    return client


def page(client: Client, address: str, **query: str) -> str:
    answer = client.get(address, query)
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_a_page_that_varies_on_the_cookie_is_each_browsers_own() -> None:
    ann, bob = named("Ann", Client), named("Bob", Client)
    assert page(ann, "/site/by-cookie/") == "Hello, Ann"
    assert page(bob, "/site/by-cookie/") == "Hello, Bob"
    assert page(Client(), "/site/by-cookie/") == "Hello, stranger"


@pytest.mark.parametrize("kind", [HeaderSessionClient, Client])
def test_a_page_that_varies_on_nothing_is_served_to_others(kind: type[Client]) -> None:
    ann, bob = named("Ann", kind), named("Bob", kind)
    assert page(ann, "/site/alone/") == "Hello, Ann"
    assert page(bob, "/site/alone/") == "Hello, Ann"


@pytest.mark.parametrize("prefix", ["/", "/site/"])
def test_a_page_that_varies_on_the_cookie_is_served_to_others_on_a_header(prefix: str) -> None:
    """Why there is ``vary_on_session``; Django's decorator knows of cookies alone."""
    ann, bob = named("Ann"), named("Bob")
    assert page(ann, f"{prefix}by-cookie/") == "Hello, Ann"
    assert page(bob, f"{prefix}by-cookie/") == "Hello, Ann"


@pytest.mark.parametrize("view", ["by-session", "aby-session"])
def test_a_page_that_varies_on_the_session_is_each_clients_own_on_both_transports(
    view: str,
) -> None:
    for _ in range(2):
        clients = {
            "Ann": named("Ann"),
            "Bob": named("Bob"),
            "Cy": named("Cy", Client),
            "Dee": named("Dee", Client),
            "stranger": HeaderSessionClient(),
        }
        for name, client in (*clients.items(), *reversed(clients.items())):
            assert page(client, f"/site/{view}/") == f"Hello, {name}"
    assert page(Client(), f"/site/{view}/") == "Hello, stranger"


@pytest.mark.parametrize("view", ["by-session", "aby-session"])
def test_a_page_that_varies_on_the_session_is_served_from_the_cache(view: str) -> None:
    ann = named("Ann")
    assert page(ann, f"/{view}/") == "Hello, Ann"
    page(ann, "/write/", name="Anna")
    assert page(ann, f"/{view}/") == "Hello, Ann", "made a minute ago at the most"


def test_a_page_from_the_cache_is_for_a_session_that_is_live() -> None:
    ann = named("Ann")
    page(ann, "/by-session/")
    answer = ann.get("/by-session/")
    assert answer.headers["X-Session-Expires-In"] in ("1800", "1799")
    ann.session.delete()
    assert ann.get("/by-session/").status_code == 401


def test_where_unknown_keys_are_renewed_the_page_of_an_ended_session_lives_as_long_as_it_may(
    settings: Any,
) -> None:
    settings.HEADER_SESSIONS_UNKNOWN = "renew"
    ann = named("Ann")
    assert page(ann, "/by-session/") == "Hello, Ann"
    key = ann.session_key
    ann.session.delete()
    answer = Client().get("/by-session/", headers={"X-Session-Key": str(key)})
    assert answer.content == b"Hello, Ann"
    assert answer.headers["X-Session-Key"] == ""
    caches["default"].clear()
    answer = Client().get("/by-session/", headers={"X-Session-Key": str(key)})
    assert answer.content == b"Hello, stranger"


@pytest.mark.parametrize("view", ["start", "remember", "aremember-cached", "rendered"])
@pytest.mark.parametrize("kind", [HeaderSessionClient, Client])
def test_an_answer_that_started_a_session_is_not_kept_for_the_next_caller(
    view: str, kind: type[Client]
) -> None:
    assert "Ann" in page(kind(), f"/site/{view}/", name="Ann")
    # With the same query, so that the address is the same; and that one was not kept either.
    page(kind(), f"/site/{view}/", name="Ann")
    kept: Any = caches["default"]
    assert not [key for key in kept._cache if "cache_page" in key]


@pytest.mark.parametrize("view", ["start", "remember", "aremember-cached", "rendered"])
def test_nor_is_one_to_a_cookie_that_opened_nothing(view: str) -> None:
    """Or whoever had it sent by somebody else would be given that one's session."""
    for _ in range(2):
        browser = Client()
        browser.cookies["sessionid"] = "a" * 40
        assert "Ann" in page(browser, f"/site/{view}/", name="Ann")
    kept: Any = caches["default"]
    assert not [key for key in kept._cache if "cache_page" in key]


def test_djangos_decorator_keeps_it() -> None:
    address = "/site/remember-by-cookie/"
    assert "sessionid" in Client().get(address, {"name": "Ann"}).cookies
    kept = Client().get(address, {"name": "Ann"})
    assert kept.content == b"Hello, Ann"
    assert "sessionid" not in kept.cookies


def test_no_key_is_kept_with_a_page() -> None:
    ann = named("Ann")
    page(ann, "/by-session/")
    assert ann.session_key is not None
    kept: Any = caches["default"]
    assert [key for key in kept._cache if "cache_page" in key]
    for key, value in kept._cache.items():
        assert ann.session_key[15:] not in key
        assert ann.session_key[15:].encode() not in value


def test_the_headers_name_is_read_live(settings: Any) -> None:
    settings.HEADER_SESSIONS_HEADER = "X-Sid"
    ann, bob = named("Ann"), named("Bob")
    assert page(ann, "/by-session/") == "Hello, Ann"
    assert page(bob, "/by-session/") == "Hello, Bob"


def varies_on(answer: Any) -> set[str]:
    return {name.strip() for name in answer.headers["Vary"].split(",")}


BOTH = {"X-Session-Key", "Cookie"}


@pytest.mark.parametrize(
    "view", ["varying", "avarying", "on-get", "on-dispatch", "async-on-dispatch"]
)
async def test_every_kind_of_view_can_be_decorated(view: str) -> None:
    # On a header path, where nobody else would name the cookie.
    assert varies_on(await AsyncHeaderSessionClient().get(f"/{view}/")) == BOTH


@pytest.mark.parametrize(
    "view", ["varying", "avarying", "on-get", "on-dispatch", "async-on-dispatch"]
)
def test_every_kind_of_view_can_be_decorated_under_wsgi_too(view: str) -> None:
    assert varies_on(HeaderSessionClient().get(f"/{view}/")) == BOTH


async def test_an_async_answer_that_started_a_session_is_private() -> None:
    answer = await AsyncClient().get("/site/aremember/", {"name": "Ann"})
    assert answer.headers["Cache-Control"] == "private"
    assert varies_on(answer) == BOTH


def test_a_page_may_be_cached_here_and_by_its_client_alone() -> None:
    ann = named("Ann")
    for _ in range(2):
        answer = ann.get("/here-alone/")
        assert set(answer.headers["Cache-Control"].split(", ")) == {"max-age=60", "private"}
    page(ann, "/write/", name="Anna")
    assert page(ann, "/here-alone/") == "Hello, Ann"


@pytest.fixture
def cached_site(settings: Any) -> Any:
    """All of the site is cached, as Django's documentation has it."""
    settings.MIDDLEWARE = [UPDATE, *settings.MIDDLEWARE, FETCH]
    return settings


@pytest.mark.usefixtures("cached_site")
@pytest.mark.parametrize("view", ["greet", "agreet"])
def test_djangos_cache_middlewares_keep_sessions_apart_by_themselves(view: str) -> None:
    address = f"/site/{view}/"
    clients = {
        "Ann": named("Ann"),
        "Bob": named("Bob"),
        "Cy": named("Cy", Client),
        "Dee": named("Dee", Client),
        "stranger": HeaderSessionClient(),
    }
    for name, client in (*clients.items(), *reversed(clients.items())):
        assert page(client, address) == f"Hello, {name}"
    # It was the cache that answered in the second turn.
    page(clients["Ann"], "/site/write/", name="Anna")
    assert page(clients["Ann"], address) == "Hello, Ann"


@pytest.mark.usefixtures("cached_site")
async def test_djangos_cache_middlewares_keep_sessions_apart_under_asgi() -> None:
    clients = {}
    for name in ("Ann", "Bob"):
        clients[name] = AsyncHeaderSessionClient()
        await clients[name].get("/write/", {"name": name})
    for name, client in (*clients.items(), *reversed(clients.items())):
        answer = await client.get("/agreet/")
        assert answer.content.decode() == f"Hello, {name}"


@pytest.mark.usefixtures("cached_site")
def test_djangos_cache_middlewares_keep_no_answer_that_tells_a_key() -> None:
    first, second = HeaderSessionClient(), HeaderSessionClient()
    for client in (first, second):
        client.get("/write/", {"name": "Ann"})
    assert first.session_key is not None
    assert second.session_key is not None
    assert first.session_key.id != second.session_key.id


@pytest.mark.usefixtures("cached_site")
def test_djangos_cache_middlewares_serve_no_page_of_a_session_that_has_ended() -> None:
    ann = named("Ann")
    assert page(ann, "/greet/") == "Hello, Ann"
    assert ann.get("/greet/").headers["X-Session-Expires-In"] in ("1800", "1799")
    ann.session.delete()
    assert ann.get("/greet/").status_code == 401


def test_update_inside_of_the_session_middleware_serves_a_page_to_others(settings: Any) -> None:
    """What the order in Django's documentation guards against."""
    middleware = list(settings.MIDDLEWARE)
    middleware.insert(middleware.index(OURS) + 1, UPDATE)
    settings.MIDDLEWARE = [*middleware, FETCH]
    ann, bob = named("Ann"), named("Bob")
    assert page(ann, "/greet/") == "Hello, Ann"
    assert page(bob, "/greet/") == "Hello, Ann"
