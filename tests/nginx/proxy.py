"""A real nginx, with the files of the documentation."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.http.site import Answer
from tests.processes import ROOT, Process, Server, free_port

DOCUMENTED = ROOT / "docs" / "nginx"
ADDRESSES = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
SERVED_BY = "X-Served-By"

MAIN = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log {level};
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    add_header {served_by} $upstream_addr always;
    include header-sessions/session-id.conf;
{more}
    include header-sessions/{name}.conf;
}}
"""


class Nginx(Server):
    """nginx in front of three servers, and asked in their place.

    It has the documentation's ``session-id.conf``, the file of this name and one ``more``;
    ``changed`` are texts of those that are replaced by others.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        ports: Sequence[int],
        changed: dict[str, str] | None = None,
        level: str = "error",
        more: str = "",
    ) -> None:
        found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        assert found, "needs nginx: apt-get install nginx-light"
        self.folder = folder
        self.port = free_port()
        replaced = {
            "listen 80": f"listen 127.0.0.1:{self.port}",
            "/var/log/nginx": str(folder),
            "/var/cache/nginx": str(folder),
            **{at: f"127.0.0.1:{port}" for at, port in zip(ADDRESSES, ports, strict=True)},
        }
        files = folder / "header-sessions"
        files.mkdir(parents=True)
        left = dict(changed or {})
        for file in DOCUMENTED.glob("*.conf"):
            text = file.read_text("utf-8")
            if file.stem in (name, more, "proxy", "session-id"):
                left = {old: new for old, new in left.items() if old not in text}
            for old, new in {**(changed or {}), **replaced}.items():
                text = text.replace(old, new)
            (files / file.name).write_text(text, "utf-8")
        assert not left, f"nothing to change: {left}"
        main = MAIN.format(
            # The workers of root's nginx would be nobody, who may not enter the folder.
            user="user root;" if os.geteuid() == 0 else "",
            folder=folder,
            level=level,
            more=f"include header-sessions/{more}.conf;" if more else "",
            served_by=SERVED_BY,
            name=name,
        )
        (folder / "nginx.conf").write_text(main, "utf-8")
        Process.__init__(self, found, "-p", str(folder), "-c", str(folder / "nginx.conf"))
        self.wait_until(self._answers)

    def logged(self) -> str:
        return (self.folder / "access.log").read_text("utf-8")

    def complained(self) -> str:
        return (self.folder / "error.log").read_text("utf-8")


def server_of(answer: Answer) -> str:
    """The server that answered; an error where there were several or none."""
    (found,) = re.findall(r"127\.0\.0\.1:(\d+)", str(answer.headers[SERVED_BY]))
    return str(found)
