"""CSRF: exempt is who carries the session header, and nobody else."""

from __future__ import annotations

import pytest

from .site import Action, Answer, Site

WRITE: Action = ["set", "n", 1]


def post(site: Site, *actions: Action, headers: dict[str, str] | None = None, **how: str) -> Answer:
    return site.do(*actions, method="POST", headers=headers, **how)


@pytest.fixture(params=["", "/admin"], ids=["header path", "cookie path"])
def below(request: pytest.FixtureRequest) -> str:
    beginning: str = request.param
    return beginning


@pytest.fixture
def site(site: Site, below: str) -> Site:
    """The site with its view on a header path, and on a cookie path."""
    return Site(site.server, below + site.view)


@pytest.mark.parametrize("in_sessions", [False, True])
def test_a_request_that_carries_the_header_is_exempt(site: Site, in_sessions: bool) -> None:
    with site.settings(CSRF_USE_SESSIONS=in_sessions):
        first = post(site, WRITE, key="new")
        assert first.status == 200
        assert post(site, ["set", "m", 1], key=first.key).status == 200
    assert site.fields(first.key) == {"n": 1, "m": 1}


def test_a_foreign_page_that_could_send_the_header_had_consent(site: Site) -> None:
    headers = {"Origin": "https://elsewhere.example"}
    assert post(site, WRITE, key="new", headers=headers).status == 200


@pytest.mark.parametrize("in_sessions", [False, True])
def test_a_request_without_the_header_is_refused_without_a_token(
    site: Site, in_sessions: bool
) -> None:
    with site.settings(CSRF_USE_SESSIONS=in_sessions):
        answer = post(site, WRITE)
    assert answer.status == 403
    assert b"CSRF" in answer.body
    assert answer.announced is None
    assert "sessionid" not in answer.cookies


def test_a_request_without_the_header_passes_with_a_token(site: Site) -> None:
    asked = site.do(["token"])
    (token,), cookie = asked.did, asked.cookies["csrftoken"].value
    headers = {"X-CSRFToken": token, "Cookie": f"csrftoken={cookie}"}
    assert post(site, WRITE, headers=headers).status == 200
    assert post(site, WRITE, headers={**headers, "X-CSRFToken": token[::-1]}).status == 403
    assert post(site, WRITE, headers={"X-CSRFToken": token}).status == 403
    foreign = {**headers, "Origin": "https://elsewhere.example"}
    assert post(site, WRITE, headers=foreign).status == 403


def test_the_cookie_of_a_session_exempts_nobody(site: Site) -> None:
    cookie = Site(site.server).start_by_cookie()
    assert post(site, WRITE, cookie=cookie).status == 403


def test_a_cookie_beside_the_header_is_not_written_to(site: Site) -> None:
    plain = Site(site.server)
    cookie = plain.start_by_cookie()
    assert post(site, WRITE, key="new", cookie=cookie).status == 200
    assert plain.do(["fields"], path=plain.cookie_view, cookie=cookie).did == [{"here": True}]


def test_a_client_of_the_header_gets_no_csrf_cookie(site: Site) -> None:
    key = site.do(["login", "ann"], key="new").key
    for answer in (
        site.do(["login", "bob"], key=key),
        site.do(["token"], key="new"),
        site.do(["login", "ann"], key="new"),
        Site(site.server).do(["login", "ann"]),
    ):
        assert answer.status == 200
        assert answer.cookies == {}


def test_tokens_kept_in_the_session_work_on_both_transports(site: Site) -> None:
    with site.settings(CSRF_USE_SESSIONS=True):
        asked = site.do(["token"])
        (token,) = asked.did
        assert "csrftoken" not in asked.cookies
        if asked.announced is None:
            cookie = asked.cookies["sessionid"].value
            assert post(site, WRITE, cookie=cookie).status == 403
            headers = {"X-CSRFToken": token, "Cookie": f"sessionid={cookie}"}
            assert post(site, WRITE, headers=headers).status == 200
        else:
            assert site.do(["fields"], key=asked.key).did[0].keys() == {"_csrftoken"}
            assert post(site, WRITE, key=asked.key).status == 200
