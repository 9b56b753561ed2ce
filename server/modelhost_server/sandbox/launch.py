"""How the server starts processes that run models: in a session of their own, with little of its environment."""

from __future__ import annotations

import os

# No secrets, no proxies, no start-up files. The kernel shows a process's first environment to itself for ever, so that
# this is decided before it starts.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_ENVIRONMENT_PREFIXES = ("TF_", "OMP_", "KMP_", "CUDA_", "XLA_", "ONEDNN_", "OV_")


def environment(**fixed: str) -> dict[str, str]:
    """What of the server's environment such a process sees, and `fixed`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    kept.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return kept | fixed
