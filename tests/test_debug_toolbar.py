"""Our headers panel, in process; a served project with the toolbar is in ``tests.neighbours``."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_header_sessions import keys
from django_header_sessions.debug_toolbar import HeadersPanel


class Toolbar:
    """What a panel needs of the toolbar, whose own cannot be had without its app."""

    request_id = "one"

    def __init__(self) -> None:
        self.stats: dict[str, Any] = {}
        self.kept: list[Any] = []
        self.store = self

    def save_panel(self, request_id: str, panel_id: str, data: Any) -> None:
        self.kept.append(dict(data))


@pytest.mark.parametrize("header", ["X-Session-Key", "X-Sid"])
def test_the_session_header_is_masked_and_the_others_are_not(settings: Any, header: str) -> None:
    settings.HEADER_SESSIONS_HEADER = header
    sent, announced = keys.make(), keys.make()

    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={header: str(announced), "X-Other": "shown"})

    request = RequestFactory().get("/", headers={header: str(sent), "X-Other": "shown"})
    toolbar = Toolbar()
    panel: Any = HeadersPanel(toolbar, answer)
    panel.generate_stats(request, panel.process_request(request))

    shown = panel.get_stats()
    for headers in (shown["request_headers"], shown["response_headers"]):
        assert headers[header] == "********************"
        assert headers["X-Other"] == "shown"
    assert shown["environ"]["REQUEST_METHOD"] == "GET"
    for secret in (sent, announced):
        assert secret not in f"{shown}{toolbar.kept}"
