"""Archives that anybody may have made."""

import gzip
import io
import os
import random
import struct
import tarfile
import zipfile

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.sources.archives import unpack

FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"i" * 3000}
LIMIT = 1 << 30


def unpacked(archive, limit=LIMIT):
    target = archive.with_name("target")
    target.mkdir()
    unpack(archive, target, limit)
    return {str(file.relative_to(target)): file.read_bytes() for file in target.rglob("*") if file.is_file()}


def refused(archive, limit=LIMIT):
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(ModelhostError) as failed:
        unpacked(archive, limit)
    outside = [path for path in sorted(archive.parent.rglob("*")) if "target" not in path.parts]
    assert [path for path in outside if archive.with_name("target") not in [path, *path.parents]] == before
    return failed.value.reason


def tar_of(path, *members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(name, kind=tarfile.REGTYPE, content=b"", **given):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in given.items():
        setattr(info, key, value)
    return info, content


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_archive(tmp_path, name, mode, kind):
    with tarfile.open(tmp_path / name, mode, format=kind) as tar:
        for path, content in [*FILES.items(), ("d" * 90 + "/" + "ü" * 30, b"long")]:
            info = tarfile.TarInfo(f"./{path}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        folder = tarfile.TarInfo("./assets/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert unpacked(tmp_path / name) == {**FILES, "d" * 90 + "/" + "ü" * 30: b"long"}
    assert (tmp_path / "target" / "assets").is_dir()


def test_a_zip_archive(tmp_path):
    assert unpacked(zip_of(tmp_path / "a.zip", ("assets/", b""), *FILES.items())) == FILES


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a\0b", "a\\b"])
def test_names_outside_of_the_target(tmp_path, name):
    assert refused(zip_of(tmp_path / "a.zip", (zip_info(name), b"x"))) is Reason.UPLOAD_INVALID
    (tmp_path / "target").rmdir()
    if "\0" not in name:
        assert refused(tar_of(tmp_path / "a.tar", member(name, content=b"x"))) is Reason.UPLOAD_INVALID


def zip_info(name):
    info = zipfile.ZipInfo("x")
    # The constructor would cut it at a NUL.
    info.filename = name
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("link", tarfile.SYMTYPE, linkname="/etc/passwd")],
        [member("link", tarfile.SYMTYPE, linkname="..")],
        [member("d", tarfile.SYMTYPE, linkname="/tmp"), member("d/x", content=b"x")],
        [member("a", content=b"x"), member("b", tarfile.LNKTYPE, linkname="a")],
        [member("device", tarfile.CHRTYPE)],
        [member("device", tarfile.BLKTYPE)],
        [member("pipe", tarfile.FIFOTYPE)],
        [member("sparse", tarfile.GNUTYPE_SPARSE)],
        [member("unknown", b"Z")],
        [member("a", content=b"x"), member("a", content=b"y")],
        [member("a", content=b"x"), member("a/b", content=b"y")],
        [member("a/b", content=b"x"), member("a", content=b"y")],
    ],
    ids=lambda members: "-".join(f"{info.name}{info.type.decode(errors='replace')}" for info, _ in members),
)
def test_members_that_are_no_files(tmp_path, members):
    assert refused(tar_of(tmp_path / "a.tar", *members)) is Reason.UPLOAD_INVALID


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666])
def test_a_link_device_or_pipe_in_a_zip_archive(tmp_path, mode):
    info = zipfile.ZipInfo("link")
    info.external_attr = mode << 16
    assert refused(zip_of(tmp_path / "a.zip", (info, b"/etc/passwd"))) is Reason.UPLOAD_INVALID


def test_archives_that_grow_too_much(tmp_path):
    zeros = bytes(120_000_000)
    (tmp_path / "t").mkdir()
    bombs = [
        zip_of(tmp_path / "a.zip", ("a", zeros)),
        tar_of(tmp_path / "a.tgz", member("a", content=zeros), mode="w:gz"),
    ]
    for bomb in bombs:
        assert refused(bomb.rename(tmp_path / "t" / bomb.name)) is Reason.UPLOAD_INVALID
        for path in sorted((tmp_path / "t").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_archives_that_are_too_large_or_have_too_much_in_them(tmp_path):
    assert refused(zip_of(tmp_path / "a.zip", *FILES.items()), limit=2000) is Reason.UPLOAD_LIMIT
    many = [member("d/", tarfile.DIRTYPE) for _ in range(20_001)]
    (tmp_path / "many").mkdir()
    assert refused(tar_of(tmp_path / "many" / "a.tar", *many)) is Reason.UPLOAD_LIMIT


def test_a_header_that_would_fill_the_memory(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    with gzip.open(tmp_path / "a.tgz", "wb") as packed:
        packed.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            packed.write(bytes(1 << 20))
    assert refused(tmp_path / "a.tgz") is Reason.UPLOAD_INVALID


def test_a_table_of_contents_that_would_fill_the_memory(tmp_path):
    size = 5 << 20
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, 0, 0)
    (tmp_path / "a.zip").write_bytes(bytes(size) + end)
    assert refused(tmp_path / "a.zip") is Reason.UPLOAD_LIMIT


def test_a_table_of_contents_that_leads_before_the_file_or_names_nothing(tmp_path):
    for number, change in enumerate(
        (lambda d: d[:-6] + b"\xff\0\0\0" + d[-2:], lambda d: d.replace(b"name", b"\0ame"))
    ):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("name", b"content")
        file, target = tmp_path / f"{number}.zip", tmp_path / str(number)
        file.write_bytes(change(packed.getvalue()))
        target.mkdir()
        with pytest.raises(ModelhostError) as caught:
            unpack(file, target, 1000)
        assert caught.value.reason is Reason.UPLOAD_INVALID


def test_an_encrypted_and_a_strangely_packed_archive(tmp_path):
    zip_of(tmp_path / "a.zip", ("a", b"x" * 100))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    assert refused(tmp_path / "a.zip") is Reason.UPLOAD_INVALID
    (tmp_path / "lzma").mkdir()
    with zipfile.ZipFile(tmp_path / "lzma" / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x" * 100)
    assert refused(tmp_path / "lzma" / "a.zip") is Reason.UPLOAD_INVALID


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
def test_bytes_that_are_no_archive_or_a_cut_one(tmp_path, name):
    content = random.Random(1).randbytes(20_000)
    if name == "a.zip":
        zip_of(tmp_path / name, ("a", content))
    else:
        tar_of(tmp_path / name, member("a", content=content), mode="w:gz" if name == "a.tgz" else "w")
    whole = (tmp_path / name).read_bytes()
    broken = [b"", b"\0" * 100, os.urandom(1000), whole[:-10_000], whole[:9000] + b"\xff" * 2000 + whole[11_000:]]
    for number, bytes_ in enumerate(broken):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(bytes_)
        if number == 4 and name == "a.tar":
            # It has no checksum.
            assert unpacked(folder / name)["a"] != content
        else:
            assert refused(folder / name) is Reason.UPLOAD_INVALID, number
