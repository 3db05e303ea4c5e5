"""A session key is a password: no error page, no e-mail about an error and no log has it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.core import mail
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.utils.log import AdminEmailHandler
from django.views.debug import SafeExceptionReporterFilter

from django_header_sessions.conf import conf
from django_header_sessions.engine import SessionStore
from django_header_sessions.keys import make
from django_header_sessions.reporting import SessionKeyReporterFilter, mask_key

from .site import KEY, Action, Site

NAMES = ["X-Session-Key", "X-Sid"]
"""One that Django masks by itself, and one that it does not."""

FAILURES: list[tuple[str, list[Action], str]] = [
    ("the view", [["fail_with_key"]], ""),
    ("the view with its request", [["fail_with_request"]], ""),
    ("the view after a rotation", [["cycle_key"], ["fail_with_key"]], ""),
    ("the view after signing in", [["login", "ann"], ["fail_with_key"]], ""),
    ("a middleware before the view", [], "fail before"),
    ("a middleware after the view", [["item", "here"]], "fail after"),
    ("the session", [["item", "not there"]], ""),
    ("a new session that JSON cannot hold", [["break_codec"], ["save"]], ""),
]
failures = pytest.mark.parametrize(
    ("actions", "inner"),
    [(actions, inner) for _, actions, inner in FAILURES],
    ids=[name for name, _, _ in FAILURES],
)


def stored_secrets(*keys: str | None) -> list[str]:
    return [key[15:] for key in keys if key]


@failures
@pytest.mark.parametrize("name", NAMES)
def test_the_technical_500_page_shows_no_session_key(
    site: Site, name: str, actions: list[Action], inner: str
) -> None:
    key, cookie = site.start(), site.start_by_cookie()
    headers = {name: key, "Cookie": f"sessionid={cookie}", "Accept": "text/html"}
    with site.settings(DEBUG=True, HEADER_SESSIONS_HEADER=name):
        answer = site.do(*actions, headers=headers, inner=inner)
    assert answer.status == 500
    page = answer.body.decode()
    assert "Request information" in page, page[:500]
    assert f"HTTP_{name.upper().replace('-', '_')}" in page
    assert "sessionid" in page
    for secret in stored_secrets(key, cookie, answer.headers.get(name)):
        assert secret not in page


@failures
def test_the_technical_500_page_of_a_cookie_path_shows_no_session_key(
    site: Site, actions: list[Action], inner: str
) -> None:
    cookie = site.start_by_cookie()
    with site.settings(DEBUG=True, SESSION_COOKIE_NAME="mine"):
        answer = site.do(
            *actions,
            path=site.cookie_view,
            headers={"Cookie": f"mine={cookie}", "Accept": "text/html"},
            inner=inner,
        )
    assert answer.status == 500
    page = answer.body.decode()
    assert "Request information" in page
    assert "mine" in page
    for secret in stored_secrets(cookie):
        assert secret not in page


@failures
def test_a_log_of_a_failure_holds_no_session_key(
    site: Site, actions: list[Action], inner: str
) -> None:
    key = site.start()
    before = len(site.server.output())
    answer = site.do(*actions, key=key, inner=inner)
    assert answer.status == 500
    log = site.server.output()[before:]
    assert "Traceback" in log
    for secret in stored_secrets(key, answer.announced):
        assert secret not in log


@pytest.fixture
def admins(settings: Any) -> Iterator[None]:
    """Errors are mailed to the admins, in all their detail."""
    # Django 6.0 deprecates the pairs, and 6.1 asks for MAILERS, which nobody reads before.
    admin = "admin@example.com"
    settings.ADMINS = [admin] if django.VERSION >= (6, 0) else [("an admin", admin)]
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    handler = AdminEmailHandler(include_html=True)
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


def mailed() -> str:
    """All that was mailed, as text and as HTML."""
    found = []
    for message in mail.outbox:
        assert isinstance(message, mail.EmailMultiAlternatives)
        found += [str(message.subject), str(message.body)]
        found += [str(content) for content, _ in message.alternatives]
    text = "\n".join(found)
    assert "<html" in text
    return text


def asked_in_process(name: str, key: str, query: str) -> dict[str, Any]:
    return {"path": f"/sync/?{query}", "headers": {name: key, "Cookie": "sessionid=" + key}}


@pytest.mark.usefixtures("admins")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "query",
    [
        "do=[[%22cycle_key%22],[%22fail_with_key%22]]",
        "do=[[%22fail_with_request%22]]",
        "inner=fail%20before",
        "inner=fail%20after",
        "do=[[%22answer%22,500]]",
    ],
)
def test_an_email_about_a_failure_holds_no_session_key(
    settings: Any, name: str, query: str
) -> None:
    settings.HEADER_SESSIONS_HEADER = name
    key = new_session()
    asked = asked_in_process(name, key, query)
    answer = Client(raise_request_exception=False).get(**asked)
    assert answer.status_code == 500
    text = mailed()
    assert "HTTP_" + name.upper().replace("-", "_") in text
    for secret in stored_secrets(key, answer.headers.get(name)):
        assert secret not in text


@pytest.mark.usefixtures("admins")
@pytest.mark.parametrize("name", NAMES)
async def test_an_email_about_a_failed_async_view_holds_no_session_key(
    settings: Any, name: str
) -> None:
    settings.HEADER_SESSIONS_HEADER = name
    session = SessionStore(transport="header")
    await session.acreate()
    key = str(session.session_key)
    client = AsyncClient(raise_request_exception=False)
    answer = await client.get("/async/?do=[[%22fail_with_key%22]]", headers={name: key})
    assert answer.status_code == 500
    text = mailed()
    assert "HTTP_" + name.upper().replace("-", "_") in text
    assert key[15:] not in text


@pytest.mark.usefixtures("admins")
@pytest.mark.parametrize(
    "value", ["{key},{key}", "{key} ", "{upper}", "new,{key}"], ids=lambda value: value
)
@pytest.mark.parametrize("name", NAMES)
def test_an_email_about_a_refusal_holds_nothing_of_a_malformed_header(
    settings: Any, name: str, value: str
) -> None:
    settings.HEADER_SESSIONS_HEADER = name
    key = new_session()
    sent = value.format(key=key, upper=key.upper())
    answer = Client().get("/sync/", headers={name: sent})
    assert answer.status_code == 400
    text = mailed()
    assert key[15:] not in text
    assert key[15:].upper() not in text


# What fails outside of the session's middleware.


announced: list[str] = []
"""What answers told on their way to the middleware that failed."""


def noting(get_response: Any) -> Any:
    """A middleware that looks at each answer."""

    def middleware(request: Any) -> Any:
        response = get_response(request)
        announced.append(response.headers.get(conf.HEADER_SESSIONS_HEADER, ""))
        return response

    return middleware


@pytest.fixture
def outer(settings: Any) -> None:
    settings.MIDDLEWARE = ["tests.views.Outer", f"{__name__}.noting", *settings.MIDDLEWARE]
    announced.clear()


def failed(asked: dict[str, Any]) -> str:
    """All that is shown and mailed of a request that fails."""
    answer = Client(raise_request_exception=False).get(**asked)
    assert answer.status_code == 500
    return answer.content.decode() + mailed()


@pytest.mark.usefixtures("admins", "outer")
@pytest.mark.parametrize("debug", [False, True], ids=["mail alone", "page and mail"])
@pytest.mark.parametrize("name", NAMES)
def test_a_failure_on_the_way_out_shows_no_session_key(
    settings: Any, name: str, debug: bool
) -> None:
    settings.HEADER_SESSIONS_HEADER, settings.DEBUG = name, debug
    key = new_session()
    text = failed(asked_in_process(name, key, "do=[[%22cycle_key%22]]&outer=fail%20after"))
    assert "A middleware failed after the view" in text
    assert len(announced[0]) == 40
    for secret in stored_secrets(key, *announced):
        assert secret not in text


@pytest.mark.usefixtures("admins", "outer")
@pytest.mark.parametrize("debug", [False, True], ids=["mail alone", "page and mail"])
@pytest.mark.parametrize("name", NAMES)
def test_nor_does_it_show_one_that_was_refused_as_malformed(
    settings: Any, name: str, debug: bool
) -> None:
    settings.HEADER_SESSIONS_HEADER, settings.DEBUG = name, debug
    key = new_session()
    text = failed(asked_in_process(name, f"{key},{key}", "outer=fail%20after"))
    assert "A middleware failed after the view" in text
    assert key[15:] not in text


@pytest.mark.usefixtures("admins", "outer", "kept_filter")
@pytest.mark.parametrize(
    ("name", "reporter_filter", "shows"),
    [
        ("X-Session-Key", "django.views.debug.SafeExceptionReporterFilter", False),
        ("X-Sid", "django.views.debug.SafeExceptionReporterFilter", True),
        ("X-Sid", "django_header_sessions.reporting.SessionKeyReporterFilter", False),
    ],
)
def test_a_failure_on_the_way_in_shows_none_where_the_projects_filter_knows_the_header(
    settings: Any, name: str, reporter_filter: str, shows: bool
) -> None:
    settings.HEADER_SESSIONS_HEADER = name
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = reporter_filter
    key = new_session()
    asked = asked_in_process(name, key, "outer=fail%20before")
    del asked["headers"]["Cookie"]
    text = failed(asked)
    assert f"HTTP_{name.upper().replace('-', '_')}" in text
    assert (key[15:] in text) is shows


def test_the_projects_filter_masks_a_request_without_the_header_too() -> None:
    request = RequestFactory().get("/", headers={"X-Other": "shown"})
    assert SessionKeyReporterFilter().get_safe_request_meta(request)["HTTP_X_OTHER"] == "shown"


def test_what_only_looks_like_the_cookie_is_masked_too() -> None:
    key = str(make())
    request = RequestFactory().get("/", headers={"Cookie": f"old-sessionid={key}"})
    mask_key(request)
    assert key[15:] not in repr(request.META)
    assert request.META["HTTP_COOKIE"] == f"old-sessionid={key}"


async def test_the_servers_own_scope_stays_as_it_was() -> None:
    session = SessionStore(transport="header")
    await session.acreate()
    key = str(session.session_key).encode()
    request = AsyncRequestFactory().get("/", headers={"X-Session-Key": key.decode()})
    scope, headers = request.scope, list(request.scope["headers"])
    mask_key(request)
    assert scope["headers"] == headers
    assert request.scope["headers"] == headers
    assert key[15:].decode() in repr(scope)
    assert key[15:].decode() not in repr(request.scope)


class ProjectsFilter(SafeExceptionReporterFilter):
    """What a project may have of its own."""

    def get_safe_request_meta(self, request: Any) -> dict[str, Any]:
        return super().get_safe_request_meta(request) | {"REMOTE_ADDR": "hidden by the project"}

    def get_safe_settings(self) -> dict[str, Any]:
        return {"SHOWN": "by the project"}


@pytest.fixture
def projects_filter(settings: Any, kept_filter: None) -> None:
    settings.DEFAULT_EXCEPTION_REPORTER_FILTER = f"{__name__}.ProjectsFilter"


@pytest.mark.usefixtures("projects_filter")
def test_the_projects_own_reporter_filter_stays_in_force(settings: Any) -> None:
    settings.DEBUG = True
    settings.HEADER_SESSIONS_HEADER = "X-Sid"
    key = new_session()
    asked = asked_in_process("X-Sid", key, "do=[[%22fail%22]]")
    answer = Client(raise_request_exception=False).get(**asked)
    page = answer.content.decode()
    assert key[15:] not in page
    assert "hidden by the project" in page
    assert "127.0.0.1" not in page
    assert "by the project" in page
    assert "SESSION_COOKIE_AGE" not in page


def new_session() -> str:
    session = SessionStore(transport="header")
    session["here"] = True
    session.save()
    return str(session.session_key)


def test_what_is_shown_of_a_session_key_is_its_id_alone() -> None:
    key = SessionStore(new_session(), transport="header").session_key
    assert key is not None
    for shown in (repr(key), f"{[key]}", f"{key!r}", str({"key": key})):
        assert key[:15] in shown
        assert key[15:] not in shown
    assert KEY not in repr(SessionStore(key))
