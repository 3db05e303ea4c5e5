"""What the project with the toolbar has: pages to put it into."""

from __future__ import annotations

from debug_toolbar.toolbar import debug_toolbar_urls
from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.urls import urlpatterns as theirs


def page(request: HttpRequest) -> HttpResponse:
    request.session["basket"] = "a pump"
    request.session["secret_word"] = "xyzzy"
    return HttpResponse("<html><body>A page</body></html>")


urlpatterns = [path("page/", page), path("admin/page/", page), *theirs, *debug_toolbar_urls()]
