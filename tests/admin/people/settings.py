"""The settings of the tests, with users who sign in with an e-mail address."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.admin.people"]
AUTH_USER_MODEL = "people.Person"
