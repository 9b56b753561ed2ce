"""Converts and judges many models. `python conversions.py tensorflow|engines MODELS TARGET`: the first part has freeze
and litert in one process, because importing TensorFlow takes seconds; the second openvino and judge, each in a fork.

Leaves `TARGET/MODEL.STAGE.json` with what the converter process would have said.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

ENGINES = ("litert", "openvino")


def attempt(stage: str, job: dict[str, Any]) -> dict[str, Any]:
    """What the converter process says of a job."""
    module = importlib.import_module(f"modelhost_server.converter.{stage}")
    try:
        return {"result": module.run(job)}
    except Exception as error:
        traceback.print_exc()
        return {"error": {"message": str(error)}}


def forked(stage: str, job: dict[str, Any]) -> dict[str, Any]:
    """The same in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, json.dumps(attempt(stage, job)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(said) if said else {"died": status}


def judge_job(model: Path, artifact: Path, **more: Any) -> dict[str, Any]:
    """A job of stage `judge`."""
    job = {"path": str(model), "tags": [], "digest": "", "artifact": str(artifact), "intra_op_threads": 1, "lanes": 2}
    job["alone_threads"] = 2
    return {**job, "tolerance": 1e-4, "samples": None, "time_seconds": 0.1, **more}


def _with_tensorflow(model: Path, target: Path) -> dict[str, dict[str, Any]]:
    directories = {name: target / model.name / name for name in ("frozen", *ENGINES)}
    for directory in directories.values():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    said = {"freeze": attempt("freeze", {"path": str(model), "tags": [], "target": str(directories["frozen"])})}
    if "result" in said["freeze"]:
        job = {"frozen": str(directories["frozen"]), "target": str(directories["litert"])}
        said["litert"] = attempt("litert", job)
    return said


def _with_engines(model: Path, target: Path) -> dict[str, dict[str, Any]]:
    directories = {name: target / model.name / name for name in ("frozen", *ENGINES)}
    said = {}
    if (directories["frozen"] / "frozen.json").exists():
        job = {"frozen": str(directories["frozen"]), "target": str(directories["openvino"])}
        said["openvino"] = forked("openvino", job)
    for engine in ENGINES:
        if (directories[engine] / "artifact.json").exists():
            said[f"judge-{engine}"] = forked("judge", judge_job(model, directories[engine]))
    return said


if __name__ == "__main__":
    part = {"tensorflow": _with_tensorflow, "engines": _with_engines}[sys.argv[1]]
    models, results = Path(sys.argv[2]), Path(sys.argv[3])
    for path in sorted(models.iterdir()):
        if path.is_dir() and (len(sys.argv) < 5 or path.name in sys.argv[4:]):
            for stage, answer in part(path, results).items():
                (results / f"{path.name}.{stage}.json").write_text(json.dumps(answer))
