"""Virtual environments of the peers, each made by pip from the versions in `requirements/NAME.txt`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ..common import ROOT
from ..common.report import console

_REQUIREMENTS = Path(__file__).with_name("requirements")


class NotInstalled(Exception):
    """A peer that cannot be had here; says why."""


def python_of(name: str) -> str:
    """The Python of an environment, which is made or brought up to date first.

    Raises:
        NotInstalled: pip could not.
    """
    wanted = (_REQUIREMENTS / f"{name}.txt").read_text()
    directory = ROOT / ".cache" / "bench-peers" / name
    installed = directory / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        console.print(f"installing {name} into an environment of its own, which takes a minute…", style="dim")
        shutil.rmtree(directory, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(directory)])
        _run([str(directory / "bin" / "pip"), "install", "--disable-pip-version-check", "--requirement",
              str(_REQUIREMENTS / f"{name}.txt")])  # fmt: skip
        installed.write_text(wanted)
    return str(directory / "bin" / "python")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstalled(said[-1] if said else f"pip ended with {done.returncode}")
