"""Inputs of a prediction, read from files. Every mistake is a ValueError that names the file."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._types import Inputs


def read_inputs(source: str | None, named: Sequence[str]) -> Inputs:
    """The inputs that a command line names.

    Args:
        source: a `.npy`, `.npz` or `.json` file, or "-" for JSON on stdin.
        named: "name=file.npy" each, or a `.json` file with that input's value.

    Raises:
        ValueError: a file cannot be read or makes no sense.
    """
    if source is None and not named:
        raise ValueError("expected a file of inputs, '-' for JSON on stdin, or --input name=file.npy")
    inputs: Inputs = {} if source is None else _read(source)
    if not named:
        return inputs
    if not isinstance(inputs, dict):
        raise ValueError(f"{source}: expected inputs by name, because --input adds more of them; got one array")
    for item in named:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise ValueError(f"--input: expected name=file.npy; got {item!r}")
        value = _read(path)
        if isinstance(value, dict):
            raise ValueError(f"{path}: expected one array for input {name!r}; got several by name")
        inputs[name] = value
    return inputs


def read_arrays(path: str) -> dict[str, NDArray[Any]]:
    """The arrays of a `.npz` file, which know their dtypes, by input name.

    Raises:
        ValueError: the file is of another kind, cannot be read or makes no sense.
    """
    if Path(path).suffix.lower() != ".npz":
        raise ValueError(f"{path}: expected an .npz file with one array an input (numpy.savez)")
    arrays: dict[str, NDArray[Any]] = _read(path)
    return arrays


def _read(source: str) -> Any:
    """An array, a nested list, or a dict of them by name."""
    try:
        match "-" if source == "-" else Path(source).suffix.lower():
            case "-":
                return _from_json(json.load(sys.stdin))
            case ".json":
                return _from_json(json.loads(Path(source).read_bytes()))
            case ".npy":
                return _load_array(source)
            case ".npz":
                with np.load(source, allow_pickle=False) as arrays:
                    return dict(arrays)
    except OSError as error:
        raise ValueError(f"{source}: {error.strerror or error}") from None
    # RecursionError: lists nested deeper than any tensor.
    except (ValueError, EOFError, RecursionError) as error:
        raise ValueError(f"{'stdin' if source == '-' else source}: {error}") from None
    raise ValueError(f"{source}: expected a .npy, .npz or .json file, or '-' for JSON on stdin")


def _load_array(path: str) -> NDArray[Any]:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("is not a .npy file")
    return array


def _from_json(data: Any) -> Any:
    """Inputs from JSON: by name, one nested list, or the way TensorFlow Serving's REST API takes them."""
    data = _decode_bytes(data)
    if isinstance(data, dict) and data.keys() == {"inputs"}:
        return data["inputs"]
    if isinstance(data, dict) and data.keys() == {"instances"}:
        return _columns(data["instances"])
    return data


def _columns(rows: Any) -> Any:
    """Rows, each a value or values by name, as the batch they make."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return rows
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("instances: expected the same names in each")
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _decode_bytes(data: Any) -> Any:
    """`data` with each {"b64": text} replaced by the bytes it stands for."""
    if isinstance(data, list):
        return [_decode_bytes(item) for item in data]
    if not isinstance(data, dict):
        return data
    if data.keys() == {"b64"}:
        try:
            return base64.b64decode(data["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(f"b64: {error}") from None
    return {name: _decode_bytes(value) for name, value in data.items()}
