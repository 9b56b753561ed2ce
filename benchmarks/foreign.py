"""What the other protocols cost beside the native one: the same models in the same server, called by each in turn."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import Annotated, NamedTuple

import numpy as np
import typer
from modelhost_server.compat import tensor_pb2
from modelhost_server.compat.serving_predict_pb2 import PredictRequest, PredictResponse

from .common.cases import MOBILENET, TINY, TINY_4K, Case
from .common.h2load import require_h2load
from .common.loading import load
from .common.report import Report, console, verdict
from .common.servers import modelhost_server
from .common.window import Window, result
from .peers.protocols import NATIVE, OPEN_INFERENCE, Protocol
from .peers.running import Hosted
from .peers.systems import ready

TRANSPORTS = ("grpcio", "h2corn")


class Subject(NamedTuple):
    """A case, how many call, and the share of the native protocol's throughput that others must reach."""

    case: Case
    callers: int
    bound: float


SUBJECTS = (Subject(TINY, 64, 0.85), Subject(TINY_4K, 64, 0.85), Subject(MOBILENET, 8, 0.95))


def _tensorflow_serving(*, is_typed: bool) -> Protocol:
    """TensorFlow Serving's, with values in float_val or as bytes in tensor_content."""

    def request(model: str, x: np.ndarray) -> bytes:
        tensor = tensor_pb2.TensorProto(dtype=tensor_pb2.DT_FLOAT)
        tensor.tensor_shape.dim.extend(tensor_pb2.TensorShapeProto.Dim(size=extent) for extent in x.shape)
        if is_typed:
            tensor.float_val.extend(x.ravel().tolist())
        else:
            tensor.tensor_content = x.tobytes()
        message = PredictRequest(inputs={"x": tensor})
        message.model_spec.name = model
        return message.SerializeToString()

    def answer(data: bytes) -> np.ndarray:
        (tensor,) = PredictResponse.FromString(data).outputs.values()
        return np.array(tensor.float_val, np.float32).reshape([dim.size for dim in tensor.tensor_shape.dim])

    return Protocol("/tensorflow.serving.PredictionService/Predict", request, answer)


_NATIVE = "native"
PROTOCOLS = {
    _NATIVE: NATIVE,
    "TensorFlow Serving, float_val": _tensorflow_serving(is_typed=True),
    "TensorFlow Serving, tensor_content": _tensorflow_serving(is_typed=False),
    "Open Inference, raw": OPEN_INFERENCE,
}
# By transport, case and protocol: one window a round.
_Windows = dict[tuple[str, str, str], list[Window]]


def main(
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Measurements of each kind.")] = 5,
) -> None:
    """Measure the throughput of the other protocols over that of the native one."""
    require_h2load()
    columns = ("case", "transport", "protocol", "req/s", "p50 ms", "p99 ms", "CPU µs a call", "of native", "bound", "")
    report = Report("foreign", "Other protocols beside the native one", columns)
    windows: _Windows = {}
    for transport in TRANSPORTS:
        _measure(windows, transport, seconds, rounds)
    passed = True
    for subject in SUBJECTS:
        for transport in TRANSPORTS:
            for protocol in PROTOCOLS:
                passed &= _tell(report, windows, subject, transport, protocol)
    callers = "; ".join(f"{subject.case.name}: {subject.callers}" for subject in SUBJECTS)
    report.note(f"{verdict(passed)}. Of native: calls a second over the native protocol's, the median of the rounds.")
    report.note(f"Callers: {callers}. {rounds} rounds of {seconds:g} s, in which the protocols take turns.")
    report.finish({" / ".join(key): result(found)._asdict() for key, found in windows.items()})
    raise typer.Exit(not passed)


def _measure(windows: _Windows, transport: str, seconds: float, rounds: int) -> None:
    """All protocols in one server, so that nothing else differs."""
    cases = [subject.case for subject in SUBJECTS]
    with ExitStack() as stack:
        server = stack.enter_context(modelhost_server("--transport", transport))
        for model in {case.model.name: case.model for case in cases}.values():
            load(server.address, model)
        hosted = {name: ready(Hosted(server, protocol), cases) for name, protocol in PROTOCOLS.items()}
        for number in range(rounds):
            for case, callers, _ in SUBJECTS:
                console.print(f"{transport}, round {number + 1}/{rounds}: {case.name}", style="dim")
                for name in list(PROTOCOLS)[:: 1 if number % 2 == 0 else -1]:
                    window = hosted[name].closed(case, callers, seconds)
                    windows.setdefault((transport, case.name, name), []).append(window)
        for by_protocol in hosted.values():
            for case in cases:
                by_protocol.check(case)


def _tell(report: Report, windows: _Windows, subject: Subject, transport: str, protocol: str) -> bool:
    of_it, native = (windows[transport, subject.case.name, name] for name in (protocol, _NATIVE))
    found = result(of_it)
    ratio = median(_per_second(a) / _per_second(b) for a, b in zip(of_it, native, strict=True))
    passed = ratio >= subject.bound
    judged = ("", "", "") if protocol == _NATIVE else (ratio, subject.bound, verdict(passed))
    report.row(
        subject.case.name, transport, protocol, found.per_second, found.p50, found.p99, found.server_cpu, *judged
    )
    return passed


def _per_second(window: Window) -> float:
    return len(window.latencies) / window.duration


if __name__ == "__main__":
    typer.run(main)
