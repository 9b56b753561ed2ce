"""Frames: tensors arrive as they were sent, and a frame that contradicts itself is refused."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from modelhost_server.ipc import frames
from modelhost_server.ipc.arena import ARENA_BYTES, LARGE_BYTES, Arena, create_arena_fd
from modelhost_server.ipc.frames import HEADER, Kind, TensorWriter
from modelhost_server.tensors import ITEMSIZE, STRING, LentMemory, RawTensor, element_count

# What a reader raises for a frame that contradicts itself; anything else would be a bug of the reader.
REFUSALS = (ValueError, struct.error)


class Link:
    """Both ends of a direction: the sender's arena and the receiver's, over the same memory."""

    def __init__(self) -> None:
        self.fd = create_arena_fd()
        self.sender, self.receiver = Arena(self.fd), Arena(self.fd)

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()
        os.close(self.fd)


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.close()


@pytest.fixture(autouse=True)
def nothing_stays_in_the_arena(link: Link) -> Iterator[None]:
    yield
    assert link.sender.used_bytes == 0


def content(tensor: RawTensor) -> Any:
    return list(tensor.data) if tensor.dtype == STRING else bytes(tensor.data)  # type: ignore[arg-type]


class Plan(NamedTuple):
    """A tensor to make; says what a failing example is in fewer words than the tensor itself."""

    dtype: int
    rows: int
    extents: list[int]
    seed: int
    longest: int

    def tensor(self) -> RawTensor:
        noise = random.Random(self.seed)
        shape = [self.rows, *self.extents] if self.rows else self.extents
        if self.dtype == STRING:
            count = min(element_count(shape), 500)
            return RawTensor(STRING, [count], [noise.randbytes(noise.randint(0, self.longest)) for _ in range(count)])
        data = noise.randbytes(element_count(shape) * ITEMSIZE[self.dtype])
        return RawTensor(self.dtype, shape, memoryview(data) if self.seed % 2 else data)


# All dtypes and ranks, without elements and with many: inline and, from 64 kB on, in the arena.
plans = st.builds(
    Plan,
    dtype=st.sampled_from(sorted(ITEMSIZE)),
    rows=st.sampled_from([0, 4096, 8191, 8192, 16384, 65536]),
    extents=st.lists(st.integers(0, 4), max_size=4),
    seed=st.integers(0, 99),
    longest=st.sampled_from([0, 9, 600]),
)


def written(link: Link, tensors: Sequence[tuple[int, RawTensor]]) -> TensorWriter:
    writer = TensorWriter(link.sender)
    for index, tensor in tensors:
        writer.put(index, tensor.dtype, tensor.shape, tensor.data)  # type: ignore[arg-type]
    assert writer.count == len(tensors)
    return writer


def received(buffers: list[Any]) -> tuple[Kind, int, memoryview]:
    """A frame's kind, call and body, as they come out of the socket."""
    data = b"".join(buffers)
    length, kind, call = HEADER.unpack_from(data)
    body = memoryview(data)[HEADER.size :]
    assert len(body) == length
    return Kind(kind), call, body


class Borrowed:
    """Looks on at which ranges a reader borrows."""

    def __init__(self) -> None:
        self.ranges: list[int] = []

    def __call__(self, offset: int, view: memoryview) -> memoryview:
        self.ranges.append(offset)
        return view


numbered = st.lists(st.tuples(st.integers(0, 65535), plans), max_size=5)
once = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@once
@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 65535),
    st.lists(st.integers(0, 65535), max_size=300), numbered,
)  # fmt: skip
def test_a_predict_frame_arrives_as_it_was_sent(
    link: Link, call: int, key: int, signature: int, outputs: list[int], planned: list[tuple[int, Plan]]
) -> None:
    tensors = [(index, plan.tensor()) for index, plan in planned]
    writer = written(link, tensors)
    kind, got_call, body = received(frames.predict_frame(call, key, signature, outputs, writer))
    assert (kind, got_call) == (Kind.PREDICT, call)
    got_key, got_signature, got_outputs, count, start = frames.read_predict(body)
    assert (got_key, got_signature, list(got_outputs), count) == (key, signature, outputs, len(tensors))
    check_tensors(link, writer, body, start, count, tensors)


@once
@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=50), numbered)
def test_a_result_frame_arrives_as_it_was_sent(
    link: Link, call: int, held: list[int], planned: list[tuple[int, Plan]]
) -> None:
    tensors = [(index, plan.tensor()) for index, plan in planned]
    writer = written(link, tensors)
    kind, got_call, body = received(frames.result_frame(call, writer, held))
    assert (kind, got_call) == (Kind.RESULT, call)
    count, got_held, start = frames.read_result(body)
    assert (count, list(got_held)) == (len(tensors), held)
    check_tensors(link, writer, body, start, count, tensors)


def check_tensors(
    link: Link, writer: TensorWriter, body: memoryview, start: int, count: int, sent: list[tuple[int, RawTensor]]
) -> None:
    borrow = Borrowed()
    read = frames.read_tensors(body, start, count, link.receiver, borrow)
    assert [index for index, _ in read] == [index for index, _ in sent]
    for (_, got), (_, tensor) in zip(read, sent, strict=True):
        assert (got.dtype, list(got.shape)) == (tensor.dtype, list(tensor.shape))
        assert content(got) == content(tensor)
    assert sorted(borrow.ranges) == sorted(writer.offsets)
    writer.free()
    assert writer.offsets == []


@pytest.mark.parametrize(
    ("size", "in_arena"), [(0, False), (LARGE_BYTES - 1, False), (LARGE_BYTES, True), (LARGE_BYTES + 1, True)]
)
def test_large_tensors_and_only_they_go_into_the_arena(link: Link, size: int, in_arena: bool) -> None:
    writer = written(link, [(0, RawTensor(4, [size], b"x" * size))])
    assert len(writer.offsets) == in_arena
    assert sum(map(len, writer.parts())) < 100 or not in_arena
    writer.free()


def test_a_large_tensor_travels_inline_when_the_arena_is_full(link: Link) -> None:
    whole = link.sender.allocate(ARENA_BYTES)
    assert whole is not None
    data = random.Random(1).randbytes(LARGE_BYTES)
    check_result(link, [(0, RawTensor(4, [LARGE_BYTES], data))])
    link.sender.free(whole)


def check_result(link: Link, tensors: list[tuple[int, RawTensor]]) -> None:
    writer = written(link, tensors)
    _, _, body = received(frames.result_frame(1, writer, []))
    count, _, start = frames.read_result(body)
    check_tensors(link, writer, body, start, count, tensors)


def test_many_outputs_travel_in_one_frame(link: Link) -> None:
    tensors = [(i, RawTensor(1, [i % 3], bytes(4 * (i % 3)))) for i in range(2000)]
    tensors += [(2000 + i, RawTensor(4, [LARGE_BYTES], bytes([i]) * LARGE_BYTES)) for i in range(50)]
    check_result(link, tensors)


@pytest.mark.parametrize(
    "values", [[], [b""], [b"", b"a", b""], [b"\0" * 5], ["ü".encode(), b"\xff"], [b"x" * LARGE_BYTES, b"", b"y"]]
)
def test_strings_keep_their_lengths(link: Link, values: list[bytes]) -> None:
    check_result(link, [(0, RawTensor(STRING, [len(values)], values))])


def test_a_scalar_has_no_extents_but_an_element(link: Link) -> None:
    check_result(link, [(0, RawTensor(1, [], b"abcd")), (1, RawTensor(STRING, [], [b"abcd"]))])


def test_what_cannot_be_packed_leaves_nothing_in_the_arena(link: Link) -> None:
    writer = TensorWriter(link.sender)
    writer.put(0, 4, [LARGE_BYTES], bytes(LARGE_BYTES))
    with pytest.raises(struct.error):
        writer.put(65536, 4, [LARGE_BYTES], bytes(LARGE_BYTES))
    assert link.sender.used_bytes == 2 * LARGE_BYTES
    writer.free()


def test_numbers_are_lent_and_strings_are_copied(link: Link) -> None:
    lent: list[LentMemory] = []

    def borrow(offset: int, view: memoryview) -> LentMemory:
        lent.append(LentMemory(view))
        return lent[-1]

    text = [b"t" * LARGE_BYTES]
    writer = written(link, [(0, RawTensor(4, [LARGE_BYTES], b"n" * LARGE_BYTES)), (1, RawTensor(STRING, [1], text))])
    _, _, body = received(frames.result_frame(1, writer, []))
    count, _, start = frames.read_result(body)
    (_, numbers), (_, strings) = frames.read_tensors(body, start, count, link.receiver, borrow)
    assert numbers.data is lent[0]
    assert len(lent) == 2
    for offset in writer.offsets:
        link.sender.view(offset, LARGE_BYTES)[:] = bytes(LARGE_BYTES)
    assert bytes(lent[0].view) == bytes(LARGE_BYTES)
    assert strings.data == text
    writer.free()


# Frames that contradict themselves


class FirstMegabyte(Arena):
    """An arena that ends early, since a string tensor of gigabytes would be read from one end to the other."""

    def view(self, offset: int, size: int) -> memoryview:
        if offset + size > 1 << 20:
            raise ValueError("beyond the first megabyte")
        return super().view(offset, size)


@pytest.fixture(scope="module")
def receiver(link: Link) -> Iterator[Arena]:
    arena = FirstMegabyte(link.fd)
    yield arena
    arena.close()


def sound_bodies(link: Link) -> tuple[bytes, bytes]:
    """A PREDICT and a RESULT body with inline, large and string tensors, whose ranges are free again."""
    tensors = [
        (0, RawTensor(1, [2, 1], b"12345678")), (3, RawTensor(4, [1, LARGE_BYTES], bytes(LARGE_BYTES))),
        (1, RawTensor(STRING, [3], [b"a", b"", b"bcd"])), (2, RawTensor(STRING, [1], [bytes(LARGE_BYTES)])),
        (4, RawTensor(10, [], b"\1")),
    ]  # fmt: skip
    writer = written(link, tensors)
    predict = received(frames.predict_frame(1, 2, 3, [0, 1], writer))[2]
    result = received(frames.result_frame(1, writer, [4096]))[2]
    writer.free()
    return bytes(predict), bytes(result)


def read_all_predict(receiver: Arena, body: bytes) -> list[tuple[int, RawTensor]]:
    *_, count, start = frames.read_predict(memoryview(body))
    return frames.read_tensors(memoryview(body), start, count, receiver, Borrowed())


def read_all_result(receiver: Arena, body: bytes) -> list[tuple[int, RawTensor]]:
    count, _, start = frames.read_result(memoryview(body))
    return frames.read_tensors(memoryview(body), start, count, receiver, Borrowed())


def test_a_body_cut_anywhere_is_refused(link: Link, receiver: Arena) -> None:
    for read, body in zip((read_all_predict, read_all_result), sound_bodies(link), strict=True):
        assert len(read(receiver, body)) == 5
        for end in range(len(body)):
            with pytest.raises(REFUSALS):
                read(receiver, body[:end])


@settings(once, max_examples=400)
@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.integers(0, 10_000),
            st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\xff" * 7 + b"\x7f"]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_spoilt_body_is_refused_or_read_within_its_bounds(
    link: Link, receiver: Arena, which: bool, changes: list[tuple[int, bytes]]
) -> None:
    body = bytearray(sound_bodies(link)[which])
    for position, replacement in changes:
        start = position % len(body)
        body[start : start + len(replacement)] = replacement[: len(body) - start]
    try:
        tensors = (read_all_predict, read_all_result)[which](receiver, bytes(body))
    except REFUSALS:
        return
    for _, tensor in tensors:
        if tensor.dtype == STRING:
            assert len(tensor.data) == element_count(tensor.shape)  # type: ignore[arg-type]
        else:
            assert len(tensor.data) <= ARENA_BYTES  # type: ignore[arg-type]


@settings(once, max_examples=300)
@given(st.binary(max_size=300))
@example(b"\xff" * 300)
def test_noise_is_refused_or_has_few_tensors(receiver: Arena, body: bytes) -> None:
    for read in (read_all_predict, read_all_result):
        try:
            tensors = read(receiver, body)
        except REFUSALS:
            continue
        assert len(tensors) < len(body)


def one_tensor(dtype: int, shape: Sequence[int], size: int, place: int, inline: bytes = b"") -> memoryview:
    head = struct.pack(f"<HBB4xQQ{len(shape)}q", 0, dtype, len(shape), size, place, *shape)
    return memoryview(head + inline)


INLINE = 2**64 - 1


@pytest.mark.parametrize(
    "body",
    [
        one_tensor(1, [1], 4, ARENA_BYTES),
        one_tensor(1, [1], 4, ARENA_BYTES - 3),
        one_tensor(1, [1], 2**64 - 1, 0),
        one_tensor(1, [1], 4, 2**64 - 2),
        one_tensor(1, [1], 4, INLINE, b"123"),
        one_tensor(STRING, [2], 4, INLINE, b"1234"),
        one_tensor(STRING, [-1], 4, INLINE, b"1234"),
        one_tensor(STRING, [2**62, 2**62], 4, INLINE, b"1234"),
        one_tensor(STRING, [2**62] * 255, 4, INLINE, b"1234"),
        one_tensor(STRING, [2], 4, 0),
    ],
    ids=[
        "beyond the arena", "across its end", "larger than it", "offset beyond", "beyond the frame", "too few lengths",
        "negative extent", "huge extents", "huge rank", "too few lengths in the arena",
    ],
)  # fmt: skip
def test_a_tensor_that_reaches_outside_is_refused(link: Link, body: memoryview) -> None:
    with pytest.raises(REFUSALS):
        frames.read_tensors(body, 0, 1, link.receiver, Borrowed())


@pytest.mark.parametrize("lengths", [(9, 0), (1, 3), (0, 2**32 - 1)], ids=str)
def test_strings_longer_than_their_tensor_are_refused(link: Link, lengths: tuple[int, int]) -> None:
    packed = struct.pack("<2I", *lengths) + b"abc"
    with pytest.raises(REFUSALS):
        frames.read_tensors(one_tensor(STRING, [2], len(packed), INLINE, packed), 0, 1, link.receiver, Borrowed())


@pytest.mark.parametrize("shape", [[0], [2]], ids=str)
def test_strings_shorter_than_their_tensor_are_refused_unread(link: Link, shape: list[int]) -> None:
    offset, size = 1 << 30, 32 << 20
    before = os.fstat(link.fd).st_blocks
    with pytest.raises(REFUSALS):
        frames.read_tensors(one_tensor(STRING, shape, size, offset), 0, 1, link.receiver, Borrowed())
    assert os.fstat(link.fd).st_blocks - before < 100


# Other frames


@given(st.lists(st.integers(0, 2**64 - 1), max_size=100))
def test_released_ranges_arrive(offsets: list[int]) -> None:
    kind, call, body = received(frames.release_frame(offsets))
    assert (kind, call, list(frames.released_offsets(body))) == (Kind.RELEASE, 0, offsets)


@pytest.mark.parametrize("size", [1, 7, 9, 15])
def test_half_a_range_is_refused(size: int) -> None:
    with pytest.raises(struct.error):
        frames.released_offsets(memoryview(bytes(size)))


json_objects = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text())
)


@given(st.sampled_from(Kind), st.integers(0, 2**64 - 1), json_objects)
def test_json_frames_arrive(kind: Kind, call: int, value: dict[str, Any]) -> None:
    got_kind, got_call, body = received(frames.json_frame(kind, call, value))
    assert (got_kind, got_call, frames.read_json(body)) == (kind, call, value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"3", b'"a"', b"\xff", b"{} {}"])
def test_a_json_body_is_an_object_or_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        frames.read_json(body)


@given(json_objects)
def test_a_json_body_cut_short_is_refused(value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    with pytest.raises(ValueError):
        frames.read_json(body[:-1])
