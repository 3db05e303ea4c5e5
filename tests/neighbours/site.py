"""How the tests speak to the served project: as browsers, as apps, as programs with a header."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.processes import Server

KEY = "X-Session-Key"
TOKEN = "X-Session-Token"
LOGIN = "/accounts/login/"
APP = "/_allauth/app/v1/auth"


@dataclass(frozen=True, slots=True)
class Project:
    """The served project, its database, and a client without a cookie jar's memory of anybody."""

    server: Server
    client: httpx.Client
    database: Path

    @contextmanager
    def browser(self, name: str) -> Iterator[httpx.Client]:
        """A browser in which this user signed in by allauth's form."""
        with httpx.Client(base_url=self.client.base_url) as browser:
            assert browser.get(LOGIN).status_code == 200
            data = {"login": name, "password": password(name)}
            answer = browser.post(LOGIN, data=data, headers=csrf(browser))
            assert answer.status_code == 302, answer.text
            yield browser

    def key(self, name: str) -> str:
        """The key of a header session in which this user signed in by our session resource."""
        credentials = {"username": name, "password": password(name)}
        answer = self.client.post("/api/sessions/", json=credentials, headers={KEY: "new"})
        assert answer.status_code == 201, answer.text
        return str(answer.headers[KEY])

    def token(self, name: str) -> str:
        """allauth's session token of an app in which this user signed in."""
        credentials = {"username": name, "password": password(name)}
        answer = self.client.post(f"{APP}/login", json=credentials)
        assert answer.status_code == 200, answer.text
        assert KEY not in answer.headers
        assert "set-cookie" not in answer.headers
        return str(answer.json()["meta"]["session_token"])

    @contextmanager
    def settings(self, **overrides: Any) -> Iterator[None]:
        """The server runs with these settings, which it reads live."""
        assert self.client.post("/test/settings/", content=json.dumps(overrides)).status_code == 200
        try:
            yield
        finally:
            assert self.client.delete("/test/settings/").status_code == 200

    def listed(self) -> list[str]:
        """The session keys that allauth's table of sessions holds."""
        tables = sqlite3.connect(self.database)
        rows = tables.execute("SELECT session_key FROM usersessions_usersession ORDER BY id")
        found = [key for (key,) in rows]
        tables.close()
        return found


def password(name: str) -> str:
    return f"{name}'s password"


def csrf(browser: httpx.Client) -> dict[str, str]:
    return {"X-CSRFToken": browser.cookies["csrftoken"]}


def did(client: httpx.Client, *actions: list[Any], path: str = "/sync/", **headers: str) -> Any:
    """What came of these actions of ``tests.views``; by its status where they were refused."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.get(path, params={"do": json.dumps(actions)}, headers=sent)
    return answer.json()["did"] if answer.status_code == 200 else answer.status_code
