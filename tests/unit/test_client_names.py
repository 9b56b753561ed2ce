"""Names of models as callers write them."""

from __future__ import annotations

import pytest
from modelhost import InvalidRequestError
from modelhost._names import ModelRef, parse_model


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("half", ModelRef("default", "half")),
        ("team-a/half", ModelRef("team-a", "half")),
        ("half@3", ModelRef("default", "half", version=3)),
        ("team-a/half@stable", ModelRef("team-a", "half", label="stable")),
        ("a.b_c-d/0@v1.2", ModelRef("a.b_c-d", "0", label="v1.2")),
        ("m@007", ModelRef("default", "m", version=7)),
        ("x" * 128, ModelRef("default", "x" * 128)),
    ],
)
def test_names(name: str, expected: ModelRef) -> None:
    assert parse_model(name) == expected


@pytest.mark.parametrize("name", ["half", "team-a/half", "team-a/half@3", "half@stable"])
def test_references_read_as_they_are_written(name: str) -> None:
    assert parse_model(str(parse_model(name))) == parse_model(name)


def test_version_and_label_apart() -> None:
    assert parse_model("half", version=3) == parse_model("half@3")
    assert parse_model("half", label="stable") == parse_model("half@stable")


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("", "model"),
        ("a/", "model"),
        ("/a", "scope"),
        ("a/b/c", "scope"),
        ("half@", "label"),
        ("half@3@4", "label"),
        ("-half", "model"),
        ("hälf", "model"),
        ("half\n", "model"),
        ("a b/half", "scope"),
        ("x" * 129, "model"),
    ],
)
def test_names_that_break_the_rules(name: str, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{field}: expected letters") as caught:
        parse_model(name)
    assert caught.value.reason == "INVALID_NAME"


@pytest.mark.parametrize(
    ("name", "version", "label"),
    [("half@3", 3, None), ("half@3", None, "stable"), ("half", 3, "stable"), ("half@stable", None, "stable")],
)
def test_a_version_told_twice(name: str, version: int | None, label: str | None) -> None:
    with pytest.raises(InvalidRequestError, match="say the version once"):
        parse_model(name, version, label)


@pytest.mark.parametrize(("name", "version"), [("half@0", None), ("half", 0), ("half", -1)])
def test_versions_begin_at_one(name: str, version: int | None) -> None:
    with pytest.raises(InvalidRequestError, match="greater than 0"):
        parse_model(name, version)
