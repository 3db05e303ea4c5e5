"""The ES module in a real browser, on a page of one origin, calling a server of another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from .server import Reply, Seen, Server, problem

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)
MODULE = "/static/header-sessions.js"

# What runs on the page: an async function's body, given the module and the other server's URL.
WRAP = """
const done = arguments[arguments.length - 1];
const [code, base, page] = arguments;
import(page + "/static/header-sessions.js").then(async (module) => {
  const body = new (async () => {}).constructor("module", "base", "page", code);
  return { result: await body(module, base, page) };
}).catch((error) => ({ error: `${error.name}: ${error.message}` })).then(done);
"""


def found(*names: str) -> str:
    paths = [path for name in names if (path := shutil.which(name))]
    assert paths, f"None of {', '.join(names)} is installed; this test needs a browser."
    return paths[0]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = found("chromium", "chromium-browser", "google-chrome")
    profile: Path = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    with Chrome(options, ChromeService(found("chromedriver"))) as driver:
        driver.set_script_timeout(20)
        yield driver


@pytest.fixture
def run(chrome: Chrome, server: Server, other: Server) -> Any:
    """Runs code on a page of `other`, against `server`; answers what it returns."""
    other.on(
        "GET", "/page", lambda seen: Reply(200, raw=b"<!doctype html>", content_type="text/html")
    )
    chrome.get(other.url + "/page")

    def run(code: str) -> Any:
        answer: dict[str, Any] = chrome.execute_async_script(WRAP, code, server.url, other.url)
        assert "error" not in answer, answer
        return answer["result"]

    return run


PATCH = """
const patch = (session, data) => session.fetch(base + "/state", {
  method: "PATCH", body: JSON.stringify(data), headers: {"Content-Type": "application/json"},
}).then((response) => response.json());
"""


def test_keeps_a_session_across_origins_and_sets_no_cookie(
    run: Any, chrome: Chrome, server: Server
) -> None:
    result = run(
        PATCH
        + """
        const session = new module.HeaderSession();
        await patch(session, {a: 1});
        await session.fetch(base + "/login", {method: "POST"});
        const state = await (await session.fetch(base + "/state")).json();
        return {state, id: session.id, expires: session.expiresIn, cookie: document.cookie,
                shown: JSON.stringify(session) + String(session)};
        """
    )
    assert result["state"] == {"state": {"a": 1, "user": "demo"}}
    (session,) = server.sessions.values()
    assert result["id"] == session.key[:15]
    assert 1700 < result["expires"] <= 1800
    assert session.key not in result["shown"]
    assert result["cookie"] == ""
    assert chrome.get_cookies() == []
    assert not any("Cookie" in seen.headers for seen in server.seen)


def test_sends_no_cookie_that_the_browser_has(run: Any, chrome: Chrome, server: Server) -> None:
    chrome.add_cookie({"name": "sessionid", "value": "of the page"})
    server.on("GET", "/state", lambda seen: Reply(200, {}, [("Set-Cookie", "sessionid=set")]))
    run('await new module.HeaderSession().fetch(base + "/state"); return 1')
    run('await new module.HeaderSession().fetch(base + "/state"); return 1')
    assert not any("Cookie" in seen.headers for seen in server.seen)
    chrome.delete_all_cookies()


def test_64_calls_make_one_session(run: Any, server: Server) -> None:
    count = run(
        PATCH
        + """
        const session = new module.HeaderSession();
        const calls = [...Array(64).keys()].map((n) => patch(session, {[`f${n}`]: n}));
        return (await Promise.all(calls)).length;
        """
    )
    assert count == 64
    (session,) = server.sessions.values()
    assert len(session.data) == 64


def test_a_lost_session_is_seen_and_renewed(run: Any, server: Server) -> None:
    server.on("POST", "/forget", lambda seen: server.end_all() or Reply())  # type: ignore[func-returns-value]
    result = run(
        PATCH
        + """
        const session = new module.HeaderSession();
        await patch(session, {a: 1});
        await fetch(base + "/forget", {method: "POST"});
        const lost = await session.fetch(base + "/state").catch((error) => error);
        const renewing = new module.HeaderSession({
          renew: (fetch) => fetch(base + "/login", {method: "POST"}),
        });
        await patch(renewing, {a: 1});
        await fetch(base + "/forget", {method: "POST"});
        return {lost: [lost instanceof module.SessionLost, lost.executed, lost.message],
                state: await patch(renewing, {b: 2})};
        """
    )
    assert result["lost"][:2] == [True, False]
    assert "lost" in result["lost"][2]
    assert result["state"] == {"state": {"user": "demo", "b": 2}}


def test_waits_for_a_store_that_is_down(run: Any, server: Server) -> None:
    down = problem(503, "unavailable", False, ("Retry-After", "0"))
    server.script("PATCH", "/state", down, server.write)
    assert run(PATCH + "return patch(new module.HeaderSession(), {a: 1})") == {"state": {"a": 1}}


def test_a_redirect_is_an_error_and_takes_no_key_along(
    run: Any, server: Server, other: Server
) -> None:
    def away(seen: Seen) -> Reply:
        return Reply(307, headers=[("Location", other.url + "/state")])

    server.on("GET", "/away", away)
    message = run(
        PATCH
        + """
        const session = new module.HeaderSession();
        await patch(session, {});
        return session.fetch(base + "/away").catch((error) => `${error.name}: ${error.message}`);
        """
    )
    assert message.startswith("SessionError:")
    assert not other.of("/state")
