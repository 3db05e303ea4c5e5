"""Two tools that share their state: ``search`` remembers what was asked, ``next`` goes on."""

from http import HTTPStatus
from typing import Any, TypeGuard

from django.http import HttpRequest, HttpResponse, JsonResponse

from example import catalogue
from example.api import Problem, api, bad_request, read_object

MAX_QUERY = 200
MAX_PAGE_SIZE = 100


@api("POST")
def search(request: HttpRequest) -> HttpResponse:
    """Search the catalogue: answer the first page, and remember the query in the session."""
    body = read_object(request)
    query, page_size = body.get("query"), body.get("page_size", 10)
    if not is_query(query):
        raise bad_request(f"'query' must be a string of at most {MAX_QUERY} characters.")
    if not is_page_size(page_size):
        raise bad_request(f"'page_size' must be an integer from 1 to {MAX_PAGE_SIZE}.")
    return answer_page(request, query, page_size, 1)


@api("POST")
def next_page(request: HttpRequest) -> HttpResponse:
    """Answer the next page of the remembered search; 409 when none is remembered.

    After the last page comes an empty one, which stays the next one however often it is asked for.
    """
    # The field lies open to PATCH /api/state/, so it is read like any other input.
    match request.session.get("search"):
        case {"query": query, "page_size": page_size, "page": page} if (
            is_query(query) and is_page_size(page_size) and is_count(page)
        ):
            return answer_page(request, query, page_size, page + 1)
    raise Problem(
        HTTPStatus.CONFLICT, "no-search", "No search is remembered: POST /api/tools/search/ first."
    )


def answer_page(request: HttpRequest, query: str, page_size: int, page: int) -> HttpResponse:
    found = catalogue.search(query)
    last = max(1, -(-len(found) // page_size))
    page = min(page, last + 1)
    # Assigned whole: of two calls at the same moment one is remembered, never a mixture of both.
    request.session["search"] = {"query": query, "page_size": page_size, "page": page}
    results = found[(page - 1) * page_size : page * page_size]
    return JsonResponse(
        {
            "query": query,
            "page": page,
            "page_size": page_size,
            "total": len(found),
            "has_next": page < last,
            "results": [instrument.as_json() for instrument in results],
        }
    )


def is_query(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_QUERY


def is_page_size(value: Any) -> TypeGuard[int]:
    return is_count(value) and value <= MAX_PAGE_SIZE


def is_count(value: Any) -> TypeGuard[int]:
    # In Python True is an integer; in JSON it is not.
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
