"""What schemathesis cannot know: how to sign in, and which credentials are right."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import schemathesis
from schemathesis import AuthContext, Case, HookContext

CREDENTIALS = {"username": "ann", "password": "ann's password"}


@schemathesis.auth(refresh_interval=None)
class SignIn:
    """A session of its own for each case: the case before may have ended the last one."""

    def get(self, case: Case[Any], context: AuthContext) -> str:
        at = urlsplit(str(case.operation.base_url))
        connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/api/sessions/", json.dumps(CREDENTIALS), headers)
            return connection.getresponse().headers["X-Session-Key"]
        finally:
            connection.close()

    def set(self, case: Case[Any], data: str, context: AuthContext) -> None:
        case.headers["X-Session-Key"] = data


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Every other pair of credentials is right."""
    if not isinstance(body, dict):
        return body
    name, password = body.get("username"), body.get("password")
    if not isinstance(name, str) or not isinstance(password, str):
        return body
    # Not in the place of what the schema forbids, which is to be refused.
    fits = 1 <= len(name) <= 1024 and 1 <= len(password) <= 4096 and "\0" not in name + password
    return body | CREDENTIALS if fits and len(name) % 2 == 0 else body
