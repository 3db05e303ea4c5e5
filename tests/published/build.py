"""The project as it is published, built from what git knows of: ``python -m`` this with a folder.

The wheel is built from the source distribution, not from the checkout, so it shows what whoever
has nothing else would install.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files() -> list[str]:
    """What is in the checkout and meant to be there, committed or not yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def publish(folder: str) -> None:
    """Build both into a folder."""
    with tempfile.TemporaryDirectory() as copied:
        # setuptools takes up what it left behind the last time, and leaves it where it works.
        for name in files():
            copy = Path(copied) / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copied]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    publish(sys.argv[1])
