"""The session resource, for one ``include()``::

    path("api/sessions/", include("django_header_sessions.rest_framework.urls"))

Paths end with a slash, as DRF's routers make them.
"""

from django.urls import path

from .views import SessionCurrent, SessionDetail, SessionEndOthers, SessionList, SessionRotate

urlpatterns = [
    path("", SessionList.as_view(), name="header-session-list"),
    path("current/", SessionCurrent.as_view(), name="header-session-current"),
    path("current/rotate/", SessionRotate.as_view(), name="header-session-rotate"),
    path("end-others/", SessionEndOthers.as_view(), name="header-session-end-others"),
    path("<str:session_id>/", SessionDetail.as_view(), name="header-session-detail"),
]
