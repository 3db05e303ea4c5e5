"""Takes the pictures of the monitor: ``python -m tests.browser.pictures FOLDER``."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import django
import time_machine

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test.utils import override_settings  # noqa: E402
from selenium.webdriver import Chrome  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

from django_header_sessions import registry  # noqa: E402

from .desk import browser, fill, site  # noqa: E402

LIST = "/admin/django_header_sessions/session/"


def an_hour(users: list[str]) -> list[str]:
    """Let an hour of comings and goings pass; the ids of who is left."""
    draw, ids = Random(5), []
    start = datetime.now(UTC) - timedelta(hours=1)
    for minute in range(60):
        with time_machine.travel(start + timedelta(minutes=minute), tick=False):
            rush = 1 + 4 * abs(30 - minute) // 10
            ids += fill(draw.randint(0, rush), users, seed=minute)
            for session_id in draw.sample(ids, min(len(ids), draw.randint(0, 3))):
                registry.end(session_id)
            if minute % 7 == 0:
                registry.sweep()
    return ids


def take(driver: Chrome, folder: Path, name: str) -> None:
    driver.execute_script("document.activeElement.blur()")
    time.sleep(0.3)
    driver.save_screenshot(str(folder / f"{name}.png"))


def main(folder: Path) -> None:
    call_command("migrate", verbosity=0)
    model = get_user_model()
    model.objects.create_superuser("admin", "admin@example.com", "admin")
    users = [
        str(model.objects.create_user(name, password="x").pk)
        for name in ("alice", "bob", "carol", "dave")
    ]
    an_hour(users)
    with site() as url, browser(1280, 900) as driver:
        driver.get(url + "/admin/login/?next=" + LIST)
        driver.find_element(By.NAME, "username").send_keys("admin")
        driver.find_element(By.NAME, "password").send_keys("admin")
        driver.find_element(By.CSS_SELECTOR, "[type=submit]").click()
        take(driver, folder, "monitor-list")
        driver.get(url + LIST + "?q=alice")
        take(driver, folder, "monitor-user")
        driver.find_element(By.CSS_SELECTOR, "#result_list th.hs-id a").click()
        driver.set_window_size(1280, 1150)
        take(driver, folder, "monitor-session")
        driver.set_window_size(1280, 900)
        driver.get(driver.current_url.replace("change", "delete"))
        take(driver, folder, "monitor-end")
        driver.get(url + LIST + "?idle=300&transport=header")
        take(driver, folder, "monitor-filtered")
        driver.get(url + LIST + "?q=nobody-is-called-that")
        take(driver, folder, "monitor-none")
        driver.execute_script("localStorage.setItem('theme', 'dark')")
        with override_settings(HEADER_SESSIONS_ALERT_COUNT=10, HEADER_SESSIONS_ALERT_BYTES=1000):
            driver.get(url + LIST)
            take(driver, folder, "monitor-dark")
            driver.find_element(By.CSS_SELECTOR, "#result_list th.hs-id a").click()
            take(driver, folder, "monitor-session-dark")
        caches = {
            "default": settings.CACHES["default"],
            "file": {
                "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                "LOCATION": str(folder / "cache"),
            },
        }
        with override_settings(CACHES=caches, SESSION_CACHE_ALIAS="file"):
            driver.get(url + "/admin/login/?next=" + LIST)
            driver.find_element(By.NAME, "username").send_keys("admin")
            driver.find_element(By.NAME, "password").send_keys("admin")
            driver.find_element(By.CSS_SELECTOR, "[type=submit]").click()
            take(driver, folder, "monitor-cannot-list")


main(Path(sys.argv[1]))
