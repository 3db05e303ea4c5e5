"""Django's ``clearsessions``, which is there only with ``django.contrib.sessions`` installed."""

from django.contrib.sessions.management.commands.clearsessions import Command

__all__ = ["Command"]
