"""What a model's config.pbtxt says of pictures and classes, as Triton's example clients for pictures use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

NAME, OUTPUT = "densenet_onnx", "InceptionV3/Predictions/Softmax"
CONFIG = """
max_batch_size: 8
input { name: "input" data_type: TYPE_FP32 format: FORMAT_NHWC dims: [299, 299, 3] }
output { name: "InceptionV3/Predictions/Softmax" data_type: TYPE_FP32 dims: [10] label_filename: "labels.txt" }
"""


@pytest.fixture(scope="module")
def repository(built: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of one classifier of pictures."""
    repository = tmp_path_factory.mktemp("repository")
    (repository / NAME / "1").mkdir(parents=True)
    (repository / NAME / "1" / "model.savedmodel").symlink_to(built("build_foreign") / NAME)
    (repository / NAME / "config.pbtxt").write_text(CONFIG)
    # Of ten classes, nine have a label.
    (repository / NAME / "labels.txt").write_text("".join(f"colour {number}\n" for number in range(9)))
    return repository


@pytest.fixture(scope="module")
def client(start_server: Callable[..., Any], repository: Path) -> Any:
    server = start_server("--model-repository", str(repository), "--model-control-mode", "explicit")
    client = grpcclient.InferenceServerClient(server.address)
    client.load_model(NAME)
    return client


def classes(client: Any) -> list[list[bytes]]:
    """The classes of two pictures, a red one and a blue one."""
    pictures = np.zeros((2, 299, 299, 3), np.float32)
    pictures[0, ..., 0] = pictures[1, ..., 2] = 5
    pixels = grpcclient.InferInput("input", pictures.shape, "FP32").set_data_from_numpy(pictures)
    output = grpcclient.InferRequestedOutput(OUTPUT, class_count=2)
    return [
        [element.split(b":", 1)[1] for element in row]
        for row in client.infer(NAME, [pixels], outputs=[output]).as_numpy(OUTPUT)
    ]


def test_the_configuration_tells_the_format_and_where_the_labels_are(client):
    config = client.get_model_config(NAME).config
    assert config.input[0].format == grpcclient.model_config_pb2.ModelInput.FORMAT_NHWC
    assert list(config.input[0].dims) == [299, 299, 3]
    assert (config.max_batch_size, config.output[0].label_filename) == (8, "labels.txt")


def test_classes_have_labels_as_far_as_there_are_any(client):
    assert classes(client) == [[b"1:colour 1", b"3:colour 3"], [b"9", b"8:colour 8"]]


def test_a_changed_description_is_in_force_after_a_load(client, repository):
    config = (repository / NAME / "config.pbtxt").read_text()
    (repository / NAME / "config.pbtxt").write_text(config.replace("NHWC", "NCHW"))
    (repository / NAME / "labels.txt").write_text("a\nred\n")
    client.load_model(NAME)
    assert client.get_model_config(NAME).config.input[0].format == grpcclient.model_config_pb2.ModelInput.FORMAT_NCHW
    assert classes(client)[0] == [b"1:red", b"3"]


@pytest.mark.parametrize("file", ["../labels.txt", "nowhere.txt"])
def test_labels_that_cannot_be_read_fail_the_load(client, repository, file):
    config = CONFIG.replace("labels.txt", file)
    (repository / NAME / "config.pbtxt").write_text(config)
    with pytest.raises(InferenceServerException, match=f"failed to load '{NAME}'"):
        client.load_model(NAME)
    assert client.is_model_ready(NAME)
