from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from .build import ROOT


class Published(NamedTuple):
    source: Path
    """The source distribution, an archive."""
    wheel: Path


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The source distribution and the wheel, built once for all tests of them."""
    folder: Path = tmp_path_factory.mktemp("published")
    command = [sys.executable, "-m", "tests.published.build", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return Published(next(folder.glob("*.tar.gz")), next(folder.glob("*.whl")))
