"""What a model is run with when nobody says with what."""

import pytest
from modelhost_server.runtime.warming import warm
from modelhost_server.tensors import STRING, SignatureSpec, TensorSpec

FLOAT = 1


class Model:
    """A model of one signature that counts its runs."""

    is_pure = True

    def __init__(self, *inputs):
        self.signatures = [SignatureSpec("serving_default", inputs, ())]
        self.ran = []

    def run(self, position, inputs, outputs, sink):
        self.ran.append([(tensor.shape, len(tensor.data)) for _, tensor in inputs])


def test_what_is_not_known_of_a_shape_is_1():
    model = Model(TensorSpec("x", FLOAT, (-1, 3)), TensorSpec("s", STRING, (2, -1)))
    warm(model, [])
    assert model.ran == [[((1, 3), 12), ((2, 1), 2)]]


@pytest.mark.parametrize(("dtype", "count"), [(FLOAT, 1 << 24), (STRING, 1 << 21)])
def test_nothing_is_made_up_that_takes_more_than_64_mib(dtype, count):
    """2**31 strings, too, have no bytes of their own."""
    for extent, runs in ((count, 1), (count + 1, 0), (2**31, 0), (2**62, 0)):
        model = Model(TensorSpec("x", dtype, (extent,)))
        warm(model, [])
        assert len(model.ran) == runs, extent


def test_nothing_is_made_up_for_a_rank_that_is_not_known():
    model = Model(TensorSpec("x", FLOAT, None))
    warm(model, [])
    assert model.ran == []
