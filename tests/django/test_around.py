"""What Django builds on sessions, by the pages on it: authentication, messages, CSRF, testing."""

from __future__ import annotations

import http.client
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.auth import (
    HASH_SESSION_KEY,
    alogin,
    alogout,
    aupdate_session_auth_hash,
    login,
    logout,
    update_session_auth_hash,
)
from django.contrib.auth.models import User
from django.contrib.messages.storage.fallback import FallbackStorage
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.test import AsyncClient, Client, RequestFactory

from django_header_sessions import registry
from django_header_sessions.testing import AsyncHeaderSessionClient, HeaderSessionClient
from tests.engine.face import Face, beside_database

from .conftest import Visitor

PASSWORD = "ann's password"


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann", password=PASSWORD)


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob", password="bob's password")


async def by_half(
    session: Face, sync: Callable[..., Any], twin: Callable[..., Awaitable[Any]], *args: Any
) -> Any:
    """One of two twins of Django's, as a view of this half would call it."""
    return await twin(*args) if session.half == "async" else sync(*args)


async def who(request: HttpRequest, session: Face) -> str:
    user = await request.auser() if session.half == "async" else request.user
    return user.get_username()


async def write(request: HttpRequest, session: Face) -> None:
    await session.set("basket", ["a pump"])


def signs_in(user: User) -> Any:
    async def sign_in(request: HttpRequest, session: Face) -> None:
        await by_half(session, login, alogin, request, user)

    return sign_in


async def signs_out(request: HttpRequest, session: Face) -> None:
    await by_half(session, logout, alogout, request)


# Using the Django authentication system: How to log a user in, How to log a user out.


@beside_database
async def test_login_keeps_the_users_id_and_the_data_of_the_anonymous_session(
    visitor: Visitor, ann: User
) -> None:
    await visitor.does(write)
    anonymous = visitor.key
    await visitor.does(signs_in(ann))
    assert visitor.key != anonymous
    assert await visitor.does(who) == "ann"
    stored = await visitor.stored()
    assert stored is not None
    assert (stored["basket"], stored["_auth_user_id"]) == (["a pump"], str(ann.pk))


@beside_database
async def test_login_of_another_user_flushes_the_session(
    visitor: Visitor, ann: User, bob: User
) -> None:
    await visitor.does(signs_in(ann))
    await visitor.does(write)
    await visitor.does(signs_in(bob))
    assert await visitor.does(who) == "bob"
    stored = await visitor.stored()
    assert stored is not None
    assert "basket" not in stored


@beside_database
async def test_logout_cleans_out_the_session_and_is_no_error_for_nobody(
    visitor: Visitor, ann: User
) -> None:
    await visitor.does(signs_in(ann))
    await visitor.does(write)
    key = visitor.key
    assert key is not None
    await visitor.does(signs_out)
    assert visitor.key is None
    assert await registry.aget(key[:15]) is None
    assert await visitor.does(who) == ""
    await visitor.does(signs_out)


@beside_database
async def test_data_that_is_to_be_there_after_logout_is_written_after_it(
    visitor: Visitor, ann: User
) -> None:
    async def sign_out_and_write(request: HttpRequest, session: Face) -> None:
        await signs_out(request, session)
        await write(request, session)

    await visitor.does(signs_in(ann))
    await visitor.does(sign_out_and_write)
    assert await visitor.stored() == {"basket": ["a pump"]}
    assert await visitor.does(who) == ""


# Session invalidation on password change.


@beside_database
async def test_a_new_password_invalidates_other_sessions_and_may_spare_ones_own(
    newcomer: Callable[[], Visitor], ann: User
) -> None:
    async def change(request: HttpRequest, session: Face) -> None:
        ann.set_password("another password")
        request.user = ann
        await by_half(session, update_session_auth_hash, aupdate_session_auth_hash, request, ann)

    own, other = newcomer(), newcomer()
    for visitor in (own, other):
        await visitor.does(signs_in(ann))
    before = own.key
    await own.does(change)
    await ann.asave()
    assert await own.does(who) == "ann"
    assert own.key != before
    assert await other.does(who) == ""
    # Django flushes such a session; its client is told, or its cookie deleted.
    assert other.key is None


@beside_database
async def test_without_the_hash_updated_ones_own_goes_too(visitor: Visitor, ann: User) -> None:
    await visitor.does(signs_in(ann))
    ann.set_password("another password")
    await ann.asave()
    assert await visitor.does(who) == ""
    assert visitor.key is None


# SECRET_KEY_FALLBACKS: signatures of an old key are good until it is dropped.


@beside_database
async def test_a_session_of_an_old_secret_key_is_signed_anew(
    visitor: Visitor, settings: Any, ann: User
) -> None:
    async def hash_(request: HttpRequest, session: Face) -> Any:
        return await session.get(HASH_SESSION_KEY)

    await visitor.does(signs_in(ann))
    before = await visitor.does(hash_)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "a new one", [settings.SECRET_KEY]
    assert await visitor.does(who) == "ann"
    assert await visitor.does(hash_) != before
    settings.SECRET_KEY_FALLBACKS = []
    assert await visitor.does(who) == "ann"


@beside_database
async def test_a_session_of_a_secret_key_that_was_dropped_signs_nobody_in(
    visitor: Visitor, settings: Any, ann: User
) -> None:
    await visitor.does(signs_in(ann))
    settings.SECRET_KEY = "a new one"
    assert await visitor.does(who) == ""


# The messages framework.


@pytest.mark.parametrize("storage", ["session.SessionStorage", "fallback.FallbackStorage"])
async def test_a_message_is_there_for_the_next_request_once(
    visitor: Visitor, settings: Any, storage: str
) -> None:
    """DIFFERS: the storage that tries the cookie first is for who keeps cookies, which the test
    client does on either transport; a check asks for the one in the session."""
    settings.MESSAGE_STORAGE = f"django.contrib.messages.storage.{storage}"

    async def say(request: HttpRequest, session: Face) -> None:
        messages.success(request, "Saved.")

    async def listen(request: HttpRequest, session: Face) -> list[str]:
        return [f"{each.tags}: {each}" for each in messages.get_messages(request)]

    await visitor.does(write)
    await visitor.does(say)
    assert await visitor.does(listen) == ["success: Saved."]
    assert await visitor.does(listen) == []


def test_a_test_gives_a_request_its_messages_as_everybody_does(project: Any) -> None:
    request = RequestFactory().get("/")
    request.session = HeaderSessionClient().session
    request._messages = FallbackStorage(request)  # type: ignore[attr-defined]
    messages.info(request, "Saved.")
    assert [str(each) for each in messages.get_messages(request)] == ["Saved."]


# CSRF protection.


def post(client: Client, token: str = "", **headers: str) -> int:
    """The status of a form that is sent."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return int(client.post("/sync/", {"csrfmiddlewaretoken": token}, headers=sent).status_code)


@pytest.mark.parametrize("in_session", [False, True])
def test_a_form_of_a_browser_needs_its_token_wherever_that_is_kept(
    project: Any, doing: list[Any], in_session: bool
) -> None:
    project.CSRF_USE_SESSIONS = in_session

    async def show(request: HttpRequest, session: Face) -> str:
        return get_token(request)

    doing.append(show)
    client = Client(enforce_csrf_checks=True)
    assert post(client) == 403
    answer = client.get("/sync/")
    assert ("csrftoken" in answer.cookies) is not in_session
    assert ("sessionid" in answer.cookies) is in_session
    assert post(client) == 403
    assert post(client, answer.json()["did"]) == 200
    assert post(Client(enforce_csrf_checks=True), answer.json()["did"]) == 403


@pytest.mark.parametrize("in_session", [False, True])
def test_a_program_needs_none(project: Any, doing: list[Any], in_session: bool) -> None:
    """DIFFERS: the header is what a page of another site cannot send."""
    project.CSRF_USE_SESSIONS = in_session
    doing.append(write)
    client = Client(enforce_csrf_checks=True)
    assert post(client, X_Session_Key="new") == 200
    key = HeaderSessionClient().session.session_key
    assert post(client, X_Session_Key=str(key)) == 200


@pytest.fixture
def doing() -> Any:
    from .site import now

    yield now
    now.clear()


# Testing tools: the test client.


@pytest.mark.parametrize("client_class", [Client, HeaderSessionClient])
def test_the_client_logs_in_and_out_and_has_a_session(
    project: Any, ann: User, client_class: type[Client]
) -> None:
    """With ``Client`` for cookies, and for the header the one that the package brings."""
    client = client_class()
    assert client.login(username="ann", password="wrong") is False
    assert client.login(username="ann", password=PASSWORD) is True
    assert client.get("/whoami/").content == b"ann"
    session = client.session
    session["basket"] = ["a pump"]
    session.save()
    assert client.session["basket"] == ["a pump"]
    assert client.session["_auth_user_id"] == str(ann.pk)
    client.logout()
    assert client.get("/whoami/").content == b""
    client.force_login(ann)
    assert client.get("/whoami/").content == b"ann"
    assert "basket" not in client.session


@pytest.mark.parametrize("client_class", [AsyncClient, AsyncHeaderSessionClient])
def test_the_asynchronous_client_does_too(
    project: Any, ann: User, client_class: type[AsyncClient]
) -> None:
    async def name(client: AsyncClient) -> bytes:
        return (await client.get("/whoami/")).content

    @async_to_sync
    async def test() -> None:
        client = client_class()
        assert await client.alogin(username="ann", password="wrong") is False
        assert await client.alogin(username="ann", password=PASSWORD) is True
        assert await name(client) == b"ann"
        session = await client.asession()
        await session.aset("basket", ["a pump"])
        await session.asave()
        assert await (await client.asession()).aget("basket") == ["a pump"]
        await client.alogout()
        assert await name(client) == b""
        await client.aforce_login(ann)
        assert await name(client) == b"ann"

    test()


def test_two_clients_are_two_visitors(project: Any, ann: User) -> None:
    for client_class in (Client, HeaderSessionClient):
        one, other = client_class(), client_class()
        one.force_login(ann)
        assert (one.get("/whoami/").content, other.get("/whoami/").content) == (b"ann", b"")


# Testing tools: LiveServerTestCase.


@pytest.mark.django_db(transaction=True)
def test_a_live_server_serves_both_transports(project: Any, live_server: Any) -> None:
    User.objects.create_user("ann", password=PASSWORD)
    for client_class, name in ((Client, "Cookie"), (HeaderSessionClient, "X-Session-Key")):
        client: Any = client_class()
        assert client.login(username="ann", password=PASSWORD)
        key = client.session.session_key
        sent = {name: f"sessionid={key}" if name == "Cookie" else str(key)}
        connection = http.client.HTTPConnection(live_server.url.removeprefix("http://"))
        try:
            connection.request("GET", "/whoami/", headers=sent)
            assert connection.getresponse().read() == b"ann"
        finally:
            connection.close()
