"""Warm-up records that TensorFlow itself wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from modelhost_server.engines.warmup import WARMUP_FILE, read_warmup_requests
from modelhost_server.samples import Sample, read_samples
from modelhost_server.tensors import DTYPE_NAME

# Writes one record for each dtype, and beside it, as samples, the bytes that numpy has for the same values.
_WRITER = """
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from modelhost_server.compat import prediction_log_pb2 as pb
from modelhost_server.samples import Sample, write_samples
from modelhost_server.tensors import DTYPE_NAME, RawTensor

directory = Path(sys.argv[1])
samples = []
with tf.io.TFRecordWriter(sys.argv[2]) as writer:
    for number, name in DTYPE_NAME.items():
        dtype = tf.as_dtype(number)
        assert dtype.name == name
        if name == "string":
            arrays = {key: np.array(value, object) for key, value in
                      {"scalar": b"\\xff\\0", "many": [[b"a", b"", b"c" * 300]], "none": []}.items()}
        else:
            values = np.array([0, 1, 100]).astype(dtype.as_numpy_dtype)
            if dtype.is_floating or dtype.is_complex:
                values[1:] = [-np.inf, 1 / 3]
            arrays = {"scalar": values[2], "many": values[None], "same": np.full([3, 2], values[2]), "none": values[:0]}
        protos = {key: tf.make_tensor_proto(value, number, value.shape) for key, value in arrays.items()}
        if name != "string":
            # One value for all elements, as constants have it; and as operations write tensors.
            protos["same"] = tf.make_tensor_proto(values[2], number, [3, 2])
            arrays["operation"] = arrays["many"]
            content = tf.io.serialize_tensor(tf.constant(arrays["many"])).numpy()
            protos["operation"] = type(protos["many"]).FromString(content)
        request = pb.PredictRequest(model_spec=pb.ModelSpec(signature_name=name))
        for key, proto in protos.items():
            request.inputs[key].ParseFromString(proto.SerializeToString())
        writer.write(pb.PredictionLog(predict_log=pb.PredictLog(request=request)).SerializeToString())
        expected = {
            key: RawTensor(number, value.shape, list(value.flat) if name == "string" else value.tobytes())
            for key, value in arrays.items()
        }
        samples.append(Sample(name, expected))
write_samples(directory / "expected", samples)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("records")
    file = directory / WARMUP_FILE
    file.parent.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", _WRITER, str(directory), str(file)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return directory


def test_every_dtype(written: Path) -> None:
    expected = read_samples(written / "expected")
    assert [sample.signature for sample in expected] == list(DTYPE_NAME.values())
    for got, want in zip(read_warmup_requests(str(written)), expected, strict=True):
        assert isinstance(got, Sample), got
        assert got == want, want.signature


def test_values_are_what_was_meant(written: Path) -> None:
    """One of them spelt out, so that the comparison above is one of values."""
    (got,) = [s for s in read_warmup_requests(str(written)) if isinstance(s, Sample) and s.signature == "float16"]
    assert np.frombuffer(got.inputs["many"].data, np.float16).tolist() == [0, -np.inf, np.float16(1 / 3)]
    assert np.frombuffer(got.inputs["same"].data, np.float16).tolist() == [np.float16(1 / 3)] * 6
