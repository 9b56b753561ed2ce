"""The litert engine's own: `.tflite` files as callers have them, and interpreters that are made as calls overlap."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from modelhost_server.engines.base import LoadedModel, LoadRequest
from modelhost_server.engines.litert import LitertEngine
from modelhost_server.engines.litert_interpreter import Instance
from modelhost_server.engines.litert_pool import InstancePool, Running
from modelhost_server.engines.optimised_pages import drop_pages
from modelhost_server.errors import ModelhostError, Reason
from support.optimised import built, check, load, options, recorded, run


def opened(name: str) -> LoadedModel:
    return load(LitertEngine(options()), built() / name)


def described(model: LoadedModel) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    return {s.name: ({i.name: str(i) for i in s.inputs}, {o.name: str(o) for o in s.outputs}) for s in model.signatures}


def test_a_file_is_served_with_its_own_signatures():
    model = opened("two.tflite")
    assert (model.engine, model.loader, model.is_pure) == ("litert", "flatbuffer", True)
    assert described(model) == {
        "first": ({"x": "float32 [?, 4]"}, {"same": "float32 [?, 4]", "y": "float32 [?, 3]"}),
        "second": ({"a": "float32 [?, ?]", "b": "int64 [?]"}, {"sum": "float32 [?]"}),
    }
    for rows in (1, 3, 1, 0, 700, 2):
        x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
        check(run(model, {"x": x}, "first"), {"same": x, "y": x[:, :3]})
        b = np.arange(rows)
        check(run(model, {"a": x, "b": b}, "second"), {"sum": (x.sum(1) + b).astype(np.float32)})
    assert list(run(model, {"x": x}, "first", ["y"])) == ["y"]


def test_a_file_without_signatures_gets_one():
    model = opened("pair/litert/m.tflite")
    assert described(model) == {
        "serving_default": (
            {"a": "float32 [?, ?]", "b": "int64 [?]"},
            {"Identity": "float32 [?]", "Identity_1": "float32 [?, ?]"},
        )
    }
    for inputs, outputs in recorded("pair"):
        check(run(model, inputs), {"Identity": outputs["a"], "Identity_1": outputs["b"]})


def test_names_of_a_file_without_signatures_are_clean_and_different(tmp_path):
    def rename(model: schema.ModelT) -> None:
        graph = model.subgraphs[0]
        for index, name in zip([*graph.inputs, *graph.outputs], [b"in put:0", b"in put", b"", b"a:1"], strict=True):
            graph.tensors[index].name = name

    model = load(LitertEngine(options()), altered(tmp_path, built() / "pair" / "litert" / "m.tflite", rename))
    ((inputs, outputs),) = described(model).values()
    assert list(inputs) == ["in_put", "in_put_2"]
    assert list(outputs) == ["a_1", "output_0"]


def altered(tmp_path: Path, source: Path, alter) -> Path:
    """A copy of a file, with its graph changed."""
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    alter(model)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    target = tmp_path / "altered.tflite"
    target.write_bytes(builder.Output())
    return target


def test_state_is_kept_between_calls_and_told():
    model = opened("counter.tflite")
    assert not model.is_pure
    assert [run(model, {"by": by})["count"].item() for by in (1, 2, 4)] == [1, 3, 7]
    other = opened("counter.tflite")
    assert run(other, {"by": 1})["count"].item() == 1


def test_a_file_whose_own_shapes_do_not_fit_takes_those_that_do():
    model = opened("valid.tflite")
    for size in (3, 5, 4):
        got = run(model, {"x": np.ones([1, size, size, 1])})["y"]
        assert got.tolist() == np.full([1, size - 2, size - 2, 1], 9).tolist()


def test_inputs_that_a_file_cannot_take_are_the_callers_fault():
    model = opened("valid.tflite")
    with pytest.raises(ModelhostError, match="shapes") as caught:
        run(model, {"x": np.ones([1, 2, 2, 1])})
    assert caught.value.reason == Reason.MODEL_REJECTED_INPUT
    assert run(model, {"x": np.ones([1, 3, 3, 1])})["y"].item() == 9


def test_a_run_that_fails_says_why():
    model = opened("named.tflite")
    with pytest.raises(ModelhostError, match="out of bounds") as caught:
        run(model, {"index": [0, 2]})
    assert caught.value.reason == Reason.MODEL_EXECUTION_FAILED
    assert run(model, {"index": [1, 0]})["y"].tolist() == [2, 1]


def test_what_litert_has_no_operation_for_is_refused_with_its_name():
    with pytest.raises(ModelhostError, match="FlexCholesky") as caught:
        opened("flex.tflite")
    assert caught.value.reason == Reason.SOURCE_UNSUPPORTED


def test_strings_are_refused():
    with pytest.raises(ModelhostError, match="strings") as caught:
        opened("strings.tflite")
    assert caught.value.reason == Reason.SOURCE_UNSUPPORTED


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(ModelhostError, match=r"nothing\.tflite") as caught:
        load(LitertEngine(options()), tmp_path / "nothing.tflite")
    assert caught.value.reason == Reason.SOURCE_NOT_FOUND


def _pipe(path: Path) -> None:
    os.mkfifo(path)


NO_MODELS = {
    "an empty file": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a model at all" * 100),
    "the identifier alone": lambda path: path.write_bytes(b"\x1c\0\0\0TFL3"),
    "an offset to nowhere": lambda path: path.write_bytes(b"\xff\xff\xff\x7fTFL3" + bytes(100)),
    "a directory": lambda path: path.mkdir(),
    "a pipe": _pipe,
}


@pytest.mark.parametrize("make", NO_MODELS.values(), ids=NO_MODELS)
def test_what_is_no_model_is_refused(tmp_path, make):
    path = tmp_path / "m.tflite"
    make(path)
    with pytest.raises(ModelhostError) as caught:
        load(LitertEngine(options()), path)
    assert caught.value.reason == Reason.SOURCE_INVALID


def _without_operators(model: schema.ModelT) -> None:
    model.operatorCodes = None


def _far_input(model: schema.ModelT) -> None:
    model.subgraphs[0].inputs = [10_000]


def _far_signature(model: schema.ModelT) -> None:
    model.signatureDefs[0].inputs[0].tensorIndex = 10_000


def _constant_as_input(model: schema.ModelT) -> None:
    # To write into it would be to write into the mapped file.
    constant = next(i for i, t in enumerate(model.subgraphs[0].tensors) if model.buffers[t.buffer].data is not None)
    model.signatureDefs[0].inputs[0].tensorIndex = constant


def _far_subgraph(model: schema.ModelT) -> None:
    model.signatureDefs[0].subgraphIndex = 7


@pytest.mark.parametrize(
    "alter",
    [_without_operators, _far_input, _far_signature, _constant_as_input, _far_subgraph],
    ids=lambda f: f.__name__,
)
def test_a_graph_that_would_lead_astray_is_refused(tmp_path, alter):
    with pytest.raises(ModelhostError) as caught:
        load(LitertEngine(options()), altered(tmp_path, built() / "two.tflite", alter))
    assert caught.value.reason == Reason.SOURCE_INVALID


def test_spoilt_bytes_are_refused_or_served_but_never_end_the_process(tmp_path):
    # In a process of its own, which tells how far it came.
    script = """
import random, sys
from pathlib import Path
from support.optimised import *
from modelhost_server.errors import ModelhostError
engine, content, refused = LitertEngine(options()), (built() / "two.tflite").read_bytes(), 0
for seed in range(300):
    random.seed(seed)
    spoilt = bytearray(content)
    # The tables, not the weights and shapes behind them: what XNNPACK makes of those nobody checks.
    for _ in range(random.choice([1, 3])):
        spoilt[random.randrange(8, 64)] = random.choice([0, 1, 127, 128, 255])
    path = Path(sys.argv[1]) / f"{seed}.tflite"
    path.write_bytes(spoilt)
    try:
        load(engine, path).close()
    except ModelhostError:
        refused += 1
print(refused)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > 100


def test_another_interpreter_is_made_when_calls_overlap_up_to_the_limit():
    path = built() / "mlp" / "litert" / "m.tflite"
    pool = InstancePool(Instance(path, 1), path, 1, 2, Running())
    with pool.lease(()) as first:
        with pool.lease(()) as second:
            assert second is not first
            third: list[Instance] = []

            def wait() -> None:
                with pool.lease(()) as instance:
                    third.append(instance)

            waiter = threading.Thread(target=wait)
            waiter.start()
            waiter.join(0.3)
            assert waiter.is_alive()
        waiter.join(10)
        assert third == [second]
    pool.close()


def test_the_interpreter_that_has_the_shapes_is_preferred():
    path = built() / "mlp" / "litert" / "m.tflite"
    pool = InstancePool(Instance(path, 1), path, 1, 2, Running())
    shapes = [((0, (rows, 4)),) for rows in (3, 5)]
    with pool.lease(()) as one, pool.lease(()) as two:
        one.prepare(shapes[0])
        two.prepare(shapes[1])
    for wanted, prepared in ((0, one), (1, two), (0, one)):
        with pool.lease(shapes[wanted]) as instance:
            assert instance is prepared
    pool.close()


def test_the_interpreter_with_more_threads_is_for_calls_that_come_alone():
    path = built() / "mlp" / "litert" / "m.tflite"
    wide, running = Instance(path, 2), Running(calm_seconds=0.05)
    pool = InstancePool(wide, path, 1, 2, running, is_wide=True)
    for _ in range(2):
        with pool.lease(()) as instance:
            assert instance is wide
    with pool.lease(()) as one, pool.lease(()) as two:
        assert one is wide
        assert two is not wide
    time.sleep(0.1)
    with pool.lease(()) as one, pool.lease(()) as two, pool.lease(()) as three:
        assert one is wide
        assert wide not in (two, three)
    with pool.lease(()) as instance:
        assert instance is not wide, "calls overlapped a moment ago"
    time.sleep(0.1)
    with pool.lease(()) as instance:
        assert instance is wide
    time.sleep(0.1)
    running.begin()
    with pool.lease(()) as instance:
        assert instance is not wide, "another model's call runs"
    running.end()
    pool.close()


def test_an_interpreter_with_more_threads_that_failed_is_not_used_again():
    path = built() / "mlp" / "litert" / "m.tflite"
    wide = Instance(path, 2)
    pool = InstancePool(wide, path, 1, 1, Running(), is_wide=True)
    with contextlib.suppress(ZeroDivisionError), pool.lease(()):
        raise ZeroDivisionError
    for _ in range(2):
        with pool.lease(()) as instance:
            assert instance is not wide
    pool.close()


def test_more_threads_for_calls_that_come_alone_change_no_answer():
    engine = LitertEngine(options(lanes=2))
    engine.prepare()
    model = engine.load(LoadRequest(str(built() / "cnn" / "litert"), alone_threads=2), lambda *_: None)
    for inputs, outputs in recorded("cnn"):
        check(run(model, inputs), outputs)
        with ThreadPoolExecutor(4) as pool:
            for answer in pool.map(lambda _, i=inputs: run(model, i), range(20)):
                check(answer, outputs)
        check(run(model, inputs), outputs)
    model.close()


def test_an_interpreter_that_failed_is_replaced():
    path = built() / "mlp" / "litert" / "m.tflite"
    first = Instance(path, 1)
    pool = InstancePool(first, path, 1, 1, Running())
    used = []
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), pool.lease(()) as instance:
            used.append(instance)
            raise ZeroDivisionError
    assert used[0] is first
    assert used[1] is not first
    pool.close()


def test_calls_get_an_error_when_no_interpreter_can_be_made(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes((built() / "mlp" / "litert" / "m.tflite").read_bytes())
    pool = InstancePool(Instance(path, 1), path, 1, 1, Running())
    path.unlink()
    with pytest.raises(ZeroDivisionError), pool.lease(()):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="open"), pool.lease(()):
        pass


def test_pages_that_were_dropped_are_read_again_when_needed():
    model = load(LitertEngine(options()), built() / "cnn" / "litert")
    for inputs, outputs in recorded("cnn"):
        check(run(model, inputs), outputs)
        drop_pages(built() / "cnn" / "litert")
    model.close()


def test_python_runs_on_while_a_model_computes():
    model = load(LitertEngine(options()), built() / "large" / "litert")
    x = np.ones([2000, 2048], np.float32)
    run(model, {"x": x})
    finished = threading.Event()
    turns = 0

    def call() -> None:
        run(model, {"x": x})
        finished.set()

    threading.Thread(target=call).start()
    while not finished.is_set():
        time.sleep(0.001)
        turns += 1
    # 2000 rows are some 80 ms of work; with Python's lock held there would be one or two turns.
    assert turns > 5
    model.close()
