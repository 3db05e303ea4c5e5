"""Admin sites of a project's own, beside Django's."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import URLPattern, path

from django_header_sessions.admin import SessionAdmin, SessionsOfUser
from django_header_sessions.models import Session


class PeopleAdmin(SessionsOfUser, UserAdmin):  # type: ignore[type-arg]
    pass


class PlainAdmin(SessionsOfUser, admin.ModelAdmin):  # type: ignore[type-arg]
    exclude = ("password", "groups", "user_permissions")


class LinesAdmin(SessionsOfUser, admin.ModelAdmin):  # type: ignore[type-arg]
    """Has the sessions in a place of its own, beside something else."""

    fieldsets = ((None, {"fields": [("username", "live_sessions"), "email"]}),)


class ElsewhereAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Has users at addresses of its own."""

    def get_urls(self) -> list[URLPattern]:
        return [path("of/", self.admin_site.admin_view(self.changelist_view), name="people")]


class OwnAdmin(SessionAdmin):
    delete_selected_confirmation_template: ClassVar[Any] = engines["django"].from_string(
        "Really?{% for row in rows %} {{ row.session.id }}{% endfor %}\n"
    )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Who is here"})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return super().change_view(
            request, object_id, form_url, {"title": "One of them", "history": "/then/"}
        )

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        return super().delete_view(request, object_id, {"title": "Sure?"})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: Any = None
    ) -> HttpResponse:
        return super().history_view(request, object_id, {"title": "What was"})


def site_of(name: str, people: Any, sessions: Any = SessionAdmin) -> admin.AdminSite:
    site = admin.AdminSite(name=name)
    site.register(User, people)
    if sessions is not None:
        site.register(Session, sessions)
    return site


urlpatterns = [
    path("back/office/", site_of("back", PeopleAdmin).urls),
    path("back/plain/", site_of("plain", PlainAdmin).urls),
    path("back/lone/", site_of("lone", PlainAdmin, None).urls),
    path("back/lines/", site_of("lines", LinesAdmin).urls),
    path("back/elsewhere/", site_of("elsewhere", ElsewhereAdmin).urls),
    path("back/own/", site_of("own", UserAdmin, OwnAdmin).urls),
    path("admin/", admin.site.urls),
]
