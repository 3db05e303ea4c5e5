"""What is raised about a session. Carries no session key."""

from __future__ import annotations

import copyreg
from typing import Any

__all__ = ["InsecureOrigin", "SessionError", "SessionLost", "SessionNotStarted"]


class SessionError(Exception):
    """Something about the session, not about one answer. Carries no session key."""


class InsecureOrigin(SessionError):
    """The first call goes to a plain-HTTP origin that is not loopback."""


class SessionNotStarted(SessionError):
    """`start()` ran its call, and no session key was announced."""


class SessionLost(SessionError):
    """The session this call belonged to is gone, and what it held with it.

    `session_id` is its public id; `reason` one of `unknown`, `ended`, `superseded`, `renewal`
    (the session could not be renewed); `executed` whether the server ran this call (`None` where
    it did not say); `renewed` whether a new session is in place, so that the call may be made
    again by hand.
    """

    def __init__(
        self,
        session_id: str,
        reason: str,
        *,
        executed: bool | None,
        renewed: bool,
        detail: str,
        outlook: str = "",
    ) -> None:
        self.session_id = session_id
        self.reason = reason
        self.executed = executed
        self.renewed = renewed
        ran = {True: "was executed", False: "was not executed", None: "may have been executed"}
        super().__init__(
            f"Session {session_id} is lost, and all it held: {detail}. "
            f"This call {ran[executed]}. {outlook}".strip()
        )

    def __reduce__(self) -> Any:
        # Copied, and sent between processes, as it is: its `args` are not what it is made of.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]
