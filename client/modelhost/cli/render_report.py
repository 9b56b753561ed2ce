"""What `modelhost optimize` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.table import Table

from .._optimization_types import OptimizationMeasure, OptimizationReport, OutputDrift
from .render import console, new_table, size

_Number = TypeVar("_Number", int, float)


def print_report(report: OptimizationReport) -> None:
    """The new version beside the original."""
    out, version = console(), report.version
    out.print(
        f"{version.scope}/{version.model}@{version.version} is {version.state}, "
        f"made from version {report.original_version} by {report.method}\n"
    )
    out.print(_comparison(report.original, report.optimized))
    if report.drift:
        whose = ", which the server made up" if report.examples_made_up else ""
        examples = "1 example" if report.example_count == 1 else f"{report.example_count} examples"
        out.print(f"\n  difference of the outputs, on {examples}{whose}")
        out.print(_drifts(report.drift))
    if report.remarks:
        out.print()
    for remark in report.remarks:
        out.print(f"  - {remark}")


def _comparison(original: OptimizationMeasure, optimized: OptimizationMeasure) -> Table:
    table = new_table("", "ORIGINAL", "OPTIMIZED", "CHANGE")
    table.add_row("  engine", original.engine.lower(), optimized.engine.lower(), "")
    batch = f", batch of {original.batch_size}" if original.batch_size else ""
    _add_row(table, "on disk", original.disk_bytes, optimized.disk_bytes, size)
    _add_row(table, "compressed", original.compressed_bytes, optimized.compressed_bytes, size)
    _add_row(table, "memory", original.private_bytes, optimized.private_bytes, size)
    _add_row(table, f"latency{batch}", original.latency_seconds, optimized.latency_seconds, _milliseconds)
    for name, share, other in (
        ("accuracy", original.accuracy, optimized.accuracy),
        ("zero weights", original.zero_share, optimized.zero_share),
    ):
        if share is not None and other is not None:
            table.add_row(f"  {name}", f"{share:.1%}", f"{other:.1%}", f"{(other - share) * 100:+.1f} points")
    return table


def _add_row(table: Table, name: str, before: _Number, after: _Number, text: Callable[[_Number], str]) -> None:
    change = round((after / before - 1) * 100) if before else 0
    table.add_row(f"  {name}", text(before), text(after), f"{change:+}%" if change else "")


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _drifts(drifts: Sequence[OutputDrift]) -> Table:
    table = new_table("", "SIGNATURE", "OUTPUT", "LARGEST", "MEAN", "SAME CLASS")
    for drift in drifts:
        table.add_row(
            "  ",
            drift.signature,
            drift.output,
            f"{drift.max_relative_difference:.1e}",
            f"{drift.mean_relative_difference:.1e}",
            "" if drift.argmax_agreement is None else f"{drift.argmax_agreement:.1%}",
        )
    return table
