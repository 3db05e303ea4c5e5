from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class HeaderSessionsConfig(AppConfig):
    name = "django_header_sessions"
    verbose_name = _("Header sessions")

    def ready(self) -> None:
        from . import checks  # noqa: F401  registers the checks
