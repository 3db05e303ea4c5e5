"""A project that lets no ``Any`` in, type checked against the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from .conftest import Published

PROJECT = Path(__file__).parent / "typed"


def test_a_strict_project_sees_no_any(published: Published, tmp_path: Path) -> None:
    environment, project = tmp_path / "environment", tmp_path / "project"
    venv.create(environment, symlinks=True)
    python, env = str(environment / "bin" / "python"), os.environ | {"PYTHONPATH": ""}
    # The wheel is its own; all else is taken from where the tests run, without its .pth files, one
    # of which may lead to the checkout.
    inside = "import sysconfig; print(sysconfig.get_path('purelib'))"
    (packages,) = subprocess.check_output([python, "-c", inside], text=True).split()
    Path(packages, "tests.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", str(published.wheel)], env=env, check=True)

    shutil.copytree(PROJECT, project)
    done = subprocess.run(
        [python, "-m", "mypy"], cwd=project, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Success: no issues found in 10 source files")
