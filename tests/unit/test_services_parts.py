"""Messages of many small parts, which would take much memory and time once they are parsed."""

from __future__ import annotations

import pytest
from modelhost.v1 import model_service_pb2, prediction_service_pb2, tensor_pb2
from modelhost_server.compat import serving_predict_pb2
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.services.native import wire
from modelhost_server.services.open_inference.wire import read_request as read_infer
from modelhost_server.services.tensorflow_serving.wire import read_request as read_serving
from modelhost_server.services.wire_format import check_parts

SIZE = 32 << 20


def field(number: int, content: bytes) -> bytes:
    size = len(content)
    encoded = bytearray()
    while size > 127:
        encoded.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes([*encoded, size]) + content


@pytest.mark.parametrize(
    "message",
    [
        # Empty loads; empty requests of a stream; one load with empty samples.
        (model_service_pb2.LoadModelsRequest, field(1, b"") * (SIZE // 2)),
        (prediction_service_pb2.PredictStreamRequest, field(1, b"") * (SIZE // 2)),
        (model_service_pb2.LoadModelsRequest, field(1, field(10, b"") * (SIZE // 2))),
    ],
)
def test_parts_that_are_messages_are_counted(message: tuple[type, bytes]) -> None:
    kind, data = message
    with pytest.raises(ModelhostError, match="too many parts") as refused:
        check_parts(data, kind.DESCRIPTOR)  # type: ignore[attr-defined]
    assert refused.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("read", [wire.read_request, read_infer, read_serving])
def test_predictions_of_many_small_parts_are_refused(read: object) -> None:
    # Field 3 is one of each of them; 15 is none.
    for number in (3, 15):
        with pytest.raises(ModelhostError, match="too many parts"):
            read(field(number, b"") * (SIZE // 2))  # type: ignore[operator]


def test_shapes_that_never_end_are_refused_by_their_rank() -> None:
    tensor = field(2, b"\x01" * (4 << 20)) + field(3, b"")
    data = field(6, field(1, b"x") + field(2, b"\x08\x01" + tensor))
    (read,) = wire.read_request(data).inputs.values()
    assert len(read.shape) == 4 << 20


def test_large_messages_of_what_callers_send_are_taken() -> None:
    strings = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_STRING, shape=[300_000])
    strings.strings.values.extend([b"word"] * 300_000)
    request = prediction_service_pb2.PredictRequest(model="m", inputs={"words": strings})
    stream = prediction_service_pb2.PredictStreamRequest()
    stream.requests.add(request=request)
    check_parts(stream.SerializeToString(), stream.DESCRIPTOR)
    assert len(wire.read_request(request.SerializeToString()).inputs["words"].data) == 300_000
    numbers = serving_predict_pb2.PredictRequest()
    numbers.inputs["x"].dtype = 1
    numbers.inputs["x"].float_val.extend([0.5] * 200_000)
    assert read_serving(numbers.SerializeToString()).inputs
