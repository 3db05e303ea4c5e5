"""The ES module under Node's own test runner."""

import os
import subprocess
from pathlib import Path

from .drivers import NODE
from .server import STATIC


def test_the_module_passes_the_tests_written_for_node() -> None:
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", str(Path(__file__).parent / "fetch.test.mjs")],
        env=os.environ | {"STATIC": str(STATIC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# skipped 0" in done.stdout
