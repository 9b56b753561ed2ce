"""Samples survive their file."""

from hypothesis import given
from hypothesis import strategies as st
from modelhost_server.samples import Sample, read_samples, write_samples
from modelhost_server.tensors import STRING, RawTensor

numbers = st.lists(st.integers(0, 5), max_size=3).flatmap(
    lambda shape: st.builds(RawTensor, st.just(4), st.just(tuple(shape)), st.binary(max_size=30))
)
strings = st.lists(st.binary(max_size=9), max_size=4).map(lambda values: RawTensor(STRING, (len(values),), values))
samples = st.lists(st.builds(Sample, st.text(max_size=5), st.dictionaries(st.text(max_size=5), numbers | strings)))


@given(samples)
def test_what_is_written_is_read(tmp_path_factory, given_samples):
    path = tmp_path_factory.mktemp("samples") / "file"
    write_samples(path, given_samples)
    assert read_samples(path) == given_samples
