"""Run by ``test_faces`` with the settings beside it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from tests.admin.conftest import LIST, page_of, start

pytestmark = pytest.mark.django_db


def worker(number: int, **more: Any) -> Any:
    model: Any = get_user_model()
    return model.objects.create(number=number, **more)


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(worker(1, is_superuser=True))
    return client


def test_a_user_is_found_by_their_number(staff: Client) -> None:
    user = worker(77)
    session_id = start(user)
    page = staff.get(LIST, {"q": "77"}).content.decode()
    assert re.findall(r'title="([a-z0-9]{15})"', page) == [session_id]
    staff.post(page_of(session_id, "delete"), {"post": "yes"})
    assert LogEntry.objects.get().object_repr == f"{session_id} of 77"


@pytest.mark.parametrize("text", ["alice", "192.0.2.9", "9" * 30, "-1", "7.5", "é", "\0"])
def test_what_is_no_number_is_nobodys(staff: Client, text: str) -> None:
    start(ip="192.0.2.9")
    assert staff.get(LIST, {"q": text}).status_code == 200
    with pytest.raises(CommandError, match="No user is called that"):
        call_command("header_sessions", "list", "--user", text)


def test_the_beginning_of_an_id_is_found_all_the_same(staff: Client) -> None:
    session_id = start()
    assert session_id in staff.get(LIST, {"q": session_id[:6]}).content.decode()
