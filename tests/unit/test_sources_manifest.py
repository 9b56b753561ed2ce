"""What may be uploaded, and what it is called."""

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.sources.manifest import ARCHIVE, FILES, MAX_FILES, Manifest, UploadedFile, check_manifest

SHA = "0" * 64
LIMIT = 1000


def manifest(*paths, kind=FILES, size=1, sha=SHA):
    return Manifest(kind, tuple(UploadedFile(path, size, sha) for path in paths))


def reason(upload):
    with pytest.raises(ModelhostError) as failed:
        check_manifest(upload, LIMIT)
    return failed.value.reason


@pytest.mark.parametrize(
    "paths",
    [
        ["/etc/passwd"], [".."], ["../a"], ["a/../b"], ["a/./b"], ["."], ["a//b"], ["a/"], [""], ["a\0b"], ["a\nb"],
        ["a\\b"], ["\ud800"], ["x" * 256], ["/".join(["x"] * 33)], ["/".join(["x" * 200] * 6)], ["a", "a"],
        ["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"], [],
    ],
)  # fmt: skip
def test_paths_that_may_not_be(paths):
    assert reason(manifest(*paths)) is Reason.UPLOAD_INVALID


@pytest.mark.parametrize("paths", [["saved_model.pb", "variables/variables.index"], ["ä/中.tflite"], ["..a", "b.."]])
def test_paths_that_may_be(paths):
    check_manifest(manifest(*paths), LIMIT)


def test_sizes_counts_and_checksums():
    assert reason(manifest("a", size=-1)) is Reason.UPLOAD_INVALID
    assert reason(manifest("a", sha="00")) is Reason.UPLOAD_INVALID
    assert reason(manifest("a", "b", size=LIMIT - 1)) is Reason.UPLOAD_LIMIT
    assert reason(manifest("a", size=2**63)) is Reason.UPLOAD_LIMIT
    assert reason(manifest(*map(str, range(MAX_FILES + 1)), size=0)) is Reason.UPLOAD_LIMIT
    check_manifest(manifest(*map(str, range(MAX_FILES)), size=0), LIMIT)


def test_an_archive_is_one_file_of_a_known_kind():
    for name in ("a.tar", "a.tar.gz", "b.TGZ", "c.zip"):
        check_manifest(manifest(name, kind=ARCHIVE), LIMIT)
    assert reason(manifest("a.rar", kind=ARCHIVE)) is Reason.UPLOAD_INVALID
    assert reason(manifest("a.zip", "b.zip", kind=ARCHIVE)) is Reason.UPLOAD_INVALID


def test_the_name_follows_from_the_content_alone():
    others = [manifest("a"), manifest("b", "a"), manifest("a", "c"), manifest("a", "b", size=2)]
    others.append(manifest("a", "b", sha="1" * 64))
    assert len({each.id for each in [manifest("a", "b"), *others]}) == 6
    assert manifest("a.zip").id != manifest("a.zip", kind=ARCHIVE).id
    assert Manifest.from_json(manifest("a", "b").to_json()) == manifest("a", "b")
