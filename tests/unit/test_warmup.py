"""Warm-up records and TensorFlow's tensor message, from bytes written by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from modelhost_server.compat import saved_model_pb2 as pb
from modelhost_server.engines.warmup import WARMUP_FILE, read_warmup_requests
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.samples import Sample
from modelhost_server.tensor_values import raw_tensor
from modelhost_server.tensors import RawTensor


def varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    """A protobuf field: bytes with their length, or a varint."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(dtype: int, shape: list[int], *fields: bytes) -> bytes:
    dims = b"".join(field(2, field(1, extent)) for extent in shape)
    return field(1, dtype) + field(2, dims) + b"".join(fields)


def predict_log(inputs: dict[str, bytes], signature: str = "") -> bytes:
    spec = field(1, field(1, b"model") + field(3, signature.encode()))
    entries = b"".join(field(2, field(1, name.encode()) + field(2, value)) for name, value in inputs.items())
    return field(6, field(1, spec + entries))


def checksum(data: bytes) -> int:
    """CRC-32C bit by bit, masked as TFRecord has it."""
    crc = 0xFFFFFFFF
    for bit in (byte >> i & 1 for byte in data for i in range(8)):
        crc = crc >> 1 ^ (0x82F63B78 if (crc ^ bit) & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def record(data: bytes) -> bytes:
    size = struct.pack("<Q", len(data))
    return size + struct.pack("<I", checksum(size)) + data + struct.pack("<I", checksum(data))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / WARMUP_FILE).parent.mkdir()
    return tmp_path


ONES = tensor(1, [2], field(5, struct.pack("<2f", 1, 1)))


def test_checksum_is_crc32c() -> None:
    """The known answer of CRC-32C, so that the records below are right."""
    assert checksum(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_reads_records_in_order(model: Path) -> None:
    first = predict_log({"x": ONES, "y": tensor(9, [], field(10, b"\x05"))})
    (model / WARMUP_FILE).write_bytes(record(first) + record(predict_log({"x": ONES}, "other")))
    assert read_warmup_requests(str(model)) == [
        Sample("", {"x": RawTensor(1, (2,), struct.pack("<2f", 1, 1)), "y": RawTensor(9, (), struct.pack("<q", 5))}),
        Sample("other", {"x": RawTensor(1, (2,), struct.pack("<2f", 1, 1))}),
    ]


def test_without_records(tmp_path: Path) -> None:
    assert read_warmup_requests(str(tmp_path)) == []
    assert read_warmup_requests(str(tmp_path / "nowhere")) == []
    (tmp_path / "model.tflite").touch()
    assert read_warmup_requests(str(tmp_path / "model.tflite")) == []


def test_no_more_than_a_thousand(model: Path) -> None:
    (model / WARMUP_FILE).write_bytes(record(predict_log({"x": ONES})) * 1000 + b"what follows is not read")
    assert len(read_warmup_requests(str(model))) == 1000


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (field(2, b""), Reason.UNSUPPORTED, "record 2 is a classify_log: only predict_log can be run"),
        (field(3, field(1, b"")), Reason.UNSUPPORTED, "record 2 is a regress_log"),
        (field(4, b""), Reason.UNSUPPORTED, "record 2 is a multi_inference_log"),
        (field(5, b""), Reason.UNSUPPORTED, "record 2 is a session_run_log"),
        (field(7, b""), Reason.UNSUPPORTED, "record 2 is a predict_streamed_log"),
        (b"", Reason.UNSUPPORTED, "record 2 is empty"),
        (b"\xff\xff\xff", Reason.SOURCE_INVALID, "record 2 is not a PredictionLog"),
        (
            predict_log({"x": tensor(1, [1], field(4, b"abc"))}),
            Reason.SOURCE_INVALID,
            "record 2, input 'x': expected 4",
        ),
    ],
)
def test_a_refused_record_leaves_the_others(model: Path, data: bytes, reason: Reason, words: str) -> None:
    good = record(predict_log({"x": ONES}))
    (model / WARMUP_FILE).write_bytes(good + record(data) + good)
    first, refused, last = read_warmup_requests(str(model))
    assert first == last == Sample("", {"x": RawTensor(1, (2,), struct.pack("<2f", 1, 1))})
    assert isinstance(refused, ModelhostError)
    assert refused.reason is reason
    assert words in refused.message


GOOD = record(predict_log({"x": ONES}))
HUGE = struct.pack("<Q", 1 << 60)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (GOOD[:5], "ends within its header"),
        (GOOD[:-1], "ends 1 bytes too early"),
        (GOOD[:20], "bytes too early"),
        (b"\x00" + GOOD[1:], "does not match the length's checksum"),
        (HUGE + struct.pack("<I", checksum(HUGE)), f"ends {(1 << 60) + 4} bytes too early"),
    ],
)
def test_damaged_file(model: Path, damaged: bytes, words: str) -> None:
    (model / WARMUP_FILE).write_bytes(GOOD + damaged)
    with pytest.raises(ModelhostError, match="damaged at record 2") as caught:
        read_warmup_requests(str(model))
    assert caught.value.reason is Reason.SOURCE_INVALID
    assert words in caught.value.message


def test_unreadable_file(model: Path) -> None:
    (model / WARMUP_FILE).mkdir()
    with pytest.raises(ModelhostError, match="cannot be read: Is a directory"):
        read_warmup_requests(str(model))


def value(dtype: int, shape: list[int], *fields: bytes) -> pb.TensorProto:
    return pb.TensorProto.FromString(tensor(dtype, shape, *fields))


@pytest.mark.parametrize(
    ("dtype", "number", "packed", "expected"),
    [
        (1, 5, struct.pack("<2f", 1.5, -2), struct.pack("<2f", 1.5, -2)),
        (2, 6, struct.pack("<2d", 1.5, -2), struct.pack("<2d", 1.5, -2)),
        (3, 7, varint(7) + varint(2**64 - 7), struct.pack("<2i", 7, -7)),
        (4, 7, varint(7) + varint(255), bytes([7, 255])),
        (5, 7, varint(7) + varint(2**64 - 300), struct.pack("<2h", 7, -300)),
        (6, 7, varint(7) + varint(2**64 - 128), struct.pack("<2b", 7, -128)),
        (8, 9, struct.pack("<4f", 1, 2, 3, 4), struct.pack("<4f", 1, 2, 3, 4)),
        (9, 10, varint(7) + varint(2**63), struct.pack("<2q", 7, -(2**63))),
        (10, 11, b"\x01\x00", b"\x01\x00"),
        (14, 13, varint(0x3F80) + varint(0xC000), struct.pack("<2H", 0x3F80, 0xC000)),
        (17, 7, varint(7) + varint(65535), struct.pack("<2H", 7, 65535)),
        (18, 12, struct.pack("<4d", 1, 2, 3, 4), struct.pack("<4d", 1, 2, 3, 4)),
        (19, 13, varint(0x3C00) + varint(0xC000), struct.pack("<2e", 1, -2)),
        (22, 16, varint(7) + varint(2**32 - 1), struct.pack("<2I", 7, 2**32 - 1)),
        (23, 17, varint(7) + varint(2**64 - 1), struct.pack("<2Q", 7, 2**64 - 1)),
    ],
)
def test_encodings(dtype: int, number: int, packed: bytes, expected: bytes) -> None:
    """Typed values; the last one repeated; the bytes as they are; and none, which means zeros."""
    last = expected[len(expected) // 2 :]
    assert raw_tensor(value(dtype, [2], field(number, packed))) == RawTensor(dtype, (2,), expected)
    assert raw_tensor(value(dtype, [2, 3], field(number, packed))) == RawTensor(dtype, (2, 3), expected + last * 4)
    assert raw_tensor(value(dtype, [2, 1], field(4, expected))) == RawTensor(dtype, (2, 1), expected)
    assert raw_tensor(value(dtype, [0, 5])) == RawTensor(dtype, (0, 5), b"")
    assert raw_tensor(value(dtype, [])) == RawTensor(dtype, (), bytes(len(last)))


def test_strings() -> None:
    words = field(8, b"a\0") + field(8, b"\xff")
    assert raw_tensor(value(7, [2], words)) == RawTensor(7, (2,), [b"a\0", b"\xff"])
    assert raw_tensor(value(7, [2, 2], words)) == RawTensor(7, (2, 2), [b"a\0", b"\xff", b"\xff", b"\xff"])
    assert raw_tensor(value(7, [2])) == RawTensor(7, (2,), [b"", b""])
    packed = field(4, varint(200) + varint(0) + varint(2) + b"x" * 200 + b"yz")
    assert raw_tensor(value(7, [3], packed)) == RawTensor(7, (3,), [b"x" * 200, b"", b"yz"])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (value(21, []), "DataType 21"),
        (value(0, []), "DataType 0"),
        (pb.TensorProto(dtype=1, tensor_shape=pb.TensorShapeProto(unknown_rank=True)), "known extents"),
        (value(1, [2**64 - 1]), "known extents"),
        (value(1, [1 << 40]), "at most"),
        (value(1, [2], field(4, b"12345")), "expected 8 bytes for the shape, got 5"),
        (value(7, [2], field(4, b"\x05")), "lengths are damaged"),
        (value(7, [1], field(4, b"\x05abc")), "expected 5 bytes"),
    ],
)
def test_malformed_tensors(message: pb.TensorProto, words: str) -> None:
    with pytest.raises(ModelhostError) as caught:
        raw_tensor(message)
    assert caught.value.reason is Reason.INPUT_MALFORMED
    assert words in caught.value.message
