"""What commands print about models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from .._engine_types import EngineCandidate
from .._types import ModelInfo, SignatureInfo, VersionInfo, VersionMemory, VersionStatistics, format_shape
from .batching import described, options_described
from .render import coloured, console, facts_table, new_table, size

_TUNING = {
    "OFF": "off",
    "WAITING": "waits for its turn",
    "RUNNING": "looks for a faster engine",
    "DONE": "done",
}


def print_models(models: Iterable[ModelInfo]) -> None:
    """A line for each version."""
    table = new_table("MODEL", "VERSION", "STATE", "LABELS", "ENGINE", "MEMORY", "PREDICTIONS", "SOURCE")
    for model in models:
        for version in model.versions:
            table.add_row(
                f"{model.scope}/{model.model}",
                str(version.version),
                coloured(version.state),
                ", ".join(sorted(label for label, number in model.labels.items() if number == version.version)),
                version.engine.engine.lower() if version.engine else "",
                size(version.memory.private_bytes),
                str(version.statistics.success_count),
                version.source,
            )
    console().print(table)


def print_model(model: ModelInfo) -> None:
    """All there is to tell of a model."""
    out = console()
    for index, version in enumerate(model.versions):
        if index:
            out.print()
        out.print(
            Text.assemble((f"{model.scope}/{model.model}@{version.version}", "bold"), "  ", coloured(version.state))
        )
        labels = [label for label, number in model.labels.items() if number == version.version]
        out.print(facts_table(_facts(version, labels)))
        if version.engine and version.engine.candidates:
            out.print("\n  engines tried in tensorflow's place")
            out.print(_candidates(version.engine.candidates))
        for signature in version.signatures.values():
            out.print(f"\n  signature {signature.name}")
            out.print(_signature(signature))
            if signature.name in version.batching:
                out.print(facts_table({"batching": described(version.batching[signature.name])}))
        if version.variables:
            out.print("\n  variables")
            table = new_table("", "NAME", "DTYPE", "SHAPE", "MEMORY")
            for variable in version.variables:
                shape = format_shape(variable.shape)
                table.add_row("", variable.name, variable.dtype, shape, size(variable.byte_size))
            out.print(table)


def _facts(version: VersionInfo, labels: list[str]) -> dict[str, str]:
    engine, statistics, memory = version.engine, version.statistics, version.memory
    answered = statistics.success_count
    mean = (statistics.queue_seconds + statistics.run_seconds) / answered if answered else 0
    return {
        "source": version.source,
        "labels": ", ".join(sorted(labels)),
        "error": str(version.error or ""),
        "progress": f"{version.progress.stage} {version.progress.fraction:.0%}" if version.progress else "",
        "engine": ", ".join(filter(None, (engine.engine.lower(), engine.loader))) if engine else "",
        # With candidates, their table says it.
        "why": engine.explanation if engine and not engine.candidates else "",
        "tuning": _TUNING.get(engine.tuning, engine.tuning) if engine else "",
        "batching": options_described(version.requested_batching),
        "tolerance": f"{version.tolerance:g}" if version.tolerance else "",
        "made from": f"version {version.derived_from} by {version.derivation}" if version.derived_from else "",
        "memory": _memory(memory),
        "variables": size(memory.variable_bytes),
        "warm-up": _warmup(version),
        "loaded in": f"{statistics.load_seconds:.2f} s" if statistics.load_seconds else "",
        "loads": _loads(statistics),
        "predictions": f"{answered} answered, {statistics.failure_count} failed, {statistics.in_flight} under way",
        "mean time": f"{mean * 1e3:.2f} ms" if answered else "",
        "crashes": str(statistics.crash_count or ""),
        "annotations": ", ".join(f"{key}={value}" for key, value in sorted(version.annotations.items())),
        "pinned": "yes" if version.pinned else "",
        "evictable": "yes" if version.evictable else "",
        "idle timeout": f"{version.idle_timeout:g} s" if version.idle_timeout else "",
    }


def _loads(statistics: VersionStatistics) -> str:
    """Nothing for one that was loaded once and has stayed."""
    if statistics.load_count <= 1 and not statistics.eviction_count:
        return ""
    return (
        f"{statistics.load_count} in {statistics.total_load_seconds:.2f} s, evicted {statistics.eviction_count} times; "
        f"predictions: {statistics.hit_count} hits, {statistics.miss_count} misses"
    )


def _memory(memory: VersionMemory) -> str:
    private, shared = size(memory.private_bytes), size(memory.shared_bytes)
    return ", ".join(filter(None, (private and f"{private} private", shared and f"{shared} shared")))


def _warmup(version: VersionInfo) -> str:
    warmup = version.warmup
    if warmup is None or not (warmup.success_count or warmup.failure_count):
        return ""
    failed = f", {warmup.failure_count} failed: {warmup.first_error}" if warmup.failure_count else ""
    return f"{warmup.success_count} succeeded{failed}"


def _candidates(candidates: Sequence[EngineCandidate]) -> Table:
    table = new_table("", "ENGINE", "OUTCOME", "SPEED-UP", "DIFFERENCE", "WHY")
    for candidate in candidates:
        timed = candidate.speedup is not None
        table.add_row(
            "  ",
            candidate.engine.lower(),
            coloured(candidate.outcome),
            f"{candidate.speedup:.2f}" if timed else "",
            f"{candidate.max_relative_difference:.1e}" if timed or candidate.max_relative_difference else "",
            candidate.reason,
        )
    return table


def _signature(signature: SignatureInfo) -> Table:
    table = new_table("", "", "NAME", "DTYPE", "SHAPE", "")
    for kind, infos in (("input", signature.inputs), ("output", signature.outputs)):
        for info in infos.values():
            optional = "optional" if info.optional else ""
            table.add_row("  ", kind, info.name, info.dtype, format_shape(info.shape), optional)
    return table
