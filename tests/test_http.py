"""What typed code annotates its requests with is what its views are given."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from django.test import AsyncClient, Client

from django_header_sessions.http import HttpRequest


@pytest.mark.parametrize("path", ["/sync/", "/admin/sync/"])
def test_its_session_is_what_the_annotation_says(path: str) -> None:
    response: Any = Client().get(path)
    assert isinstance(response.wsgi_request.session, get_type_hints(HttpRequest)["session"])


async def test_its_session_is_so_in_async_too() -> None:
    response: Any = await AsyncClient().get("/async/")
    assert isinstance(response.asgi_request.session, get_type_hints(HttpRequest)["session"])
