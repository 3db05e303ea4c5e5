"""The settings of the tests, with an alarm that stands as soon as there are two sessions."""

from .settings import *  # noqa: F403

HEADER_SESSIONS_ALERT_COUNT = 1
