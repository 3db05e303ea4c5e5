"""What the server processes of the tests serve; run as a module it makes their database."""

import logging

import django
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

# All that is logged goes to the process's output, where a test looks for what must not be there.
logging.basicConfig(level=logging.DEBUG)
wsgi = get_wsgi_application()
asgi = get_asgi_application()


def prepare() -> None:
    """Make the tables and the users in the database that ``TEST_DB`` names."""
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for name in ("ann", "bob", "cy"):
        User.objects.create_user(name, password=f"{name}'s password")
    User.objects.create_superuser("root", password="root's password")


if __name__ == "__main__":
    django.setup()
    prepare()
