"""The settings of the tests, with users who sign in with a number."""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.admin.workers"]
AUTH_USER_MODEL = "workers.Worker"
