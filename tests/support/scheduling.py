"""A runner for tests of lines and schedulers: it runs nothing, and remembers what it was to run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from modelhost_server.scheduling.lines import Waiting


class Recorder:
    """A signature of version `key`. Predictions are of one group by what `kind` says of their names.

    Args:
        key: the version's.
        most: predictions in a batch.
        kind: of the group, by a prediction's name; None for one that runs alone.
        on_start: called with what is started.
    """

    def __init__(
        self,
        key: int = 1,
        *,
        most: int = 1,
        kind: Callable[[str], Hashable] = lambda name: "all",
        on_start: Callable[[Recorder], None] = lambda runner: None,
        **limits: float,
    ) -> None:
        self.key = key
        self.max_delay = limits.pop("max_delay", 0.0)
        self.max_queue = int(limits.pop("max_queue", 0))
        self.queue_timeout = limits.pop("queue_timeout", 0.0)
        self.max_rows = int(limits.pop("max_rows", 1 << 62))
        assert not limits
        self.batches: list[list[str]] = []
        self._most = most
        self._kind = kind
        self._on_start = on_start

    @property
    def order(self) -> list[str]:
        """What has been started, one after the other."""
        return [name for batch in self.batches for name in batch]

    def group(self, waiting: Waiting) -> Hashable:
        """See Runner."""
        assert isinstance(waiting, Item)
        waiting.rows = waiting.extent
        return self._kind(waiting.name)

    def choose(self, waiting: int) -> int:
        """See Runner."""
        return min(waiting, self._most)

    def is_full(self, waiting: int, rows: int) -> bool:
        """See Runner."""
        return waiting >= self._most or rows >= self.max_rows

    def start(self, batch: Sequence[Waiting]) -> None:
        """See Runner."""
        self.batches.append([item.name for item in batch if isinstance(item, Item)])
        self._on_start(self)


class Item(Waiting):
    """A prediction with a name."""

    def __init__(self, runner: Recorder, name: str, caller: str = "", *, priority: int = 0, rows: int = 1) -> None:
        super().__init__(runner, caller or name[0], priority)
        self.name = name
        self.extent = rows
        self.error: Exception | None = None

    def refuse(self, error: Exception) -> None:
        """See Waiting."""
        self.error = error
