"""`.tflite` files that lead their reader astray."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelhost_server.engines.litert_file import describe
from modelhost_server.errors import ModelhostError, Reason
from support.building import built


@pytest.mark.parametrize("kept", [36, 0.3, 0.6])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: float):
    content = (built("build_engines") / "scale.tflite").read_bytes()
    file = tmp_path / "cut.tflite"
    file.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(ModelhostError) as caught:
        describe(file)
    assert caught.value.reason is Reason.SOURCE_INVALID
