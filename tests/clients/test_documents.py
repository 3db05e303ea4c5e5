"""What the documents say of clients runs: their snippets, one after the other."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from django_header_sessions.clients.flow import Flow
from tests.pages import Page

from .drivers import NODE, Loop
from .example import PASSWORD, STATE, Gateway

CLIENTS = Page.named("docs/clients.md")
LIBRARIES = CLIENTS.chapter("## One library after the other")


def made_for(gateway: Gateway, snippet: str) -> str:
    """The snippet against the example, without what needs another package."""
    lines = [line for line in snippet.splitlines() if "with the extra httpx[http2]" not in line]
    return "\n".join(lines).replace("https://tools.example.com", gateway.url)


def test_the_snippets_run_in_their_order(gateway: Gateway) -> None:
    names: dict[str, Any] = {"PASSWORD": PASSWORD}
    clients = []
    told = Page(CLIENTS.name, CLIENTS.text.split("## One library after the other")[0])
    for snippet in [*told.snippets("python"), *of("httpx and httpx2").snippets("python")]:
        exec(made_for(gateway, snippet), names)
        clients.append(names["client"])
        if names["client"] not in clients[:-1]:
            assert names["client"].patch(gateway.url + STATE, json={"a": 1}).status_code == 200
            assert names["client"].get(gateway.url + STATE).json()["state"]["a"] == 1
    for client in clients:
        client.close()


def test_requests_is_set_up_as_told(gateway: Gateway) -> None:
    names: dict[str, Any] = {}
    (snippet,) = of("requests").snippets("python")
    exec(made_for(gateway, snippet), names)
    with names["client"] as client:
        client.patch(gateway.url + STATE, json={"a": 1})
        assert client.get(gateway.url + STATE).json() == {"state": {"a": 1}}


def test_aiohttp_is_set_up_as_told(gateway: Gateway, loop: Loop) -> None:
    (snippet,) = of("aiohttp").snippets("python")
    body = textwrap.indent(made_for(gateway, snippet) + "\nreturn client", "    ")
    names: dict[str, Any] = {}
    exec(f"async def make():\n{body}", names)

    async def call() -> Any:
        async with await names["make"]() as client:
            await client.patch(gateway.url + STATE, json={"a": 1})
            async with client.get(gateway.url + STATE) as response:
                return await response.json()

    assert loop.run(call()) == {"state": {"a": 1}}


@pytest.mark.parametrize("document", ["docs/clients.md", "docs/rest-framework.md"])
def test_the_scripts_are_javascript(document: str, tmp_path: Path) -> None:
    found = Page.named(document).snippets("js")
    assert found
    for number, script in enumerate(found):
        path = tmp_path / f"{number}.mjs"
        path.write_text(script)
        subprocess.run([NODE, "--check", str(path)], check=True)


def test_the_options_are_the_options() -> None:
    told = CLIENTS.chapter("### Options").text
    assert Flow.__init__.__kwdefaults__ is not None
    for name in Flow.__init__.__kwdefaults__:
        assert f"`{name}`" in told


def of(library: str) -> Page:
    return LIBRARIES.chapter(f"### {library}")
