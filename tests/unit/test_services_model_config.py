"""TensorFlow Serving's configs: what they mean here, and what is refused, in whose words."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from modelhost_server.compat import serving_model_config_pb2 as pb
from modelhost_server.errors import Code, ForeignError, ModelhostError, Reason
from modelhost_server.repositories.model_directory import ModelDirectory
from modelhost_server.repositories.policy import All, Latest, Specific, VersionPolicy
from modelhost_server.services.tensorflow_serving.config_file import read_config_file
from modelhost_server.services.tensorflow_serving.model_config import check_labels, directories, one_model
from modelhost_server.store.store import Store

GOOD = 'name: "m" base_path: "/m" model_platform: "tensorflow"'


def read(*models: str) -> list[ModelDirectory]:
    text = " ".join(f"config {{ {model} }}" for model in models)
    return directories(text_format.Parse(text, pb.ModelConfigList()))


def test_a_model_is_followed_in_the_default_scope() -> None:
    assert read(GOOD) == [ModelDirectory("default", "m", "/m")]


def test_a_name_with_a_slash_names_a_scope() -> None:
    (directory,) = read('name: "team/m" base_path: "file:///models/a%20b" model_type: TENSORFLOW')
    assert (directory.scope, directory.model, directory.base_path) == ("team", "m", "/models/a b")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", Latest(1)),
        ("model_version_policy {}", Latest(1)),
        ("model_version_policy { latest { num_versions: 3 } }", Latest(3)),
        ("model_version_policy { all {} }", All()),
        ("model_version_policy { specific { versions: 1 versions: 4 } }", Specific(frozenset({1, 4}))),
    ],
)
def test_a_policy_is_read(text: str, policy: VersionPolicy) -> None:
    (directory,) = read(f"{GOOD} {text}")
    assert directory.policy == policy


def test_labels_are_read() -> None:
    (directory,) = read(f"{GOOD} version_labels {{ key: 'stable' value: 3 }}")
    assert directory.labels == {"stable": 3}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ('name: "m" base_path: "m" model_platform: "tensorflow"',
         "Expected model m to have an absolute path or URI; got base_path()=m"),
        ('name: "m" model_platform: "tensorflow"',
         "Expected model m to have an absolute path or URI; got base_path()="),
        ('name: "m" base_path: "gs://b/m" model_platform: "tensorflow"',
         "Model m: base_path: source: expected an absolute path or a file: URI; got the scheme 'gs'"),
        ('name: "m" base_path: "/m"',
         "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform."),
        ('name: "m" base_path: "/m" model_platform: "tensorflow" model_type: TENSORFLOW',
         "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."),
        ('name: "m" base_path: "/m" model_platform: "onnx"', "Model m requests unsupported platform onnx"),
        ('name: "m" base_path: "/m" model_type: OTHER', "ModelServerConfig::model_type choice 2 not supported."),
    ],
)  # fmt: skip
def test_what_is_not_right_is_refused_in_upstreams_words(model: str, message: str) -> None:
    with pytest.raises(ForeignError) as failure:
        read(model)
    assert (failure.value.code, failure.value.message) == (Code.INVALID_ARGUMENT, message)


def test_a_name_is_listed_once() -> None:
    with pytest.raises(ForeignError, match="Illegal to list model m multiple times in config list"):
        read(GOOD, GOOD)
    with pytest.raises(ForeignError, match="Illegal to list model default/m multiple times in config list"):
        read(GOOD, GOOD.replace('name: "m"', 'name: "default/m"'))


@pytest.mark.parametrize(
    "model",
    [
        'base_path: "/m" model_platform: "tensorflow"',
        'name: "a/b/c" base_path: "/m" model_platform: "tensorflow"',
        'name: "/m" base_path: "/m" model_platform: "tensorflow"',
        f"{GOOD} version_labels {{ key: '1' value: 3 }}",
    ],
)
def test_names_are_checked_by_our_rules(model: str) -> None:
    with pytest.raises(ModelhostError) as failure:
        read(model)
    assert failure.value.reason is Reason.INVALID_NAME


def test_a_label_waits_for_no_version_unless_it_may() -> None:
    (directory,) = read(f"{GOOD} version_labels {{ key: 'stable' value: 3 }}")
    check_labels([directory], Store(), allow_unavailable=True)
    with pytest.raises(ForeignError) as failure:
        check_labels([directory], Store(), allow_unavailable=False)
    assert failure.value.code is Code.FAILED_PRECONDITION
    assert failure.value.message == (
        "Request to assign label to version 3 of model m, which is not currently available for inference"
    )


def test_a_file_is_read_with_what_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(
        """# Several models.
        model_config_list: {
          config: {
            name: "a", base_path: "/a", model_platform: "tensorflow",
            logging_config { sampling_config { sampling_rate: 0.1 } }
            a_field_of_tomorrow { x: 1 }
          },
          config { name: 'b' base_path: '/b' model_platform: 'tensorflow' }
        }"""
    )
    assert [directory.model for directory in read_config_file(file)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model_config_list {", "models.config: 1:19 : Expected"),
        (b"\xff\xfe", "models.config: 'utf-8' codec"),
        (b"model_config_list { config { name: 'a' base_path: 'a' } }", "models.config: Expected model a to have an"),
        (b"unknown {" * 5000, "models.config: maximum recursion depth exceeded"),
        (b"custom_model_config {}", "models.config: custom_model_config: expected a model_config_list"),
    ],
)
def test_a_file_that_is_not_right_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "models.config"
    file.write_bytes(content)
    with pytest.raises(ModelhostError) as failure:
        read_config_file(file)
    assert message in failure.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelhostError, match="nothing: No such file or directory"):
        read_config_file(tmp_path / "nothing")


def test_one_model_may_be_given_by_a_relative_path() -> None:
    assert one_model("m", Path("models/m")).base_path == str(Path.cwd() / "models" / "m")
