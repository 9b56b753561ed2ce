"""Below which directories callers' local paths must be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelhostError, Reason, brief


class ModelRoots:
    """The directories; by where paths lead to, through all symbolic links.

    Args:
        roots: the directories.
        anywhere: any path is right when there are none; otherwise none is.
    """

    def __init__(self, roots: Sequence[Path], anywhere: bool = True) -> None:
        self._roots = [os.path.realpath(root) for root in roots]
        self._anywhere = anywhere and not roots

    def check(self, path: str | Path) -> None:
        """Checks a path that a caller named, or that one led to; whatever is there is not told. Blocking.

        What it leads to may change before it is opened: only a worker's sandbox sees what really is.

        Raises:
            ModelhostError: SOURCE_FORBIDDEN.
        """
        if self._anywhere:
            return
        real = os.path.realpath(path)
        if any(os.path.commonpath((real, root)) == root for root in self._roots):
            return
        raise ModelhostError(
            Reason.SOURCE_FORBIDDEN,
            f"source: this server loads no local paths for its callers but those below its --model-root; got "
            f"{brief(str(path), 200)}. Upload the model, or have the server started with a root that it is below"
            if self._roots
            else "source: this server loads no local paths for its callers, because it has no --model-root. Upload the "
            "model, or have the server started with a root that it is below",
            field="source",
        )
