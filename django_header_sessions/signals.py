"""Signals of a session's life. Receivers get the session's id, never its key.

The sender is the transport, ``"header"`` or ``"cookie"``, of a session that was created, and the
class or module that ended one, or that found an alarm to stand. A receiver that raises is logged by
Django and changes nothing: what it is told of has happened.
"""

from django.dispatch import Signal

session_created = Signal()
"""Sent after a session was stored for the first time, with ``session_id``."""

session_ended = Signal()
"""Sent after a session was ended, with ``session_id`` and ``reason``: ``"logout"``, ``"limit"`` (of
sessions of one user), ``"expiry"`` (set to end at once), ``"owner"`` (by the REST resource, from
another of their sessions), ``"admin"``, ``"command"``, or what else the caller of the registry
gave, which is ``"registry"`` by default. A session that idles out makes no sound."""

session_alarm = Signal()
"""Sent when somebody looks at the figures (the monitor, the command, a scrape of the metrics) and a
limit of the settings is passed, as often as they look; with ``of`` (``"count"`` or ``"bytes"``, of
``HEADER_SESSIONS_ALERT_COUNT`` or ``_BYTES``), ``value`` and ``limit``."""
