"""The file that says what is to be hosted: a ModelServerConfig as protobuf's text format has it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from google.protobuf import text_format

from ...compat import serving_model_config_pb2 as pb
from ...errors import ForeignError, ModelhostError, Reason
from ...repositories.followers import Followers
from ...repositories.model_directory import ModelDirectory
from .model_config import directories

logger = logging.getLogger(__name__)


def read_config_file(file: Path) -> list[ModelDirectory]:
    """The directories that it says are to be followed.

    Raises:
        ModelhostError: it cannot be read, or is not right.
    """
    config = pb.ModelServerConfig()
    try:
        # What we have no message for is something else than where models are.
        text_format.Parse(file.read_text(), config, allow_unknown_field=True)
        if config.WhichOneof("config") == "custom_model_config":
            raise ModelhostError(Reason.UNSUPPORTED, "custom_model_config: expected a model_config_list")
        return directories(config.model_config_list)
    except OSError as error:
        raise ModelhostError(Reason.INVALID_REQUEST, f"{file}: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise ModelhostError(Reason.INVALID_REQUEST, f"{file}: {error}") from None
    except (ForeignError, ModelhostError) as error:
        raise ModelhostError(Reason.INVALID_REQUEST, f"{file}: {error.message}") from None


async def follow_config_file(file: Path, current: list[ModelDirectory], followers: Followers, poll_wait: float) -> None:
    """Reads the file again and again, and has followed what it says whenever that changes.

    Args:
        file: what to read.
        current: what it said when it was read last.
        followers: who follow.
        poll_wait: seconds between two readings.
    """
    said = ""
    while True:
        await asyncio.sleep(poll_wait)
        try:
            wanted = await asyncio.to_thread(read_config_file, file)
        except ModelhostError as error:
            # What it said before stays in force; a file that is just being written is not right for a moment.
            if error.message != said:
                logger.error("the model config is not changed: %s", error.message)
            said = error.message
            continue
        said = ""
        if wanted != current:
            logger.info("%s has changed; it names %d models", file, len(wanted))
            followers.follow(wanted)
            current = wanted
