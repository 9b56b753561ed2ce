"""Names of datatypes, by the numbers of our own."""

from __future__ import annotations

from collections.abc import Mapping

from ...tensors import STRING

DATATYPE: Mapping[int, str] = {
    1: "FP32", 2: "FP64", 3: "INT32", 4: "UINT8", 5: "INT16", 6: "INT8", STRING: "BYTES", 9: "INT64", 10: "BOOL",
    14: "BF16", 17: "UINT16", 19: "FP16", 22: "UINT32", 23: "UINT64",
}  # fmt: skip
DTYPE: Mapping[str, int] = {name: number for number, name in DATATYPE.items()}
# What is none of them: a request's, or a complex number of a model.
INVALID_DTYPE = 0
INVALID = "<invalid>"


def datatype(dtype: int) -> str:
    """The name of a datatype."""
    return DATATYPE.get(dtype, INVALID)


def dtype(datatype: str) -> int:
    """The number of a datatype."""
    return DTYPE.get(datatype, INVALID_DTYPE)


def config_name(dtype: int) -> str:
    """How a model's configuration names a datatype."""
    name = datatype(dtype)
    return "TYPE_STRING" if name == "BYTES" else "TYPE_INVALID" if name == INVALID else f"TYPE_{name}"
