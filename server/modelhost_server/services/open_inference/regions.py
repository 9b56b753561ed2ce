"""System shared memory as Triton's clients register it: parts of POSIX shared memory objects, by any names.

Its callers hold no lock on what they share, as ours do, so a region is there until it is unregistered.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

from ...errors import Code, ForeignError
from ...hosting import regions as native
from ...tensors import FileRange
from .errors import invalid, quoted

_MAX_NAME = 1024


class Place(NamedTuple):
    """Where a caller says that a tensor's bytes are, or are to go."""

    region: str
    offset: int
    byte_size: int


class SystemRegion(native.Region):
    """A registered region; `key` is the name of the object that it is a part of."""

    def __init__(self, name: str, key: str, path: Path, byte_size: int, start: int) -> None:
        super().__init__(name, path, byte_size, start)
        self.key = key


class SystemRegions:
    """The regions that callers have registered.

    Args:
        directory: that has all POSIX shared memory objects.
        limit: as many are taken.
    """

    def __init__(self, directory: Path = native.DIRECTORY, limit: int = native.LIMIT) -> None:
        self._directory = directory
        self._limit = limit
        self._regions: dict[str, SystemRegion] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Opens a part of a shared memory object as a region.

        Raises:
            ForeignError: INVALID_ARGUMENT, ALREADY_EXISTS, INTERNAL, RESOURCE_EXHAUSTED.
        """
        # As shm_open has it.
        file_name = key.lstrip("/")
        if file_name.startswith(native.PREFIX):
            # Its callers have them to themselves.
            raise invalid(
                f"cannot register shared memory region {quoted(name)} with key {quoted(key)} as the key contains the "
                f"reserved prefix '{native.PREFIX}'",
            )
        if name in self._regions:
            raise ForeignError(Code.ALREADY_EXISTS, f"shared memory region {quoted(name)} already in manager")
        if not 0 < len(name) <= _MAX_NAME:
            raise _invalid_args(name)
        if len(self._regions) >= self._limit:
            raise ForeignError(
                Code.RESOURCE_EXHAUSTED,
                f"failed to register shared memory region {quoted(name)}: there are {self._limit}, as many as this "
                "server takes",
            )
        self._regions[name] = self._open(name, key, file_name, offset, byte_size)

    def _open(self, name: str, key: str, file_name: str, offset: int, byte_size: int) -> SystemRegion:
        try:
            if file_name in ("", ".", "..") or "/" in file_name or "\0" in file_name:
                raise OSError(errno.EINVAL, "no name of a shared memory object")
            region = SystemRegion(name, key, self._directory / file_name, byte_size, offset)
        except OSError:
            raise cannot_open(key) from None
        if not byte_size or offset + byte_size > region.file_size:
            raise _invalid_args(name)
        return region

    def has_object(self, key: str) -> bool:
        """Whether a region is of this shared memory object."""
        return any(region.key.lstrip("/") == key.lstrip("/") for region in self._regions.values())

    def unregister(self, name: str) -> None:
        """Forgets a region, or all of them when `name` is empty; those in use can be used to their end."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def list(self, name: str) -> list[SystemRegion]:
        """A region, or all of them when `name` is empty.

        Raises:
            ForeignError: NOT_FOUND.
        """
        if not name:
            return list(self._regions.values())
        region = self._regions.get(name)
        if region is None:
            raise ForeignError(Code.NOT_FOUND, f"Unable to find system shared memory region: {quoted(name)}")
        return [region]

    def range(self, place: Place) -> FileRange:
        """A range of a region.

        Raises:
            ForeignError: NOT_FOUND, INVALID_ARGUMENT.
        """
        region = self._regions.get(place.region)
        if region is None:
            raise ForeignError(Code.NOT_FOUND, f"Unable to find shared memory region: {quoted(place.region)}")
        if not 0 <= place.offset < region.byte_size:
            raise invalid(f"Invalid offset for shared memory region: {quoted(place.region)}")
        if place.byte_size < 0 or place.offset + place.byte_size > region.byte_size:
            raise invalid(f"Invalid offset + byte size for shared memory region: {quoted(place.region)}")
        return region.range(place.offset, place.byte_size)


def cannot_open(key: str) -> ForeignError:
    """What is told of a shared memory object that there is not, or not for who asks."""
    return ForeignError(Code.INTERNAL, f"Unable to open shared memory region: {quoted(key)}")


def _invalid_args(name: str) -> ForeignError:
    return invalid(f"failed to register shared memory region {quoted(name)}: invalid args")
