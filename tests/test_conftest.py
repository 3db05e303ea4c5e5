"""What the tests ask of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .processes import ROOT


@pytest.mark.parametrize(("does", "status"), [("pass", 0), ("pytest.skip('not today')", 1)])
def test_a_skipped_test_fails_the_run(tmp_path: Path, does: str, status: int) -> None:
    test = tmp_path / "test_of_a_run.py"
    test.write_text(f"import pytest\n\ndef test() -> None:\n    {does}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest"),
            *("-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), str(test)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout + done.stderr
