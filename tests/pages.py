"""The documentation as the tests read it: its pages, their chapters and what is written there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from .processes import ROOT

NAMES = sorted(
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
    + [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page, or a chapter of it."""

    name: str
    text: str

    @classmethod
    def named(cls, name: str) -> Self:
        """The page in this file."""
        return cls(name, (ROOT / name).read_text("utf-8"))

    @property
    def headings(self) -> list[str]:
        """The lines of its headings, which a comment in a snippet is not."""
        return [line for line in _outside_of_snippets(self.text) if re.match("#{1,6} ", line)]

    def chapter(self, heading: str) -> Page:
        """What stands below a heading, the chapters within it too; an error where there is none."""
        _, _, below = self.text.partition(f"{heading}\n")
        assert heading in self.headings, f"{self.name} has no {heading}"
        level = heading.index(" ")
        over = [one for one in Page(self.name, below).headings if one.index(" ") <= level]
        return Page(self.name, below.partition(f"\n{over[0]}\n")[0] if over else below)

    def snippets(self, language: str) -> list[str]:
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)

    def file(self, name: str) -> str:
        """The Python snippets whose first line names this file, as one text."""
        found = [each for each in self.snippets("python") if each.startswith(f"# {name}\n")]
        assert found, f"{self.name} says nothing of {name}"
        return "\n".join(found)

    def run(self, name: str) -> dict[str, Any]:
        """What the Python file of this name, as it stands here, defines."""
        defined: dict[str, Any] = {"__name__": name.removesuffix(".py")}
        exec(compile(self.file(name), f"{self.name}: {name}", "exec"), defined)
        return defined


def _outside_of_snippets(text: str) -> list[str]:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).splitlines()
