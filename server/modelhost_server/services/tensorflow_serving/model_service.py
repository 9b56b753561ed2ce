"""tensorflow.serving.ModelService."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...compat import serving_model_service_pb2 as pb
from ...errors import Code, ModelhostError
from ...hosting.host import Host
from ...repositories.follower import Follower
from ...repositories.followers import Followers
from ...repositories.model_directory import ModelDirectory
from ...store.resolve import find_version
from ..call import Call
from ..names import model_name
from .errors import error, invalid, servable_error
from .kept_config import KeptConfig
from .model_config import check_labels, directories
from .names import Target, target_of
from .version_states import VersionStates, status_proto

# A reload whose caller sets no deadline is answered after this long in any case.
_RELOAD_SECONDS = 600.0
# A reload is answered this long before its caller's deadline, so that the answer still arrives.
_ANSWER_SECONDS = 0.2


class ModelService:
    """Tells the states of versions, and changes what is to be hosted.

    Args:
        labels_may_wait: whether labels may be put on versions that are not available.
    """

    def __init__(self, host: Host, followers: Followers, kept_config: KeptConfig, labels_may_wait: bool) -> None:
        self._host = host
        self._followers = followers
        self._kept_config = kept_config
        self._labels_may_wait = labels_may_wait
        self._states = VersionStates(host.store, followers)

    async def get_model_status(self, request: pb.GetModelStatusRequest, call: Call) -> pb.GetModelStatusResponse:
        """Tells the states of a model's versions, highest number first, or of one of them."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        target = target_of(request.model_spec)
        states = self._states.of(*target.place)
        number = self._labelled(target) if target.label is not None else target.version
        if number is not None and number not in states:
            raise error(Code.NOT_FOUND, f"Could not find version {number} of model {target.name}")
        if not states:
            follower = self._followers.of(*target.place)
            why = f": {follower.trouble}" if follower is not None and follower.trouble else ""
            raise error(Code.NOT_FOUND, f"Could not find any versions of model {target.name}{why}")
        return pb.GetModelStatusResponse(
            model_version_status=[
                pb.ModelVersionStatus(version=each, state=state, status=status_proto(wrong))
                for each, (state, wrong) in states.items()
                if number in (None, each)
            ]
        )

    def _labelled(self, target: Target) -> int:
        try:
            return find_version(self._host.store.model(*target.place), 0, target.label or "").number
        except ModelhostError as ours:
            raise servable_error(target, ours) from None

    async def handle_reload_config_request(
        self, request: pb.ReloadConfigRequest, call: Call
    ) -> pb.ReloadConfigResponse:
        """Changes what is to be hosted, and waits until what is new or has changed is loaded, or cannot be."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        self._host.draining.check_accepting()
        wanted = directories(request.config.model_config_list)
        await asyncio.to_thread(self._check_roots, wanted)
        check_labels(wanted, self._host.store, self._labels_may_wait)
        await self._kept_config.keep(request.config.model_config_list)
        changed = self._followers.follow(wanted)
        now = asyncio.get_running_loop().time()
        latest = now + _RELOAD_SECONDS
        deadline = latest if call.deadline is None else min(latest, max(now, call.deadline - _ANSWER_SECONDS))
        await _check_outcomes(changed, deadline)
        return pb.ReloadConfigResponse(status=status_proto(None))

    def _check_roots(self, wanted: Sequence[ModelDirectory]) -> None:
        for directory in wanted:
            self._host.sources.roots.check(directory.base_path)


async def _check_outcomes(changed: Sequence[Follower], deadline: float) -> None:
    """Waits until all have loaded what they want.

    Raises:
        ForeignError: some have not.
    """
    waits = {asyncio.ensure_future(follower.settled()): follower for follower in changed}
    try:
        async with asyncio.timeout_at(deadline):
            outcomes = await asyncio.gather(*waits)
    except TimeoutError:
        late = [model_name(*follower.directory.key) for wait, follower in waits.items() if wait.cancelled()]
        raise error(
            Code.DEADLINE_EXCEEDED, f"The config is in force, and these are still being loaded: {', '.join(late)}"
        ) from None
    failed = [_failure(follower, *outcome) for follower, outcome in zip(changed, outcomes, strict=True) if outcome]
    if failed:
        raise error(
            Code.UNKNOWN,
            f"{len(failed)} model(s) did not become available: {{{''.join(failed)}}}. The config is in force: its "
            "other models are served, and these are tried again",
        )


def _failure(follower: Follower, number: int, why: ModelhostError) -> str:
    name = model_name(*follower.directory.key)
    servable = f"{{name: {name} version: {number}}}" if number else f"{{name: {name}}}"
    return f"{{{servable} due to error: {why.reason.code.name}: {why.message}}}, "
