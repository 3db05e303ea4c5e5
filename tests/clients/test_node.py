"""The ES module under Node's own test runner."""

import subprocess
from pathlib import Path

from tests.processes import NODE


def test_the_module_passes_the_tests_written_for_node() -> None:
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", str(Path(__file__).parent / "fetch.test.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# skipped 0" in done.stdout
