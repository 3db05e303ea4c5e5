"""One session: what people may see of it."""

from __future__ import annotations

import re
from html import unescape
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.serializers import JSONSerializer
from django.core.management import call_command
from django.test import Client
from django.utils.html import strip_tags

from django_header_sessions import registry
from django_header_sessions.keys import make
from django_header_sessions.monitor import values as monitor
from django_header_sessions.monitor.values import MOST
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Commit, Draft

from .conftest import LIST, TERMS, SignIn, page_of, start

pytestmark = pytest.mark.usefixtures("listing_store")

STARS = "*" * 20


@pytest.fixture
def client(sign_in: SignIn) -> Client:
    return sign_in("view", "view_session_values")


def rows(page: str) -> dict[str, tuple[str, str]]:
    """The size and the value of each field that a page shows."""
    body = page[page.index("hs-fields") :]
    return {
        unescape(name): (strip_tags(size).replace("\xa0", " "), unescape(strip_tags(rest)).strip())
        for name, size, rest in re.findall(
            r'<tr><th scope="row"><code>(.*?)</code></th><td class="[^"]*">(.*?)</td>(.*?)</tr>',
            body,
            re.S,
        )
    }


def shown(client: Client, session_id: str) -> str:
    response = client.get(page_of(session_id))
    assert response.status_code == 200
    return response.content.decode()


def test_a_page_says_all_that_the_list_says_and_more(client: Client) -> None:
    user = User.objects.create_user("alice")
    session_id = start(user, "header", "192.0.2.7", "(iPhone) Version/17.5", n=1)
    page = shown(client, session_id).replace("\xa0", " ")
    for text in (session_id, "alice", "header", "192.0.2.7", "Safari 17 · iPhone", "in 29 min"):
        assert text in page
    assert "used or not, at the latest" in page
    assert f"{LIST}?user={user.pk}" in page


def test_fields_are_shown_with_their_sizes_and_pretty_values(client: Client) -> None:
    session_id = start(n=7, text="é", cart={"b": [1, 2], "a": None})
    assert rows(shown(client, session_id)) == {
        "cart": ("25 bytes", '{\n  "a": null,\n  "b": [\n    1,\n    2\n  ]\n}'),
        "n": ("2 bytes", "7"),
        "text": ("6 bytes", '"é"'),
    }


def test_what_looks_like_a_secret_is_masked_at_any_depth(client: Client) -> None:
    session_id = start(
        _auth_user_hash="hash hash",
        api_token="open sesame",
        account={"name": "alice", "Password": "swordfish", "cards": [{"secret_pin": "1234"}]},
    )
    page = shown(client, session_id)
    values = rows(page)
    assert values["_auth_user_hash"][1] == STARS
    assert values["api_token"][1] == STARS
    assert '"alice"' in values["account"][1]
    for secret in ("hash hash", "open sesame", "swordfish", "1234"):
        assert secret not in page


@pytest.mark.usefixtures("shy_filter")
def test_a_project_may_say_what_looks_like_a_secret(client: Client) -> None:
    session_id = start(birthday="1 May", token="open", _auth_user_hash="hash hash")
    values = rows(shown(client, session_id))
    assert values["birthday"][1] == STARS
    assert values["token"][1] == '"open"'
    assert values["_auth_user_hash"][1] == STARS  # whatever a project says


def test_values_are_for_those_who_may_see_them(sign_in: SignIn) -> None:
    session_id = start(cart="a watch")
    page = shown(sign_in("view"), session_id)
    assert rows(page) == {"cart": ("11 bytes", "")}
    assert "a watch" not in page
    assert "You may see names and sizes." in page


def test_a_value_that_cannot_be_read_is_said_to_be(client: Client) -> None:
    session_id = start(raw={"broken": b"\xff{", "also": b"\xfe\xfe"}, fine="yes")
    values = rows(shown(client, session_id))
    for name, size in (("broken", "8 bytes"), ("also", "6 bytes")):
        assert values[name] == (size, "Cannot be read with SESSION_SERIALIZER.")
    assert values["fine"][1] == '"yes"'


@pytest.mark.parametrize("depth", [50, 200, 480, 5000, 30_000])
def test_a_value_that_is_nested_deeply_is_no_failure(client: Client, depth: int) -> None:
    session_id = start(
        raw={
            "deep": b"\xff" + b"[" * depth + b"]" * depth,
            "secret": b"\xff" + b'{"a":' * depth + b"1" + b"}" * depth,
        },
        fine="yes",
    )
    values = rows(shown(client, session_id))
    assert values["fine"][1] == '"yes"'
    assert values["secret"][1] in (STARS, "Cannot be read with SESSION_SERIALIZER.")
    # How deep is too deep is for Python to say.
    too_deep = ("Nested too deeply to be shown.", "Cannot be read with SESSION_SERIALIZER.")
    assert values["deep"][1].startswith("[") or values["deep"][1] in too_deep
    assert (values["deep"][1] in too_deep) or depth < 5000
    out = StringIO()
    call_command("header_sessions", "show", session_id, "--values", stdout=out)
    assert '"yes"' in out.getvalue()


class Stubborn(JSONSerializer):
    """Makes objects that do not want to be looked at."""

    def loads(self, data: bytes) -> Any:
        return {"odd": self}

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_what_another_serializer_makes_of_a_value_is_no_failure(
    client: Client, settings: Any
) -> None:
    session_id = start(raw={"odd": b"\xff{}"})
    settings.SESSION_SERIALIZER = f"{__name__}.Stubborn"
    # The session of whoever looks is read with it, too: they are not signed in by it any more.
    found = registry.fields(session_id)
    assert found is not None
    (row,) = monitor.shown(found[1], None, values=True)
    assert (row.value, row.readable) == ("Cannot be shown.", False)


def test_who_is_signed_in_is_no_secret(client: Client) -> None:
    user = User.objects.create_user("alice")
    backend = "django.contrib.auth.backends.ModelBackend"
    session_id = start(user, _auth_user_id=str(user.pk), _auth_user_backend=backend)
    found = rows(shown(client, session_id))
    assert found["_auth_user_id"][1] == f'"{user.pk}"'
    assert found["_auth_user_backend"][1] == f'"{backend}"'


def test_half_of_a_surrogate_pair_is_no_failure(client: Client) -> None:
    fields: dict[str, Any] = {"half \ud800": "other half \udc00"}
    session_id = start(**fields)
    assert rows(shown(client, session_id)) == {"half \\ud800": ("28 bytes", '"other half \\udc00"')}
    assert session_id in client.get(LIST).content.decode()


def test_a_long_value_is_cut(client: Client) -> None:
    session_id = start(long="x" * 10_000)
    page = shown(client, session_id)
    assert "x" * (MOST - 1) in page
    assert "x" * MOST not in page
    assert f"{10_002 - MOST} more characters" in page.replace("\xa0", " ").replace(",", "")


def test_a_session_that_is_rotated_stays_the_same_page(client: Client) -> None:
    store = get_store("default")
    key, _ = store.create(Draft("header", {"n": b"1"}), TERMS)
    for _ in range(6):
        new = make(key.id)
        store.commit(key, "header", TERMS, Commit(rotate_to=new))
        key = new
        assert key.id in shown(client, key.id)


@pytest.mark.parametrize(
    "name", ["a" * 15, "a" * 14, "a" * 40, "A" * 15, "..", "_3Cscript_3E", "é", "x/y"]
)
def test_an_id_of_no_session_leads_to_the_list_which_says_so(client: Client, name: str) -> None:
    response = client.get(page_of(name), follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    page = response.content.decode()
    assert "There is no live session of that id." in page
    # Somebody may have put a session key there.
    assert name not in page or name in ("..", "é", "x/y")


@pytest.mark.parametrize("ended", [False, True])
def test_a_session_key_in_the_address_of_a_history_is_not_shown_again(
    client: Client, ended: bool
) -> None:
    key, _ = get_store("default").create(Draft("header", {}), TERMS)
    if ended:
        registry.end(key.id)
    response = client.get(page_of(str(key), "history"), follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    page = response.content.decode()
    assert "There is no live session of that id." in page
    assert key[15:] not in page


def test_a_session_to_which_nothing_was_done_has_a_history_that_says_so(client: Client) -> None:
    page = client.get(page_of(start(), "history")).content.decode()
    assert "Nothing was done to this session in the admin." in page
    assert "added via" not in page


def test_neither_the_key_nor_its_hash_is_on_any_page(client: Client) -> None:
    key, _ = get_store("default").create(Draft("header", {"n": b"1"}), TERMS)
    for url in (LIST, page_of(key.id), page_of(key.id, "history")):
        page = client.get(url).content
        assert key.id.encode() in page
        for secret in (key[15:].encode(), key.secret_hash, key.secret_hash.hex().encode()):
            assert secret not in page


def test_a_page_is_not_a_use_of_the_session(client: Client, time_machine: Any) -> None:
    session_id = start(idle=600)
    before = registry.get(session_id)
    shown(client, session_id)
    after = registry.get(session_id)
    assert before is not None
    assert after is not None
    assert after.expires_ms == before.expires_ms
    assert after.last_seen_ms == before.last_seen_ms
