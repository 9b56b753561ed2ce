"""A worker is replaced when it holds much more than its models need."""

import pytest
from modelhost_server.hosting.replacement import worth_replacing
from modelhost_server.store.records import Loaded, LoadOptions, Version

MB = 1 << 20


def version(private: int, anonymous: int) -> Version:
    made = Version("s", "m", 1, 1, "/m", "/m", LoadOptions())
    made.loaded = Loaded("tensorflow", "", (), (), private, anonymous, 0, 0, (0, 0, ""))
    return made


@pytest.mark.parametrize(
    ("anonymous", "versions", "expected"),
    [
        (30 * MB, [], True),
        (50 * MB, [version(130 * MB, 20 * MB)], False),
        (100 * MB, [version(130 * MB, 20 * MB)], False),
        (130 * MB, [version(130 * MB, 20 * MB)], True),
        (500 * MB, [version(400 * MB, 400 * MB)], False),
        (700 * MB, [version(400 * MB, 400 * MB)], True),
    ],
    ids=["nothing left", "as it should be", "a little more", "too much", "large models", "half as much again"],
)
def test_what_counts_is_what_no_model_needs(anonymous, versions, expected):
    assert worth_replacing(anonymous, 20 * MB, versions) is expected
