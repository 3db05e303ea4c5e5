"""Settings of the server processes that are killed, and so do not report that they ran."""

from tests.settings import *  # noqa: F403  # pragma: no cover

ROOT_URLCONF = "tests.faults.site"  # pragma: no cover
