"""``manage.py setup``: everything that stands between a clone and a server."""

import os
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Migrate, and see to the two users; to run it again changes nothing that is right."""

    help = "Migrates and makes the users admin and demo, with the password in EXAMPLE_PASSWORD."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        password = os.environ.get("EXAMPLE_PASSWORD") or "correct horse battery staple"
        for username, is_admin in (("admin", True), ("demo", False)):
            user, _ = get_user_model().objects.get_or_create(username=username)
            user.is_active = True
            user.is_staff = user.is_superuser = is_admin
            # A password set anew would sign out everybody who has signed in with it.
            if not user.check_password(password):
                user.set_password(password)
            user.save()
        self.stdout.write("Ready, with the users admin (superuser) and demo.")
