"""Sizes as people write them."""

from __future__ import annotations

import re

import typer

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{ending}": base ** (power + 1)
    for power, letter in enumerate("kmgt")
    for ending, base in (("b", 1000), ("ib", 1024))
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([a-z]*)")


def parse_size(text: str) -> int:
    """Bytes, from "2GiB" (1024s), "2GB" (1000s) or a plain number.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise typer.BadParameter(f"expected a size, e.g. 512MiB, 2GiB or 2000000000; got {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])
