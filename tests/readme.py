"""What the README tells people to do, for the tests that do it to the letter."""

from __future__ import annotations

import re
from pathlib import Path

from .processes import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def snippets(language: str, heading: str = "") -> list[str]:
    """The blocks of code in a language: all of them, or those below a heading."""
    text = README.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0] if heading else README
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def wire(path: Path) -> None:
    """Change the settings of a fresh project as the diff says."""
    settings = path.read_text().replace("'", '"')
    diff = snippets("diff")[0].splitlines()
    removed = next(line[1:].strip() for line in diff if line.startswith("-"))
    assert removed in settings
    added = [line[1:] for line in diff if line.startswith("+")]
    settings = settings.replace("INSTALLED_APPS = [", f"INSTALLED_APPS = [\n{added[0]}")
    settings = settings.replace(f"    {removed}", added[1])
    path.write_text("\n".join([settings, *added[2:]]) + "\n")
