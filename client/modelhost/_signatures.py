"""Inputs as callers give them, made to fit a signature when it is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _tensors
from ._errors import InvalidInputError, ModelFailedError, NotFoundError, UnavailableError
from ._names import ModelRef
from ._types import Inputs, ModelInfo, SignatureInfo, TensorInfo, VersionInfo, format_shape

DEFAULT_SIGNATURE = "serving_default"

# What the server answers when the signature has changed since the client learnt it.
STALE_REASONS = frozenset({"INPUT_MISSING", "INPUT_UNKNOWN", "INPUT_DTYPE_MISMATCH", "INPUT_SHAPE_MISMATCH"})

# The kinds of values that may stand in a list for an input of each kind, without losing what they mean.
_CONVERTIBLE = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "V": "iuf", "c": "iufc"}


def needs_signature(inputs: Inputs) -> bool:
    """Whether `inputs` cannot be sent without knowing the signature: a bare array has no name, a list no dtype."""
    return not isinstance(inputs, Mapping) or not all(hasattr(value, "__array__") for value in inputs.values())


def find_signature(info: ModelInfo, ref: ModelRef, name: str) -> SignatureInfo:
    """The signature that a prediction by these names runs, by the server's own rules.

    Raises:
        NotFoundError: there is no such version, label or signature.
        UnavailableError: the version is not loaded yet.
        ModelFailedError: the version failed to load.
    """
    version = find_version(info, ref)
    signatures = version.signatures
    if not signatures:
        if version.state == "FAILED":
            raise version.error or ModelFailedError(f"{ref} failed to load", reason="VERSION_FAILED")
        raise UnavailableError(
            f"{ref} has no signatures yet: version {version.version} is {version.state}", reason="VERSION_LOADING"
        )
    if not name and DEFAULT_SIGNATURE not in signatures and len(signatures) == 1:
        return next(iter(signatures.values()))
    signature = signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise NotFoundError(
            f"{ref} has no signature {name or DEFAULT_SIGNATURE!r}; it has: {', '.join(signatures)}",
            reason="SIGNATURE_NOT_FOUND",
        )
    return signature


def find_version(info: ModelInfo, ref: ModelRef) -> VersionInfo:
    """The version that `ref` means, or when it names none, the one that is served.

    Raises:
        NotFoundError: there is no such version or label.
    """
    if ref.label and ref.label not in info.labels:
        raise NotFoundError(
            f"{info.scope}/{info.model} has no label {ref.label!r}; it has: {', '.join(sorted(info.labels)) or 'none'}",
            reason="LABEL_NOT_FOUND",
        )
    number = info.labels[ref.label] if ref.label else ref.version
    for version in info.versions:
        if version.version == number:
            return version
    latest = info.served or next(iter(info.versions), None)
    if number or latest is None:
        raise NotFoundError(f"there is no version {number or ''} of {ref}", reason="VERSION_NOT_FOUND")
    return latest


def to_arrays(inputs: Inputs, signature: SignatureInfo | None) -> dict[str, NDArray[Any]]:
    """`inputs` as arrays by name, checked against the signature when it is known.

    Raises:
        InvalidInputError: they do not fit.
    """
    if signature is None:
        if not isinstance(inputs, Mapping):
            raise TypeError("a bare array cannot be sent without a signature")
        return {name: np.asarray(value) for name, value in inputs.items()}
    named = inputs if isinstance(inputs, Mapping) else {_single_input(signature): inputs}
    _check_names(named, signature)
    return {name: _fit(signature.inputs[name], value) for name, value in named.items()}


def _single_input(signature: SignatureInfo) -> str:
    required = [name for name, info in signature.inputs.items() if not info.optional]
    names = required or list(signature.inputs)
    if len(names) == 1:
        return names[0]
    raise InvalidInputError(
        f"expected arrays by name for signature {signature.name!r}, which has the inputs {_list(signature)}; "
        "got one array",
        reason="INPUT_MISSING",
    )


def _check_names(named: Mapping[str, Any], signature: SignatureInfo) -> None:
    for name in named:
        if name not in signature.inputs:
            raise InvalidInputError(
                f"signature {signature.name!r} has no input {name!r}; it has: {_list(signature)}",
                reason="INPUT_UNKNOWN",
                details={"input": name},
            )
    for name, info in signature.inputs.items():
        if name not in named and not info.optional:
            raise InvalidInputError(
                f"input {name!r} is missing: expected {info}", reason="INPUT_MISSING", details={"input": name}
            )


def _fit(info: TensorInfo, value: Any) -> NDArray[Any]:
    """`value` as an array that the signature accepts. Arrays need its dtype; anything else is converted to it."""
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        got = _tensors.array_dtype_name(array.dtype)
        if got != info.dtype:
            raise _mismatch(
                info, f"{got} {format_shape(array.shape)}; convert it with .astype({info.dtype!r}) if that is meant"
            )
    else:
        array = _convert(info, value)
    if info.shape is not None and not _fits(array.shape, info.shape):
        raise _mismatch(info, f"the shape {format_shape(array.shape)}", reason="INPUT_SHAPE_MISMATCH")
    return array


def _convert(info: TensorInfo, value: Any) -> NDArray[Any]:
    if info.dtype == _tensors.STRING:
        # By way of objects: numpy's own byte strings lose trailing zeros.
        return np.asarray(value, dtype=object)
    try:
        natural = np.asarray(value)
    except ValueError:
        raise _mismatch(info, "nested lists of unequal lengths", reason="INPUT_SHAPE_MISMATCH") from None
    dtype = _tensors.numpy_dtype(info.dtype)
    if natural.size and natural.dtype.kind not in _CONVERTIBLE[dtype.kind]:
        got = _tensors.array_dtype_name(natural.dtype) if natural.dtype.kind != "O" else "mixed or huge"
        raise _mismatch(info, f"{got} values, which cannot become {info.dtype}")
    if natural.size and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if natural.min() < limits.min or natural.max() > limits.max:
            raise _mismatch(info, f"values outside {limits.min}..{limits.max}")
    try:
        with np.errstate(over="raise"):
            return natural.astype(dtype)
    except FloatingPointError:
        raise _mismatch(info, f"values beyond the range of {info.dtype}") from None


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        want is None or want == got for want, got in zip(expected, shape, strict=True)
    )


def _mismatch(info: TensorInfo, got: str, reason: str = "INPUT_DTYPE_MISMATCH") -> InvalidInputError:
    return InvalidInputError(
        f"input {info.name!r}: expected {info}; got {got}",
        reason=reason,
        details={"input": info.name, "expected": str(info)},
    )


def _list(signature: SignatureInfo) -> str:
    return ", ".join(f"{name} ({info})" for name, info in signature.inputs.items()) or "none"
