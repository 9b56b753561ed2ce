"""Models on this machine: from a path, or what was put below one, to what a worker can load."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import ModelhostError, Reason, brief


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a source was found to be: a path, and the number of the sub-directory that was chosen, if one was."""

    path: str
    number: int


def local_path(source: str, expected: str = "an absolute path or a file: URI") -> Path:
    """The path that a source names, whatever is there; `expected` is what it may be.

    Raises:
        ModelhostError: INVALID_REQUEST, SOURCE_NOT_FOUND, SOURCE_UNSUPPORTED.
    """
    if not source:
        raise ModelhostError(Reason.INVALID_REQUEST, "source: expected a path or URI; got nothing", field="source")
    if len(source) > 4096:
        raise _impossible(source)
    try:
        parts = urlsplit(source)
    except ValueError:
        raise ModelhostError(
            Reason.SOURCE_NOT_FOUND, f"source: {brief(source)} is neither a path nor a URI", field="source"
        ) from None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(unquote(parts.path))
    elif parts.scheme and "://" in source:
        raise ModelhostError(
            Reason.SOURCE_UNSUPPORTED,
            f"source: expected {expected}; got the scheme {brief(parts.scheme)}",
            field="source",
        )
    else:
        path = Path(source)
    # Here, because URIs write it %00.
    if "\0" in str(path):
        raise _impossible(str(path))
    if not path.is_absolute():
        raise ModelhostError(
            Reason.INVALID_REQUEST,
            f"source: expected an absolute path on the server's machine; got {brief(source)}",
            field="source",
        )
    return path


def _impossible(source: str) -> ModelhostError:
    return ModelhostError(
        Reason.SOURCE_NOT_FOUND,
        f"source: expected a path of at most 4096 characters without NUL; got {brief(source)}",
        field="source",
    )


def resolve_path(path: Path, version: int) -> Resolved:
    """Looks at a path. Blocking: the disk may be slow or far away.

    Args:
        path: of a model, or of a directory of its versions.
        version: the version asked for; 0 for the newest.

    Raises:
        ModelhostError: SOURCE_NOT_FOUND, SOURCE_INVALID, SOURCE_UNSUPPORTED.
    """
    try:
        if path.is_file():
            if path.suffix not in (".keras", ".tflite"):
                raise ModelhostError(
                    Reason.SOURCE_UNSUPPORTED,
                    "source: expected a SavedModel directory, or a .keras or .tflite file; "
                    f"got the file {brief(path.name)}",
                    field="source",
                )
            return Resolved(str(path), 0)
        if not path.is_dir():
            raise ModelhostError(
                Reason.SOURCE_NOT_FOUND, f"source: there is nothing at {brief(str(path), 200)} on the server's machine",
                field="source",
            )  # fmt: skip
        if _holds_saved_model(path):
            _check_files(path)
            return Resolved(str(path), 0)
        numbers = {int(name): name for name in os.listdir(path) if name.isascii() and name.isdecimal()}
    except OSError as error:
        raise ModelhostError(
            Reason.SOURCE_NOT_FOUND, f"source: {brief(str(path), 200)} cannot be read: {error.strerror}", field="source"
        ) from None
    number = version or max(numbers, default=0)
    if number in numbers and _holds_saved_model(path / numbers[number]):
        _check_files(path / numbers[number])
        return Resolved(str(path / numbers[number]), number)
    have = f"; it has the versions {sorted(numbers)[:20]}" if numbers else ""
    wanted = f"version {version} of " if version else ""
    raise ModelhostError(
        Reason.SOURCE_INVALID,
        f"source: {wanted}{brief(str(path), 200)} is not a model: expected saved_model.pb in it, or in a sub-directory "
        f"named by the version's number{have}",
        field="source",
    )


def model_in(folder: Path) -> Path:
    """Where the model is in a directory that was sent or unpacked: it may be a single file, and have directories
    around it.
    """
    while not _holds_saved_model(folder):
        names = os.listdir(folder)
        if len(names) != 1 or names[0].isdecimal():
            break
        only = folder / names[0]
        if only.is_file():
            return only
        folder = only
    return folder


def _holds_saved_model(path: Path) -> bool:
    # Not `exists`: to read a pipe is to wait for ever.
    return any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt", "artifact.json"))


def _check_files(model: Path) -> None:
    """Refuses devices: what reads one to its end, as TensorFlow does assets, takes all the memory that there is."""
    for folder, _, names in os.walk(model):
        for name in names:
            place = Path(folder) / name
            if place.is_char_device() or place.is_block_device():
                raise ModelhostError(
                    Reason.SOURCE_INVALID,
                    f"source: expected files in {brief(str(model), 200)}; "
                    f"{brief(str(place.relative_to(model)), 200)} is a device",
                    field="source",
                )
