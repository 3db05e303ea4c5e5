"""Tools for callers that do several things at once: one for each way to share a session.

What is merged by itself needs nothing: ``PATCH /api/state/`` sends the fields that it changes.
"""

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from django_header_sessions.decorators import readonly_session, serialized_session
from django_header_sessions.exceptions import ContextUnknown
from example.api import Problem, api, bad_request, read_object

MAX_LINES = 100


@api("GET", "HEAD")
@readonly_session
def basket(request: HttpRequest) -> HttpResponse:
    """Answer what is in the basket. It can change nothing, so it waits for nobody."""
    return answer_basket(request)


@api("POST")
@serialized_session(wait=5, lease=10)
def add(request: HttpRequest) -> HttpResponse:
    """Put ``count`` (default 1) of an ``item`` into the basket; a negative count takes some out.

    It reads the list, thinks, and writes it back: of two at once one would be lost, so each has
    the session to itself meanwhile. A counter alone would not need that: see ``state.increment``.
    """
    item, count = read_line(request)
    lines: dict[str, int] = request.session.get("basket", {})
    after = lines.get(item, 0) + count
    if after < 0:
        raise Problem(HTTPStatus.CONFLICT, "not-there", f"There are no {-count} of {item!r}.")
    lines = {name: number for name, number in (lines | {item: after}).items() if number}
    if len(lines) > MAX_LINES:
        raise Problem(HTTPStatus.CONFLICT, "full", f"The basket holds {MAX_LINES} items.")
    request.session["basket"] = lines
    return answer_basket(request)


@api("POST")
def begin_draft(request: HttpRequest) -> HttpResponse:
    """Begin a draft: a context of its own, which other calls do not see. Answer its handle."""
    handle = request.session.new_context()  # type: ignore[attr-defined]
    return JsonResponse({"draft": handle, "lines": {}}, status=HTTPStatus.CREATED)


@api("GET", "HEAD", "POST", "DELETE")
def draft(request: HttpRequest, handle: str) -> HttpResponse:
    """Answer a draft; ``POST`` first puts something into it, ``DELETE`` throws it away."""
    context = open_draft(request, handle)
    if request.method == "DELETE":
        context.end()
        return HttpResponse(status=HTTPStatus.NO_CONTENT)
    if request.method == "POST":
        item, count = read_line(request)
        context[item] = count
    return JsonResponse({"draft": handle, "lines": dict(context)})


@api("POST")
def accept_draft(request: HttpRequest, handle: str) -> HttpResponse:
    """Make what the draft holds the session's own, in one commit; the draft is over."""
    context = open_draft(request, handle)
    lines = dict(context)
    context.promote()
    return JsonResponse({"accepted": lines})


def open_draft(request: HttpRequest, handle: str) -> Any:
    try:
        return request.session.context(handle)  # type: ignore[attr-defined]
    except ContextUnknown:
        raise Problem(
            HTTPStatus.NOT_FOUND, "no-draft", "There is no such draft: POST /api/tools/drafts/."
        ) from None


def read_line(request: HttpRequest) -> tuple[str, int]:
    body = read_object(request)
    item, count = body.get("item"), body.get("count", 1)
    if not isinstance(item, str) or not 0 < len(item) <= 100 or item.startswith("_"):
        raise bad_request("'item' must be a string of 1 to 100 characters, without a leading '_'.")
    if not isinstance(count, int) or isinstance(count, bool) or not -1000 <= count <= 1000:
        raise bad_request("'count' must be an integer from -1000 to 1000.")
    return item, count


def answer_basket(request: HttpRequest) -> HttpResponse:
    lines: dict[str, int] = request.session.get("basket", {})
    return JsonResponse({"basket": lines, "items": sum(lines.values())})
