from django.contrib import admin
from django.urls import path

from tests import views

urlpatterns = [
    path("healthz", views.healthz),
    path("sync/", views.do),
    path("async/", views.ado),
    path("sync/stream/", views.stream),
    path("async/stream/", views.astream),
    # Under /admin/, which is a cookie path by default.
    path("admin/sync/", views.do),
    path("admin/async/", views.ado),
    path("admin/sync/stream/", views.stream),
    path("admin/async/stream/", views.astream),
    path("admin/", admin.site.urls),
    # For the test alone: what the server process is to do, and what it saw.
    path("test/settings/", views.override),
    path("test/noted/", views.noted),
]
