"""What callers have asked to be hosted from directories, for the next start of the server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable

from ...compat import serving_model_config_pb2 as pb
from ...hosting.host import Host
from ...repositories.model_directory import ModelDirectory
from .model_config import directories

_SETTING = "model_config_list"


class KeptConfig:
    """The config of the last reload. It counts until what the command line says is changed: then somebody wants that.

    Args:
        said: what the command line says now, as text.
    """

    def __init__(self, host: Host, said: Callable[[], str]) -> None:
        self._host = host
        self._said = said

    def over(self, host: Host) -> KeptConfig:
        """The same of another host."""
        return KeptConfig(host, self._said)

    async def keep(self, config: pb.ModelConfigList) -> None:
        """Has this config in force at the next start, too.

        Raises:
            ModelhostError: STORAGE_FAILED.
        """
        content = base64.b64encode(config.SerializeToString()).decode()
        value = json.dumps({"instead_of": await asyncio.to_thread(self._digest), "config": content})
        await self._host.set_setting(_SETTING, value)

    def read(self) -> list[ModelDirectory] | None:
        """The directories of the last reload; None when there was none, or it does not count any more."""
        value = self._host.recording.setting(_SETTING)
        if not value:
            return None
        kept = json.loads(value)
        if kept["instead_of"] != self._digest():
            return None
        return directories(pb.ModelConfigList.FromString(base64.b64decode(kept["config"])))

    def _digest(self) -> str:
        return hashlib.sha256(self._said().encode()).hexdigest()
