"""The monitor in a real browser: what people see and click."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from django_header_sessions import registry
from django_header_sessions.origin import Origin
from django_header_sessions.stores import get_store
from django_header_sessions.stores.base import Draft

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
    assert "All sessions of alice" in root.text
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


def test_nothing_reaches_over_its_edge(root: Page) -> None:
    fill(30, [])
    for width in (1600, 1000, 480):
        root.driver.set_window_size(width, 900)
        root.open(LIST)
        boxes = [
            root.driver.execute_script(
                "const r = arguments[0].getBoundingClientRect(); return [r.left, r.right, r.top]",
                box,
            )
            for box in root.all(".hs-figures > *")
        ]
        for (_, right, top), (left, _, next_top) in pairwise(boxes):
            assert next_top > top or left >= right
        too_wide = "return document.documentElement.scrollWidth > window.innerWidth"
        assert not root.driver.execute_script(too_wide)
    root.driver.set_window_size(1600, 900)
