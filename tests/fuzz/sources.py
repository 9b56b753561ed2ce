"""Models that have come to harm: each is loaded through the real server, and asked when that says that it can be.

A worker may die of what it loads; it is one of the victims' scope, and nobody else notices.
"""

from __future__ import annotations

import io
import random
import shutil
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import grpc
from modelhost_server.compat import saved_model_pb2
from support.building import built
from support.calls import load, request, vector

from .calls import AS_OTHERS_ANSWER
from .damage import NUMBERS, damaged
from .hosted import VICTIMS, Hosted
from .tally import Tally

_SECONDS = 60.0
_CHECK_EVERY = 20
_WRONG = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
_GRAPHS = ("half_plus_two", "several", "identity", "table", "control_flow")


def _graph(noise: random.Random, models: Path, place: Path) -> Path:
    """A SavedModel whose graph is another one, and still a message."""
    target = _copy(noise.choice(_GRAPHS), models, place)
    file = target / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    graph = saved.meta_graphs[0].graph_def
    for _ in range(noise.randint(1, 3)):
        functions = [function.node_def for function in graph.library.function]
        nodes = noise.choice([graph.node, *functions]) if functions else graph.node
        if not nodes:
            continue
        node = noise.choice(nodes)
        match noise.randrange(8):
            case 0:
                node.op = noise.choice(["Add", "MatMul", "Placeholder", "Const", "NoSuchOp", "Abort", "ReadFile", ""])
            case 1:
                node.name = noise.choice(["", "x", noise.choice(nodes).name, "a" * 1000])
            case 2 if node.input:
                node.input[noise.randrange(len(node.input))] = noise.choice(nodes).name + noise.choice(
                    ["", ":1", ":-1"]
                )
            case 3 if node.input:
                del node.input[:]
            case 4:
                node.input.append(noise.choice(nodes).name)
            case 5 if node.attr:
                name = noise.choice(sorted(node.attr))
                node.attr[name].CopyFrom(noise.choice(nodes).attr[name])
            case 6 if node.attr:
                del node.attr[noise.choice(sorted(node.attr))]
            case _:
                signatures = saved.meta_graphs[0].signature_def
                signature = signatures[noise.choice(sorted(signatures))]
                for tensors in (signature.inputs, signature.outputs):
                    for tensor in tensors.values():
                        tensor.dtype = noise.randrange(30)
                        for dim in tensor.tensor_shape.dim:
                            dim.size = noise.choice([-1, 0, 1, 2**31, 2**62, -5])
    file.write_bytes(saved.SerializeToString())
    return target


def _copy(model: str, models: Path, place: Path) -> Path:
    target = place / model
    shutil.copytree(models / model, target)
    return target


def _bytes(noise: random.Random, models: Path, place: Path) -> Path:
    """A SavedModel with other bytes in one of its files, or without it, or with one in the place of another."""
    target = _copy(noise.choice(_GRAPHS), models, place)
    files = sorted(file for file in target.rglob("*") if file.is_file())
    file = noise.choice(files)
    match noise.randrange(6):
        case 0:
            file.unlink()
        case 1:
            file.write_bytes(noise.choice(files).read_bytes())
        case 2:
            file.write_bytes(file.read_bytes()[: noise.randrange(file.stat().st_size + 1)])
        case 3:
            file.unlink()
            file.symlink_to(noise.choice(["/dev/zero", "/proc/self/mem", str(file), "/nowhere"]))
        case _:
            file.write_bytes(damaged(noise, file.read_bytes()))
    return target


def _single(name: str) -> Callable[[random.Random, Path, Path], Path]:
    def make(noise: random.Random, models: Path, place: Path) -> Path:
        source = (models / name) if (models / name).exists() else built("build_engines") / name
        target = place / name
        data = source.read_bytes()
        target.write_bytes(damaged(noise, data) if noise.random() < 0.9 else data[: noise.choice(NUMBERS[:9])])
        return target

    return make


_KINDS: dict[str, tuple[Callable[[random.Random, Path, Path], Path], float]] = {
    # What is damaged, and its share of the cases: a .keras file is converted for seconds.
    "SavedModels, their graphs": (_graph, 0.4),
    "SavedModels, their bytes": (_bytes, 0.3),
    ".tflite files": (_single("scale.tflite"), 0.28),
    ".keras files": (_single("keras_file.keras"), 0.02),
}


def fuzz_sources(models: Path, seed: int, cases: int) -> list[Tally]:
    """So many models."""
    tallies = []
    hosted = Hosted(models, may_die=True)
    try:
        for kind, (make, share) in _KINDS.items():
            tally = Tally(kind)
            tallies.append(tally)
            with tally.timed():
                for number in range(int(cases * share)):
                    noise = random.Random(f"{seed}/{kind}/{number}")
                    with tempfile.TemporaryDirectory(prefix="modelhost-fuzz-") as place:
                        _try(hosted, tally, make(noise, models, Path(place)), f"{kind} {number}")
                    tally.cases += 1
                    if tally.cases % _CHECK_EVERY == 0 and not hosted.check(tally, kind):
                        return tallies
                hosted.check(tally, kind)
                hosted.restore()
            tally.answers["workers killed"] = hosted.deaths
            hosted.deaths = 0
    finally:
        hosted.close()
    return tallies


def _try(hosted: Hosted, tally: Tally, source: Path, what: str) -> None:
    scope = VICTIMS[0]
    try:
        load(hosted.stubs, scope, "victim", source)
        tally.answers["loaded"] += 1
        hosted.stubs.predictions.Predict(request(scope, "victim", x=vector(1.0)), timeout=_SECONDS)
    except grpc.RpcError as error:
        code, details = error.code(), error.details() or ""  # type: ignore[attr-defined]
        tally.answers[code.name] += 1
        if code in _WRONG and not AS_OTHERS_ANSWER.search(details):
            tally.fail(f"{what}: {code}: {details}")


def archives(noise: random.Random, models: Path) -> tuple[str, bytes]:
    """An archive of a model, with damage or with members that must not be: its name and its bytes."""
    kind = noise.choice(["m.tar", "m.tar.gz", "m.tgz", "m.zip"])
    packed = io.BytesIO()
    files = [file for file in sorted((models / "half_plus_two").rglob("*")) if file.is_file()]
    odd = noise.choice(
        ["../out", "/tmp/out", "a/../../out", "saved_model.pb", "a" * 300, "\0", "x\\..\\y", "d/" * 200 + "x"]
    )
    if kind.endswith(".zip"):
        with zipfile.ZipFile(packed, "w", noise.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            for file in files:
                archive.write(file, file.relative_to(models / "half_plus_two"))
            if noise.random() < 0.3:
                with warnings.catch_warnings():
                    # Of a name that is there twice.
                    warnings.simplefilter("ignore")
                    archive.writestr(zipfile.ZipInfo(odd), noise.choice([b"", bytes(1 << 20)]))
    else:
        with tarfile.open(fileobj=packed, mode="w" if kind == "m.tar" else "w:gz") as tar:
            for file in files:
                tar.add(file, str(file.relative_to(models / "half_plus_two")))
            if noise.random() < 0.3:
                member = tarfile.TarInfo(odd)
                types = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
                member.type = noise.choice([tarfile.REGTYPE, *types])
                member.linkname = noise.choice(["/etc/passwd", "../../x", "saved_model.pb"])
                tar.addfile(member)
    data = packed.getvalue()
    return kind, damaged(noise, data) if noise.random() < 0.6 else data


def fuzz_archives(models: Path, seed: int, cases: int) -> Tally:
    """So many archives, unpacked as the server does."""
    from modelhost_server.errors import ModelhostError
    from modelhost_server.sources.archives import unpack

    tally = Tally("archives")
    with tally.timed():
        for number in range(cases):
            with tempfile.TemporaryDirectory(prefix="modelhost-fuzz-") as directory:
                place = Path(directory)
                name, data = archives(random.Random(f"{seed}/archive/{number}"), models)
                (place / name).write_bytes(data)
                (place / "into").mkdir()
                try:
                    unpack(place / name, place / "into", 1 << 24)
                    tally.answers["unpacked"] += 1
                except ModelhostError as error:
                    tally.answers[error.reason.name] += 1
                except Exception as error:
                    tally.fail(f"archive {number}: {error!r}")
                others = [
                    path for path in place.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())
                ]
                if others or {path.name for path in place.iterdir()} != {name, "into"}:
                    tally.fail(f"archive {number}: it made what it must not: {others}")
            tally.cases += 1
    return tally
