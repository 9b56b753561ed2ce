"""The judge's parts: made-up inputs, and the comparison of answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from modelhost_server.converter.comparison import Different, OutputComparison
from modelhost_server.converter.frozen import FrozenSignature
from modelhost_server.converter.placing import Port, place_inputs, place_outputs
from modelhost_server.converter.probes import BATCH, Probe, Survey, made_up
from modelhost_server.converter.refusals import CannotConvert
from modelhost_server.tensors import SignatureSpec, TensorSpec

FLOAT32, INT32, BOOL, FLOAT16 = 1, 3, 10, 19


def survey(accepts: Callable[[Probe], bool], *inputs: TensorSpec) -> tuple[list[tuple[Probe, bool]], Survey | None]:
    """All probes with what was said of them, and what was found out."""
    probes = made_up(SignatureSpec("s", inputs, ()))
    seen = []
    probe = next(probes)
    while True:
        seen.append((probe, accepts(probe)))
        try:
            probe = probes.send(seen[-1][1])
        except StopIteration as end:
            return seen, end.value


def test_probes_have_the_dtypes_and_shapes_of_the_signature():
    specs = TensorSpec("a", FLOAT32, (-1, 3)), TensorSpec("b", INT32, ()), TensorSpec("c", BOOL, (-1, -1))
    seen, found = survey(lambda _: True, *specs)
    for probe, _ in seen:
        assert [value.dtype.name for value in probe.inputs] == ["float32", "int32", "bool"]
        for value, spec in zip(probe.inputs, specs, strict=True):
            assert spec.accepts_shape(value.shape)
    assert found is not None
    assert found.accepted[BATCH] == {1, 2, 5, 8}
    assert len(found.accepted["axis 1"]) >= 2
    assert set(found.timed()) == {1, 8}


def test_floats_come_in_several_magnitudes():
    seen, _ = survey(lambda _: True, TensorSpec("image", FLOAT32, (-1, 32, 32, 3)))
    largest = [float(np.abs(probe.inputs[0]).max()) for probe, _ in seen]
    assert min(largest) == 0
    assert any(0 < value < 0.1 for value in largest)
    assert any(200 < value < 255 for value in largest)
    assert any(value > 255 for value in largest)
    assert any((probe.inputs[0] < 0).any() for probe, _ in seen)


def test_integers_go_beyond_what_a_vocabulary_has():
    seen, found = survey(lambda probe: bool(((probe.inputs[0] >= 0) & (probe.inputs[0] < 50)).all()),
                         TensorSpec("ids", INT32, (-1, -1)))  # fmt: skip
    assert found is not None
    accepted = [probe.inputs[0] for probe, said in seen if said]
    rejected = [probe.inputs[0] for probe, said in seen if not said]
    assert max(int(ids.max()) for ids in accepted) == 9
    assert any((ids == -1).sum() == 1 and ids.max() <= 1 for ids in rejected)
    assert any(ids.max() > 1 << 30 for ids in rejected)


def test_a_single_number_is_never_huge():
    seen, _ = survey(lambda _: True, TensorSpec("count", INT32, ()))
    assert max(int(probe.inputs[0]) for probe, _ in seen) < 1000


@pytest.mark.parametrize(
    "accepts",
    [
        pytest.param(lambda a, b: a[1] == b[1], id="the same axis"),
        pytest.param(lambda a, b: a[1] == b[0], id="the chain of a product"),
        pytest.param(lambda a, b: a[0] == a[1] == b[0] == b[1], id="all the same"),
        pytest.param(lambda a, b: a[0] != b[0], id="none the same"),
        pytest.param(lambda a, b: a[1] == b[1] == 64, id="one size only"),
    ],
)
def test_sizes_that_fit_together_are_found(accepts):
    specs = TensorSpec("a", FLOAT32, (-1, -1)), TensorSpec("b", FLOAT32, (-1, -1))
    seen, found = survey(lambda probe: accepts(probe.inputs[0].shape, probe.inputs[1].shape), *specs)
    assert found is not None
    assert sum(said for _, said in seen) >= 3


def test_a_size_that_only_fits_once_is_told():
    _, found = survey(lambda probe: probe.inputs[0].shape[1] == 64, TensorSpec("x", FLOAT32, (-1, -1)))
    assert found is not None
    assert found.narrow() == ["axis 1"]


def test_nothing_is_found_where_nothing_is_accepted():
    seen, found = survey(lambda _: False, TensorSpec("x", FLOAT32, (-1, -1)))
    assert found is None
    assert len(seen) < 200


def test_many_alike_inputs_do_not_make_many_probes():
    seen, _ = survey(lambda _: True, *(TensorSpec(f"x{i}", FLOAT32, (-1,)) for i in range(300)))
    assert len(seen) < 320


def output(dtype: int = FLOAT32, tolerance: float = 1e-4) -> OutputComparison:
    return OutputComparison(TensorSpec("y", dtype, None), tolerance)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_difference_is_measured_by_the_scale_of_the_output():
    comparison = output()
    comparison.check(floats(1000, 0, 1), floats(1000, 0.05, 1))
    assert comparison.largest_difference == pytest.approx(5e-5)
    with pytest.raises(Different, match="more than"):
        comparison.check(floats(1000, 0, 1), floats(1000, 0.2, 1))
    assert comparison.largest_difference == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (floats(1, 2), floats(1, 2, 3)),
        (floats(1, 2), floats(1, 2).astype(np.float64)),
        (floats(1, 2), floats(1, 2).reshape(1, 2)),
        (floats(1, np.nan), floats(1, 2)),
        (floats(1, 2), floats(1, np.nan)),
        (floats(1, np.inf), floats(1, -np.inf)),
        (floats(1, np.inf), floats(np.inf, 1)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True]), np.array([False])),
    ],
)
def test_different_answers_are_different(reference, answer):
    with pytest.raises(Different):
        output().check(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (floats(np.nan, np.inf, 1), floats(np.nan, np.inf, 1.00001)),
        (floats(np.nan), floats(np.nan)),
        (floats(), floats()),
        (np.float32(2), np.float32(2)),
        (np.array([7, -7]), np.array([7, -7])),
    ],
)
def test_equal_answers_are_equal(reference, answer):
    comparison = output()
    comparison.check(np.asarray(reference), np.asarray(answer))
    comparison.finish()


def test_half_precision_is_compared_by_its_own_steps():
    values = np.array([1.0, 0.5], np.float16)
    output(FLOAT16).check(values, np.nextafter(values, np.float16(2)))
    with pytest.raises(Different):
        output(FLOAT16).check(values, values + np.float16(0.02))


def test_where_all_is_zero_the_scale_is_that_of_other_answers():
    comparison = output()
    comparison.check(floats(1, 2), floats(1, 2))
    comparison.check(floats(0, 0), floats(0, 1e-5))
    comparison.finish()
    comparison.check(floats(0, 0), floats(0, 1e-3))
    with pytest.raises(Different, match="should be zero"):
        comparison.finish()


def test_where_nothing_else_is_known_zero_must_be_zero():
    comparison = output()
    comparison.check(floats(0, 0), floats(0, 1e-40))
    comparison.finish()
    comparison.check(floats(0, 0), floats(0, 1e-6))
    with pytest.raises(Different, match="should be zero"):
        comparison.finish()


def test_the_best_class_must_be_the_same_unless_two_are_as_good():
    scores = np.array([[0.1, 0.5, 0.49999], [1, 0, 0]], np.float32)
    swapped = np.array([[0.1, 0.49999, 0.5], [1, 0, 0]], np.float32)
    output().check(scores, swapped)
    clear = np.array([[0.1, 0.5, 0.4], [1, 0, 0]], np.float32)
    with pytest.raises(Different, match="another class"):
        output(tolerance=0.09).check(clear, np.array([[0.1, 0.43, 0.44], [1, 0, 0]], np.float32))


def test_an_output_varies_when_equal_shapes_have_unequal_values():
    comparison = output()
    comparison.note(floats(1, 2))
    comparison.note(floats(1, 2, 3))
    comparison.note(floats(1, 2.00001))
    assert not comparison.varies
    comparison.note(floats(1, 3))
    assert comparison.varies


SIGNATURE = FrozenSignature(
    SignatureSpec("s", (TensorSpec("a", FLOAT32, (-1, 3)), TensorSpec("b", INT32, (2,))),
                  (TensorSpec("y", FLOAT32, (-1,)), TensorSpec("z", FLOAT32, (-1,)))),
    "0.pb", (0, 1),
)  # fmt: skip


def port(name: str, dtype: str = "float32", *shape: int) -> Port:
    return Port(frozenset({name}), dtype, shape)


def test_ports_are_found_by_name():
    ports = [port("in_1", "int32", 2), port("in_0", "float32", -1, 3)]
    assert place_inputs(SIGNATURE, ports) == (1, 0)
    assert place_inputs(SIGNATURE, ports[1:]) == (0, None)
    assert place_outputs(SIGNATURE, [port("out_1", "float32", -1), port("out_0", "float32", -1)]) == (1, 0)


@pytest.mark.parametrize(
    "ports",
    [
        pytest.param([port("in_0", "float32", 1, 3)], id="an open dimension became fixed"),
        pytest.param([port("in_0", "float64", -1, 3)], id="another dtype"),
        pytest.param([port("in_0", "float32", -1)], id="another rank"),
        pytest.param([port("in_0", "float32", -1, 3), port("in_7", "float32", -1)], id="an input nobody gives"),
    ],
)
def test_changed_inputs_are_refused(ports):
    with pytest.raises(CannotConvert):
        place_inputs(SIGNATURE, ports)


def test_a_lost_output_is_refused():
    with pytest.raises(CannotConvert, match="lost"):
        place_outputs(SIGNATURE, [port("out_0", "float32", -1)])
    with pytest.raises(CannotConvert):
        place_outputs(SIGNATURE, [port("out_0", "float32", -1), port("out_1", "float32", 1)])
