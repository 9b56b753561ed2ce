"""TensorFlow Serving's `:predict` requests: by rows (`instances`) or by columns (`inputs`), as tensors.

What is as it should be becomes tensors as a whole. For what is not, the same way is gone again, in TensorFlow Serving's
order, to find what to say of the first value that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import Code, ForeignError
from ..services.tensorflow_serving.checks import DTYPE_NAME
from ..services.tensorflow_serving.errors import invalid
from ..tensors import MAX_RANK, STRING, RawTensor, SignatureSpec, TensorSpec
from .arrays import NUMPY, Unfit, fits
from .dense import dense, from_base64, have_shape, is_base64
from .documents import MalformedDocument, kind, quoted, read_document

_FLOATS = (1, 2, 14, 19)


def read_object(data: bytes | memoryview) -> dict[str, Any]:
    """The JSON object that a request is.

    Raises:
        ForeignError: it is none.
    """
    if not len(data):
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = read_document(data)
    except MalformedDocument as error:
        raise invalid(f"JSON Parse error: {error.message} at offset: {error.offset}") from None
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {quoted(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature asked for; "" for the default.

    Raises:
        ForeignError: it is no name.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {quoted(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def tensors(document: Mapping[str, Any], signature: SignatureSpec) -> tuple[dict[str, RawTensor], bool]:
    """The inputs, and whether they came as rows.

    Raises:
        ForeignError: they are not what the signature takes.
    """
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    specs = {spec.name: spec for spec in signature.inputs}
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {quoted(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if "instances" in document:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise invalid(f"JSON Value: {quoted(document)} Excepting 'instances' to be an list/array")
        if not rows:
            raise invalid(f"JSON Value: {quoted(document)} No values in 'instances' array")
        return _of_rows(rows, specs), True
    if "inputs" in document:
        return _of_columns(document["inputs"], specs), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _only(specs: Mapping[str, TensorSpec], message: str) -> TensorSpec:
    """The input that values without a name are for."""
    needed = [spec for spec in specs.values() if not spec.optional] or list(specs.values())
    if len(needed) > 1:
        raise invalid(message)
    return needed[0]


def _of_columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, RawTensor]:
    if not _is_named(value):
        spec = _only(
            specs,
            "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
            "tensorinfo_map",
        )
        return {spec.name: _tensor(value, spec)}
    columns = {}
    for name, spec in specs.items():
        if name in value:
            columns[name] = _tensor(value[name], spec)
        elif not spec.optional:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return columns


def _of_rows(rows: Sequence[Any], specs: Mapping[str, TensorSpec]) -> dict[str, RawTensor]:
    if _is_named(rows[0]):
        return _of_named_rows(rows, specs)
    spec = _only(
        specs,
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map",
    )
    try:
        return {spec.name: dense(rows, spec.dtype)}
    except Unfit:
        pass
    shape: list[int] = []

    def are_right(some: Sequence[Any]) -> bool:
        return have_shape(some, spec.dtype, shape)

    for number, row in _suspects(rows, are_right):
        if _is_named(row):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
        try:
            shape = _checked_row(row, spec, shape if number else None)
        except ForeignError as error:
            raise _in_element(number, error) from None
    raise _unexplained()


def _of_named_rows(rows: Sequence[Any], specs: Mapping[str, TensorSpec]) -> dict[str, RawTensor]:
    names = set(rows[0])
    needed = {name for name, spec in specs.items() if not spec.optional}
    if needed <= names <= specs.keys() and all(_is_named(row) and row.keys() == names for row in rows):
        try:
            return {name: dense([row[name] for row in rows], specs[name].dtype) for name in rows[0]}
        except Unfit:
            pass
    shapes: dict[str, list[int]] = {}

    def are_right(some: Sequence[Any]) -> bool:
        return all(_is_named(row) and row.keys() == names for row in some) and all(
            have_shape([row[name] for row in some], specs[name].dtype, shapes[name]) for name in names
        )

    for number, row in _suspects(rows, are_right):
        if not _is_named(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        for name, value in row.items():
            try:
                if name not in specs:
                    raise invalid(f"JSON object: does not have named input: {name}")
                shapes[name] = _checked_row(value, specs[name], shapes.get(name))
            except ForeignError as error:
                raise _in_element(number, error, f" key: {name}") from None
        if row.keys() != names or not needed <= names:
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {quoted(row)} must only have "
                f"keys: {','.join(sorted(specs))}"
            )
    raise _unexplained()


def _in_element(number: int, error: ForeignError, key: str = "") -> ForeignError:
    return invalid(
        f"Failed to process element: {number}{key} of 'instances' list. Error: {error.code.name}: {error.message}"
    )


def _tensor(value: Any, spec: TensorSpec) -> RawTensor:
    try:
        return dense(value, spec.dtype)
    except Unfit:
        shape = _dense_shape(value)
        _check_rank(len(shape))
        _check(value, spec.dtype, shape, 0)
        raise _unexplained() from None


def _unexplained() -> NoReturn:
    raise AssertionError("nothing was found wrong with values that are")


def _suspects(values: Sequence[Any], are_right: Callable[[Sequence[Any]], bool]) -> Iterator[tuple[int, Any]]:
    """The first value, which the others must be like, and the first that is not, if there are several. Looking at each
    would take seconds, in which nobody is served; so whether some are right is asked of halves.
    """
    if values:
        yield 0, values[0]
    begin, end = 1, len(values)
    while end - begin > 1:
        middle = (begin + end) // 2
        if are_right(values[begin:middle]):
            begin = middle
        else:
            end = middle
    if begin < end:
        yield begin, values[begin]


def _dense_shape(value: Any) -> list[int]:
    """The shape that nested lists have, going by the first of each."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _checked_row(value: Any, spec: TensorSpec, expected: list[int] | None) -> list[int]:
    shape = _dense_shape(value)
    _check_rank(1 + len(shape))
    _check(value, spec.dtype, shape, 0)
    if expected is None or shape == expected:
        return shape
    size, got = _count(expected), _count(shape)
    if size != got:
        raise invalid(f"Expecting tensor size: {size} but got: {got}")
    raise invalid(f"Expecting shape {_shape_text(expected)} but got: {_shape_text(shape)}")


def _check_rank(rank: int) -> None:
    if rank > MAX_RANK:
        raise invalid(f"Encountered lists in lists: {rank} levels, expected at most {MAX_RANK}")


def _count(shape: Sequence[int]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _shape_text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _check(value: Any, dtype: int, shape: Sequence[int], level: int) -> None:
    """Finds the first value that is wrong."""
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {quoted(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at "
                f"level: {rank}"
            )
        _check_value(value, dtype)
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for _, item in _suspects(value, lambda some: have_shape(some, dtype, shape[level + 1 :])):
        _check(item, dtype, shape, level + 1)


def _check_value(value: Any, dtype: int) -> None:
    name = DTYPE_NAME[dtype]
    if dtype == STRING and isinstance(value, dict):
        if not is_base64(value):
            raise invalid(f"JSON Value: {quoted(value)} not formatted correctly for base64 data")
        from_base64(value)
        return
    if dtype == STRING:
        is_right = isinstance(value, str)
    elif dtype not in NUMPY:
        raise ForeignError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {quoted(value)} to type: {name}")
    else:
        is_right = fits([value], dtype)
        if not is_right and dtype in _FLOATS and type(value) in (int, float):
            raise invalid(f"Cannot convert JSON value: {quoted(value)} to {name} without loss of precision.")
    if not is_right:
        raise invalid(f"JSON Value: {quoted(value)} Type: {kind(value)} is not of expected type: {name}")
