"""Ending sessions from the admin: what is asked, what is done, what is written down."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import User
from django.test import Client

from django_header_sessions import registry
from django_header_sessions.keys import make
from django_header_sessions.signals import session_ended
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Commit, Draft

from .conftest import LIST, TERMS, SignIn, page_of, start

pytestmark = pytest.mark.usefixtures("listing_store")


@pytest.fixture
def client(sign_in: SignIn) -> Client:
    return sign_in("view", "delete")


@pytest.fixture
def ended() -> Any:
    """What ``session_ended`` said."""
    told: list[tuple[str, str]] = []

    def receive(session_id: str, reason: str, **kwargs: Any) -> None:
        told.append((session_id, reason))

    session_ended.connect(receive)
    yield told
    session_ended.disconnect(receive)


def there(*ids: str) -> list[bool]:
    return [registry.get(session_id) is not None for session_id in ids]


def log() -> list[tuple[str, str, str, str]]:
    return [
        (entry.user.username, entry.object_id or "", entry.object_repr, entry.get_change_message())
        for entry in LogEntry.objects.order_by("object_repr")
        if entry.action_flag == DELETION
    ]


def test_a_session_is_ended_when_that_was_confirmed(client: Client, ended: Any) -> None:
    user = User.objects.create_user("alice")
    session_id, other = start(user), start(user)
    page = client.get(page_of(session_id, "delete")).content.decode()
    assert session_id in page
    assert "1 session is about to end" in page
    assert there(session_id) == [True]
    response = client.post(page_of(session_id, "delete"), {"post": "yes"}, follow=True)
    assert "1 session was ended." in response.content.decode()
    assert there(session_id, other) == [False, True]
    assert ended == [(session_id, "admin")]


def test_it_is_written_down_who_ended_which_session_of_whom(client: Client) -> None:
    user = User.objects.create_user("alice")
    of_alice, anonymous = start(user), start(transport="cookie")
    client.post(
        LIST,
        {"action": "end_selected", "_selected_action": [of_alice, anonymous], "post": "yes"},
    )
    assert sorted(log()) == sorted(
        [
            (
                "staff",
                of_alice,
                f"{of_alice} of alice",
                "Ended the session of alice (header transport).",
            ),
            (
                "staff",
                anonymous,
                f"{anonymous} (anonymous)",
                "Ended the session of nobody (cookie transport).",
            ),
        ]
    )
    history = client.get(page_of(of_alice, "history")).content.decode()
    assert "Ended the session of alice" in history


def test_an_action_ends_what_was_selected_when_that_was_confirmed(
    client: Client, ended: Any
) -> None:
    ids = [start() for _ in range(4)]
    chosen = {"action": "end_selected", "_selected_action": ids[:3]}
    page = client.post(LIST + "?transport=header", chosen).content.decode()
    assert all(there(*ids))
    assert "3 sessions are about to end" in page
    assert ids[3] not in page
    response = client.post(LIST + "?transport=header", chosen | {"post": "yes"})
    assert response["Location"] == LIST + "?transport=header"
    assert there(*ids) == [False, False, False, True]
    assert "3 sessions were ended." in client.get(LIST).content.decode()
    assert ended == [(session_id, "admin") for session_id in ids[:3]]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"action": "", "_selected_action": ["x"]},
        {"action": "delete_selected", "_selected_action": ["ID"], "post": "yes"},
        {"action": "end_selected", "post": "yes"},
    ],
)
def test_an_action_that_is_none_ends_nothing(client: Client, data: dict[str, Any]) -> None:
    session_id = start()
    chosen = [session_id if each == "ID" else each for each in data.get("_selected_action", [])]
    response = client.post(LIST, data | {"_selected_action": chosen}, follow=True)
    assert "Nothing was ended." in response.content.decode()
    assert there(session_id) == [True]


def test_what_ended_while_the_page_was_open_is_left_out(client: Client) -> None:
    gone, left = start(), start()
    registry.end(gone)
    chosen = {"action": "end_selected", "_selected_action": [gone, left, "<b>", "a" * 40]}
    page = client.post(LIST, chosen).content.decode()
    assert gone not in page
    assert "a" * 40 not in page
    response = client.post(LIST, chosen | {"post": "yes"}, follow=True)
    assert "1 session was ended." in response.content.decode()
    assert [entry[1] for entry in log()] == [left]
    response = client.post(LIST, chosen | {"post": "yes"}, follow=True)
    assert "0 sessions were ended." in response.content.decode()
    assert "no live session of that id" in client.get(page_of(gone), follow=True).content.decode()
    response = client.post(page_of(gone, "delete"), {"post": "yes"}, follow=True)
    assert "no live session of that id" in response.content.decode()


def test_a_session_that_was_rotated_meanwhile_is_ended_all_the_same(client: Client) -> None:
    store = get_store("default")
    key, _ = store.create(Draft("header", {}), TERMS)
    client.get(page_of(key.id, "delete"))
    new = make(key.id)
    store.commit(key, "header", TERMS, Commit(rotate_to=new))
    client.post(page_of(key.id, "delete"), {"post": "yes"})
    assert store.open(new, "header", TERMS) is None


def test_all_sessions_of_a_user_are_ended_when_that_was_confirmed(
    client: Client, ended: Any
) -> None:
    alice, bob = User.objects.create_user("alice"), User.objects.create_user("bob")
    ids = [start(alice), start(alice, transport="cookie")]
    other = start(bob)
    url = f"{LIST}user/{alice.pk}/end/"
    assert url in client.get(LIST + "?q=alice").content.decode()
    page = client.get(url).content.decode()
    assert "2 sessions are about to end" in page
    assert all(there(*ids))
    client.post(url, {"post": "yes"})
    assert there(*ids, other) == [False, False, True]
    assert sorted(ended) == sorted((session_id, "admin") for session_id in ids)
    assert len(log()) == 2
    response = client.post(url, {"post": "yes"}, follow=True)
    assert "That user has no live session." in response.content.decode()


def test_whoever_ends_their_own_session_is_told_and_signed_out(client: Client) -> None:
    own = (client.session.session_key or "")[:15]
    page = client.get(page_of(own, "delete")).content.decode()
    assert "Your own session is among them" in page
    response = client.post(page_of(own, "delete"), {"post": "yes"})
    assert (response.status_code, response["Location"]) == (302, "/admin/")
    assert there(own) == [False]
    assert client.get(LIST).status_code == 302
    assert [entry[1] for entry in log()] == [own]


def test_an_end_needs_a_csrf_token(client: Client) -> None:
    session_id = start()
    client.handler.enforce_csrf_checks = True
    response = client.post(page_of(session_id, "delete"), {"post": "yes"})
    assert response.status_code == 403
    assert there(session_id) == [True]
