"""The clients' virtual environments, made by pip from `NAME/requirements.txt` and kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

_HERE = Path(__file__).parent
_CACHE = _HERE.parents[1] / ".cache" / "conformance"
NAMES = ["tensorflow_serving", "triton", "kserve"]
# tensorflow-serving-api needs all of TensorFlow: the one that is here already will do. What the environment has itself
# comes first.
_BORROWS = {"tensorflow_serving"}


def python_of(name: str) -> str:
    """The Python of an environment, which is made or brought up to date first.

    Raises:
        SystemExit: there is no such suite, or pip fails.
    """
    requirements = _HERE / name / "requirements.txt"
    if not requirements.is_file():
        raise SystemExit(f"{name}: expected one of {', '.join(NAMES)}")
    directory = _CACHE / name
    python = directory / "bin" / "python"
    installed = directory / "installed.txt"
    # An environment is one Python's.
    wanted = f"{sys.version}\n{sys.prefix}\n{requirements.read_text()}"
    if not installed.exists() or installed.read_text() != wanted:
        print(f"installing the clients of {name}…", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(directory)])
        borrows = ["--no-deps"] if name in _BORROWS else []
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *borrows,
              "--requirement", str(requirements)])  # fmt: skip
        if borrows:
            _packages(directory).joinpath("borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
        installed.write_text(wanted)
    return str(python)


def _packages(directory: Path) -> Path:
    return next(directory.glob("lib/python*/site-packages"))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"{command} ended with {done.returncode}")
