"""How far something has come: bars on standard error, where that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from .._types import LoadUpdate


class News(Protocol):
    """What is told of something under way."""

    @property
    def stage(self) -> str:
        """What is being done."""

    @property
    def fraction(self) -> float:
        """Share done of the whole."""


@contextmanager
def bar(title: str, shown: bool) -> Iterator[Callable[[News], None] | None]:
    """Something to call with news; None when nothing is to be shown."""
    if not shown:
        yield None
        return
    with _progress() as progress:
        task = progress.add_task("waiting", total=1.0, title=title)
        yield lambda news: progress.update(task, completed=news.fraction, description=_words(news.stage))


@contextmanager
def bars(titles: Sequence[str], shown: bool) -> Iterator[Callable[[LoadUpdate], None]]:
    """Something to call with the news of several loads: a line for each that is under way, and one for all."""
    if not shown:
        yield lambda update: None
        return
    with _progress() as progress:
        tasks: dict[int, Any] = {}
        total = progress.add_task("", total=len(titles), title="all")

        def tell(update: LoadUpdate) -> None:
            index = update.index
            if update.progress is None:
                if index in tasks:
                    progress.remove_task(tasks.pop(index))
            else:
                if index not in tasks:
                    tasks[index] = progress.add_task("", total=1.0, title=titles[index])
                news = update.progress
                progress.update(tasks[index], completed=news.fraction, description=_words(news.stage))
            finished = f"{update.finished} of {update.total}"
            progress.update(total, completed=update.finished, description=finished)

        yield tell


def spinner(text: str, shown: bool) -> AbstractContextManager[Any]:
    """Shows that something is under way of which nothing more is known."""
    if not shown:
        return nullcontext()
    from rich.console import Console
    from rich.text import Text

    return Console(stderr=True).status(Text(text))


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[title]}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.description}", markup=False),
        TimeElapsedColumn(),
    )
    # Standard output may go elsewhere, and is none of the bars' business.
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)


def _words(stage: str) -> str:
    return stage.lower()
