"""Transcripts of the documentation, so that tests can do what they show."""

from __future__ import annotations

import http.client
import re
import shlex
from dataclasses import dataclass

KEY = "[a-z0-9]{40}"


@dataclass(frozen=True)
class Step:
    """A command of a transcript, and what is shown to come of it."""

    command: str
    shown: str


def steps(console: str) -> list[Step]:
    """The commands of a transcript, without their comments, each on one line."""
    found = []
    for part in re.split(r"^\$ ", console.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        found.append(Step(re.sub(r"\s+# .*$", "", command).strip(), shown.strip()))
    return found


@dataclass
class Terminal:
    """Runs the curl commands of a transcript against a port, and holds them to what is shown.

    The key that was announced last is what a reader would have put into ``KEY``.
    """

    port: int
    key: str = ""
    announced: str = ""

    def run(self, step: Step) -> None:
        if step.command.startswith("KEY="):
            self.key = self.announced
            return
        status, headers, body = self.curl(step.command)
        lines = step.shown.splitlines()
        if lines and lines[0].startswith("HTTP/"):
            assert lines.pop(0).startswith(f"HTTP/1.1 {status} "), (step, status, body)
            while lines and lines[0] not in ("", "..."):
                name, _, value = lines.pop(0).partition(":")
                told = headers.get(name, "(none)")
                assert re.fullmatch(pattern(value.strip()), told), (step, name, told)
        told_body = "\n".join(lines[1:] if lines and lines[0] in ("", "...") else lines)
        assert not told_body or re.fullmatch(pattern(told_body.strip()), body.strip()), (step, body)

    def curl(self, command: str) -> tuple[int, http.client.HTTPMessage, str]:
        """What curl would be answered; knows the options that the transcripts use."""
        words = shlex.split(command.replace("$KEY", self.key))
        assert words.pop(0) == "curl"
        method, url, data, headers = "", "", None, {}
        while words:
            word = words.pop(0)
            if word == "-X":
                method = words.pop(0)
            elif word == "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            elif word == "-d":
                data = words.pop(0)
            elif word != "-i":
                assert not word.startswith("-"), word
                url = word.removeprefix("http://").removeprefix("localhost:8000")
        if data is not None:
            headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method or ("POST" if data else "GET"), url, data, headers)
            response = connection.getresponse()
            body = response.read().decode()
        finally:
            connection.close()
        self.announced = response.headers.get("X-Session-Key") or self.announced
        return response.status, response.headers, body


def pattern(shown: str) -> str:
    """What text may stand for: a key for any key, an id for any id, dots for anything."""
    escaped = re.escape(shown)
    escaped = re.sub(r"\\\.\\\.\\\.|…", ".*", escaped)
    escaped = re.sub(rf"(?<![a-z0-9]){KEY}", KEY, escaped)
    return re.sub("(?<![a-z0-9])[a-z0-9]{15}(?![a-z0-9])", "[a-z0-9]{15}", escaped)
