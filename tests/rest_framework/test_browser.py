"""A page of another origin, in a real browser: it signs in, reads and signs out with ``fetch``."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from ..processes import Server
from .test_schemathesis import SETTINGS
from .test_testing import root

pytestmark = pytest.mark.browser

# What a page does that keeps its key in a variable: no cookie, nothing in a store of the browser.
SCRIPT = """
const done = arguments[arguments.length - 1];
let key = "new";
const answers = [];
async function call(method, path, body) {
  const answer = await fetch(arguments_api + path, {
    method,
    headers: {"X-Session-Key": key, "Content-Type": "application/json"},
    body: body && JSON.stringify(body),
  });
  const announced = answer.headers.get("X-Session-Key");
  if (announced !== null) key = announced || "new";
  const text = await answer.text();
  const seen = {
    status: answer.status,
    announced,
    expires: answer.headers.get("X-Session-Expires-In"),
    body: text ? JSON.parse(text) : null,
  };
  answers.push(seen);
  return seen;
}
(async () => {
  await call("POST", "/api/sessions/", {username: "ann", password: "ann's password"});
  const old = key;
  await call("GET", "/api/whoami/");
  await call("POST", "/api/sessions/current/rotate/");
  await call("GET", "/api/sessions/current/");
  await call("DELETE", "/api/sessions/current/");
  await call("GET", "/api/whoami/");
  key = old;
  await call("GET", "/api/whoami/");
  done({answers, cookie: document.cookie});
})().catch(error => done({error: String(error)}));
"""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A page of another origin</title>")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    """The URL of an empty page on an origin of its own."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def server(page: str, tmp_path: Path) -> Iterator[Server]:
    env = SETTINGS | {"TEST_DB": str(tmp_path / "db.sqlite3"), "TEST_ORIGIN": page}
    subprocess.run(
        [sys.executable, "-m", "tests.served"], check=True, cwd=root(), env=os.environ | env
    )
    with Server("gunicorn", threads=8, **env) as server:
        yield server


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    # In a container there is no user namespace for the sandbox, and little shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(20)
        yield driver
    finally:
        driver.quit()


def test_a_page_of_another_origin_signs_in_reads_and_signs_out_without_a_cookie(
    page: str, server: Server, browser: webdriver.Chrome
) -> None:
    browser.get(page)
    api = json.dumps(f"http://127.0.0.1:{server.port}")
    seen = browser.execute_async_script(SCRIPT.replace("arguments_api", api))
    assert "error" not in seen, seen
    started, read, rotated, current, ended, after, dead = seen["answers"]

    assert (started["status"], len(started["announced"])) == (201, 40)
    assert int(started["expires"]) > 1000
    assert (read["status"], read["announced"], read["body"]) == (200, None, {"user": "ann"})
    assert rotated["status"] == 200
    assert rotated["announced"] != started["announced"]
    assert current["body"]["id"] == started["body"]["id"]
    # It learns that its key is to be forgotten, and sees the refusals, which are not DRF's alone.
    assert (ended["status"], ended["announced"]) == (204, "")
    assert after["status"] == 401
    assert dead["status"] == 401
    assert dead["body"]["type"] == "urn:django-header-sessions:unknown"

    assert seen["cookie"] == ""
    assert browser.execute_cdp_cmd("Storage.getCookies", {}) == {"cookies": []}


def test_a_page_of_an_origin_that_is_not_allowed_gets_nothing(
    page: str, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    env = SETTINGS | {"TEST_DB": str(tmp_path / "db.sqlite3"), "TEST_ORIGIN": "http://a.example"}
    subprocess.run(
        [sys.executable, "-m", "tests.served"], check=True, cwd=root(), env=os.environ | env
    )
    with Server("gunicorn", threads=8, **env) as server:
        browser.get(page)
        api = json.dumps(f"http://127.0.0.1:{server.port}")
        seen = browser.execute_async_script(SCRIPT.replace("arguments_api", api))
    assert "Failed to fetch" in seen["error"]
