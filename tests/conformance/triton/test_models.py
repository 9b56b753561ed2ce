"""What the server says of itself and its models."""

from __future__ import annotations

import asyncio
import signal
import time

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.grpc import aio as asynchronous
from tritonclient.utils import InferenceServerException


def ask_simple(client, count=1):
    inputs = [InferInput(name, [count, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for tensor in inputs:
        tensor.set_data_from_numpy(np.ones([count, 16], np.int32))
    return client.infer("simple", inputs)


def test_the_server_is_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()


def test_the_server_tells_its_name_and_extensions(client):
    metadata = client.get_server_metadata()
    assert metadata.name == "modelhost"
    assert metadata.version
    assert {"classification", "statistics", "model_configuration"} <= set(metadata.extensions)
    assert "sequence" not in metadata.extensions


def test_a_server_that_drains_is_not_ready_and_has_the_name_it_is_given(start_server):
    server = start_server("--server-name", "triton")
    with InferenceServerClient(server.address) as client:
        assert client.get_server_metadata().name == "triton"
        assert client.is_server_ready()
        server.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 10
        while client.is_server_ready():
            assert time.monotonic() < end


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("simple", "", True), ("simple", "1", True), ("simple", "2", True), ("simple", "stable", True),
        ("team/simple", "", True), ("default/simple", "", True), ("simple", "3", False), ("simple", "0", False),
        ("nothing", "", False), ("nowhere/simple", "", False), ("", "", False),
    ],
)  # fmt: skip
def test_models_that_serve_are_ready(client, name, version, ready):
    assert client.is_model_ready(name, version) is ready


def test_metadata_has_the_batch_dimension(client):
    metadata = client.get_model_metadata("simple")
    assert (metadata.name, list(metadata.versions)) == ("simple", ["1", "2"])
    assert metadata.platform == "tensorflow_savedmodel"
    described = [(t.name, t.datatype, list(t.shape)) for t in (*metadata.inputs, *metadata.outputs)]
    assert described == [(name, "INT32", [-1, 16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]


def test_the_configuration_of_a_model_that_batches_is_without_that_dimension(client):
    config = client.get_model_config("simple").config
    assert config.max_batch_size > 0
    assert config.HasField("dynamic_batching")
    assert [(t.name, list(t.dims)) for t in (*config.input, *config.output)] == [
        (name, [16]) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")
    ]
    assert (config.name, config.platform, config.backend) == ("simple", "tensorflow_savedmodel", "tensorflow")
    assert list(config.version_policy.specific.versions) == [1, 2]


def test_the_configuration_tells_how_a_model_batches(client):
    config = client.get_model_config("half").config
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1


def test_the_configuration_of_a_model_that_does_not_batch_is_whole(client):
    config = client.get_model_config("identity_string", as_json=True)["config"]
    assert "max_batch_size" not in config
    assert config["input"][0] == {"name": "INPUT0", "data_type": "TYPE_STRING", "dims": ["-1"]}


def test_statistics_count_examples_and_runs(client):
    ask_simple(client)
    (before,) = client.get_inference_statistics("simple", "2").model_stats
    ask_simple(client, 3)
    with pytest.raises(InferenceServerException):
        client.infer("simple", [InferInput("INPUT0", [1, 16], "INT32")])
    (after,) = client.get_inference_statistics("simple", "2").model_stats
    assert (after.name, after.version) == ("simple", "2")
    assert after.inference_count == before.inference_count + 3
    assert after.execution_count == before.execution_count + 1
    stats = after.inference_stats
    assert stats.success.count == before.inference_stats.success.count + 1
    assert stats.success.ns == stats.queue.ns + stats.compute_infer.ns > before.inference_stats.success.ns
    assert before.last_inference <= after.last_inference <= time.time() * 1000
    assert [usage.type for usage in after.memory_usage] == ["CPU"]


def test_statistics_of_all_models_are_there_by_no_name(client):
    named = {(stats.name, stats.version) for stats in client.get_inference_statistics().model_stats}
    assert {("simple", "1"), ("simple", "2"), ("team/simple", "1"), ("identity_int8", "1")} <= named
    of_simple = {stats.version for stats in client.get_inference_statistics("simple").model_stats}
    assert of_simple == {"1", "2"}


@pytest.mark.parametrize("ask", ["get_model_metadata", "get_model_config"])
@pytest.mark.parametrize(
    ("name", "version", "code", "message"),
    [
        ("nothing", "", "NOT_FOUND", "Request for unknown model: 'nothing' is not found"),
        ("nothing", "1", "NOT_FOUND", "Request for unknown model: 'nothing' is not found"),
        ("simple", "9", "NOT_FOUND", "Request for unknown model: 'simple' version 9 is not found"),
        ("simple", "0", "NOT_FOUND", "Request for unknown model: 'simple' version 0 is not found"),
        ("simple", "-1", "INVALID_ARGUMENT",
         "invalid model version specified '-1' , version should be an integral value > 0"),
        ("simple", "newest", "INVALID_ARGUMENT",
         "failed to get model version from specified version string 'newest' (details: stol), version should be an "
         "integral value > 0"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_in_tritons_words(client, ask, name, version, code, message):
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, ask)(name, version)
    assert (caught.value.status(), caught.value.message()) == (f"StatusCode.{code}", message)


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nothing", "", "requested model 'nothing' is not available"),
        ("simple", "9", "requested model version is not available for model 'simple'"),
    ],
)
def test_statistics_of_what_is_not_there(client, name, version, message):
    with pytest.raises(InferenceServerException) as caught:
        client.get_inference_statistics(name, version)
    assert (caught.value.status(), caught.value.message()) == ("StatusCode.INVALID_ARGUMENT", message)


def test_the_asynchronous_client_is_told_the_same(hosted, client):
    async def ask():
        async with asynchronous.InferenceServerClient(hosted.address) as other:
            return (
                await other.is_server_live(), await other.is_server_ready(), await other.is_model_ready("nothing"),
                await other.get_model_metadata("simple"), await other.get_model_config("simple"),
                await other.get_server_metadata(),
            )  # fmt: skip

    live, ready, unknown, metadata, config, server = asyncio.run(ask())
    assert (live, ready, unknown) == (True, True, False)
    assert metadata == client.get_model_metadata("simple")
    assert config == client.get_model_config("simple")
    assert server == client.get_server_metadata()
