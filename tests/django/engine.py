"""A session engine of a project's own, made of ours as the page says one may be."""

from __future__ import annotations

from django_header_sessions.engine import SessionStore as HeaderSessionStore

AGE = 777


class SessionStore(HeaderSessionStore):
    def get_session_cookie_age(self) -> int:
        return AGE

    def create(self) -> None:
        self["made by"] = "the project's own"
        super().create()

    async def acreate(self) -> None:
        self["made by"] = "the project's own"
        await super().acreate()

    def save(self, must_create: bool = False) -> None:
        self["saved"] = self.get("saved", 0) + 1
        super().save(must_create)

    async def asave(self, must_create: bool = False) -> None:
        await self.aset("saved", await self.aget("saved", 0) + 1)
        await super().asave(must_create)
