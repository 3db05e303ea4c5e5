"""Who may see and who may end."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_header_sessions import registry

from .conftest import LIST, SignIn, page_of, start


@pytest.fixture
def session_id(db: None) -> str:
    return start(User.objects.create_user("alice"), ip="192.0.2.7", n=1)


def views(session_id: str) -> list[str]:
    user = User.objects.get(username="alice")
    names = ("change", "delete", "history")
    return [LIST, *(page_of(session_id, name) for name in names), f"{LIST}user/{user.pk}/end/"]


def test_nobody_without_a_permission_sees_anything(sign_in: SignIn, session_id: str) -> None:
    for client in (sign_in(), sign_in("view_session_values", name="values")):
        for url in views(session_id):
            for response in (client.get(url), client.post(url, {"post": "yes"})):
                assert response.status_code == 403
                assert session_id not in response.content.decode()
        assert "Sessions" not in client.get("/admin/").content.decode()
        assert client.get("/admin/django_header_sessions/").status_code == 404
    assert registry.get(session_id)


def test_nobody_who_is_not_signed_in_sees_anything(client: Client, session_id: str) -> None:
    for url in views(session_id):
        for response in (client.get(url), client.post(url, {"post": "yes"})):
            assert response.status_code == 302
            assert response["Location"].startswith("/admin/login/")
    assert registry.get(session_id)


def test_to_view_is_not_to_end(sign_in: SignIn, session_id: str) -> None:
    client = sign_in("view")
    page = client.get(LIST + "?q=alice").content.decode()
    assert session_id in page
    detail = client.get(page_of(session_id)).content.decode()
    for text in ("action-select", "end_selected", "deletelink", "/end/", "/delete/"):
        assert text not in page
        assert text not in detail
    user = User.objects.get(username="alice")
    for url, data in (
        (page_of(session_id, "delete"), {}),
        (f"{LIST}user/{user.pk}/end/", {}),
        (LIST, {"action": "end_selected", "_selected_action": session_id}),
    ):
        assert client.post(url, data | {"post": "yes"}).status_code == 403
    assert client.get(page_of(session_id, "delete")).status_code == 403
    assert registry.get(session_id)


def test_to_end_is_not_to_view(sign_in: SignIn, session_id: str) -> None:
    client = sign_in("delete")
    assert client.get(LIST).status_code == 403
    assert client.get(page_of(session_id)).status_code == 403
    page = client.get(page_of(session_id, "delete")).content.decode()
    assert session_id in page
    for seen in ("alice", "192.0.2.7", page_of(session_id), f'"{LIST}"'):
        assert seen not in page
    response = client.post(page_of(session_id, "delete"), {"post": "yes"}, follow=True)
    assert registry.get(session_id) is None
    assert response.redirect_chain == [("/admin/", 302)]
    assert "1 session was ended." in response.content.decode()
    response = client.get(page_of(session_id, "delete"), follow=True)
    assert response.redirect_chain == [("/admin/", 302)]
    assert "no live session of that id" in response.content.decode()


def test_nobody_without_a_permission_learns_which_sessions_there_are(
    sign_in: SignIn, session_id: str
) -> None:
    client = sign_in()
    for name in ("change", "delete", "history"):
        for each in (session_id, "a" * 15):
            assert client.get(page_of(each, name)).status_code == 403


def test_nobody_adds_or_changes_a_session(sign_in: SignIn, session_id: str) -> None:
    client = sign_in(superuser=True)
    assert client.get(LIST + "add/").status_code == 403
    assert client.post(LIST + "add/", {"id": "a" * 15}).status_code == 403
    index = client.get("/admin/").content.decode()
    assert LIST in index
    assert LIST + "add/" not in index
    assert client.post(page_of(session_id), {"id": "x"}).status_code == 200  # shown again
    assert registry.get(session_id)
