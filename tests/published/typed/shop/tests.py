"""The shop's own tests, with the package's clients."""

from typing import assert_type

from django.contrib.auth.models import User
from django.test import TestCase

from django_header_sessions.engine import SessionStore
from django_header_sessions.keys import SessionKey
from django_header_sessions.rest_framework.testing import (
    AsyncHeaderSessionAPIClient,
    HeaderSessionAPIClient,
)
from django_header_sessions.testing import AsyncHeaderSessionClient, HeaderSessionClient


class VisitTests(TestCase):
    client_class = HeaderSessionClient
    client: HeaderSessionClient

    def test_visits_are_counted(self) -> None:
        assert_type(self.client.get("/visit/").status_code, int)
        assert_type(self.client.session_key, SessionKey | None)
        session = assert_type(self.client.session, SessionStore)
        assert_type(session.increment("visits"), int)

    async def test_they_are_in_async_views_too(self) -> None:
        client = AsyncHeaderSessionClient()
        assert_type((await client.get("/avisit/")).content, bytes)
        assert_type(await client.asession(), SessionStore)


class WhoamiTests(TestCase):
    client_class = HeaderSessionAPIClient
    client: HeaderSessionAPIClient

    def test_somebody_is_signed_in(self) -> None:
        self.client.force_login(User.objects.create_user("ann"))
        assert_type(self.client.get("/whoami/").status_code, int)
        assert_type(self.client.post("/sessions/", {}, format="json").status_code, int)
        assert_type(self.client.session.user_id, str | None)

    async def test_it_works_asynchronously(self) -> None:
        client = AsyncHeaderSessionAPIClient()
        answer = await client.post("/sessions/", {}, format="json")
        assert_type(answer.status_code, int)
