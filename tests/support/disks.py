"""Small file systems that can be filled up."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

_PATIENCE_SECONDS = 5.0


def mount(directory: Path, size: str) -> bool:
    """Puts an empty file system of a size, such as "160m", on a directory; False where this user may not."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(directory)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


def unmount(directory: Path) -> None:
    """Takes it away, once nobody uses it any more."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while (done := subprocess.run(["umount", str(directory)], capture_output=True, text=True)).returncode:
        assert time.monotonic() < end, done.stderr
        time.sleep(0.1)
