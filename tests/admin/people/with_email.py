"""Run by ``test_faces`` with the settings beside it."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.test import Client

from tests.admin.conftest import LIST, page_of, start

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create(email="root@example.com", is_superuser=True))
    return client


def test_a_user_is_found_by_what_they_sign_in_with(staff: Client) -> None:
    user = get_user_model().objects.create(email="alice@example.com")
    session_id = start(user)
    page = staff.get(LIST, {"q": "alice@example.com"}).content.decode()
    assert page.count(f'title="{session_id}"') == 1
    assert "alice@example.com" in page.split("<tbody>")[2]
    assert f"{LIST}user/" in page
    staff.post(page_of(session_id, "delete"), {"post": "yes"})
    assert LogEntry.objects.get().object_repr == f"{session_id} of alice@example.com"


def test_a_key_of_another_kind_of_user_is_nobodys(staff: Client) -> None:
    class Gone:
        pk = 7

    session_id = start(Gone)
    page = staff.get(LIST).content.decode()
    assert session_id in page
    assert "#7 (no such user)" in page
