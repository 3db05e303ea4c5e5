"""The settings of the tests, in a project that has no users."""

from .settings import *  # noqa: F403

INSTALLED_APPS = ["django_header_sessions"]
MIDDLEWARE = ["django_header_sessions.middleware.HeaderSessionMiddleware"]
ROOT_URLCONF = __name__
TEMPLATES = []
urlpatterns: list[object] = []
