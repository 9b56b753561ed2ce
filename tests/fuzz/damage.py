"""Damage to bytes and to JSON: what a fuzzer does to what was right."""

from __future__ import annotations

import random
import struct
from typing import Any

NUMBERS = [0, 1, -1, 2, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64]
ODD_VALUES: list[Any] = [
    None, True, False, *NUMBERS, -(2**63), 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "a", "\0", "\ud800", "ü無",
    "x" * 5000, [], [[]], [None], {}, {"": 0}, [1, 2, 3], "default", "../../etc/passwd", 10**400, [0] * 300, "%s%n",
]  # fmt: skip


def damaged(noise: random.Random, data: bytes) -> bytes:
    """Bytes with one to four changes."""
    for _ in range(noise.randint(1, 4)):
        data = _damaged_once(noise, data)
    return data


def _damaged_once(noise: random.Random, data: bytes) -> bytes:
    place = noise.randrange(len(data) + 1)
    rest = data[place:]
    match noise.randrange(9):
        case 0:
            return data[:place]
        case 1 if rest:
            return data[:place] + bytes([rest[0] ^ 1 << noise.randrange(8)]) + rest[1:]
        case 2:
            return data[:place] + rest[noise.randint(1, 8) :]
        case 3:
            return data[:place] + noise.randbytes(noise.randint(1, 16)) + rest
        case 4:
            return data[:place] + noise.randbytes(min(len(rest), noise.randint(1, 16))) + rest[16:]
        case 5:
            form = noise.choice(["<B", "<H", "<I", "<Q"])
            size = struct.calcsize(form)
            number = noise.choice(NUMBERS) & (1 << 8 * size) - 1
            return data[:place] + struct.pack(form, number) + rest[size:]
        case 6:
            size = noise.randint(1, 64)
            return data[:place] + rest[:size] * noise.randint(2, 4) + rest[size:]
        case 7:
            return data[:place] + noise.choice([b"\0", b"\xff"]) * noise.randint(1, 12) + rest
    return rest + data[:place]


def damaged_json(noise: random.Random, value: Any, depth: int = 0) -> Any:
    """A value of JSON of which one part, somewhere, is another."""
    if (depth > 0 and noise.random() < 0.3) or not isinstance(value, dict | list) or not value:
        return noise.choice(ODD_VALUES)
    if isinstance(value, dict):
        changed = dict(value)
        name = noise.choice(list(changed))
        match noise.randrange(5):
            case 0:
                del changed[name]
            case 1:
                changed[noise.choice(["", "x", "\ud800", "reason", "self"])] = noise.choice(ODD_VALUES)
            case _:
                changed[name] = damaged_json(noise, changed[name], depth + 1)
        return changed
    items = list(value)
    place = noise.randrange(len(items))
    match noise.randrange(4):
        case 0:
            del items[place]
        case 1:
            items[place:place] = [noise.choice(ODD_VALUES)] * noise.randint(1, 3)
        case _:
            items[place] = damaged_json(noise, items[place], depth + 1)
    return items
