"""What the example serves. Only ``/admin/`` is a cookie path; all the rest speaks the header."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

from example import basket, state, tools, views

urlpatterns = [
    path("api/state/", state.state),
    path("api/state/increment/", state.increment),
    path("api/async/state/", state.async_state),
    path("api/tools/search/", tools.search),
    path("api/tools/next/", tools.next_page),
    path("api/tools/basket/", basket.basket),
    path("api/tools/basket/add/", basket.add),
    path("api/tools/drafts/", basket.begin_draft),
    path("api/tools/drafts/<str:handle>/", basket.draft),
    path("api/tools/drafts/<str:handle>/accept/", basket.accept_draft),
    path("api/sessions/", include("django_header_sessions.rest_framework.urls")),
    path("api/whoami/", views.Whoami.as_view()),
    path("admin/", admin.site.urls),
    path("healthz", views.healthz),
    # The admin's style sheets, under any server and with DEBUG off. A real site has its own way.
    path("static/<path:path>", serve, {"insecure": True}),
]
