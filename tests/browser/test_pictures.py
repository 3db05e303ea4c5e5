"""The pictures of the documentation can be taken again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..processes import ROOT

pytestmark = pytest.mark.browser


def test_the_pictures_of_the_monitor_can_be_taken(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.browser.pictures", str(tmp_path)],
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    taken = {path.name for path in tmp_path.glob("*.png") if path.stat().st_size}
    assert {path.name for path in (ROOT / "docs").glob("monitor-*.png")} <= taken
