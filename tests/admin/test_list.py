"""The list: who is connected."""

from __future__ import annotations

import re
from html import unescape
from io import StringIO
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.html import strip_tags

from django_header_sessions import registry
from django_header_sessions.admin import SessionAdmin
from django_header_sessions.keys import make
from django_header_sessions.monitor.chart import Chart
from django_header_sessions.monitor.query import Query
from django_header_sessions.signals import session_alarm
from django_header_sessions.stores.base import Activity, Draft, Store

from .conftest import LIST, TERMS, Forward, SignIn, page_of, start

pytestmark = pytest.mark.usefixtures("listing_store")


def shown(client: Client, query: str = "") -> str:
    response = client.get(LIST + query)
    assert response.status_code == 200
    return response.content.decode()


def ids(page: str) -> list[str]:
    """The sessions of a page in their order."""
    return re.findall(r'<th scope="row" class="hs-id"><a href="[^"]*" title="([a-z0-9]{15})"', page)


def link(page: str, rel: str) -> str | None:
    found = re.search(rf'<a href="([^"]+)" rel="{rel}"', page)
    return unescape(found[1]) if found else None


def note(page: str) -> str:
    found = re.search(r'<p class="hs-none">(.*?)</p>', page, re.S)
    return found[1].strip() if found else ""


@pytest.fixture
def client(sign_in: SignIn) -> Client:
    return sign_in("view", "delete")


def test_a_row_says_who_is_connected_and_how_much_it_holds(client: Client) -> None:
    user = User.objects.create_user("alice")
    agent = "(X11; Linux x86_64) Firefox/127.0"
    session_id = start(user, "header", "192.0.2.7", agent, n=1, cart=["a"])
    page = shown(client, f"?q={session_id}")
    assert ids(page) == [session_id]
    row = page[page.index("<tbody>", page.index("result_list")) :]
    for text in (
        f">{session_id}</a>",
        "alice",
        "header",
        "192.0.2.7",
        "Firefox 127 · Linux",
        f'title="{agent}"',
        "0 s ago",
        "29 min",
        'title="2 fields"',
        "12 bytes",
    ):
        assert text in row.replace("\xa0", " "), text


def test_a_row_tells_the_age_of_a_session_from_how_long_it_was_idle(
    forward: Forward, client: Client, listing_store: Store
) -> None:
    key, _ = listing_store.create(Draft("header", {}), TERMS)
    forward(600)
    assert listing_store.open(key, "header", TERMS)
    forward(120)
    page = shown(client, f"?q={key.id}")
    cells = re.findall(r'<td (?:class="nowrap" )?title="[^"]+"><bdi>([^<]+)</bdi></td>', page)
    assert cells[:2] == ["12 min ago", "2 min ago"]
    assert cells[2] in ("28 min", "27 min")
    page = client.get(page_of(key.id)).content.decode()
    texts = [re.sub(r"\s+", " ", strip_tags(each)).strip() for each in page.split("<div><dt>")]
    assert next(each for each in texts if each.startswith("Created")).endswith("12 min ago")
    assert next(each for each in texts if each.startswith("Last seen")).endswith(" 2 min ago")


def test_the_chart_shows_creations_up_and_ends_and_expiries_down(client: Client) -> None:
    for _ in range(9):
        start()
    registry.end(start())
    drawing = shown(client)
    drawing = drawing[drawing.index("<svg viewBox") :]
    *_, last = drawing[: drawing.index("</svg>")].split("<g>")
    title = re.search(r"<title>.*: (\d+) created, (\d+) ended, \d+ expired</title>", last)
    assert title is not None
    # Other tests of this minute count in the same process.
    assert int(title[1]) >= 11
    assert int(title[2]) >= 1
    assert re.search(r'class="hs-created" [^>]*height="[\d.]+" transform="matrix\(1 0 0 -1', last)
    assert re.search(r'class="hs-ended" [^>]*height="[\d.]+"/>', last)


def test_the_bars_of_the_chart_go_by_the_square_root() -> None:
    minutes = [
        Activity(60_000 * n, *three)
        for n, three in enumerate(
            [(100, 0, 0), (25, 4, 0), (0, 9, 16), (0, 1, 99), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
        )
    ]
    chart = Chart(minutes)
    heights = [(bar.created, bar.ended, bar.expired) for bar in chart.bars]
    assert heights == [
        (50, 0, 0),
        (25, 10, 0),
        (0, 9, 16),
        (0, 6, 44),  # the lower of two is to be seen
        (6, 0, 0),
        (0, 0, 6),
    ]
    assert [bar.x for bar in chart.bars] == [1, 11, 21, 31, 41, 51]
    assert (chart.most, chart.created, chart.ended, chart.expired) == (100, 126, 14, 116)
    assert Chart([Activity(0)]).bars == []


def test_the_latest_to_expire_come_first_and_pages_go_on_and_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionAdmin, "list_per_page", 4)
    made = [start(idle=600 + 60 * n) for n in range(10)]
    expected = made[::-1]
    first = shown(client, "?transport=header")
    assert ids(first) == expected[:4]
    assert link(first, "prev") is None
    second = shown(client, link(first, "next") or "")
    assert ids(second) == expected[4:8]
    third = shown(client, link(second, "next") or "")
    assert ids(third) == expected[8:]
    assert link(third, "next") is None
    back = shown(client, link(third, "prev") or "")
    assert ids(back) == expected[4:8]
    # Before the first page there is the beginning of the list, whatever came in meanwhile.
    newest = start(idle=1700)
    beginning = shown(client, link(back, "prev") or "")
    assert ids(beginning) in (expected[:4], [newest, *expected[:3]])
    assert ids(shown(client, "?transport=header")) == [newest, *expected[:3]]


def test_the_pages_of_one_user_go_on_and_back_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionAdmin, "list_per_page", 2)
    user = User.objects.create_user("alice")
    expected = [start(user, idle=600 + 60 * n) for n in range(5)][::-1]
    start()
    first = shown(client, "?q=alice")
    second = shown(client, link(first, "next") or "")
    third = shown(client, link(second, "next") or "")
    assert ids(first) + ids(second) + ids(third) == expected
    assert link(third, "next") is None
    assert ids(shown(client, link(third, "prev") or "")) == expected[2:4]
    assert ids(shown(client, link(second, "prev") or "")) == expected[:2]


def test_filters_by_transport_and_by_user_leave_the_others_out(client: Client) -> None:
    user = User.objects.create_user("alice")
    header, cookie = start(), start(transport="cookie")
    signed_in = start(user)
    assert set(ids(shown(client, "?transport=header"))) == {header, signed_in}
    assert cookie in ids(shown(client, "?transport=cookie"))
    assert ids(shown(client, "?signed_in=no&transport=cookie")) == [cookie]
    assert ids(shown(client, "?signed_in=yes&transport=header")) == [signed_in]
    page = shown(client, "?signed_in=yes&transport=header")
    assert page.count('<li class="selected">') == 3
    assert "Clear all filters" in page
    assert "Clear all filters" not in shown(client)


def test_the_filter_by_idle_time_finds_those_that_were_not_used(
    forward: Forward, client: Client
) -> None:
    old = [start(idle=7200)]
    forward(10)
    old.append(start())
    forward(301)
    new = start()
    assert ids(shown(client, "?idle=300&transport=header")) == old  # longest idle first
    page = shown(client, "?idle=900&transport=header")
    assert ids(page) == []
    assert note(page) == "There is no such session."
    assert new in ids(shown(client, "?transport=header"))


def test_the_filter_by_idle_time_finds_cookies_behind_any_number_of_header_sessions(
    forward: Forward, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SEARCHED", 16)
    old = []
    for _ in range(3):
        old.append(start(transport="cookie", idle=14 * 86_400))
        forward(30)
    forward(7200)
    for _ in range(40):
        start()
    page = shown(client, "?idle=3600")
    assert ids(page) == old
    assert "where the time-outs of a kind differ, others may have been idle longer" in page


def test_pages_of_the_idle_go_on_and_back(
    forward: Forward, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionAdmin, "list_per_page", 3)
    monkeypatch.setattr(registry, "SEARCHED", 16)
    expected = []
    for n in range(8):
        kind = ("header", "cookie")[n % 2]
        expected.append(start(transport=kind, idle=(7200, 14 * 86_400)[n % 2]))
        forward(60)
    forward(300)
    first = shown(client, "?idle=300")
    second = shown(client, link(first, "next") or "")
    third = shown(client, link(second, "next") or "")
    assert ids(first) + ids(second) + ids(third) == expected
    assert link(first, "prev") is None
    assert ids(shown(client, link(third, "prev") or "")) == expected[3:6]
    back = shown(client, link(second, "prev") or "")
    assert (ids(back), link(back, "prev")) == (expected[:3], None)


def test_a_search_finds_a_user_an_id_the_beginning_of_one_and_an_ip(client: Client) -> None:
    alice, bob = User.objects.create_user("alice"), User.objects.create_user("bob@example.com")
    of_alice = [start(alice, idle=900), start(alice, transport="cookie", idle=600)]
    of_bob = start(bob, ip="2001:db8::1")
    anonymous = start(ip="192.0.2.77")
    assert ids(shown(client, "?q=alice")) == of_alice
    assert ids(shown(client, "?q=bob%40example.com")) == [of_bob]
    assert ids(shown(client, f"?q={anonymous}")) == [anonymous]
    assert ids(shown(client, f"?q=+{anonymous}+")) == [anonymous]
    assert anonymous in ids(shown(client, f"?q={anonymous[:6]}"))
    assert ids(shown(client, "?q=192.0.2.77")) == [anonymous]
    for ip in ("2001:db8::1", "2001:DB8::1", "2001:0db8:0:0:0:0:0:1"):
        assert ids(shown(client, f"?q={ip}")) == [of_bob]
    assert ids(shown(client, "?q=::ffff:192.0.2.77")) == [anonymous]
    # Together with a filter.
    assert ids(shown(client, "?q=alice&transport=cookie")) == of_alice[1:]
    assert ids(shown(client, f"?user={bob.pk}")) == [of_bob]
    # A name may look like anything.
    for name in ("192.0.2.78", "abcdefghijklmno"):
        own = start(User.objects.create_user(name))
        assert ids(shown(client, f"?q={name}")) == [own]


def test_a_search_for_a_session_that_ended_says_so(client: Client) -> None:
    session_id = start()
    registry.end(session_id)
    assert note(shown(client, f"?q={session_id}")).startswith(
        "There is no live session of that id: it was ended, has expired, or never was."
    )


def test_a_user_with_thousands_of_sessions_has_them_all_listed_in_order(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User.objects.create_user("service")
    expected = [start(user, idle=600 + n) for n in range(250)][::-1]
    page = shown(client, "?q=service")
    assert re.search(r"Sessions of service:\s+<bdi>250</bdi>", page)
    found = ids(page)
    assert found == expected[:100]
    while onward := link(page, "next"):
        page = shown(client, onward)
        found += ids(page)
    assert found == expected
    assert ids(shown(client, link(page, "prev") or "")) == expected[100:200]
    # Beyond some number nobody can put them in order; and then the page says so.
    monkeypatch.setattr(registry, "OF_USERS", 100)
    page = shown(client, "?q=service")
    assert "100 or more, of which 100 are listed." in page


@pytest.mark.parametrize("text", ["nobody called that", "ALICE", "x", "é", "\x00", "a" * 300, "'"])
def test_a_search_for_nothing_known_says_so(client: Client, text: str) -> None:
    start()
    page = client.get(LIST, {"q": text}).content.decode()
    if text.strip("\x00"):
        assert ids(page) == []
        assert "No user is called that" in note(page)


def test_a_search_looks_at_no_more_than_it_says_and_can_go_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "SEARCHED", 4)
    monkeypatch.setattr(registry, "BATCH", 2)
    made = [start(ip="192.0.2.9" if n == 0 else "", idle=600 + 60 * n) for n in range(12)]
    page = shown(client, "?q=192.0.2.9&transport=header")
    assert ids(page) == []
    assert "None of the 4 sessions that were looked at." in note(page)
    for _ in range(2):
        page = shown(client, link(page, "next") or "")
    assert ids(page) == made[:1]
    # And back again over all that lies before.
    for _ in range(3):
        page = shown(client, link(page, "prev") or "")
    assert link(page, "prev") is None


def test_a_session_key_in_the_search_box_is_taken_out_of_the_address(client: Client) -> None:
    key = make()
    response = client.get(LIST, {"q": str(key), "transport": "header"})
    assert response.status_code == 302
    assert response["Location"] == f"?q={key.id}&transport=header"
    page = shown(client, response["Location"])
    assert "That was a session key" in page
    assert key[15:] not in page


@pytest.mark.parametrize(
    "query",
    [
        "?after=1.x",
        "?after=aaaaaaaaaaaaaaa",
        "?before=-1.aaaaaaaaaaaaaaa",
        "?before=1e3.aaaaaaaaaaaaaaa",
        "?after=99999999999999999999.aaaaaaaaaaaaaaa",
        "?after=9999999999999999.aaaaaaaaaaaaaaa",
        "?after=1.%00",
        "?after=",
        "?after=.",
        "?after=h0.1.aaaaaaaaaaaaaaa",
        "?transport=pigeon",
        "?signed_in=perhaps",
        "?idle=7",
        "?idle=-1",
        "?q=" + "x" * 1001,
        "?user=" + "1" * 1001,
    ],
)
def test_an_address_that_makes_no_sense_shows_the_beginning_and_says_so(
    client: Client, query: str
) -> None:
    session_id = start()
    page = shown(client, query)
    assert session_id in ids(page)
    assert "made no sense" in page


@pytest.mark.parametrize(
    "place",
    [
        "1.aaaaaaaaaaaaaaa",
        "x0.1.aaaaaaaaaaaaaaa",
        "h0.1.aaaaaaaaaaaaaaa,",
        "h0.1.a",
        "h0",
        ",".join(["h0.1.aaaaaaaaaaaaaaa"] * 50),
        "\0",
    ],
)
def test_a_place_from_another_list_is_none_among_the_idle(client: Client, place: str) -> None:
    response = client.get(LIST, {"idle": "300", "after": place})
    assert response.status_code == 200
    assert "made no sense" in response.content.decode()


def test_a_place_in_a_list_that_is_no_more_is_a_place(client: Client) -> None:
    start()
    page = shown(client, "?after=1.aaaaaaaaaaaaaaa")
    assert ids(page) == []
    assert note(page) == "There is no live session."


def test_what_clients_sent_is_escaped(client: Client) -> None:
    evil = '<script>alert("x")</script>'
    user = User.objects.create_user('<b>"bob"')
    session_id = start(user, agent=evil, ip="<i>", raw={"<u>": b"<s>"})
    for url in (LIST, page_of(session_id), page_of(session_id, "delete"), LIST + f"?q={evil}"):
        page = client.get(url).content.decode()
        for tag in ("<script>alert", "<b>", "<i>", "<u>", "<s>"):
            assert tag not in page, (url, tag)


def test_names_of_users_take_one_query_however_many_there_are(
    client: Client,
) -> None:
    counts = []
    for more in (1, 20):
        for n in range(more):
            start(User.objects.create_user(f"user {more} {n}"))
        with CaptureQueriesContext(connection) as queries:
            shown(client)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_user_who_was_deleted_is_a_number(client: Client) -> None:
    user = User.objects.create_user("alice")
    pk, session_id = user.pk, start(user)
    user.delete()
    page = shown(client, f"?user={pk}")
    assert ids(page) == [session_id]
    assert f"#{pk} (no such user)" in page


@pytest.mark.parametrize("pk", ["9" * 30, "-" + "9" * 30, "\0", "1\0", "é", "x" * 300])
def test_a_user_whom_no_database_could_have_is_a_number_too(client: Client, pk: str) -> None:
    class Stranger:
        pass

    Stranger.pk = pk  # type: ignore[attr-defined]
    session_id = start(Stranger)
    for url in (LIST, page_of(session_id), page_of(session_id, "delete")):
        assert session_id in client.get(url).content.decode()
    assert client.get(LIST, {"user": pk}).status_code == 200
    assert client.get(f"{LIST}user/{quote(pk)}/end/").status_code in (200, 302)
    call_command("header_sessions", "list", stdout=StringIO())


def test_a_user_is_linked_for_those_who_may_view_users(client: Client, sign_in: SignIn) -> None:
    user = User.objects.create_user("alice")
    start(user)
    url = f"/admin/auth/user/{user.pk}/change/"
    assert url not in shown(client)
    assert url in shown(sign_in(name="root", superuser=True))


def test_the_overview_counts_and_raises_the_alarm(client: Client, settings: Any) -> None:
    user = User.objects.create_user("alice")
    start(user)
    for _ in range(3):
        start()
    page = shown(client)
    figures = page[page.index("header-sessions-figures") : page.index('id="changelist"')]
    cells = re.findall(r"<td[^>]*>(\d*)</td>", figures)
    # header: signed in, anonymous, all; cookie: the staff's own; and all of them.
    assert cells == ["", "1", "3", "4", "1", "0", "1", "", "5"]
    assert re.search(r"</svg> <bdi>\d+ created", figures)
    assert "counted when it is swept" in figures
    assert "Alarm" not in figures

    told: list[dict[str, Any]] = []

    def receive(**kwargs: Any) -> None:
        told.append(kwargs)

    session_alarm.connect(receive)
    settings.HEADER_SESSIONS_ALERT_COUNT = 4
    settings.HEADER_SESSIONS_ALERT_BYTES = 1
    page = shown(client)
    session_alarm.disconnect(receive)
    assert "there are 5 live sessions, more than HEADER_SESSIONS_ALERT_COUNT (4)" in page
    assert "more than HEADER_SESSIONS_ALERT_BYTES" in page
    assert [(each["of"], each["limit"]) for each in told] == [("count", 4), ("bytes", 1)]
    settings.HEADER_SESSIONS_ALERT_COUNT = 5
    assert "ALERT_COUNT" not in shown(client)


def test_the_list_refreshes_itself_where_that_was_asked(client: Client) -> None:
    assert 'data-refresh="' not in shown(client)
    page = shown(client, "?refresh=10&transport=header")
    assert 'data-refresh="10"' in page
    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in page
    # The other links keep it, and one turns it off.
    assert "?transport=header&amp;signed_in=yes&amp;refresh=10" in page
    assert '<a href="?transport=header" id="refresh"' in page


def test_a_list_without_sessions_says_so(client: Client) -> None:
    assert note(shown(client, "?transport=header")) == "There is no such session."


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(text="a b&c", user="é", transport="cookie", signed_in=False, idle=900),
        Query(place=registry.Cursor(7, "a" * 15), backward=True, refresh=True),
        Query(idle=300, place={registry.Kind("cookie", True): registry.Cursor(7, "a" * 15)}),
        Query(
            idle=3600,
            transport="header",
            place={registry.Kind("header", n == 1): registry.Cursor(n, "b" * 15) for n in range(2)},
            backward=True,
        ),
    ],
)
def test_an_address_reads_back_as_what_it_was_made_of(query: Query) -> None:
    address = query.address(place=query.place, backward=query.backward)
    assert Query.read(QueryDict(address[1:])) == query
