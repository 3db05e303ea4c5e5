"""Contexts of a session: what its page shows of them, and the end of one."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.test import Client
from django.utils.html import strip_tags

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.exceptions import SessionUnavailable

from .conftest import LIST, SignIn, page_of, start

pytestmark = pytest.mark.usefixtures("listing_store")

ODD = [
    "..",
    "a/../b",
    "<script>alert(1)</script>",
    "\"'&amp;",
    "%2e%2e?name=x#y",
    "%(user)s{0}",
    "x" * 64,
]


@pytest.fixture
def client(sign_in: SignIn) -> Client:
    return sign_in("view", "delete")


def start_with(*names: str, user: User | None = None) -> str:
    """A session with these contexts; its id."""
    session = SessionStore(transport="header")
    session["n"] = 1
    if user is not None:
        session["_auth_user_id"] = str(user.pk)
    for name in names:
        session.context(name)["n"] = 1
    session.save()
    assert session.session_key is not None
    return session.session_key.id


def names(session_id: str) -> list[str]:
    return [one.name for one in registry.contexts(session_id)]


def rows(page: str) -> list[tuple[str, str, str]]:
    """What a page shows of each context: its name, its size, and where it is ended."""
    body = page[page.index("hs-contexts") :] if "hs-contexts" in page else ""
    return [
        (unescape(name), strip_tags(rest).split("\xa0")[0], unescape("".join(link)))
        for name, rest, link in (
            (name, rest, re.findall(r'href="([^"]*)"', rest))
            for name, rest in re.findall(
                r'<tr><th scope="row"><code>(.*?)</code></th>(.*?)</tr>', body, re.S
            )
        )
    ]


def log() -> list[tuple[int, str, str]]:
    return [
        (entry.action_flag, entry.object_id or "", entry.get_change_message())
        for entry in LogEntry.objects.order_by("pk")
    ]


def test_a_page_shows_the_contexts_and_what_they_hold_in_all(client: Client) -> None:
    session_id = start_with("b", "a")
    page = client.get(page_of(session_id)).content.decode()
    assert [row[:2] for row in rows(page)] == [("a", "2"), ("b", "2")]
    text = strip_tags(page).replace("\xa0", " ")
    assert "2 contexts" in text
    assert "2 bytes and 4 bytes in 2 contexts" in text
    assert "29 min" in text
    page = client.get(page_of(start())).content.decode()
    assert "hs-contexts" not in page
    assert "contexts" not in strip_tags(page)


def test_they_are_shown_to_those_who_may_view_and_ended_by_those_who_may_end(
    sign_in: SignIn,
) -> None:
    session_id = start_with("draft")
    url = page_of(session_id, "end-context") + "?name=draft"
    viewer = sign_in("view", name="viewer")
    assert [row[::2] for row in rows(viewer.get(page_of(session_id)).content.decode())] == [
        ("draft", "")
    ]
    for client in (viewer, sign_in("delete", name="ender"), sign_in(name="nobody")):
        for response in (client.get(url), client.post(url, {"post": "yes"})):
            assert response.status_code == 403
            assert "draft" not in response.content.decode()
    assert Client().post(url, {"post": "yes"})["Location"].startswith("/admin/login/")
    assert names(session_id) == ["draft"]


def test_one_is_ended_when_that_was_confirmed(client: Client) -> None:
    session_id = start_with("draft", "other", user=User.objects.create_user("alice"))
    (link,) = (row[2] for row in rows(client.get(page_of(session_id)).content.decode())[:1])
    page = client.get(link).content.decode()
    assert "This context is about to end" in page
    assert '<code class="hs-name">draft</code>' in page
    assert session_id in page
    assert "alice" in page
    assert names(session_id) == ["draft", "other"]
    client.post(link)  # which confirms nothing
    assert names(session_id) == ["draft", "other"]
    response = client.post(link, {"post": "yes"}, follow=True)
    assert response.redirect_chain == [(page_of(session_id), 302)]
    page = response.content.decode()
    assert "The context was ended." in page
    assert [row[0] for row in rows(page)] == ["other"]
    assert log() == [(CHANGE, session_id, "Ended the context draft in the session of alice.")]
    history = client.get(page_of(session_id, "history")).content.decode()
    assert "Ended the context draft in the session of alice." in history
    # A page that was open all the while still has the link.
    for ask in (client.get, client.post):
        response = ask(link, {"name": "draft", "post": "yes"}, follow=True)
        assert response.redirect_chain == [(page_of(session_id), 302)]
        assert "There is no such context in this session." in response.content.decode()
    assert len(log()) == 1


@pytest.mark.parametrize("name", ODD)
def test_whatever_they_are_called_they_are_shown_and_ended(client: Client, name: str) -> None:
    session_id = start_with(name, "other")
    page = client.get(page_of(session_id)).content.decode()
    assert "<script>alert" not in page
    found = {row[0]: row[2] for row in rows(page)}
    assert set(found) == {name, "other"}
    assert found[name].startswith(page_of(session_id, "end-context") + "?name=")
    page = client.get(found[name]).content.decode()
    assert "<script>alert" not in page
    assert name in unescape(page)
    page = client.post(found[name], {"post": "yes"}, follow=True).content.decode()
    assert names(session_id) == ["other"]
    assert log()[0][2] == f"Ended the context {name} in the session of nobody."
    history = client.get(page_of(session_id, "history")).content.decode()
    assert "<script>alert" not in history
    assert name in unescape(history)


@pytest.mark.parametrize("name", ["", "no such one", "é", "\ud800", "\0", "x" * 1000])
def test_what_names_none_leads_back_to_the_session(client: Client, name: str) -> None:
    session_id = start_with("draft")
    url = page_of(session_id, "end-context")
    query = {"name": name.encode("utf-8", "surrogatepass")}
    for response in (
        client.get(url, query, follow=True),
        client.post(url, {"post": "yes"}, query_params=query, follow=True),
    ):
        assert response.redirect_chain == [(page_of(session_id), 302)]
        assert "There is no such context in this session." in response.content.decode()
    assert names(session_id) == ["draft"]
    assert log() == []


def test_of_a_session_that_is_gone_there_is_none(client: Client) -> None:
    session_id = start_with("draft")
    registry.end(session_id)
    url = page_of(session_id, "end-context") + "?name=draft"
    for response in (
        client.get(url, follow=True),
        client.post(url, {"post": "yes"}, follow=True),
    ):
        assert response.redirect_chain == [(LIST, 302)]
        assert "There is no live session of that id." in response.content.decode()


def test_an_end_needs_a_csrf_token(client: Client) -> None:
    session_id = start_with("draft")
    client.handler.enforce_csrf_checks = True
    url = page_of(session_id, "end-context") + "?name=draft"
    assert client.post(url, {"post": "yes"}).status_code == 403
    assert names(session_id) == ["draft"]


def test_what_cannot_be_written_down_is_not_ended(client: Client) -> None:
    session_id = start_with("draft")
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER full BEFORE INSERT ON django_admin_log "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    with pytest.raises(DatabaseError, match="is full"):
        client.post(page_of(session_id, "end-context") + "?name=draft", {"post": "yes"})
    assert names(session_id) == ["draft"]


def test_what_may_have_been_ended_is_written_down(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = start_with("draft")

    def lost(*args: Any) -> bool:
        raise SessionUnavailable("gone")

    monkeypatch.setattr(registry, "end_context", lost)
    response = client.post(page_of(session_id, "end-context") + "?name=draft", {"post": "yes"})
    assert response.status_code == 503
    ((_, of, text),) = log()
    assert of == session_id
    assert text.startswith("Tried to end the context draft in the session of nobody: the store")


def test_they_end_with_their_session(client: Client) -> None:
    session_id = start_with("draft", "other")
    client.post(page_of(session_id, "delete"), {"post": "yes"})
    assert names(session_id) == []
    assert [flag for flag, _, _ in log()] == [DELETION]
