"""MLServer with its adaptive batching. Usage: python -m benchmarks.peers.mlserver_server MODELS.json"""

from __future__ import annotations

import asyncio

from mlserver import MLServer, ModelSettings, Settings
from mlserver.settings import ModelParameters

from .announcing import announced_port, free_port
from .tensorflow_model import told_models

_BATCH_SECONDS = 0.001


async def main() -> None:
    """Serves until it is terminated."""
    port, models = announced_port(), told_models()
    settings = Settings(
        host="127.0.0.1", grpc_port=port, http_port=free_port(), metrics_endpoint=None, debug=False,
        # The models run in the server's own process: to MLServer's workers it would be a way more.
        parallel_workers=0, grpc_max_message_length=-1, load_models_at_startup=False,
    )  # fmt: skip
    await MLServer(settings).start(
        [
            ModelSettings(
                name=name,
                implementation="benchmarks.peers.mlserver_runtime.SavedModelRuntime",
                parameters=ModelParameters(uri=model["path"], extra={"is_light": model["is_light"]}),
                **(
                    {"max_batch_size": model["max_batch"], "max_batch_time": _BATCH_SECONDS}
                    if model["max_batch"]
                    else {}
                ),
            )
            for name, model in models.items()
        ]
    )


if __name__ == "__main__":
    asyncio.run(main())
