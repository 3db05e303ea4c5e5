"""An unmanaged model: a name for the admin and for permissions. No table, no rows.

It has no relations, since a foreign key would break deleting users; and its manager yields
nothing, so that ``dumpdata`` works.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class NoRows(models.Manager["Session"]):
    """Sessions are not in the database: use ``django_header_sessions.registry``."""

    def get_queryset(self) -> models.QuerySet[Session]:
        return super().get_queryset().none()


class Session(models.Model):
    id = models.CharField(primary_key=True, max_length=15)

    objects = NoRows()

    class Meta:
        managed = False
        default_permissions = ("view", "delete")
        permissions = (("view_session_values", _("Can view the values in a session")),)
        verbose_name = _("session")
        verbose_name_plural = _("sessions")

    def __str__(self) -> str:
        return self.id
