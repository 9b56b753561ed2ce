"""TensorFlow's tensor message (TensorProto) as a RawTensor, without TensorFlow and numpy."""

from __future__ import annotations

from array import array
from typing import Any

from .compat import saved_model_pb2 as pb
from .errors import ModelhostError, Reason
from .tensors import DTYPE_NAME, ITEMSIZE, MAX_RANK, STRING, RawTensor, element_count

# A message may ask for any number of copies of its last value; more bytes than a message could spell out are a mistake.
_LARGEST = 2 << 30
# What a string takes in memory besides its bytes, at least.
STRING_SIZE = 8

# The field that holds a dtype's values, and the array type code of what is stored there. float16 and bfloat16 are
# stored as their bits, complex numbers as pairs.
FIELDS = {
    1: ("float_val", "f"),
    2: ("double_val", "d"),
    3: ("int_val", "i"),
    4: ("int_val", "B"),
    5: ("int_val", "h"),
    6: ("int_val", "b"),
    8: ("scomplex_val", "f"),
    9: ("int64_val", "q"),
    10: ("bool_val", "B"),
    14: ("half_val", "H"),
    17: ("int_val", "H"),
    18: ("dcomplex_val", "d"),
    19: ("half_val", "H"),
    22: ("uint32_val", "I"),
    23: ("uint64_val", "Q"),
}


def raw_tensor(value: pb.TensorProto, largest: int = _LARGEST) -> RawTensor:
    """The tensor of a message, in whichever of its encodings it came; it takes at most `largest` bytes.

    Raises:
        ModelhostError: INPUT_MALFORMED.
    """
    dtype = value.dtype
    if dtype not in DTYPE_NAME:
        raise _malformed(f"expected a dtype that signatures can have, got DataType {dtype}")
    if value.tensor_shape.unknown_rank or any(dim.size < 0 for dim in value.tensor_shape.dim):
        raise _malformed("expected a shape with known extents")
    shape = tuple(dim.size for dim in value.tensor_shape.dim)
    if len(shape) > MAX_RANK:
        raise _malformed(f"expected at most {MAX_RANK} dimensions, got {len(shape)}")
    count = element_count(shape)
    if count * (ITEMSIZE[dtype] or STRING_SIZE + _repeated_size(value, count)) > largest:
        raise _malformed(f"expected at most {largest} bytes, got the shape {list(shape)}")
    if dtype == STRING:
        return RawTensor(STRING, shape, _strings(value, count))
    if value.tensor_content:
        return RawTensor(dtype, shape, _checked(value.tensor_content, count * ITEMSIZE[dtype]))
    field, code = FIELDS[dtype]
    values: Any = getattr(value, field)
    try:
        data = array(code, values).tobytes()
    except OverflowError:
        # TensorFlow takes of each number what its dtype has room for.
        data = b"".join((number & 0xFFFF_FFFF).to_bytes(4, "little")[: ITEMSIZE[dtype]] for number in values)
    return RawTensor(dtype, shape, _filled(data, count, ITEMSIZE[dtype]))


def _checked(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise _malformed(f"expected {size} bytes for the shape, got {len(data)}")
    return data


def _filled(data: bytes, count: int, itemsize: int) -> bytes:
    """The values that the shape has room for, the last one repeated as often as it needs; zeros when there is none."""
    data = data[: min(count, len(data) // itemsize) * itemsize]
    last = data[-itemsize:] or bytes(itemsize)
    return data + last * (count - len(data) // itemsize)


def _strings(value: pb.TensorProto, count: int) -> list[bytes]:
    if value.tensor_content:
        return _string_content(value.tensor_content, count)
    strings = list(value.string_val[:count])
    last = strings[-1] if strings else b""
    return strings + [last] * (count - len(strings))


def _repeated_size(value: pb.TensorProto, count: int) -> int:
    """Bytes of the string that is repeated, where one is."""
    return len(value.string_val[-1]) if 0 < len(value.string_val) < count else 0


def _string_content(content: bytes, count: int) -> list[bytes]:
    """Strings as TensorFlow's C++ packs them: all lengths, as varints, then all bytes."""
    sizes, position = [], 0
    for _ in range(count):
        size = shift = 0
        while True:
            if position == len(content) or shift > 28:
                raise _malformed("the strings' lengths are damaged")
            byte = content[position]
            position += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        sizes.append(size)
    _checked(content[position:], sum(sizes))
    strings = []
    for size in sizes:
        strings.append(content[position : position + size])
        position += size
    return strings


def _malformed(message: str) -> ModelhostError:
    return ModelhostError(Reason.INPUT_MALFORMED, message)
