from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _


class HeaderSessionsConfig(AppConfig):
    name = "django_header_sessions"
    verbose_name = _("Header sessions")

    def ready(self) -> None:
        from . import checks  # noqa: F401  registers the checks

        if apps.is_installed("drf_spectacular"):
            from .rest_framework import schema  # noqa: F401  registers its extensions
