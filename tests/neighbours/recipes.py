"""What the documentation tells people to write, as it stands there; for the served project."""

from __future__ import annotations

from typing import Any

from tests.pages import Page

NEIGHBOURS = Page.named("docs/neighbours.md")
MIGRATING = Page.named("docs/migrating.md")

CarryOver: Any = MIGRATING.run("carry_over.py")["CarryOver"]
CookieSessionsOnly: Any = NEIGHBOURS.run("middleware.py")["CookieSessionsOnly"]
Exchange: Any = MIGRATING.run("exchange.py")["Exchange"]
ExchangeSessionToken: Any = MIGRATING.run("exchange_session_token.py")["ExchangeSessionToken"]
OldTokensToo: Any = MIGRATING.run("tokens.py")["OldTokensToo"]
to_header: Any = MIGRATING.run("to_header.py")["to_header"]
