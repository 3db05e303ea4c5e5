"""The monitor in a real browser: what people see and click."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from django_header_sessions import registry
from django_header_sessions.engine import SessionStore
from django_header_sessions.origin import Origin
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft

from ..processes import free_port
from .desk import TERMS, browser, fill, site

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = "/admin/django_header_sessions/session/"


@pytest.fixture(scope="module")
def window() -> Iterator[Chrome]:
    with browser() as driver:
        yield driver


class Page:
    """One page of the site, as somebody on the staff sees it."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def sign_in(self, name: str) -> None:
        self.driver.delete_all_cookies()
        self.open("/admin/login/?next=" + LIST)
        self.one("[name=username]").send_keys(name)
        self.one("[name=password]").send_keys("secret")
        self.click("[type=submit]")

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Click, and wait for the page that it leads to."""
        before = self.one("html")
        self.one(selector).click()
        WebDriverWait(self.driver, 10).until(lambda _: self.one("html") != before)

    def follow(self, text: str) -> None:
        before = self.one("html")
        self.driver.find_element(By.LINK_TEXT, text).click()
        WebDriverWait(self.driver, 10).until(lambda _: self.one("html") != before)

    @property
    def text(self) -> str:
        return str(self.one("#content-start").text)

    @property
    def ids(self) -> list[str]:
        return [link.get_attribute("title") for link in self.all("#result_list th.hs-id a")]

    def problems(self) -> list[Any]:
        """What the browser complains of: scripts that failed, files that are not there."""
        logged: list[Any] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [
            entry
            for entry in logged
            if entry["level"] == "SEVERE" and "/favicon.ico" not in entry["message"]
        ]


@pytest.fixture
def page(window: Chrome, settings: Any, tmp_path: Any) -> Iterator[Page]:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": str(tmp_path),
        }
    }
    with site() as url:
        page = Page(window, url)
        page.problems()
        yield page
        page.open("/admin/login/")


@pytest.fixture
def root(page: Page) -> Page:
    User.objects.create_superuser("root", password="secret")
    page.sign_in("root")
    return page


def test_the_list_is_filtered_searched_and_paged(root: Page) -> None:
    alice = User.objects.create_user("alice")
    fill(120, [str(alice.pk)])
    root.open(LIST)
    assert len(root.ids) == 100
    assert "121" in root.one(".hs-total").text
    root.follow("Next ›")
    assert len(root.ids) == 21
    root.follow("‹ Previous")
    assert len(root.ids) == 100
    root.follow("Cookie")
    assert {cell.text for cell in root.all("#result_list tbody td:nth-child(4)")} == {"cookie"}
    root.follow("Anonymous")
    assert {cell.text for cell in root.all("#result_list tbody td:nth-child(3)")} == {"anonymous"}
    root.follow("✖ Clear all filters")
    root.one("#searchbar").send_keys("alice")
    root.click("#changelist-search [type=submit]")
    assert "Sessions of alice:" in root.text
    assert len(root.ids) == len(registry.of_user(str(alice.pk)))
    assert root.problems() == []


def test_a_session_is_opened_and_ended(root: Page) -> None:
    (session_id,) = fill(1, [])
    root.open(f"{LIST}?q={session_id}")
    root.click("#result_list th.hs-id a")
    assert f"Session {session_id}" in root.text
    assert '"coupon": "SPRING"' in root.text
    root.follow("End session")
    assert "1 session is about to end" in root.text
    root.follow("No, take me back")
    assert registry.get(session_id)
    root.follow("End session")
    root.click("[value='Yes, end']")
    assert "1 session was ended." in root.text
    assert registry.get(session_id) is None
    assert root.problems() == []


def test_a_context_is_ended_from_the_page_of_its_session(root: Page) -> None:
    session = SessionStore(transport="header")
    session.context("../<b>")["n"] = 1
    session.context("draft")["n"] = 1
    session.save()
    assert session.session_key is not None
    session_id = session.session_key.id
    root.open(f"{LIST}{session_id}/change/")
    assert [cell.text for cell in root.all(".hs-contexts tbody th")] == ["../<b>", "draft"]
    root.follow("End")
    assert "This context is about to end" in root.text
    root.follow("No, take me back")
    root.follow("End")
    root.click("[value='Yes, end']")
    assert "The context was ended." in root.text
    assert [cell.text for cell in root.all(".hs-contexts tbody th")] == ["draft"]
    assert [one.name for one in registry.contexts(session_id)] == ["draft"]
    assert root.problems() == []


def test_an_action_ends_what_was_chosen_after_it_was_confirmed(root: Page) -> None:
    ids = fill(5, [])
    root.open(LIST)
    for session_id in ids[:2]:
        root.one(f"input[value='{session_id}']").click()
    assert root.one(".action-counter").text == "2 of 6 selected"
    Select(root.one("[name=action]")).select_by_value("end_selected")
    root.click("[name=index]")
    assert "2 sessions are about to end" in root.text
    root.click("[value='Yes, end']")
    assert "2 sessions were ended." in root.text
    assert set(root.ids) & set(ids) == set(ids[2:])
    assert root.problems() == []


def test_the_list_refreshes_itself_but_not_under_ones_hands(
    root: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_header_sessions.admin.REFRESH", 1)
    (first,) = fill(1, [])
    root.open(LIST)
    root.follow("REFRESH EVERY 1 S")
    # As if somebody signed in anew, in another window.
    root.driver.delete_cookie("csrftoken")
    (second,) = fill(1, [], seed=2)
    WebDriverWait(root.driver, 10).until(lambda _: second in root.ids)
    assert "3" in root.one(".hs-total").text
    # Chosen sessions stay where they are; and the new rows can be chosen.
    root.one(f"input[value='{first}']").click()
    assert root.one(".action-counter").text == "1 of 3 selected"
    (third,) = fill(1, [], seed=3)
    asked = "return performance.getEntriesByType('resource').length"
    before = root.driver.execute_script(asked)
    root.driver.execute_async_script("setTimeout(arguments[0], 2500)")
    assert root.driver.execute_script(asked) == before
    assert third not in root.ids
    root.one(f"input[value='{first}']").click()
    root.driver.execute_script("document.activeElement.blur()")
    WebDriverWait(root.driver, 10).until(lambda _: third in root.ids)
    root.one(f"input[value='{first}']").click()
    Select(root.one("[name=action]")).select_by_value("end_selected")
    root.click("[name=index]")
    assert "1 session is about to end" in root.text
    assert root.problems() == []


def test_an_alarm_is_plain_to_see_in_the_dark_too(root: Page, settings: Any) -> None:
    fill(3, [])
    settings.HEADER_SESSIONS_ALERT_COUNT = 3
    for theme, light in (("light", True), ("dark", False)):
        root.driver.execute_script(f"localStorage.setItem('theme', '{theme}')")
        root.open(LIST)
        alarm = root.one("[role=alert]")
        assert alarm.is_displayed()
        assert "there are 4 live sessions" in alarm.text
        body = root.one("body").value_of_css_property("background-color")
        assert (body == "rgba(255, 255, 255, 1)") == light
        created, ended = (
            root.one(f".hs-hour figcaption .{name}").value_of_css_property("fill")
            for name in ("hs-created", "hs-ended")
        )
        assert created != ended
    root.driver.execute_script("localStorage.removeItem('theme')")


def test_a_script_that_a_client_sent_does_not_run(root: Page) -> None:
    evil = "<img src=x onerror=\"document.title='taken'\">"
    raw = evil.encode()
    key, _ = get_store("default").create(
        Draft("header", {evil: raw}, None, None, Origin(evil, evil)), TERMS
    )
    for path in ("", f"?q={evil}", f"{key.id}/change/", f"{key.id}/delete/"):
        root.open(LIST + path)
        root.driver.execute_async_script("setTimeout(arguments[0], 100)")
        assert root.driver.title != "taken"
    assert root.problems() == []


def test_whoever_may_not_view_sees_no_count(page: Page) -> None:
    user = User.objects.create_user("clerk", password="secret", is_staff=True)
    fill(3, [])
    page.sign_in("clerk")
    assert "403 Forbidden" in page.one("body").text
    page.open("/admin/")
    assert "Sessions" not in page.text
    user.user_permissions.set(Permission.objects.filter(codename="view_session"))
    page.open(LIST)
    assert len(page.all("#result_list tbody tr")) >= 3
    assert page.all("input.action-select") == []
    page.click("#result_list th.hs-id a")
    assert "End session" not in page.text


def test_a_cache_that_cannot_list_says_what_to_do(page: Page, settings: Any, tmp_path: Any) -> None:
    backend = "django.core.cache.backends.filebased.FileBasedCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    User.objects.create_superuser("root", password="secret")
    page.sign_in("root")
    assert "These sessions cannot be listed." in page.text
    assert "django_redis.cache.RedisCache" in page.text
    assert page.problems() == []


@pytest.mark.parametrize("secure", [True, False])
def test_an_id_is_short_to_see_and_whole_to_copy(root: Page, secure: bool) -> None:
    (session_id,) = fill(1, [])
    root.open(f"{LIST}?q={session_id}")
    shown, whole, selected = root.driver.execute_script(
        """const link = document.querySelector("#result_list th.hs-id a");
        getSelection().selectAllChildren(link);
        return [link.clientWidth, link.scrollWidth, getSelection().toString()]"""
    )
    assert shown < whole
    assert selected == session_id
    root.click("#result_list th.hs-id a")
    if not secure:
        root.driver.execute_script(
            "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
        )
    root.one(".hs-copy").click()
    WebDriverWait(root.driver, 10).until(lambda _: root.one(".hs-copy").text == "✓")
    WebDriverWait(root.driver, 10).until(lambda _: root.one(".hs-copy").text == "Copy")
    root.open(LIST)
    root.one("#searchbar").send_keys(Keys.CONTROL, "v")
    assert root.one("#searchbar").get_attribute("value") == session_id


def test_all_sessions_of_a_user_end_step_by_step(
    root: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_header_sessions.admin.AT_ONCE", 5)
    alice = User.objects.create_user("alice")
    store = get_store("default")
    for _ in range(12):
        store.create(Draft("header", {}, str(alice.pk)), TERMS)
    root.open(LIST + "?q=alice")
    root.follow("End all sessions of this user")
    assert "All sessions of alice are about to end." in root.text
    assert "12 sessions are about to end" in root.text
    root.one("[value='Yes, end']").click()
    # The pages in between go on by themselves.
    WebDriverWait(root.driver, 10).until(lambda _: root.all(".messagelist .success"))
    assert "12 sessions were ended." in root.one(".messagelist").text
    assert registry.of_user(str(alice.pk)) == []
    assert root.problems() == []


def test_a_page_that_cannot_be_refreshed_says_so(
    root: Page, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_header_sessions.admin.REFRESH", 1)
    root.open(LIST + "?refresh=10")
    stale = root.one("#header-sessions-stale")
    assert not stale.is_displayed()
    there = settings.CACHES
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{free_port()}/0",
        }
    }
    settings.HEADER_SESSIONS_BREAKER_SECONDS = 0
    WebDriverWait(root.driver, 10).until(lambda _: stale.is_displayed())
    assert re.search(r"it is as it was at \d", stale.text)
    root.open(LIST)
    assert "Sessions cannot be reached at the moment." in root.one("body").text
    assert "Nobody was signed out." in root.one("body").text
    settings.CACHES = there
    root.open(LIST + "?refresh=10")
    root.driver.execute_async_script("setTimeout(arguments[0], 1500)")
    assert not root.one("#header-sessions-stale").is_displayed()


TOO_WIDE = "return document.documentElement.scrollWidth - window.innerWidth"


@pytest.mark.parametrize("language", ["en", "ar"])
def test_nothing_reaches_over_its_edge(root: Page, settings: Any, language: str) -> None:
    settings.LANGUAGE_CODE = language
    name = "maximiliane-charlotte.von-und-zu-langenfeld@example-company.example.com"
    user = User.objects.create_user(name)
    fill(30, [str(user.pk)])
    long = {"very_long_field_name_that_somebody_thought_was_a_good_idea" * 2: b"x" * 9000}
    origin = Origin("2001:db8:85a3:8d3:1319:8a2e:370:7348", "x" * 64)
    key, _ = get_store("default").create(Draft("header", long, str(user.pk), None, origin), TERMS)
    for width in (1600, 1280, 1000, 400):
        root.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        for path in ("", "?idle=300", f"?user={user.pk}", f"{key.id}/change/", f"{key.id}/delete/"):
            root.open(LIST + path)
            assert root.driver.execute_script(TOO_WIDE) <= 0, (width, path)
        root.open(LIST)
        boxes = [
            root.driver.execute_script(
                "const r = arguments[0].getBoundingClientRect(); return [r.left, r.right, r.top]",
                box,
            )
            for box in root.all(".hs-figures > *")
        ]
        for (left, right, top), (next_left, next_right, next_top) in pairwise(boxes):
            assert next_top > top or next_left >= right or next_right <= left
        if width >= 1280:
            table = root.one(".results")
            assert table.get_property("scrollWidth") <= table.get_property("clientWidth")
            # And the list begins before the end of the first screen.
            assert root.one("#result_list tbody tr").rect["y"] < 700
    root.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
