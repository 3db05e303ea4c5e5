"""Where and when figures were taken."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def described() -> str:
    """Day, interpreter and processor, for the head of a table."""
    cpu = "unknown processor"
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    day = datetime.now(UTC).date()
    return f"{day}, Python {platform.python_version()}, {os.cpu_count()} × {cpu}"
