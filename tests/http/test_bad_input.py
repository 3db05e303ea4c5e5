"""Bad input, byte by byte: none reaches the store, none is a 500, none puts the key in a log."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.processes import Server, Valkey

from .site import Site, announced, commands

# Fixed, since they are part of the names of tests.
GOOD = b"g00d" + b"2" * 36
ANOTHER = b"an0ther" + b"3" * 33
HEADER = b"X-Session-Key: "

MALFORMED = {
    "empty": [HEADER],
    "blank": [HEADER + b"   "],
    "39 characters": [HEADER + GOOD[:39]],
    "41 characters": [HEADER + GOOD + b"x"],
    "upper case": [HEADER + GOOD.upper()],
    "comma-joined pair": [HEADER + GOOD + b"," + ANOTHER],
    "comma-joined with itself": [HEADER + GOOD + b", " + GOOD],
    "sent twice": [HEADER + GOOD, HEADER + ANOTHER],
    "sent twice the same": [HEADER + GOOD, b"x-session-key: " + GOOD],
    "new twice": [HEADER + b"new", HEADER + b"new"],
    "new and a key": [HEADER + b"new", HEADER + GOOD],
    "New": [HEADER + b"New"],
    "NUL": [HEADER + GOOD[:20] + b"\0" + GOOD[21:]],
    "NUL after": [HEADER + GOOD + b"\0"],
    "latin-1": [HEADER + GOOD[:39] + b"\xe9"],
    "UTF-8": [HEADER + GOOD[:38] + "é".encode()],
    "Arabic digits": [HEADER + "٣".encode() * 20],
    "folded line": [HEADER + GOOD[:20], b" " + GOOD[20:]],
    "folded line after": [HEADER + GOOD, b"\t" + ANOTHER],
    "lone line feed": [HEADER + GOOD[:20] + b"\n" + GOOD[20:]],
    "space within": [HEADER + GOOD[:20] + b" " + GOOD[21:]],
    "quoted": [HEADER + b'"' + GOOD + b'"'],
    "66 KB": [HEADER + b"a" * 66 * 1024],
    "40 KB": [HEADER + b"a" * 40 * 1024],
}


@pytest.fixture(params=["gunicorn", "uvicorn", "runserver"])
def server(request: pytest.FixtureRequest) -> Server:
    served: Server = request.getfixturevalue(request.param)
    return served


@pytest.mark.parametrize("lines", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("path", ["/sync/", "/admin/async/"])
def test_a_malformed_header_is_refused_before_the_store_is_asked(
    server: Server, valkey: Valkey, path: str, lines: list[bytes]
) -> None:
    with commands(valkey) as seen:
        status, answer = Site(server).raw(*lines, path=path)
    # Some of these the server itself refuses, in words of its own.
    assert status in (400, 431), answer
    assert seen == []
    for secret in (GOOD[15:], ANOTHER[15:]):
        assert secret not in answer
        assert secret.decode() not in server.output()
        assert secret.decode().upper() not in server.output()


def test_what_the_servers_let_through_is_answered_as_malformed(server: Server) -> None:
    for case in ("empty", "39 characters", "sent twice", "new twice", "upper case"):
        status, answer = Site(server).raw(*MALFORMED[case])
        assert status == 400
        assert b"urn:django-header-sessions:malformed" in answer, case


def test_blanks_around_a_key_belong_to_http_and_not_to_the_key(server: Server) -> None:
    key = Site(server).start()
    status, _ = Site(server).raw(HEADER + b"  " + key.encode() + b" \t")
    assert status == 200


def test_a_look_alike_with_underscores_is_another_header(server: Server, valkey: Valkey) -> None:
    key = Site(server).start(["set", "n", 1])
    with commands(valkey) as seen:
        status, answer = Site(server).raw(
            b"X_Session_Key: " + key.encode(), path="/sync/?do=[[%22get%22,%22n%22]]"
        )
    assert b'{"did": [null]}' in answer or status == 400
    assert seen == []


@pytest.mark.parametrize(
    "cookie",
    [
        b"sessionid=",
        b"sessionid=x",
        b"sessionid=" + GOOD[:39],
        b"sessionid=" + GOOD.upper(),
        b"sessionid=" + GOOD + b"," + ANOTHER,
        b"sessionid=" + b"a" * 5000,
        b"sessionid=" + GOOD[:39] + b"\xe9",
        b'sessionid="' + GOOD[:20] + b'\\073"',
        b"sessionid=" + GOOD + b"; sessionid=x",
        b"=" * 500,
    ],
)
def test_a_malformed_cookie_is_no_cookie_and_reaches_no_store(
    server: Server, valkey: Valkey, cookie: bytes
) -> None:
    with commands(valkey) as seen:
        status, answer = Site(server).raw(
            b"Cookie: " + cookie, path="/admin/sync/?do=[[%22fields%22]]"
        )
    assert status == 200, answer
    assert b'{"did": [{}]}' in answer
    assert seen == []


def test_a_key_in_the_url_or_the_body_is_no_key(server: Server, valkey: Valkey) -> None:
    site = Site(server)
    key = site.start(["set", "n", 1])
    announced.discard(key)  # This client writes its key into the access log by itself.
    query = {"X-Session-Key": key, "sessionid": key, "do": '[["get", "n"]]'}
    with commands(valkey) as seen:
        answer = site.ask("GET", f"/sync/?{urlencode(query)}", body=urlencode(query))
    assert answer.did == [None]
    assert seen == []
