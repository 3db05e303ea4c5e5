"""The settings beside these, with users whose table has a parent."""

from tests.admin.people.settings import *  # noqa: F403

AUTH_USER_MODEL = "people.Employee"
