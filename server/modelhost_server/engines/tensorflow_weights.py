"""The values of a model's variables, as TF_Tensors: copies of its own, or memory that is shared with other models."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..tensors import RawTensor
from . import tensorflow_capi as capi
from .base import Progress
from .tensorflow_checkpoint import Checkpoint
from .tensorflow_graph import Restore
from .weights import ALIGNMENT, Blob, WeightStore

_log = logging.getLogger(__name__)

# Values from here on have a file of their own; the others of a model are in one together. A process may have 65,530
# mappings: enough for a thousand models without a weight in common.
_LARGE_BYTES = 64 << 10
_PROGRESS_BYTES = 32 << 20
_INDEX_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store has a value: a blob of some size, and the place in it. A value without bytes is nowhere."""

    shape: tuple[int, ...]
    blob: str
    size: int
    offset: int
    nbytes: int


class Weights:
    """TF_Tensors in the order of the restores. While it is open, TensorFlow copies what it would change of them."""

    def __init__(self, store: WeightStore | None = None) -> None:
        self._store = store
        self._blobs: set[Blob] = set()
        self.tensors: list[int] = []

    def hold(self, blobs: Iterable[Blob]) -> None:
        """Notes that the tensors are over these."""
        assert self._store is not None
        self._blobs = set(blobs)
        self._store.hold(self._blobs)

    def shared_bytes(self) -> int:
        """Bytes that other models of this process use, too."""
        return sum(blob.size for blob in self._blobs if blob.users > 1)

    def close(self) -> None:
        """Frees the tensors, or what is left of them once TensorFlow no longer uses them."""
        while self.tensors:
            capi.delete_tensor(self.tensors.pop())
        if self._store is not None:
            self._store.release(self._blobs)
        self._blobs = set()


def index_name(digest: str, tags: Sequence[str]) -> str:
    """The name under which the places of a content's values are kept; "" when the content is not known."""
    if not digest or not tags:
        return digest
    return f"{digest}-{hashlib.sha256(repr(sorted(tags)).encode()).hexdigest()[:16]}"


def read_places(store: WeightStore, name: str) -> dict[Restore, Place]:
    """Where the values of a content's variables are, by what restores them; empty when that is not known."""
    data: Any = store.read_index(name) if name else None
    try:
        if data["format"] != _INDEX_FORMAT:
            return {}
        return {Restore(*restore): Place(tuple(shape), *place) for restore, (shape, *place) in data["values"]}
    except (TypeError, KeyError, ValueError):
        return {}


def _write_places(store: WeightStore, name: str, places: dict[Restore, Place]) -> None:
    values = [
        [(r.node, r.dtype, r.key, r.nbytes), (p.shape, p.blob, p.size, p.offset, p.nbytes)] for r, p in places.items()
    ]
    store.write_index(name, {"format": _INDEX_FORMAT, "values": values})


def read_copies(checkpoint: Checkpoint, restores: Sequence[Restore], progress: Progress) -> Weights:
    """The values, read from the checkpoint."""
    weights, told = Weights(), _Told(restores, progress)
    try:
        for restore in restores:
            weights.tensors.append(checkpoint.read(restore.key, restore.dtype))
            told.add(restore)
    except BaseException:
        weights.close()
        raise
    return weights


def read_shared(
    store: WeightStore,
    name: str,
    known: dict[Restore, Place],
    checkpoint: Checkpoint,
    restores: Sequence[Restore],
    progress: Progress,
) -> Weights:
    """The values as memory over the store's files, which are written when they are not there.

    What cannot be in the store is read from the checkpoint: strings, and all when the store cannot be written.

    Args:
        store: has the files.
        name: of the index that keeps where the values are, "" to keep it nowhere.
        known: what `read_places` told.
        checkpoint: has the values.
        restores: which ones.
        progress: is told how far the load is.
    """  # fmt: skip
    reader = _SharedReader(store, checkpoint, known, progress)
    weights = reader.read(restores)
    if name and reader.is_changed and reader.places.keys() == set(restores):
        try:
            _write_places(store, name, reader.places)
        except OSError as error:
            _say_once(error)
    return weights


class _SharedReader:
    def __init__(
        self, store: WeightStore, checkpoint: Checkpoint, known: dict[Restore, Place], progress: Progress
    ) -> None:
        self._store = store
        self._checkpoint = checkpoint
        self._known = known
        self._progress = progress
        self._blobs: set[Blob] = set()
        self._small: list[int] = []
        self._writable = True
        self.places: dict[Restore, Place] = {}
        self.is_changed = False

    def read(self, restores: Sequence[Restore]) -> Weights:
        weights, told = Weights(self._store), _Told(restores, self._progress)
        try:
            for restore in restores:
                weights.tensors.append(self._found(restore) or self._read(restore, len(weights.tensors)))
                told.add(restore)
            if self._small:
                self._store_small(restores, weights.tensors)
        except BaseException:
            weights.close()
            raise
        weights.hold(self._blobs)
        return weights

    def _found(self, restore: Restore) -> int:
        """A tensor over what the store has; 0 when it has not."""
        place = self._known.get(restore)
        if place is None:
            return 0
        try:
            blob = self._store.get(place.blob, place.size) if place.nbytes else None
        except OSError as error:
            _say_once(error)
            return 0
        if place.nbytes and blob is None:
            return 0
        return self._tensor(restore, place, blob)

    def _read(self, restore: Restore, position: int) -> int:
        pointer = self._checkpoint.read(restore.key, restore.dtype)
        _, shape, view = capi.read_tensor(pointer)
        if not isinstance(view, memoryview) or not self._writable:
            return pointer
        self.is_changed = True
        if not len(view):
            self.places[restore] = Place(shape, "", 0, 0, 0)
        elif len(view) < _LARGE_BYTES:
            self._small.append(position)
        elif (blob := self._put(view)) is not None:
            place = Place(shape, blob.name, blob.size, 0, blob.size)
            tensor = self._tensor(restore, place, blob)
            capi.delete_tensor(pointer)
            return tensor
        return pointer

    def _store_small(self, restores: Sequence[Restore], tensors: list[int]) -> None:
        content, offsets = bytearray(), []
        for position in self._small:
            content += bytes(-len(content) % ALIGNMENT)
            offsets.append(len(content))
            content += capi.read_tensor(tensors[position])[2]  # type: ignore[arg-type]
        blob = self._put(content)
        if blob is None:
            return
        for position, offset in zip(self._small, offsets, strict=True):
            copy = tensors[position]
            _, shape, view = capi.read_tensor(copy)
            place = Place(shape, blob.name, blob.size, offset, len(view))
            tensors[position] = self._tensor(restores[position], place, blob)
            capi.delete_tensor(copy)

    def _put(self, data: memoryview | bytearray) -> Blob | None:
        try:
            return self._store.put(data)
        except OSError as error:
            _say_once(error)
            self._writable = False
            return None

    def _tensor(self, restore: Restore, place: Place, blob: Blob | None) -> int:
        self.places[restore] = place
        if blob is None:
            return capi.copied_tensor(RawTensor(restore.dtype, place.shape, b""))
        self._blobs.add(blob)
        value = RawTensor(restore.dtype, place.shape, blob.view(place.offset, place.nbytes))
        # TensorFlow may use the memory longer than the model is there, so it is the tensor that keeps the blob.
        return capi.borrowing_tensor(value, _keep(blob))


def _keep(blob: Blob) -> Callable[[], None]:
    kept: list[Any] = [blob]
    return kept.clear


class _Told:
    """Tells now and then how far a load is."""

    def __init__(self, restores: Sequence[Restore], progress: Progress) -> None:
        self._progress = progress
        self._total = sum(restore.nbytes for restore in restores)
        self._done = self._told = 0

    def add(self, restore: Restore) -> None:
        self._done += restore.nbytes
        if self._done - self._told >= _PROGRESS_BYTES or self._done == self._total:
            self._progress("reading", self._done, self._total)
            self._told = self._done


_said: set[str] = set()


def _say_once(error: OSError) -> None:
    reason = error.strerror or str(error)
    if reason not in _said:
        _said.add(reason)
        _log.warning("weights are not shared: the cache cannot be used: %s", reason)
