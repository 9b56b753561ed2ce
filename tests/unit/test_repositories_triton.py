"""Triton's descriptions and directories of models: what they say, and what of it takes effect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from modelhost_server.compat.model_config_pb2 import ModelConfig
from modelhost_server.errors import Code, ForeignError, ModelhostError
from modelhost_server.repositories.overrides import Overrides, checked_names, remove
from modelhost_server.repositories.policy import All, Latest, Specific, policy_of
from modelhost_server.repositories.triton_config import (
    batching_options,
    check_config,
    load_options,
    read_json,
    read_text,
)
from modelhost_server.repositories.triton_layout import model_names, read_directory
from modelhost_server.repositories.triton_signature import check_signature
from modelhost_server.store.records import BatchingOptions, Loaded
from modelhost_server.tensors import SignatureSpec, TensorSpec

FLOAT, INT = 1, 3


def config(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def loaded(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> Loaded:
    return Loaded("tensorflow", "", (SignatureSpec("serving_default", inputs, outputs),), (), 0, 0, 0, 0, (0, 0, ""))


# Descriptions


def test_what_a_newer_triton_has_besides_is_passed_over() -> None:
    assert read_text('name: "m" brand_new { a: 1 b: "x" }').name == "m"
    assert read_json('{"name": "m", "brand_new": {"a": 1}}').name == "m"


@pytest.mark.parametrize("text", ["name: ", "{", "name: 3", "\0", "input { data_type: 99999999999 }"])
def test_text_that_is_no_description(text: str) -> None:
    with pytest.raises(ForeignError):
        read_text(text)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"name": 3}', "[" * 100_000, '{"max_batch_size": 1e99}'])
def test_json_that_is_no_description(text: str) -> None:
    with pytest.raises(ForeignError) as caught:
        read_json(text)
    assert caught.value.message.startswith("Invalid config override: ")


@pytest.mark.parametrize(
    "text",
    [
        "", 'name: "m"', 'platform: "tensorflow_savedmodel"', 'backend: "tensorflow"', 'default_model_filename: "x"',
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: [4, 8] }",
        'parameters { key: "TF_SIGNATURE_DEF" value { string_value: "serving_default" } }',
    ],
)  # fmt: skip
def test_descriptions_of_models_that_can_be_served(text: str) -> None:
    check_config("m", config(text))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('name: "n"', Code.INVALID_ARGUMENT),
        ('platform: "tensorflow_graphdef"', Code.UNIMPLEMENTED),
        ('backend: "python"', Code.UNIMPLEMENTED),
        ("sequence_batching {}", Code.UNIMPLEMENTED),
        ("ensemble_scheduling {}", Code.UNIMPLEMENTED),
        ("model_transaction_policy { decoupled: true }", Code.UNIMPLEMENTED),
        ('parameters { key: "TF_SIGNATURE_DEF" value { string_value: "other" } }', Code.UNIMPLEMENTED),
        ('default_model_filename: "../other"', Code.INVALID_ARGUMENT),
        ('default_model_filename: ".."', Code.INVALID_ARGUMENT),
        ('input { name: "x" format: 99 }', Code.INVALID_ARGUMENT),
        ("max_batch_size: -1", Code.INVALID_ARGUMENT),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }", Code.INVALID_ARGUMENT),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 0 }", Code.INVALID_ARGUMENT),
    ],
)
def test_descriptions_that_are_refused(text: str, code: Code) -> None:
    with pytest.raises(ForeignError) as caught:
        check_config("m", config(text))
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", Latest(1)),
        ("version_policy { latest {} }", Latest(1)),
        ("version_policy { latest { num_versions: 2 } }", Latest(2)),
        ("version_policy { all {} }", All()),
        ("version_policy { specific { versions: [1, 4] } }", Specific(frozenset({1, 4}))),
    ],
)
def test_version_policies(text: str, policy: Any) -> None:
    assert policy_of(config(text).version_policy) == policy


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", BatchingOptions()),
        ("max_batch_size: 8", BatchingOptions(max_batch_size=8)),
        ("max_batch_size: 1 dynamic_batching {}", BatchingOptions(max_batch_size=1)),
        ("max_batch_size: 8 dynamic_batching {}", BatchingOptions("ON", 8)),
        (
            "max_batch_size: 8 dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 1500 "
            "default_queue_policy { max_queue_size: 50 default_timeout_microseconds: 2000000 } }",
            BatchingOptions("ON", 8, 0.0015, max_queue=50, queue_timeout=2.0),
        ),
        (
            "max_batch_size: 8 dynamic_batching { default_queue_policy { timeout_action: DELAY "
            "default_timeout_microseconds: 9 } max_queue_delay_microseconds: 18446744073709551615 }",
            BatchingOptions("ON", 8, 3600.0),
        ),
    ],
)
def test_batching(text: str, options: BatchingOptions) -> None:
    assert batching_options(config(text)) == options


def test_tags() -> None:
    assert load_options(config('parameters { key: "TF_GRAPH_TAG" value { string_value: "t" } }')).tags == ("t",)


# Inputs and outputs

X = TensorSpec("x", FLOAT, (-1, 16))
Y = TensorSpec("y", INT, (4,))
OPTIONAL = TensorSpec("o", FLOAT, (), optional=True)


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("", (X, Y)),
        ('input { name: "x" data_type: TYPE_FP32 dims: [-1, 16] }', (X,)),
        ('max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: [16] }', (X,)),
        ('input { name: "x" data_type: TYPE_FP32 dims: [7, 16] }', (X, OPTIONAL)),
        ('input { name: "x" data_type: TYPE_FP32 dims: [1] reshape { shape: [1, 16] } }', (X,)),
        ('input { name: "x" data_type: TYPE_FP32 dims: [3] }', (TensorSpec("x", FLOAT, None),)),
    ],
)
def test_descriptions_that_fit(text: str, inputs: tuple[TensorSpec, ...]) -> None:
    check_signature("m", config(text), loaded(*inputs, outputs=(Y,)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'input { name: "x" } input { name: "z" }',
            "unable to load model 'm', configuration expects 2 inputs, model provides 1",
        ),
        ('input { name: "z" }', "unexpected inference input 'z', allowed inputs are: x"),
        ('output { name: "z" }', "unexpected inference output 'z', allowed outputs are: y"),
        (
            'input { name: "x" data_type: TYPE_INT32 dims: [1, 16] }',
            "unable to load model 'm', input 'x' data-type TYPE_FP32 doesn't match configuration data-type TYPE_INT32",
        ),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: [16] }',
            "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,16]) but the model configuration "
            "specifies 1 dimensions (shape [16])",
        ),
        (
            'max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: [8] }',
            "model 'm', tensor 'x': the model expects 2 dimensions (shape [-1,16]) but the model configuration "
            "specifies 2 dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit "
            "tensor shape, making complete shape [-1,8])",
        ),
        (
            'max_batch_size: 2 output { name: "y" data_type: TYPE_INT32 dims: [] }',
            "model 'm', tensor 'y': for the model to support batching the shape should have at least 1 dimension and "
            "the first dimension must be -1; but shape expected by the model is [4]",
        ),
    ],
)
def test_descriptions_of_another_model(text: str, message: str) -> None:
    with pytest.raises(ModelhostError) as caught:
        check_signature("m", config(text), loaded(X, outputs=(Y,)))
    assert caught.value.message == message


# Directories


def test_what_a_directory_says(tmp_path: Path) -> None:
    for name in ("m/1/model.savedmodel", "m/2/model.savedmodel", "m/x/model.savedmodel", "bare/7", ".hidden/1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").write_bytes(b"x")
    (tmp_path / "file").touch()
    assert model_names(tmp_path) == ["bare", "m"]
    found = read_directory("m", tmp_path / "m")
    assert found.paths == {2: str(tmp_path / "m/2/model.savedmodel")}
    assert [name for name, *_ in found.looks[2].fingerprint] == ["saved_model.pb"]
    assert read_directory("bare", tmp_path / "bare").paths == {7: str(tmp_path / "bare/7")}
    (tmp_path / "m" / "config.pbtxt").write_text('version_policy { all {} } default_model_filename: "other"')
    assert read_directory("m", tmp_path / "m").paths == {n: str(tmp_path / f"m/{n}/other") for n in (1, 2)}
    # A description in the request takes the place of the directory's.
    given = config("version_policy { specific { versions: 1 } }")
    assert read_directory("m", tmp_path / "m", given).paths == {1: str(tmp_path / "m/1/model.savedmodel")}


@pytest.mark.parametrize("content", [b"\xff", b"name: ", b'name: "n"'])
def test_directories_that_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "config.pbtxt").write_bytes(content)
    with pytest.raises(ForeignError):
        read_directory("m", tmp_path)


def test_a_directory_without_a_version(tmp_path: Path) -> None:
    with pytest.raises(ForeignError) as caught:
        read_directory("m", tmp_path)
    assert "at least one version must be available" in caught.value.message


def test_names_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    for name in (b"a", b"b\xff", b".c"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    assert model_names(tmp_path) == ["a"]


# Files in requests


def test_files_are_written_each_time_and_go(tmp_path: Path) -> None:
    overrides = Overrides(tmp_path / "overrides")
    files = checked_names({"file:1/a/b": b"content", "file:c": b""})
    first, second = overrides.write(files), overrides.write(files)
    assert first != second
    assert (first / "1/a/b").read_bytes() == b"content"
    assert overrides.directory_of(str(first / "1" / "a")) == first
    assert overrides.directory_of(str(tmp_path / "other")) is None
    remove(first)
    assert list((tmp_path / "overrides").iterdir()) == [second]


@pytest.mark.parametrize(
    "paths",
    [
        ["/etc/passwd"], ["../x"], [".."], ["."], [""], ["a/../../x"], ["a\0b"], ["a", "./a"], ["a", "a/b"], ["a/"],
        ["x" * 256], ["a/" * 600 + "b"], ["a/" * 64 + "b"], ["a", "a-", "a/b/c"],
    ],
)  # fmt: skip
def test_files_that_are_refused(paths: list[str]) -> None:
    with pytest.raises(ForeignError) as caught:
        checked_names({f"file:{path}": b"" for path in paths})
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert len(caught.value.message) < 2000


def test_paths_are_made_plain() -> None:
    assert checked_names({"file:1//a/./b/../c": b"x"}) == {"1/a/c": b"x"}
