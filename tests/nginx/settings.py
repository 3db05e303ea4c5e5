"""The tests' project as it stands behind nginx."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.nginx.site"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
HEADER_SESSIONS_CLIENT_IP = "tests.nginx.site.client_ip"
