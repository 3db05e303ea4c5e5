"""An admin site of a project's own, beside Django's."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.urls import path

from django_header_sessions.admin import SessionAdmin, SessionsOfUser
from django_header_sessions.models import Session


class PeopleAdmin(SessionsOfUser, UserAdmin):  # type: ignore[type-arg]
    pass


site = admin.AdminSite(name="back")
site.register(Session, SessionAdmin)
site.register(User, PeopleAdmin)

urlpatterns = [path("back/office/", site.urls), path("admin/", admin.site.urls)]
