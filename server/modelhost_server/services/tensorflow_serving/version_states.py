"""States of versions as GetModelStatus tells them, those of versions that are gone included."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ...compat import error_codes_pb2
from ...compat import serving_model_service_pb2 as pb
from ...errors import ModelhostError
from ...repositories.followers import Followers
from ...store.events import Event
from ...store.phases import WANTED, Phase
from ...store.store import Store

# Of models that had versions which ended, and of such versions of one model; the oldest are forgotten first.
_MODELS_REMEMBERED = 1000
_VERSIONS_REMEMBERED = 100

_STATES = {
    Phase.WAITING: pb.ModelVersionStatus.START,
    Phase.LOADING: pb.ModelVersionStatus.LOADING,
    Phase.AVAILABLE: pb.ModelVersionStatus.AVAILABLE,
    # Who asks for it gets an answer.
    Phase.EVICTED: pb.ModelVersionStatus.AVAILABLE,
    Phase.RELOADING: pb.ModelVersionStatus.AVAILABLE,
    Phase.RECOVERING: pb.ModelVersionStatus.LOADING,
    Phase.DRAINING: pb.ModelVersionStatus.UNLOADING,
    Phase.FREEING: pb.ModelVersionStatus.UNLOADING,
    Phase.UNLOADED: pb.ModelVersionStatus.END,
    Phase.FAILED: pb.ModelVersionStatus.END,
}


class VersionState(NamedTuple):
    """A version's state, and what is wrong with it, if anything is."""

    state: pb.ModelVersionStatus.State.ValueType
    error: ModelhostError | None = None


class VersionStates:
    """Knows the states of all versions: from the store, from who follows directories, and of those that ended."""

    def __init__(self, store: Store, followers: Followers) -> None:
        self._store = store
        self._followers = followers
        self._ended: OrderedDict[tuple[str, str], OrderedDict[int, VersionState]] = OrderedDict()
        store.events.listen(self._on_event)

    def of(self, scope: str, model: str) -> dict[int, VersionState]:
        """The states of a model's versions, highest number first."""
        states = dict(self._ended.get((scope, model), {}))
        follower = self._followers.of(scope, model)
        if follower is not None:
            for number, error in follower.pending().items():
                states[number] = VersionState(pb.ModelVersionStatus.START, error)
        try:
            hosted = self._store.model(scope, model).versions
        except ModelhostError:
            hosted = {}
        for number, version in hosted.items():
            states[number] = VersionState(
                _STATES[version.phase], version.error if version.phase is Phase.FAILED else None
            )
        return dict(sorted(states.items(), reverse=True))

    def _on_event(self, event: Event) -> None:
        version = event.version
        key = (version.scope, version.model)
        ended = self._ended.get(key, OrderedDict())
        if version.phase is Phase.FAILED:
            ended[version.number] = VersionState(pb.ModelVersionStatus.END, version.error)
        elif version.phase is Phase.UNLOADED:
            ended.setdefault(version.number, VersionState(pb.ModelVersionStatus.END))
        elif version.phase in WANTED:
            ended.pop(version.number, None)
        if len(ended) > _VERSIONS_REMEMBERED:
            ended.popitem(last=False)
        if ended:
            self._ended[key] = ended
        else:
            self._ended.pop(key, None)
        if len(self._ended) > _MODELS_REMEMBERED:
            self._ended.popitem(last=False)


def status_proto(error: ModelhostError | None) -> pb.StatusProto:
    """An error as TensorFlow Serving tells it, or that all is well."""
    if error is None:
        return pb.StatusProto()
    return pb.StatusProto(error_code=error_codes_pb2.Code.ValueType(error.reason.code), error_message=error.message)
