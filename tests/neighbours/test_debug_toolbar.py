"""django-debug-toolbar: what its panels show and keep of a session, and what it leaves as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.processes import Server, Valkey

from .site import KEY, did

SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.neighbours.with_toolbar"}
MASK = "********************"


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of server: the toolbar is another one under ASGI."""
    served: str = request.param
    return served


@pytest.fixture(scope="module")
def server(kind: str, valkey: Valkey) -> Iterator[Server]:
    with Server(kind, threads=8, **SETTINGS, REDIS_URL=valkey.url) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client


def panels(client: httpx.Client, answer: httpx.Response) -> dict[str, str]:
    """What the toolbar kept of the request that was answered so, by panel."""
    request_id = answer.headers["djdt-request-id"]
    found = {}
    names = set(re.findall(r'id="djdt-(\w+Panel)"', client.get("/page/").text))
    for name in names:
        asked = {"request_id": request_id, "panel_id": name}
        shown = client.get("/__debug__/render_panel/", params=asked)
        assert shown.status_code == 200, name
        found[name] = shown.json()["content"] or ""
    assert "HeadersPanel" in found
    return found


def showing(client: httpx.Client, answer: httpx.Response, secret: str) -> set[str]:
    return {name for name, text in panels(client, answer).items() if secret in text}


def test_no_panel_shows_or_keeps_a_session_key(client: httpx.Client) -> None:
    announced = client.get("/page/")
    key = announced.headers[KEY]
    assert key not in announced.text
    assert showing(client, announced, key) == set()
    used = client.get("/page/", headers={KEY: key})
    assert showing(client, used, key) == set()
    headers = panels(client, used)["HeadersPanel"]
    assert KEY in headers
    assert MASK in headers
    assert "python-httpx" in headers, "the others are there"


def test_whatever_the_header_is_called(client: httpx.Client) -> None:
    overrides = {"HEADER_SESSIONS_HEADER": "X-Sid"}
    assert client.post("/test/settings/", json=overrides).status_code == 200
    try:
        announced = client.get("/page/")
        key = announced.headers["X-Sid"]
        assert showing(client, announced, key) == set()
        used = client.get("/page/", headers={"X-Sid": key})
        assert showing(client, used, key) == set()
    finally:
        client.delete("/test/settings/")


def test_no_panel_shows_or_keeps_a_session_cookie(client: httpx.Client) -> None:
    client.get("/admin/page/")
    answer = client.get("/admin/page/")
    assert showing(client, answer, client.cookies["sessionid"]) == set()


def test_the_request_panel_shows_what_a_session_holds(client: httpx.Client, kind: str) -> None:
    answer = client.get("/page/")
    found = showing(client, answer, "a pump")
    # Under ASGI the toolbar does without it.
    assert found == ({"RequestPanel"} if kind == "gunicorn" else set())
    assert showing(client, answer, "xyzzy") == set(), "its name is one of a secret"


def test_a_refusal_stays_what_it_is(client: httpx.Client) -> None:
    old = client.get("/page/").headers[KEY]
    assert did(client, ["cycle_key"], X_Session_Key=old) == [None]
    for key, status, name in ((old, 409, "superseded"), ("a" * 40, 401, "unknown")):
        answer = client.get("/page/", headers={KEY: key})
        assert answer.status_code == status
        assert answer.json()["type"].endswith(name)


def test_an_outage_stays_one(kind: str) -> None:
    with (
        Valkey() as trouble,
        Server(kind, threads=8, **SETTINGS, REDIS_URL=trouble.url) as other,
        httpx.Client(base_url=f"http://127.0.0.1:{other.port}") as client,
    ):
        key = client.get("/page/").headers[KEY]
        trouble.client.replicaof("127.0.0.1", "1")
        answer = client.get("/page/", headers={KEY: key})
        assert answer.status_code == 503
        assert answer.json()["type"].endswith("unavailable")


def test_the_toolbars_own_panel_shows_and_keeps_the_key(valkey: Valkey) -> None:
    """Why there is ours."""
    with (
        Server("gunicorn", threads=8, **SETTINGS, REDIS_URL=valkey.url, PANELS="theirs") as server,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        key = client.get("/page/").headers[KEY]
        used = client.get("/page/", headers={KEY: key})
        assert showing(client, used, key) == {"HeadersPanel"}
