"""The tests' project beside django-cors-headers and allauth, by the settings of the documentation.

``TRACKING`` in the environment names a middleware of allauth's user sessions.
"""

from __future__ import annotations

import os

from tests.pages import Page
from tests.settings import *  # noqa: F403

NEIGHBOURS = Page.named("docs/neighbours.md")
MIGRATING = Page.named("docs/migrating.md")

for heading in ("## django-cors-headers", "## django-allauth"):
    exec(NEIGHBOURS.chapter(heading).file("settings.py"))

INSTALLED_APPS += ["rest_framework", "rest_framework.authtoken"]  # noqa: F405
MIDDLEWARE += ["tests.neighbours.recipes.CarryOver"]  # noqa: F405
ROOT_URLCONF = "tests.neighbours.urls"
HEADLESS_TOKEN_STRATEGY = "tests.neighbours.recipes.OldTokensToo"
exec(MIGRATING.chapter("## From DRF tokens").file("settings.py"))

ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = False
if "TRACKING" in os.environ:
    MIDDLEWARE += [os.environ["TRACKING"]]
    USERSESSIONS_TRACK_ACTIVITY = True
