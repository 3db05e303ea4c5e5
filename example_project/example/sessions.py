"""Starting, seeing and ending a session. The key travels in the header only, never in a body."""

from http import HTTPStatus
from typing import Any

from django.contrib.auth import authenticate, login, logout
from django.http import HttpRequest, HttpResponse, JsonResponse

from django_header_sessions.keys import SessionKey
from example.api import Problem, api, bad_request, read_object


@api("POST")
def start(request: HttpRequest) -> HttpResponse:
    """Sign in with ``username`` and ``password``; without a body start an anonymous session.

    Whoever comes with a session keeps it, data and id: signing in gives it a new key, and without
    a body there is nothing to do.
    """
    body = read_object(request, required=False)
    if body:
        user = authenticate(request, **read_credentials(body))
        if user is None:
            # The same words for an unknown name and a wrong password tell a guesser nothing.
            raise unauthorized("credentials", "No active user has this name and password.")
        login(request, user)
    elif request.session.session_key is None:
        request.session.create()
    return JsonResponse(public_face(request), status=HTTPStatus.CREATED)


@api("GET", "HEAD", "DELETE")
def current(request: HttpRequest) -> HttpResponse:
    """Answer the session that came with the request; ``DELETE`` signs out and ends it."""
    if request.session.session_key is None:
        raise unauthorized("no-session", "No session: POST /api/sessions/ starts one.")
    if request.method == "DELETE":
        logout(request)
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    return JsonResponse(public_face(request))


def read_credentials(body: dict[str, Any]) -> dict[str, str]:
    credentials = {}
    for name in ("username", "password"):
        value = body.get(name)
        if not isinstance(value, str):
            raise bad_request(f"'{name}' must be a string.")
        try:
            value.encode()
        except UnicodeEncodeError:
            # JSON lets half a surrogate pair into a string; no database and no hash takes it.
            raise bad_request(f"'{name}' is no valid Unicode.") from None
        credentials[name] = value
    return credentials


def public_face(request: HttpRequest) -> dict[str, str | None]:
    """What may be shown of a session: its id opens nothing."""
    key = request.session.session_key
    return {
        "id": key.id if isinstance(key, SessionKey) else None,
        "user": request.user.get_username() if request.user.is_authenticated else None,
    }


def unauthorized(name: str, detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, name, detail, headers={"WWW-Authenticate": "Session"})
