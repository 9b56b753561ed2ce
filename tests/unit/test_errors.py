"""Errors: the domain's reasons are the protocol's, with the codes that the protocol promises."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st
from modelhost.v1 import error_pb2
from modelhost_server.errors import Code, ModelhostError, Reason, brief

PROTO = Path(__file__).parents[2] / "protos" / "modelhost" / "v1" / "error.proto"
GUIDE = Path(__file__).parents[2] / "docs" / "protocol.md"
PREFIX = "ERROR_REASON_"
# Names that a detail cannot have, since they are parameters themselves.
PARAMETERS = {"self", "reason", "message", "field", "retry_after"}


def documented() -> dict[str, str]:
    """The code that the comment of each reason ends with."""
    values = re.findall(rf"((?: *//.*\n)+) *{PREFIX}(\w+) = \d+;", PROTO.read_text())
    codes = {}
    for comment, name in values:
        text = " ".join(line.strip(" /") for line in comment.splitlines())
        found = re.search(r"\b([A-Z_]+)(?:, with a retry delay)?\.$", text)
        codes[name] = found[1] if found else ""
    return codes


def test_the_protocol_and_the_domain_have_the_same_reasons() -> None:
    assert {*Reason.__members__} | {"UNSPECIFIED"} == {
        name.removeprefix(PREFIX)
        for name in error_pb2.ErrorReason.keys()  # noqa: SIM118
    }


def test_the_guide_says_what_to_do_for_every_reason() -> None:
    rows = re.findall(r"^\| ([A-Z_, ]+) \| ([A-Z_]+) \| ", GUIDE.read_text(), re.MULTILINE)
    told = {reason: code for reasons, code in rows if code in Code.__members__ for reason in reasons.split(", ")}
    assert told == {reason.name: reason.code.name for reason in Reason}


def test_every_reason_of_the_protocol_says_its_code() -> None:
    codes = documented()
    assert {*codes} == {*Reason.__members__} | {"UNSPECIFIED"}
    assert [name for name, code in codes.items() if code not in Code.__members__] == ["UNSPECIFIED"]


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_a_reason_has_the_code_it_is_documented_with(reason: Reason) -> None:
    assert documented()[reason.name] == reason.code.name


def test_only_our_own_bugs_are_internal() -> None:
    assert [reason for reason in Reason if reason.code is Code.INTERNAL] == [Reason.INTERNAL]


@pytest.mark.parametrize("code", Code)
def test_codes_are_those_of_google_rpc(code: Code) -> None:
    assert code_pb2.Code.Value(code.name) == code


def test_reasons_with_one_code_are_not_one_reason() -> None:
    assert len({*Reason}) == len(Reason.__members__)
    assert Reason.MODEL_NOT_FOUND is not Reason.SCOPE_NOT_FOUND


details = st.dictionaries(st.text().filter(lambda name: name not in PARAMETERS), st.text() | st.integers(), max_size=20)


@given(st.sampled_from(Reason), st.text(), st.text(), details)
def test_an_error_survives_the_way_from_a_worker(
    reason: Reason, message: str, field: str, details: dict[str, object]
) -> None:
    error = ModelhostError(reason, message, field=field, **details)
    copy = ModelhostError.from_json(json.loads(json.dumps(error.to_json())))
    assert (copy.reason, copy.message, copy.field, copy.details) == (reason, message, field, error.details)
    assert str(copy) == message


def test_the_advice_to_try_again_survives_too() -> None:
    error = ModelhostError(Reason.WORKER_UNAVAILABLE, "starting", retry_after=1.5)
    assert ModelhostError.from_json(error.to_json()).retry_after == 1.5


@pytest.mark.parametrize(
    "data", [{"reason": "INTERNAL", "message": "m"}, {"reason": "INTERNAL", "message": "m", "details": 3}]
)
def test_an_error_without_details_will_do(data: dict[str, object]) -> None:
    error = ModelhostError.from_json(data)
    assert (error.reason, error.message, error.field, error.details) == (Reason.INTERNAL, "m", "", {})


def test_details_are_told_as_text() -> None:
    assert ModelhostError(Reason.CONFLICT, "m", version=3, name="a").details == {"version": "3", "name": "a"}


@given(st.text() | st.text(min_size=1).map(lambda text: text * 10_000) | st.binary())
def test_whatever_is_quoted_is_short_and_printable(value: object) -> None:
    text = brief(value)
    assert len(text) < 100
    assert text.isprintable()


@pytest.mark.parametrize(("value", "text"), [("a", "'a'"), ("x" * 62, f"'{'x' * 62}'"), (3, "3")])
def test_what_is_short_is_quoted_whole(value: object, text: str) -> None:
    assert brief(value) == text


def test_what_is_cut_says_how_long_it_was() -> None:
    assert brief("x" * 1000, 10) == f"'{'x' * 9}… (1000 characters)"
