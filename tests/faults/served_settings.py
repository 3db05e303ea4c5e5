"""Settings of the server processes that are killed."""

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.faults.site"
