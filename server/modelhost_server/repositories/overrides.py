"""Models that come as files in a request: written below the cache, until nobody uses them."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from ..errors import Code, ForeignError, brief

PREFIX = "file:"
_MAX_FILES = 10_000
_MAX_PATH, _MAX_PART, _MAX_FOLDERS = 1024, 255, 64


def checked_names(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Files by their paths in the model's directory, given by the names of the parameters that they came in.

    Raises:
        ForeignError: INVALID_ARGUMENT.
    """
    if len(files) > _MAX_FILES:
        raise _invalid(f"expected at most {_MAX_FILES} file parameters; got {len(files)}")
    checked: dict[str, bytes] = {}
    for name, content in files.items():
        given = name.removeprefix(PREFIX)
        path = posixpath.normpath(given)
        if path.startswith(("/", "../")) or path in (".", "..") or "\0" in path:
            raise _invalid(
                f"Invalid file parameter {brief(name, 200)} with normalized path {brief(path, 200)} must stay within "
                "model directory."
            )
        parts = path.split("/")
        is_long = len(path) > _MAX_PATH or len(parts) > _MAX_FOLDERS or max(len(p.encode()) for p in parts) > _MAX_PART
        if given.endswith("/") or is_long:
            raise _invalid(
                f"Invalid file parameter {brief(name, 200)}: expected a file's path of at most {_MAX_PATH} characters "
                f"and {_MAX_FOLDERS} parts"
            )
        if path in checked:
            raise _invalid(f"Invalid file parameter {brief(name, 200)}: two of them name the file {brief(path, 200)}")
        checked[path] = content
    # With what separates folders before all else, what is in a folder follows it at once.
    for above, below in pairwise(sorted(checked, key=lambda path: path.replace("/", "\0"))):
        if below.startswith(above + "/"):
            raise _invalid(f"Invalid file parameter {brief(PREFIX + below, 200)}, directory has been created as a file")
    return checked


class Overrides:
    """The directories of such models, one for each load: nobody uses another's, so each goes with its versions.

    Args:
        folder: below which they are; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, files: Mapping[str, bytes]) -> Path:
        """A new directory with these files, by their paths. Called on a thread.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            for path, content in files.items():
                target = directory / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        except OSError:
            remove(directory)
            raise
        return directory

    def directory_of(self, source: str) -> Path | None:
        """The directory that a source is in; None when it is not in one of these."""
        path = Path(source)
        return self._folder / path.relative_to(self._folder).parts[0] if path.is_relative_to(self._folder) else None


def remove(directory: Path) -> None:
    """Removes a directory that nobody uses any longer. Called on a thread."""
    shutil.rmtree(directory, ignore_errors=True)


def _invalid(message: str) -> ForeignError:
    return ForeignError(Code.INVALID_ARGUMENT, message)
