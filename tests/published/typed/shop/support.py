"""What a help desk does: looks at sessions, ends them, and hears of those that end."""

from datetime import timedelta
from typing import assert_type

from django_header_sessions import registry
from django_header_sessions.exceptions import SessionError, SessionUnavailable
from django_header_sessions.registry import (
    KINDS,
    Health,
    Kind,
    LiveContext,
    LiveSession,
    Overview,
    Page,
)
from django_header_sessions.signals import session_created, session_ended


def on_created(sender: str, session_id: str, **kwargs: object) -> None: ...


def on_ended(sender: object, session_id: str, reason: str, **kwargs: object) -> None: ...


session_created.connect(on_created)
session_ended.connect(on_ended)


def help_out(user: str) -> None:
    assert_type(registry.count(), dict[Kind, int])
    page = assert_type(registry.page(20, kinds=KINDS[:1]), Page)
    if page.next is not None:
        assert_type(registry.page(20, after=page.next).sessions, list[LiveSession])
    for live in assert_type(registry.of_user(user), list[LiveSession]):
        assert_type(live.deadline_ms, int | None)
        assert_type(registry.end(live.id, reason="help desk"), bool)
    assert_type(registry.get("x"), LiveSession | None)
    for context in assert_type(registry.contexts("x"), list[LiveContext]):
        assert_type(registry.end_context("x", context.name), bool)
    assert_type(registry.search(lambda live: live.ip == "192.0.2.1"), Page)
    assert_type(registry.end_anonymous(timedelta(days=1)), int)
    assert_type(registry.overview(), Overview)
    assert_type(registry.health(), Health)
    if found := registry.fields("x"):
        assert_type([(field.name, field.size) for field in found[1]], list[tuple[str, int]])


async def ahelp_out(user: str) -> None:
    try:
        assert_type(await registry.aof_user(user), list[LiveSession])
        assert_type(await registry.aend("x"), bool)
        assert_type(await registry.acontexts("x"), list[LiveContext])
        assert_type(await registry.aend_context("x", "draft"), bool)
    except SessionUnavailable as error:
        known: SessionError = error
        raise known from None
