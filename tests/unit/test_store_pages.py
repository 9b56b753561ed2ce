"""Pagination: pages make up the list, whatever changes between them, and tokens are good for their own list only."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from modelhost_server.errors import Reason
from modelhost_server.store.pages import page
from modelhost_server.store.records import ScopeConfig
from modelhost_server.store.store import Store
from test_store_phases import hosted, new_store, refused

keys = st.tuples(st.text("abc", min_size=1, max_size=2), st.text("abc.-", min_size=1, max_size=2))
sizes = st.integers(1, 7)


def all_pages(listed: list[tuple[str, ...]], size: int) -> list[list[tuple[str, ...]]]:
    pages, token = [], ""
    while True:
        chosen, token = page(listed, size, token, "list")
        pages.append(list(chosen))
        if not token:
            return pages


@given(st.sets(keys, max_size=30), sizes)
def test_pages_make_up_the_whole_list(listed: set[tuple[str, ...]], size: int) -> None:
    pages = all_pages(sorted(listed), size)
    assert [key for one in pages for key in one] == sorted(listed)
    assert all(len(one) == size for one in pages[:-1])
    assert 0 < len(pages[-1]) <= size or not listed


@given(
    st.sets(keys, max_size=20),
    st.lists(st.tuples(sizes, st.sets(keys, max_size=5), st.sets(keys, max_size=5)), min_size=1, max_size=8),
)
def test_what_stays_is_neither_repeated_nor_skipped(
    listed: set[tuple[str, ...]], changes: list[tuple[int, set[tuple[str, ...]], set[tuple[str, ...]]]]
) -> None:
    stayed, seen, token = set(listed), [], ""
    for size, added, removed in [*changes, (1000, set(), set())]:
        chosen, token = page(sorted(listed), size, token, "list")
        seen += chosen
        if not token:
            break
        listed = (listed | added) - removed
        stayed -= removed
    assert token == ""
    assert seen == sorted(set(seen))
    assert stayed <= set(seen)


@pytest.mark.parametrize(("asked", "got"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_sizes_have_a_default_and_a_limit(asked: int, got: int) -> None:
    listed = [(f"{i:05}",) for i in range(1500)]
    chosen, token = page(listed, asked, "", "list")
    assert len(chosen) == got
    assert token


def test_a_negative_size_is_refused() -> None:
    with refused(Reason.INVALID_REQUEST) as caught:
        page([("a",)], -1, "", "list")
    assert caught.value.field == "page_size"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_the_last_page_has_no_token(count: int) -> None:
    listed = [(str(i),) for i in range(count)]
    assert len(all_pages(listed, 2)) == max(1, (count + 1) // 2)


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


@given(
    st.text(min_size=1)
    | st.binary(min_size=1).map(lambda data: base64.urlsafe_b64encode(data).decode())
    | json_values.map(encoded)
)
def test_a_made_up_token_is_refused(token: str) -> None:
    with refused(Reason.INVALID_PAGE_TOKEN) as caught:
        page([("a",), ("b",)], 1, token, "list")
    assert caught.value.field == "page_token"
    assert len(caught.value.message) < 200


@given(st.text(), st.text())
def test_a_token_of_another_list_is_refused(listing: str, other: str) -> None:
    assume(listing != other)
    _, token = page([("a",), ("b",)], 1, "", listing)
    with refused(Reason.INVALID_PAGE_TOKEN):
        page([("a",), ("b",)], 1, token, other)


def test_a_deeply_nested_token_is_refused() -> None:
    with refused(Reason.INVALID_PAGE_TOKEN):
        page([("a",), ("b",)], 1, base64.urlsafe_b64encode(b"[" * 100_000).decode(), "list")


@pytest.fixture
def store() -> Store:
    store = new_store()
    for scope in ("a", "b"):
        store.create_scope(scope, ScopeConfig())
        for model in ("x", "y", "z"):
            hosted(store, scope=scope, model=model)
    return store


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
def test_models_are_paged_over_all_scopes_or_one(store: Store, size: int) -> None:
    for scope, expected in (("", ["a/x", "a/y", "a/z", "b/x", "b/y", "b/z"]), ("b", ["b/x", "b/y", "b/z"])):
        seen, token = [], ""
        while not seen or token:
            models, token = store.models(scope, size, token)
            assert len(models) <= size
            seen += [f"{model.scope}/{model.name}" for model in models]
        assert seen == expected


def test_scopes_are_paged_by_name(store: Store) -> None:
    first, token = store.scopes(2)
    second, end = store.scopes(2, token)
    assert [scope.name for scope in (*first, *second)] == ["a", "b", "default"]
    assert end == ""


def test_lists_of_the_store_refuse_each_others_tokens(store: Store) -> None:
    tokens = {scope: store.models(scope, 1)[1] for scope in ("", "a", "b")}
    for scope in tokens:
        for other, token in tokens.items():
            if scope != other:
                with refused(Reason.INVALID_PAGE_TOKEN):
                    store.models(scope, 1, token)
    with refused(Reason.INVALID_PAGE_TOKEN):
        store.scopes(1, tokens[""])
    with refused(Reason.INVALID_PAGE_TOKEN):
        store.models("", 1, store.scopes(1)[1])
