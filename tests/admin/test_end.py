"""Ending sessions from the admin: what is asked, what is done, what is written down."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, transaction
from django.test import Client

from django_header_sessions import admin, registry
from django_header_sessions.admin import AT_ONCE, BATCH, LISTED
from django_header_sessions.keys import make
from django_header_sessions.signals import session_ended
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Commit, Draft

from ..processes import Valkey
from .conftest import LIST, TERMS, SignIn, cache_of, page_of, start

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


def test_a_user_whose_sessions_ended_meanwhile_has_none_to_end(client: Client) -> None:
    user = User.objects.create_user("alice")
    registry.end(start(user))
    response = client.get(f"{LIST}user/{user.pk}/end/", follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert "That user has no live session." in response.content.decode()


def submitted(page: str) -> dict[str, Any]:
    """What a browser sends when the last form of ``page`` is sent off."""
    form = page[page.rindex('<form method="post"') :]
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    # And no more of it than Django takes.
    assert len(found) <= settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    return {name: [value for each, value in found if each == name] for name, _ in found}


def test_thousands_of_sessions_of_a_user_are_ended_step_by_step(client: Client, ended: Any) -> None:
    alice = User.objects.create_user("alice")
    for _ in range(2 * AT_ONCE + 10):
        start(alice)
    other = start()
    url = f"{LIST}user/{alice.pk}/end/"
    page = client.get(url).content.decode()
    assert "2010 sessions are about to end" in page.replace(",", "").replace("\xa0", "")
    assert "and 1990 more" in page
    assert page.count('/change/"><code>') == LISTED
    for done, left in ((1000, 1010), (2000, 10)):
        page = client.post(url, submitted(page)).content.decode()
        assert f"{done} ended so far" in page
        assert f"{left} are left." in page
        assert f'<progress value="{done}" max="2010">' in page
        assert len(log()) == done
    response = client.post(url, submitted(page), follow=True)
    assert "2010 sessions were ended." in response.content.decode()
    assert len(log()) == len(ended) == 2010
    assert registry.of_user(str(alice.pk)) == []
    assert there(other) == [True]


def test_a_page_that_asks_for_many_sends_back_what_it_was_sent(client: Client) -> None:
    # With the token, the action and the button, as many as Django takes.
    ids = [start() for _ in range(settings.DATA_UPLOAD_MAX_NUMBER_FIELDS - 4)]
    chosen = {"action": "end_selected", "_selected_action": ids}
    page = client.post(LIST, chosen).content.decode()
    assert "996 sessions are about to end" in page
    response = client.post(LIST, submitted(page), follow=True)
    assert "996 sessions were ended." in response.content.decode()
    assert not any(there(*ids))


@pytest.mark.parametrize("kind", ["of a user", "selected"])
def test_what_ended_before_the_store_went_away_is_written_down(
    sign_in: SignIn, settings: Any, kind: str
) -> None:
    told: list[str] = []
    with Valkey() as server:
        settings.CACHES = {"default": cache_of(server)}
        settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
        client = sign_in("view", "delete")
        alice = User.objects.create_user("alice")
        ids = [start(alice) for _ in range(2 * BATCH + 100)]

        def lose(session_id: str, **kwargs: Any) -> None:
            told.append(session_id)
            if len(told) == BATCH + 1:
                server.kill()

        session_ended.connect(lose)
        url = f"{LIST}user/{alice.pk}/end/" if kind == "of a user" else LIST
        chosen = {"action": "end_selected", "_selected_action": ids}
        # As a step that was not the first would be.
        data = chosen if url == LIST else {"ended": "1000"}
        response = client.post(url, {"post": "yes"} | data)
        session_ended.disconnect(lose)
    assert response.status_code == 503
    count = 2 * BATCH if kind == "selected" else 1000 + 2 * BATCH
    assert f"{count} sessions were ended before that." in response.content.decode()
    assert len(told) == 2 * BATCH
    written = log()
    ended = {entry[1] for entry in written if entry[3].startswith("Ended the session of alice")}
    assert ended == set(told)
    # Nobody knows of the others of the batch that was lost.
    tried = {entry[1] for entry in written if entry[3].startswith("Tried to end the session")}
    assert tried == set(ids) - ended


def test_what_somebody_else_ended_meanwhile_is_not_written_down(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "BATCH", 2)
    ids = [start() for _ in range(4)]

    def end_another(session_id: str, **kwargs: Any) -> None:
        if session_id == ids[0]:
            registry.end(ids[3])

    session_ended.connect(end_another)
    chosen = {"action": "end_selected", "_selected_action": ids, "post": "yes"}
    response = client.post(LIST, chosen, follow=True)
    session_ended.disconnect(end_another)
    assert "3 sessions were ended." in response.content.decode()
    assert {entry[1] for entry in log()} == set(ids[:3])
    assert len(log()) == 3


def test_what_a_receiver_does_to_the_database_undoes_no_word_of_the_log(
    client: Client, ended: Any
) -> None:
    """Where a transaction was around both, one that failed took it back, and told nobody."""
    in_transaction: list[bool] = []

    def fail(**kwargs: Any) -> None:
        in_transaction.append(len(connection.savepoint_ids) > before)
        transaction.set_rollback(True)

    before = len(connection.savepoint_ids)
    ids = [start() for _ in range(2)]
    chosen = {"action": "end_selected", "_selected_action": ids, "post": "yes"}
    session_ended.connect(fail)
    try:
        client.post(LIST, chosen)
    finally:
        session_ended.disconnect(fail)
        transaction.set_rollback(False)
    assert in_transaction == [False, False]
    assert {entry[1] for entry in log()} == set(ids)


def test_what_may_not_have_been_ended_is_not_said_to_be(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = start()

    def refuse(*args: Any) -> Any:
        raise ImproperlyConfigured("The session store refuses the password.")

    monkeypatch.setattr(registry, "end_many", refuse)
    with pytest.raises(ImproperlyConfigured):
        client.post(page_of(session_id, "delete"), {"post": "yes"})
    ((_, _, _, told),) = log()
    assert told.startswith("Tried to end the session of nobody")


@pytest.mark.parametrize("name", ["%00", "x", "a" * 16])
def test_the_history_of_what_is_no_id_is_none(client: Client, name: str) -> None:
    assert client.get(f"{LIST}{name}/history/").status_code == 302


def test_what_cannot_be_written_down_is_not_ended(client: Client, ended: Any) -> None:
    ids = [start() for _ in range(3)]
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER full BEFORE INSERT ON django_admin_log "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    chosen = {"action": "end_selected", "_selected_action": ids, "post": "yes"}
    for url, data in ((LIST, chosen), (page_of(ids[0], "delete"), {"post": "yes"})):
        with pytest.raises(DatabaseError, match="is full"):
            client.post(url, data)
    assert ended == []
    assert all(there(*ids))


def test_whoever_ends_all_of_their_own_sessions_ends_this_one_last(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "AT_ONCE", 2)
    user = User.objects.get(username="staff")
    own = (client.session.session_key or "")[:15]
    ids = [start(user) for _ in range(5)]
    url = f"{LIST}user/{user.pk}/end/"
    page = client.get(url).content.decode()
    assert "Your own session is among them" in page
    for _ in range(4):  # which lists its own first, so that there is one of the others in each
        assert there(own) == [True]
        page = client.post(url, submitted(page)).content.decode()
    assert there(own) == [True]
    response = client.post(url, submitted(page))
    assert response["Location"] == "/admin/"
    assert not any(there(own, *ids))
    assert {entry[1] for entry in log()} == {own, *ids}


@pytest.mark.parametrize("count", ["x", "-1", "9" * 40, "é", "²"])
def test_a_count_that_is_none_is_none(client: Client, count: str) -> None:
    user = User.objects.create_user("alice")
    start(user)
    url = f"{LIST}user/{user.pk}/end/"
    response = client.post(url, {"post": "yes", "ended": count}, follow=True)
    assert "1 session was ended." in response.content.decode()


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
