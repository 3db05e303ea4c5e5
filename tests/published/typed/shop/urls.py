from django.urls import include, path

from .api import Whoami
from .views import Visits, avisit, visit

urlpatterns = [
    path("visit/", visit),
    path("avisit/", avisit),
    path("visits/", Visits.as_view()),
    path("whoami/", Whoami.as_view()),
    path("sessions/", include("django_header_sessions.rest_framework.urls")),
]
