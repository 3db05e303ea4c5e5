"""The test clients for the people who use us keep the key as a real client does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out

from django_header_sessions import registry
from django_header_sessions.rest_framework.testing import (
    AsyncHeaderSessionAPIClient,
    HeaderSessionAPIClient,
)
from django_header_sessions.testing import AsyncHeaderSessionClient, HeaderSessionClient

from .conftest import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)

CURRENT = "/api/sessions/current/"
CREDENTIALS = {"username": "ann", "password": PASSWORD}


SYNC = (HeaderSessionClient, HeaderSessionAPIClient)
ASYNC = (AsyncHeaderSessionClient, AsyncHeaderSessionAPIClient)


@pytest.fixture(params=SYNC)
def client(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture(params=ASYNC)
def async_client(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_a_client_says_new_and_then_keeps_the_key_until_it_is_told_to_forget(client: Any) -> None:
    response = client.post("/api/sessions/")
    assert response.wsgi_request.META["HTTP_X_SESSION_KEY"] == "new"
    first = client.session_key
    assert first == response["X-Session-Key"]
    client.post(CURRENT + "rotate/")
    assert client.session_key != first
    assert client.get(CURRENT).status_code == 200
    client.delete(CURRENT)
    assert client.session_key is None


async def test_an_async_client_does_the_same(async_client: Any) -> None:
    response = await async_client.post("/api/sessions/")
    assert response.asgi_request.META["HTTP_X_SESSION_KEY"] == "new"
    first = async_client.session_key
    assert first == response["X-Session-Key"]
    await async_client.post(CURRENT + "rotate/")
    assert async_client.session_key != first
    assert (await async_client.get(CURRENT)).status_code == 200
    await async_client.delete(CURRENT)
    assert async_client.session_key is None


def test_a_key_that_is_no_longer_good_is_forgotten(client: Any) -> None:
    client.post("/api/sessions/")
    registry.end(client.session_key.id)
    assert client.get(CURRENT).status_code == 401
    assert client.session_key is None


def test_a_refusal_that_is_about_something_else_costs_no_session(client: Any) -> None:
    client.post("/api/sessions/")
    key = client.session_key
    assert client.get("/api/sessions/").status_code == 401
    assert client.session_key == key


async def test_an_async_client_forgets_such_a_key_too(async_client: Any) -> None:
    await async_client.post("/api/sessions/")
    await registry.aend(async_client.session_key.id)
    assert (await async_client.get(CURRENT)).status_code == 401
    assert async_client.session_key is None


def of_another_session() -> dict[str, str]:
    other = HeaderSessionClient()
    other.post("/api/sessions/")
    return {"X-Session-Key": str(other.session_key)}


def test_a_header_given_with_a_call_wins_and_its_answer_is_not_about_the_key_that_is_held(
    client: Any,
) -> None:
    client.post("/api/sessions/")
    held = client.session_key
    assert client.get(CURRENT, headers={"X-Session-Key": "a" * 40}).status_code == 401
    assert client.post("/api/sessions/", headers={"X-Session-Key": "new"}).status_code == 201
    assert client.post(CURRENT + "rotate/", headers=of_another_session()).status_code == 200
    assert client.delete(CURRENT, headers=of_another_session()).status_code == 204
    assert client.session_key is held


async def test_a_header_given_with_an_async_call_wins_in_the_same_way(async_client: Any) -> None:
    await async_client.post("/api/sessions/")
    held, others = async_client.session_key, await sync_to_async(of_another_session)()
    response = await async_client.get(CURRENT, headers={"X-Session-Key": "a" * 40})
    assert response.status_code == 401
    assert (await async_client.post(CURRENT + "rotate/", headers=others)).status_code == 200
    assert async_client.session_key is held


@pytest.mark.parametrize("kind", SYNC)
def test_a_header_given_to_a_client_is_sent_with_each_call(kind: type[Any]) -> None:
    client = kind(headers=of_another_session())
    assert client.get(CURRENT).status_code == 200
    assert client.session_key is None
    assert client.delete(CURRENT).status_code == 204
    assert client.session_key is None


def test_so_is_one_that_is_among_the_credentials_of_drfs_client() -> None:
    client = HeaderSessionAPIClient()
    client.post("/api/sessions/")
    held = client.session_key
    client.credentials(HTTP_X_SESSION_KEY=of_another_session()["X-Session-Key"])
    assert client.delete(CURRENT).status_code == 204
    assert client.session_key is held
    client.credentials()
    assert client.get(CURRENT).status_code == 200


def test_the_held_key_given_with_a_call_is_the_held_key(client: Any) -> None:
    client.post("/api/sessions/")
    client.delete(CURRENT, headers={"X-Session-Key": str(client.session_key)})
    assert client.session_key is None


def test_a_refused_head_request_has_no_body_that_could_say_why(client: Any) -> None:
    client.post("/api/sessions/")
    registry.end(client.session_key.id)
    assert client.head(CURRENT).status_code == 401
    assert client.session_key is not None
    assert client.get(CURRENT).status_code == 401
    assert client.session_key is None


def test_another_name_of_the_header_is_followed(client: Any, settings: Any) -> None:
    settings.HEADER_SESSIONS_HEADER = "X-Other-Key"
    assert "X-Other-Key" in client.post("/api/sessions/").headers
    assert client.get(CURRENT).status_code == 200


def test_login_and_logout_are_the_header_sessions(client: Any, ann: User) -> None:
    assert client.login(**CREDENTIALS)
    assert not client.login(username="ann", password="wrong")
    key = client.session_key
    assert client.get("/api/whoami/").json()["user"] == "ann"
    assert not client.cookies
    client.logout()
    assert registry.get(key.id) is None
    assert client.get("/api/whoami/").status_code == 401


def test_force_login_keeps_what_the_session_held(client: Any, ann: User) -> None:
    session = client.session
    session["cart"] = [1]
    session.save()
    client.force_login(ann)
    assert client.session["cart"] == [1]
    assert client.get("/api/whoami/").json()["user"] == "ann"


async def test_async_login_and_logout_are_the_header_sessions(async_client: Any, ann: User) -> None:
    session = await async_client.asession()
    await session.aset("cart", [1])
    await session.asave()
    assert await async_client.alogin(**CREDENTIALS)
    assert await (await async_client.asession()).aget("cart") == [1]
    key = async_client.session_key
    assert (await async_client.get("/api/whoami/")).json()["user"] == "ann"
    await async_client.alogout()
    assert async_client.session_key is None
    assert await registry.aget(key.id) is None


@pytest.mark.parametrize("kind", [*SYNC, *ASYNC])
def test_each_client_has_djangos_methods_of_either_colour(kind: type[Any], ann: User) -> None:
    async def in_async() -> Any:
        client = kind()
        await client.aforce_login(ann)
        await (await client.asession()).aset("x", 1)
        assert await client.alogin(**CREDENTIALS)
        key = client.session_key
        await client.alogout()
        assert client.session_key is None
        return key, client

    client = kind()
    client.force_login(ann)
    session = client.session
    session["x"] = 1
    session.save()
    assert client.login(**CREDENTIALS)
    assert client.session["x"] == 1
    key = client.session_key
    client.logout()
    for one, of in ((key, client), async_to_sync(in_async)()):
        assert of.session_key is None
        assert not of.cookies
        assert registry.get(one.id) is None


@pytest.mark.parametrize("kind", [*SYNC, *ASYNC])
def test_signing_out_tells_djangos_signal_who_it_was(kind: type[Any], ann: User) -> None:
    heard: list[Any] = []

    def hear(user: Any, **kwargs: Any) -> None:
        heard.append(user)

    user_logged_out.connect(hear)
    try:
        client = kind()
        client.force_login(ann)
        client.logout()
        client.force_login(ann)
        async_to_sync(client.alogout)()
    finally:
        user_logged_out.disconnect(hear)
    assert heard == [ann, ann]


def test_logging_out_without_a_session_is_no_error_and_makes_none(client: Any) -> None:
    client.logout()
    assert client.session_key is None
    assert registry.count() == dict.fromkeys(registry.count(), 0)


def test_logging_out_of_drfs_client_also_drops_what_was_forced_on_it(ann: User) -> None:
    client = HeaderSessionAPIClient()
    client.force_authenticate(ann)
    assert client.get("/api/whoami/").status_code == 200
    client.logout()
    assert client.get("/api/whoami/").status_code == 401
    client.force_authenticate(ann)
    async_to_sync(client.alogout)()
    assert client.get("/api/whoami/").status_code == 401


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
async def test_the_async_client_for_drf_takes_a_format(method: str, ann: User) -> None:
    client = AsyncHeaderSessionAPIClient()
    response = await getattr(client, method)("/api/sessions/", CREDENTIALS, format="json")
    assert response.asgi_request.META["CONTENT_TYPE"] == "application/json"
    assert response.status_code == {"post": 201, "options": 401}.get(method, 405)


def test_csrf_is_checked_as_in_a_real_client(ann: User) -> None:
    """The header exempts, whether it holds a key or says that there is none yet."""
    client = HeaderSessionClient(enforce_csrf_checks=True)
    response = client.post("/admin/login/", {"username": "ann", "password": PASSWORD})
    assert response.status_code == 200


def test_the_fixtures_of_the_plugin_cost_nothing_until_they_are_used() -> None:
    code = "import sys, django_header_sessions.pytest_plugin as p; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root()
    ).stdout.split()
    assert "django_header_sessions.pytest_plugin" in loaded
    assert not {"django", "rest_framework", "django_header_sessions.testing"} & set(loaded)


def test_the_plugin_has_a_client_for_each(
    header_session_client: HeaderSessionClient,
    async_header_session_client: AsyncHeaderSessionClient,
    header_session_api_client: HeaderSessionAPIClient,
    async_header_session_api_client: AsyncHeaderSessionAPIClient,
) -> None:
    assert type(header_session_client) is HeaderSessionClient
    assert type(async_header_session_client) is AsyncHeaderSessionClient
    assert type(header_session_api_client) is HeaderSessionAPIClient
    assert type(async_header_session_api_client) is AsyncHeaderSessionAPIClient


def test_the_plugin_gives_a_project_its_clients(tmp_path: Path) -> None:
    (tmp_path / "test_project.py").write_text(
        textwrap.dedent(
            """
            import pytest
            pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.rest_framework.urls")]

            def test_django(header_session_client):
                assert header_session_client.post("/api/sessions/").status_code == 201

            def test_drf(header_session_api_client):
                answer = header_session_api_client.post("/api/sessions/", {}, format="json")
                assert answer.status_code == 201

            async def test_async(async_header_session_client, async_header_session_api_client):
                for client in (async_header_session_client, async_header_session_api_client):
                    assert (await client.post("/api/sessions/")).status_code == 201
            """
        )
    )
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(tmp_path), "-q", "--rootdir", str(tmp_path)),
            # Whether or not its entry point is installed here.
            *("-p", "no:django_header_sessions", "-p", "django_header_sessions.pytest_plugin"),
            *("-p", "no:valkey"),
            *("-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--ds", "tests.settings"),
            *("-o", "asyncio_default_fixture_loop_scope=function"),
        ],
        capture_output=True,
        text=True,
        cwd=root(),
        env=os.environ | {"PYTHONPATH": str(root())},
    )
    assert "3 passed" in run.stdout, run.stdout + run.stderr


def root() -> Path:
    return Path(__file__).parent.parent.parent


def test_the_clients_leave_the_cookie_session_alone(client: Any) -> None:
    assert client.session.transport == "header"
    assert "sessionid" not in client.cookies
