from typing import Any

from django.contrib import admin
from django.urls import path

from django_header_sessions.decorators import (
    merged_session,
    readonly_session,
    serialized_session,
)
from tests import views

VIEWS: dict[str, Any] = {
    "sync/": views.do,
    "async/": views.ado,
    "sync/stream/": views.stream,
    "async/stream/": views.astream,
}
POLICIES = {
    "merged/": merged_session,
    "readonly/": readonly_session,
    "serialized/": serialized_session,
}

urlpatterns = [
    path("healthz", views.healthz),
    # The same under /admin/, which is a cookie path by default.
    *[path(start + where, view) for start in ("", "admin/") for where, view in VIEWS.items()],
    *[
        path(start + where + name, policy(view))
        for start in ("", "admin/")
        for where, view in VIEWS.items()
        for name, policy in POLICIES.items()
    ],
    path("admin/", admin.site.urls),
    # For the test alone: what the server process is to do, and what it saw.
    path("test/settings/", views.override),
    path("test/noted/", views.noted),
]
