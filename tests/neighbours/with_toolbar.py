"""The tests' project with django-debug-toolbar, by the settings of the documentation.

``PANELS`` in the environment, ``theirs``, leaves the toolbar's own panels in place.
"""

from __future__ import annotations

import os

from tests.pages import Page
from tests.settings import *  # noqa: F403

exec(Page.named("docs/neighbours.md").chapter("## django-debug-toolbar").file("settings.py"))

DEBUG = True
INSTALLED_APPS += ["django.contrib.staticfiles"]  # noqa: F405
ROOT_URLCONF = "tests.neighbours.urls_with_toolbar"
# It refuses to run where pytest does; this is a server that pytest started.
DEBUG_TOOLBAR_CONFIG = {"IS_RUNNING_TESTS": False}
if os.environ.get("PANELS") == "theirs":
    del DEBUG_TOOLBAR_PANELS  # type: ignore[name-defined]  # noqa: F821
