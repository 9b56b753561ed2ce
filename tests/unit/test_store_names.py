"""Names: nothing that could be mistaken for a path, a number or another resource is one."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.store.names import check_label, check_name, model_resource, scope_resource, version_resource
from modelhost_server.store.operations import UnloadRequest
from modelhost_server.store.records import ScopeConfig
from test_store_phases import hosted, new_store, refused, request

ALLOWED = frozenset(string.ascii_letters + string.digits + "._-")
LONGEST_MESSAGE = 400

texts = st.text(max_size=20)
bad_names = st.one_of(
    st.tuples(texts, st.sampled_from(["/", "\\", "\0", "\n", " ", "@", ":", "%2f"]), texts).map("".join),
    st.text(".", min_size=0, max_size=200),
    st.text(st.sampled_from(sorted(ALLOWED)), min_size=129, max_size=200),
    st.characters(min_codepoint=128).flatmap(lambda c: texts.map(lambda text: text + c)),
    st.text(min_size=1).map(lambda text: text * 10_000),
    st.sampled_from(["-a", "_a", ".a", "a\n", "a" * 10_000, "é", "a\u0301", "\u0663", "\U0001f600"]),
).filter(lambda name: not (len(name) <= 128 and name[:1].isalnum() and set(name) <= ALLOWED))

good_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)


@given(bad_names)
@example("..")
@example("a\0")
@example("\ud800")
def test_a_bad_name_is_refused_in_few_words(name: str) -> None:
    for check in (lambda name: check_name("model", name), check_label):
        with refused(Reason.INVALID_NAME) as caught:
            check(name)
        assert len(caught.value.message) < LONGEST_MESSAGE
        assert caught.value.message.isprintable()


@given(good_names)
@example("a" * 128)
@example("a..b")
def test_a_good_name_is_kept_as_it_is(name: str) -> None:
    assert check_name("model", name) == name


@given(st.text() | st.text(sorted(ALLOWED)))
def test_whatever_is_accepted_is_plain(name: str) -> None:
    try:
        check_name("scope", name)
    except ModelhostError:
        return
    assert 1 <= len(name) <= 128
    assert set(name) <= ALLOWED
    assert name[0].isalnum()


@given(good_names)
def test_a_label_is_never_a_number(name: str) -> None:
    try:
        check_label(name)
    except ModelhostError:
        assert name[0].isdigit()
    else:
        with pytest.raises(ValueError):
            int(name)


STORE = new_store()
hosted(STORE)
OPERATIONS: dict[str, Callable[[str], object]] = {
    "create_scope": lambda name: STORE.create_scope(name, ScopeConfig()),
    "scope": lambda name: STORE.scope(f"{name}x"),
    "accept_load": lambda name: STORE.accept_load(request(name)),
    "accept_load label": lambda name: STORE.accept_load(request(labels=(name,))),
    "accept_load scope": lambda name: STORE.accept_load(request(scope=f"{name}x")),
    "begin_unload": lambda name: STORE.begin_unload(UnloadRequest("", name, all_versions=True)),
    "begin_unload label": lambda name: STORE.begin_unload(UnloadRequest("", "m", label=f"{name}/")),
    "acquire": lambda name: STORE.acquire("", name),
    "acquire label": lambda name: STORE.acquire("", "m", label=f"{name}/"),
    "model": lambda name: STORE.model("", name),
    "models": lambda name: STORE.models(f"{name}x"),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@given(name=bad_names)
def test_no_operation_takes_a_bad_name_or_repeats_it_at_length(operation: str, name: str) -> None:
    revision = STORE.events.revision
    with pytest.raises(ModelhostError) as caught:
        OPERATIONS[operation](name)
    assert caught.value.reason in (Reason.INVALID_NAME, Reason.SCOPE_NOT_FOUND)
    assert len(caught.value.message) < LONGEST_MESSAGE
    assert all(len(value) < LONGEST_MESSAGE for value in caught.value.details.values())
    assert STORE.events.revision == revision
    assert len(STORE.all_scopes()) == 1


@given(good_names, good_names, st.integers(1, 2**63 - 1))
def test_resources_can_be_taken_apart_again(scope: str, model: str, version: int) -> None:
    assert scope_resource(scope).split("/") == ["scopes", scope]
    assert model_resource(scope, model).split("/") == ["scopes", scope, "models", model]
    assert version_resource(scope, model, version).split("/")[4:] == ["versions", str(version)]
