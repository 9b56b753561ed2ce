"""What the parameters of a request ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .errors import invalid, quoted

# A parameter's value; None where it has none.
Value = bool | int | float | str | None

FINAL_RESPONSE = "triton_enable_empty_final_response"
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
# Triton's priorities begin with 1, the highest; who gives none, or 0, is at the usual one. With us, that is this one.
_USUAL_PRIORITY = 2
_LOWEST_PRIORITY = 1000


class Options(NamedTuple):
    """What a request asks for.

    Attributes:
        priority: as ours are: higher ones come first, 0 is usual.
        timeout: seconds until the answer; None for no limit.
        signature: its name; "" for the default.
    """

    priority: int = 0
    timeout: float | None = None
    signature: str = ""


_NOTHING_ASKED = Options()


def options(parameters: Mapping[str, Value]) -> Options:
    """What the parameters of a request ask for; those that are not known are passed over.

    Raises:
        ForeignError: INVALID_ARGUMENT.
    """
    if not parameters:
        return _NOTHING_ASKED
    priority, timeout, signature = 0, None, ""
    for name, value in parameters.items():
        if name in _SEQUENCE:
            _check_no_sequence(name, value)
        elif name == "priority":
            priority = _priority(value)
        elif name == "timeout":
            timeout = _timeout(value)
        elif name in ("signature", "signature_name"):
            signature = _signature(name, value)
        elif name.startswith("triton_"):
            _check_reserved(name, value)
    return Options(priority, timeout, signature)


def _check_no_sequence(name: str, value: Value) -> None:
    if name == "sequence_id":
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise invalid("invalid value type for 'sequence_id' parameter, expected int64_param or string_param.")
    elif not isinstance(value, bool):
        raise invalid(f"invalid value type for '{name}' parameter, expected bool_param.")
    if value:
        raise invalid(
            f"'{name}' must not be specified: there are no sequences here, each request is answered for itself"
        )


def _priority(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid("invalid value type for 'priority' parameter, expected int64_param or uint64_param.")
    if value < 0:
        raise invalid("invalid value for 'priority', expected value >= 0.")
    return _USUAL_PRIORITY - min(value, _LOWEST_PRIORITY) if value else 0


def _timeout(value: Value) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid("invalid value type for 'timeout' parameter, expected int64_param.")
    # Triton takes it for a number without a sign: one below 0 is no limit.
    return value / 1e6 if value > 0 else None


def _signature(name: str, value: Value) -> str:
    if not isinstance(value, str):
        raise invalid(f"invalid value type for '{name}' parameter, expected string_param.")
    return value


def _check_reserved(name: str, value: Value) -> None:
    if name != FINAL_RESPONSE:
        raise invalid(
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting "
            f"with 'triton_' are allowed: {FINAL_RESPONSE}"
        )
    if not isinstance(value, bool):
        raise invalid(f"invalid value type for {quoted(name)} parameter, expected bool_param.")
