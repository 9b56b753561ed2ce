"""The models that engines are compared on, and made-up inputs for each. `zoo_build` builds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from modelhost.v1.prediction_service_pb2 import PredictRequest
from modelhost.v1.tensor_pb2 import DATA_TYPE_STRING, DataType, StringValues, Tensor

from examples.hear_notes import HOP_SAMPLES, SAMPLE_RATE, Note, fetch_model, play, windows

from .building import built
from .inputs import deep_inputs, pictures, series, tokens

Inputs = dict[str, np.ndarray]


class Subject(NamedTuple):
    """A model that is looked at.

    Attributes:
        make: so many examples, made up.
        needs_session: `tf.saved_model.load` cannot load it.
    """

    name: str
    make: Callable[[np.random.Generator, int], Inputs]
    needs_session: bool = False

    @property
    def path(self) -> Path:
        """Its SavedModel."""
        return fetch_model() if self.name == BASIC_PITCH else _built(self.name) / "model"


class HeldOut(NamedTuple):
    """Images that a model was not trained on, and what they are."""

    images: np.ndarray
    digits: np.ndarray


BASIC_PITCH, DIGITS, MOBILENET = "basic_pitch", "digits_cnn", "mobilenet_v2"


def held_out() -> HeldOut:
    """What `digits_cnn` is tested with."""
    with np.load(_built(DIGITS) / "held_out.npz") as arrays:
        return HeldOut(arrays["images"], arrays["digits"])


def _built(name: str) -> Path:
    return built("benchmarks.common.zoo_build", name, also=["benchmarks.common.inputs"])


def _audio(random: np.random.Generator, count: int) -> Inputs:
    seconds = count * HOP_SAMPLES / SAMPLE_RATE
    starts = np.arange(0.1, seconds, 0.4)
    melody = [Note(int(random.integers(40, 90)), start, start + 0.35) for start in starts]
    return {"input_2": windows(play(melody))[:count]}


def _digits(random: np.random.Generator, count: int) -> Inputs:
    images = held_out().images
    return {"x": images[random.integers(len(images), size=count)]}


SUBJECTS = (
    Subject(BASIC_PITCH, _audio, needs_session=True),
    Subject(DIGITS, _digits),
    Subject(MOBILENET, lambda random, count: {"x": pictures(random, count)}),
    Subject("efficientnet_b0", lambda random, count: {"x": pictures(random, count, brightest=255)}),
    Subject("resnet50", lambda random, count: {"x": pictures(random, count)}),
    Subject("transformer", lambda random, count: {"x": tokens(random, count)}),
    Subject("lstm", lambda random, count: {"x": series(random, count)}),
    Subject("wide_and_deep", deep_inputs),
)


def predict_request(scope: str, model: str, inputs: Inputs) -> PredictRequest:
    """A Predict request with these inputs."""
    return PredictRequest(scope=scope, model=model, inputs={name: _tensor(array) for name, array in inputs.items()})


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind == "S":
        return Tensor(dtype=DATA_TYPE_STRING, shape=array.shape, strings=StringValues(values=array.ravel().tolist()))
    number = DataType.Value(f"DATA_TYPE_{array.dtype.name.upper()}")
    return Tensor(dtype=number, shape=array.shape, raw=array.tobytes())
