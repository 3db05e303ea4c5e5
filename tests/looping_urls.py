"""A URLconf that includes itself, twice, and so has no end."""

from django.contrib.auth.views import LoginView
from django.urls import include, path

urlpatterns = [
    path("again/", include("tests.looping_urls")),
    path("and-again/", include("tests.looping_urls")),
    path("login/", LoginView.as_view()),
]
