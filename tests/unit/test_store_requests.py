"""The memory of requests: a retry is answered, a mix-up refused, and the oldest forgotten first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.errors import Reason
from modelhost_server.store.requests import RequestMemory, scoped_id
from test_store_phases import refused


@given(st.integers(1, 5), st.lists(st.integers(0, 9), unique=True))
def test_the_newest_requests_are_remembered(capacity: int, numbers: list[int]) -> None:
    memory: RequestMemory[Any] = RequestMemory(capacity)
    for number in numbers:
        memory.remember(f"id{number}", number, ((number, 0.5),))
    kept = numbers[-capacity:]
    for number in range(10):
        expected = ((number, 0.5),) if number in kept else None
        assert memory.recall(f"id{number}", number) == expected


def test_a_request_without_an_id_is_always_new() -> None:
    memory: RequestMemory[Any] = RequestMemory()
    memory.remember("", "content", ((1, 0.5),))
    assert memory.recall("", "content") is None
    assert memory.recall("", "other") is None


def test_an_id_used_for_something_else_is_refused() -> None:
    memory: RequestMemory[Any] = RequestMemory()
    memory.remember("id", ("load", 1), ((1, 0.5),))
    with refused(Reason.INVALID_REQUEST) as caught:
        memory.recall("id", ("load", 2))
    assert caught.value.field == "request_id"
    assert memory.recall("id", ("load", 1)) == ((1, 0.5),)


@pytest.mark.parametrize("length", [129, 10_000])
def test_a_long_id_is_refused_in_few_words(length: int) -> None:
    assert scoped_id("s", "x" * 128) == "s/" + "x" * 128
    with refused(Reason.INVALID_REQUEST) as caught:
        scoped_id("s", "x" * length)
    assert len(caught.value.message) < 200


def test_an_id_is_of_one_scope() -> None:
    assert scoped_id("a", "id") != scoped_id("b", "id")
    assert scoped_id("a", "") == ""
