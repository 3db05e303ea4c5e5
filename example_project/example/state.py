"""The session as a client's notebook: read it, merge into it, count in it; sync and async."""

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from example.api import api, bad_request, read_object


@api("GET", "HEAD", "PATCH")
def state(request: HttpRequest) -> HttpResponse:
    """Answer the session's own fields; ``PATCH`` first merges an object, ``null`` deletes."""
    if request.method == "PATCH":
        for name, value in read_changes(request).items():
            if value is None:
                request.session.pop(name, None)
            else:
                request.session[name] = value
    return JsonResponse({"state": own_fields(request.session.items())})


@api("GET", "HEAD", "PATCH")
async def async_state(request: HttpRequest) -> HttpResponse:
    """``state`` for an event loop."""
    if request.method == "PATCH":
        for name, value in read_changes(request).items():
            if value is None:
                await request.session.apop(name, None)
            else:
                await request.session.aset(name, value)
    return JsonResponse({"state": own_fields(await request.session.aitems())})


@api("POST")
def increment(request: HttpRequest) -> HttpResponse:
    """Add ``by`` (default 1) to the integer ``key``: exact, however many do it at once.

    ``session["n"] += 1`` would lose counts between its read and its write.
    """
    body = read_object(request)
    name, by = body.get("key"), body.get("by", 1)
    if not isinstance(name, str):
        raise bad_request("'key' must be a string.")
    # In Python True is an integer; in JSON it is not.
    if not isinstance(by, int) or isinstance(by, bool):
        raise bad_request("'by' must be an integer.")
    check_name(name)
    try:
        total = request.session.increment(name, by)  # type: ignore[attr-defined]
    except TypeError:
        raise bad_request(f"The field {name!r} holds no integer.") from None
    except OverflowError:
        raise bad_request("A counter has 64 bits; this would not fit.") from None
    return JsonResponse({name: total})


def read_changes(request: HttpRequest) -> dict[str, Any]:
    changes = read_object(request)
    for name in changes:
        check_name(name)
    return changes


def check_name(name: str) -> None:
    # Among Django's fields is _auth_user_id: whoever may write it signs in as anybody.
    if name.startswith("_"):
        raise bad_request("Names beginning with '_' are not yours to write.")


def own_fields(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if not name.startswith("_")}
