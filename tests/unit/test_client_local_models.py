"""How models on this machine are read to be sent."""

import pytest
from modelhost import _local_models as local
from modelhost._errors import InvalidRequestError


def files(tmp_path, *contents):
    made = []
    for number, content in enumerate(contents):
        place = tmp_path / str(number)
        place.write_bytes(content)
        made.append(local.LocalFile(place.name, place, len(content)))
    return made


def test_files_are_read_from_an_offset_on_one_after_the_other(tmp_path):
    large, small = files(tmp_path, bytes(local.PIECE_BYTES) + b"end", b"0123")
    reader = local.PieceReader()
    assert reader.read(large, 5) == bytes(local.PIECE_BYTES - 5) + b"end"
    assert reader.read(small, 1) == b"123"
    reader.close()


def test_a_file_that_has_become_shorter_is_told(tmp_path):
    (file,) = files(tmp_path, b"0123")
    file.place.write_bytes(b"01")
    reader = local.PieceReader()
    assert reader.read(file, 0) == b"01"
    with pytest.raises(InvalidRequestError, match="has changed while it was being sent"):
        reader.read(file, 2)
    reader.close()


def test_nothing_is_opened_once_the_reader_is_closed(tmp_path):
    """Whoever gave up an upload closes it, while gRPC's thread may be about to read on."""
    one, other = files(tmp_path, b"0123", b"4567")
    reader = local.PieceReader()
    assert reader.read(one, 0) == b"0123"
    reader.close()
    with pytest.raises(ValueError, match="not wanted any more"):
        reader.read(other, 0)
    reader.close()
