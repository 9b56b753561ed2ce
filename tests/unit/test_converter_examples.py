"""The examples that a caller gives an optimization: samples, and `.npz` files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelhost_server.converter.examples import Examples, read_examples
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.samples import Sample, write_samples
from modelhost_server.tensors import RawTensor, SignatureSpec, TensorSpec

FLOAT32, INT64, STRING = 1, 9, 7
SCORES = (TensorSpec("scores", FLOAT32, (-1, 10)),)
IMAGES = SignatureSpec("serving_default", (TensorSpec("image", FLOAT32, (-1, 2)),), SCORES)
PAIRS = SignatureSpec(
    "serving_default", (TensorSpec("a", FLOAT32, (-1, 2)), TensorSpec("b", INT64, (-1,), optional=True)), SCORES
)
FOURS = SignatureSpec(
    "serving_default", (TensorSpec("image", FLOAT32, (4, 2)),), (TensorSpec("scores", FLOAT32, (4, 10)),)
)
SINGLE = SignatureSpec(
    "serving_default", (TensorSpec("image", FLOAT32, (2,)),), (TensorSpec("scores", FLOAT32, (10,)),)
)
ANY = SignatureSpec("serving_default", (TensorSpec("image", FLOAT32, None),), SCORES)
WORDS = SignatureSpec("serving_default", (TensorSpec("word", STRING, (-1,)),), SCORES)


@pytest.fixture
def from_npz(tmp_path: Path) -> Callable[..., list[Examples]]:
    def read(spec: SignatureSpec, **arrays: Any) -> list[Examples]:
        np.savez(tmp_path / "examples.npz", **arrays)
        return read_examples({"samples_file": str(tmp_path / "examples.npz")}, [spec])

    return read


@pytest.fixture
def from_samples(tmp_path: Path) -> Callable[..., list[Examples]]:
    def read(specs: list[SignatureSpec], samples: list[Sample], classes: list[int] | None = None) -> list[Examples]:
        write_samples(tmp_path / "samples", samples)
        return read_examples({"samples": str(tmp_path / "samples"), "true_classes": classes}, specs)

    return read


def images(count: int) -> np.ndarray:
    return np.arange(count * 2, dtype=np.float32).reshape(count, 2)


def image_sample(count: int, signature: str = "") -> Sample:
    return Sample(signature, {"image": RawTensor(FLOAT32, (count, 2), images(count).tobytes())})


def test_batch_of_a_file(from_npz: Callable[..., list[Examples]]) -> None:
    (examples,) = from_npz(IMAGES, image=images(5), labels=np.arange(5))
    assert (examples.signature, examples.count, examples.is_batched) == (0, 5, True)
    assert examples.classes == (0, 1, 2, 3, 4)
    np.testing.assert_array_equal(examples.inputs["image"], images(5))


def test_batches_keep_examples_and_classes_together(from_npz: Callable[..., list[Examples]]) -> None:
    (examples,) = from_npz(IMAGES, image=images(5), labels=np.arange(5))
    parts = list(examples.batches(2))
    assert [(part.count, part.classes) for part in parts] == [(2, (0, 1)), (2, (2, 3)), (1, (4,))]
    np.testing.assert_array_equal(np.concatenate([part.inputs["image"] for part in parts]), images(5))
    assert list(examples.batches(5)) == [examples]


def test_fixed_batches_of_a_file(from_npz: Callable[..., list[Examples]]) -> None:
    parts = from_npz(FOURS, image=images(8), labels=np.arange(8))
    assert [(part.count, part.is_batched, part.is_open) for part in parts] == [(4, True, False), (4, True, False)]
    assert [part.classes for part in parts] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert list(parts[0].batches(1)) == [parts[0]]
    np.testing.assert_array_equal(parts[1].inputs["image"], images(8)[4:])
    with pytest.raises(ModelhostError, match=r"shape \[7, 2\], but the signature expects float32 \[4, 2\]"):
        from_npz(FOURS, image=images(7))


def test_single_examples_of_a_file(from_npz: Callable[..., list[Examples]]) -> None:
    parts = from_npz(SINGLE, image=images(3), labels=np.uint8([7, 8, 9]))
    assert [(part.count, part.is_batched, part.classes) for part in parts] == [
        (1, False, (7,)),
        (1, False, (8,)),
        (1, False, (9,)),
    ]
    np.testing.assert_array_equal(parts[2].inputs["image"], images(3)[2])


def test_unknown_rank_and_strings_of_a_file(from_npz: Callable[..., list[Examples]]) -> None:
    (examples,) = from_npz(ANY, image=images(3))
    assert examples.inputs["image"].shape == (3, 2)
    for words in (np.array([b"ab", b"c"]), np.array(["ab", "c"])):
        (examples,) = from_npz(WORDS, word=words)
        assert examples.inputs["word"].tolist() == [b"ab", b"c"]
    (examples,) = from_npz(WORDS, word=np.array(["h\u00e9"]))
    assert examples.inputs["word"].tolist() == ["h\u00e9".encode()]


def test_optional_inputs_of_a_file(from_npz: Callable[..., list[Examples]]) -> None:
    (examples,) = from_npz(PAIRS, a=images(2))
    assert set(examples.inputs) == {"a"}
    (examples,) = from_npz(PAIRS, a=images(2), b=np.arange(2))
    assert set(examples.inputs) == {"a", "b"}


def test_an_input_may_be_called_labels(from_npz: Callable[..., list[Examples]]) -> None:
    spec = SignatureSpec("serving_default", (TensorSpec("labels", INT64, (-1,)),), SCORES)
    (examples,) = from_npz(spec, labels=np.arange(3))
    assert examples.classes is None
    assert examples.count == 3


@pytest.mark.parametrize(
    ("arrays", "reason", "words"),
    [
        ({"picture": images(2)}, Reason.INPUT_UNKNOWN, "an array 'picture', but no input is named so"),
        ({"b": np.arange(2)}, Reason.INPUT_MISSING, "has no array 'a'; it has ['b']"),
        ({"a": images(2), "b": np.arange(3)}, Reason.INPUT_SHAPE_MISMATCH, "as many examples for each input"),
        ({"a": images(2).astype(float)}, Reason.INPUT_DTYPE_MISMATCH, "'a' as float32, got float64; convert it with"),
        ({"a": np.float32(1)}, Reason.INPUT_SHAPE_MISMATCH, "count examples in the first dimension of 'a'"),
        ({"a": np.zeros((2, 3), np.float32)}, Reason.INPUT_SHAPE_MISMATCH, "[2, 3], but the signature expects"),
        ({"a": images(2), "labels": np.zeros(2)}, Reason.INVALID_REQUEST, "one integer an example"),
        ({"a": images(2), "labels": np.zeros((2, 1), int)}, Reason.INVALID_REQUEST, "one integer an example"),
        ({"a": images(2), "labels": np.arange(3)}, Reason.INVALID_REQUEST, "each of the 2 examples, got 3"),
    ],
)
def test_files_that_do_not_fit(
    from_npz: Callable[..., list[Examples]], arrays: dict[str, Any], reason: Reason, words: str
) -> None:
    with pytest.raises(ModelhostError) as caught:
        from_npz(PAIRS, **arrays)
    assert caught.value.reason is reason
    assert words in caught.value.message


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_objects_are_not_loaded(from_npz: Callable[..., list[Examples]], tmp_path: Path) -> None:
    trap = np.empty(1, object)
    trap[0] = Trap(tmp_path / "sprung")
    with pytest.raises(ModelhostError, match="without Python objects"):
        from_npz(IMAGES, image=trap)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text", b"\x80\x04K\x05."])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(ModelhostError) as caught:
        read_examples({"samples_file": str(tmp_path / "file.npz")}, [IMAGES])
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert caught.value.field == "samples_file"


def test_a_single_array_and_no_file(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", images(2))
    with pytest.raises(ModelhostError, match="holds a single array"):
        read_examples({"samples_file": str(tmp_path / "array.npy")}, [IMAGES])
    with pytest.raises(ModelhostError, match="cannot be read: No such file"):
        read_examples({"samples_file": str(tmp_path / "nowhere.npz")}, [IMAGES])


def test_samples_with_classes(from_samples: Callable[..., list[Examples]]) -> None:
    """Classes go along all samples, in order."""
    first, second = from_samples([IMAGES], [image_sample(2), image_sample(1, "serving_default")], [7, 8, 9])
    assert (first.count, first.classes) == (2, (7, 8))
    assert (second.count, second.classes) == (1, (9,))
    with pytest.raises(ModelhostError, match="one class for each of the 3 examples, got 2") as caught:
        from_samples([IMAGES], [image_sample(2), image_sample(1)], [7, 8])
    assert caught.value.field == "true_classes"


def test_samples_and_file_together(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples", [image_sample(2)])
    np.savez(tmp_path / "more.npz", image=images(3), labels=np.arange(3))
    job = {"samples": str(tmp_path / "samples"), "true_classes": [5, 6], "samples_file": str(tmp_path / "more.npz")}
    assert [example.classes for example in read_examples(job, [IMAGES])] == [(5, 6), (0, 1, 2)]
    assert read_examples({}, [IMAGES]) == []


def test_open_extents_that_differ_count_no_examples(from_samples: Callable[..., list[Examples]]) -> None:
    inputs = {"a": RawTensor(FLOAT32, (3, 2), bytes(24)), "b": RawTensor(INT64, (5,), bytes(40))}
    (example,) = from_samples([PAIRS], [Sample("", inputs)])
    assert (example.count, example.is_batched) == (1, False)
    assert list(example.batches(1)) == [example]


def test_the_usual_signature(from_samples: Callable[..., list[Examples]]) -> None:
    other = SignatureSpec("other", IMAGES.inputs, SCORES)
    assert [e.signature for e in from_samples([other, IMAGES], [image_sample(1), image_sample(1, "other")])] == [1, 0]
    assert [e.signature for e in from_samples([other], [image_sample(1)])] == [0]
    with pytest.raises(ModelhostError, match="no signature 'serving_default' for the samples"):
        from_samples([other, SignatureSpec("third", IMAGES.inputs, SCORES)], [image_sample(1)])


@pytest.mark.parametrize(
    ("inputs", "reason", "words"),
    [
        ({}, Reason.INPUT_MISSING, "sample 1: the input 'image' is missing"),
        ({"x": RawTensor(FLOAT32, (1, 2), bytes(8))}, Reason.INPUT_UNKNOWN, "there is no input 'x'"),
        ({"image": RawTensor(INT64, (1, 2), bytes(16))}, Reason.INPUT_DTYPE_MISMATCH, "got int64 [1, 2]"),
        ({"image": RawTensor(FLOAT32, (1, 3), bytes(12))}, Reason.INPUT_SHAPE_MISMATCH, "expects float32 [?, 2]"),
        ({"image": RawTensor(FLOAT32, (1, 2), bytes(4))}, Reason.INPUT_MALFORMED, "more or fewer bytes"),
    ],
)
def test_samples_that_do_not_fit(
    from_samples: Callable[..., list[Examples]], inputs: dict[str, RawTensor], reason: Reason, words: str
) -> None:
    with pytest.raises(ModelhostError) as caught:
        from_samples([IMAGES], [Sample("", inputs)])
    assert caught.value.reason is reason
    assert words in caught.value.message
