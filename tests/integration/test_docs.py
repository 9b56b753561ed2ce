"""What the documentation shows is true: its examples run, as they stand, against a server."""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import modelhost
import pytest
from modelhost import _sync_models, _sync_predictions, _sync_scopes, _sync_streams, _sync_uploads
from support.building import built
from support.server import ServerProcess

DOCS = Path(__file__).parents[2] / "docs"
TESTS = Path(__file__).parents[1]
# Between the outputs of two blocks.
SEPARATOR = "\x1e"


@pytest.fixture
def fresh() -> Iterator[ServerProcess]:
    """A server without models, as examples expect it."""
    with ServerProcess("--rest", "127.0.0.1:0") as process:
        yield process


def run(command: str) -> None:
    """Runs a command of a console block; one that goes on until it is interrupted is, after its first line."""
    if "modelhost serve" not in command and "modelhost watch" not in command:
        result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=150)
        assert result.returncode == 0, f"{command}: exit code {result.returncode}: {result.stderr}"
        return
    # Tests that run in the background of a shell have interrupts ignored, and whoever they start inherits that.
    process = subprocess.Popen(
        f"exec env --default-signal=INT {command}",
        shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first_line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert first_line, f"{command}: said nothing: {errors}"
    assert process.returncode in (0, 130), f"{command}: exit code {process.returncode}: {errors}"


def answer(command: str) -> str:
    """What a command of a console block is answered."""
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=30).stdout


def script_of(page: str) -> tuple[str, list[str | None]]:
    """A page's examples as one script, every line where it is on the page, and what each of its blocks should print.

    In a `python` block all lines count, in a `console` block those that begin with "$ " and run modelhost. A `text`
    block says what the `python` block before it prints; the line behind a `curl` in a `console` block, what that does.
    """
    lines, outputs, fence, last = [], [], "", ""
    for line in page.splitlines():
        code = ""
        if line.startswith("```"):
            if fence == "python":
                code = f"print({SEPARATOR!r})"
                outputs.append(None)
            elif line == "```text" and last == "python":
                outputs[-1] = ""
            fence, last = ("", fence) if fence else (line[3:], last)
        elif fence == "python":
            code = line
        elif fence == "text" and last == "python" and outputs[-1] is not None:
            outputs[-1] += line + "\n"
        elif fence == "console" and line.startswith("$ curl "):
            code = f"print({SEPARATOR!r}); print(answer({line[2:]!r})); print({SEPARATOR!r})"
            outputs += [None, ""]
            last = "curl"
        elif fence == "console" and line.startswith("$ ") and "modelhost " in line:
            code = f"run({line[2:]!r})"
            last = ""
        elif fence == "console" and last == "curl":
            outputs[-1] += line + "\n"
        elif not fence and line:
            last = ""
        lines.append(code)
    here = [str(TESTS), str(Path(__file__).parent)]
    lines[0] = f"import sys; sys.path[:0] = {here!r}; from test_docs import answer, run"
    return "\n".join(lines), outputs


@pytest.fixture
def shelf(models: Path, tmp_path: Path) -> Path:
    """What is below `/models` on the pages: what the tests load, and the digits classifier with its examples."""
    shelf, digits = tmp_path / "models", built("build_digits")
    shelf.mkdir()
    for model in models.iterdir():
        (shelf / model.name).symlink_to(model)
    (shelf / "digits").symlink_to(digits / "digits")
    (shelf / "digits.npz").symlink_to(digits / "test.npz")
    return shelf


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "page",
    [f"{name}.md" for name in ("quickstart", "scopes", "directories", "engines", "sdk", "cli", "migration", "rest")],
)
def test_the_examples_of_a_page_run(page, fresh, shelf, tmp_path):
    # Paths of files, not of URLs.
    text = re.sub(r"(?<!\w)/models\b", str(shelf), (DOCS / page).read_text())
    text = text.replace("serve --listen 127.0.0.1:8500", "serve --listen 127.0.0.1:0")
    text = text.replace("--rest 127.0.0.1:8501", "--rest 127.0.0.1:0")
    text = text.replace("localhost:8501", fresh.addresses[-1])
    script, wanted = script_of(text.replace("localhost:8500", fresh.address))
    (tmp_path / page).with_suffix(".py").write_text(script)
    environment = {
        **os.environ,
        "MODELHOST_TARGET": fresh.address,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    result = subprocess.run(
        [sys.executable, "-u", (tmp_path / page).with_suffix(".py")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=350,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    printed = result.stdout.split(f"{SEPARATOR}\n")
    assert [got for want, got in zip(wanted, printed, strict=False) if want is not None] == [
        want for want in wanted if want is not None
    ]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(#[^)]*)?\)", page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor[1:] in slugs, target + anchor


@pytest.mark.parametrize(
    "module",
    [_sync_predictions, _sync_streams, _sync_models, _sync_scopes, _sync_uploads],
    ids=lambda module: module.__name__,
)
def test_the_examples_of_the_sdk_run(module: ModuleType, fresh, models):
    examples = 0
    with modelhost.Client(fresh.address) as client:
        client.load("half_plus_two", models / "half_plus_two")
        names = {"client": client, "models": models, **vars(modelhost)}
        for test in doctest.DocTestFinder().find(module, globs=names):
            results = doctest.DocTestRunner().run(test, clear_globs=False)
            assert not results.failed, test.name
            examples += results.attempted
    assert examples


def test_the_example_of_the_package_runs(fresh, models):
    code = textwrap.dedent("\n".join(line for line in modelhost.__doc__.splitlines() if line.startswith("    ")))
    assert "import modelhost" in code
    exec(code.replace("localhost:8500", fresh.address).replace("/models/", f"{models}/"), {})
