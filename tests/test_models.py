"""The unmanaged model: a name, its permissions, and no rows."""

from __future__ import annotations

import io

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection

from django_header_sessions.models import Session

pytestmark = pytest.mark.django_db


def test_it_has_no_table_and_no_rows() -> None:
    assert Session._meta.db_table not in connection.introspection.table_names()
    assert list(Session.objects.all()) == []
    assert Session.objects.count() == 0
    assert not Session._default_manager.filter(pk="x").exists()


def test_dumpdata_works_beside_it() -> None:
    out = io.StringIO()
    call_command("dumpdata", stdout=out)
    assert "django_header_sessions.session" not in out.getvalue()


def test_it_has_the_permissions_to_see_to_end_and_to_see_values() -> None:
    found = Permission.objects.filter(content_type__app_label="django_header_sessions")
    assert set(found.values_list("codename", flat=True)) == {
        "view_session",
        "delete_session",
        "view_session_values",
    }


def test_its_migration_is_complete() -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_users_can_be_deleted() -> None:
    user = User.objects.create_user("ann")
    user.delete()
    assert not User.objects.exists()
    relations = [field for field in Session._meta.get_fields() if field.is_relation]
    assert relations == []


def test_it_is_named_for_people() -> None:
    assert str(Session(id="a" * 15)) == "a" * 15
    assert str(Session._meta.verbose_name_plural) == "sessions"
    assert str(apps.get_app_config("django_header_sessions").verbose_name) == "Header sessions"
