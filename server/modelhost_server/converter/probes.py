"""Makes up inputs that show whether two engines compute the same.

`made_up` is a generator: it yields a probe, is told whether TensorFlow accepted it, and chooses the next one by that.
So it finds sizes and ranges of values that a model takes, which no signature tells.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator as Random
from numpy.random import default_rng

from ..tensors import DTYPE_NAME, SignatureSpec, TensorSpec, element_count
from .arrays import numpy_dtype

Array = npt.NDArray[Any]

BATCH = "batch"
TIMED_BATCH_SIZES = (1, 8)
_BATCH_SIZES = (2, 1, 5, 8)
# The first that fits is what values are tried at; then all of the others, the last ones only where most were refused.
_SIZES = (7, 3, 16, 1, 64, 128, 1000, 16000)
_IMAGE_SIZES = (64, 96, 33, 1, 224, 32, 299, 512)
_LAST_RESORTS = 3
_ENOUGH_SIZES = 3
_CHANNELS = (1, 3, 4)
# Larger ones would say more about memory than about the model.
_LARGEST_ELEMENTS = 1 << 25
# Models with many inputs have many alike: then one kind of values goes to all of a dtype.
_MANY_INPUTS = 12

# The place of an open extent: the input's position and the axis.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Probe:
    """Values for all inputs of a signature, and words for what they are."""

    what: str
    inputs: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """Which open extents are the same number, and what numbers they are."""

    symbols: Mapping[Place, str]
    sizes: Mapping[str, int]

    def of(self, position: int, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of an input."""
        return tuple(
            self.sizes[self.symbols[position, axis]] if extent < 0 else extent
            for axis, extent in enumerate(spec.shape or ())
        )

    def with_size(self, symbol: str, size: int) -> Shapes:
        """The same with another number."""
        return replace(self, sizes={**self.sizes, symbol: size})

    def __str__(self) -> str:
        return ", ".join(f"{symbol} {size}" for symbol, size in self.sizes.items()) or "fixed shapes"


@dataclass(slots=True)
class Survey:
    """What `made_up` found out: how probes are made that TensorFlow accepts, and which sizes it accepted."""

    make: Callable[[Shapes], Probe]
    shapes: Shapes
    accepted: dict[str, set[int]] = field(default_factory=dict)

    def timed(self) -> dict[int, Probe]:
        """The probes to take times with, by batch size."""
        if BATCH not in self.accepted:
            return {1: self.make(self.shapes)}
        sizes = [size for size in TIMED_BATCH_SIZES if size in self.accepted[BATCH]]
        return {size: self.make(self.shapes.with_size(BATCH, size)) for size in sizes or sorted(self.accepted[BATCH])}

    def narrow(self) -> list[str]:
        """The open extents, other than the batch, of which TensorFlow accepted one size only."""
        return [symbol for symbol, sizes in self.accepted.items() if symbol != BATCH and len(sizes) < 2]


def made_up(spec: SignatureSpec, seed: int = 0) -> Generator[Probe, bool, Survey | None]:
    """Yields probes, takes whether TensorFlow accepted each; returns None when it accepted none."""
    random = default_rng(seed)

    def make(shapes: Shapes, styles: Mapping[int, str] | None = None) -> Probe:
        styles = styles or {}
        chosen = [styles.get(i, _usual_style(item)) for i, item in enumerate(spec.inputs)]
        inputs = tuple(
            draw(item, shapes.of(i, item), style, random)
            for i, (item, style) in enumerate(zip(spec.inputs, chosen, strict=True))
        )
        return Probe(f"{shapes}; {', '.join(dict.fromkeys(chosen))}", inputs)

    survey = yield from _find_shapes(spec, make)
    if survey is None:
        return None
    yield from _vary_sizes(spec, survey)
    for styles in _style_choices(spec):
        yield make(survey.shapes, styles)
    # Once more what is usual, for a second draw of it.
    yield make(survey.shapes)
    return survey


def _find_shapes(spec: SignatureSpec, make: Callable[..., Probe]) -> Generator[Probe, bool, Survey | None]:
    """Finds shapes that TensorFlow accepts."""
    zeros = dict.fromkeys(range(len(spec.inputs)), "zeros")
    for shapes in _guesses(spec):
        if not _is_sensible(spec, shapes):
            continue
        for styles in ({}, zeros):
            if (yield make(shapes, styles)):

                def make_alike(shapes: Shapes, styles: Mapping[int, str] = styles) -> Probe:
                    return make(shapes, styles)

                return Survey(make_alike, shapes, {name: {size} for name, size in shapes.sizes.items()})
    return None


def _guesses(spec: SignatureSpec) -> Iterator[Shapes]:
    """Shapes to try. Those with ones come last: a one fits where nothing else does."""
    for batch, has_ones in ((2, False), (1, False), (2, True), (1, True)):
        for symbols in patterns(spec):
            names = list(dict.fromkeys(symbols.values()))
            if batch != 2 and BATCH not in names:
                continue
            choices = {name: _sizes_of(spec, symbols, name) for name in names if name != BATCH}
            for index in range(len(_SIZES) if choices else 1):
                sizes = {name: choices[name][index] if name in choices else batch for name in names}
                if not choices or (1 in {sizes[name] for name in choices}) == has_ones:
                    yield Shapes(symbols, sizes)


def patterns(spec: SignatureSpec) -> list[dict[Place, str]]:
    """Which open extents may have to agree, the likely first."""
    places = [(i, j) for i, item in enumerate(spec.inputs) for j, extent in enumerate(item.shape or ()) if extent < 0]
    guesses: list[Callable[[Place], str]] = [
        lambda place: f"axis {place[1]}" if place[1] else BATCH,
        lambda place: "size" if place[1] else BATCH,
        lambda place: f"axis {place[1]} of {spec.inputs[place[0]].name}" if place[1] else BATCH,
        # As in a product of matrices, where the columns of one are the rows of the next.
        lambda place: f"size {sum(place)}" if sum(place) else BATCH,
        lambda place: BATCH,
        lambda place: f"axis {place[1]} of {spec.inputs[place[0]].name}",
    ]
    found: dict[tuple[int, ...], dict[Place, str]] = {}
    for guess in guesses:
        symbols = {place: guess(place) for place in places}
        names = list(symbols.values())
        # Patterns that say the same with other words are one.
        found.setdefault(tuple(names.index(name) for name in names), symbols)
    return list(found.values())


def _sizes_of(spec: SignatureSpec, symbols: Mapping[Place, str], symbol: str) -> Sequence[int]:
    inputs = [spec.inputs[place[0]] for place, name in symbols.items() if name == symbol]
    return _IMAGE_SIZES if any(looks_like_image(item) for item in inputs) else _SIZES


def _is_sensible(spec: SignatureSpec, shapes: Shapes) -> bool:
    return sum(element_count(shapes.of(i, item)) for i, item in enumerate(spec.inputs)) <= _LARGEST_ELEMENTS


def _vary_sizes(spec: SignatureSpec, survey: Survey) -> Generator[Probe, bool, None]:
    """Changes each size alone; then each open extent alone that the pattern has tied to others."""
    symbols = survey.shapes.symbols
    for symbol in survey.shapes.sizes:
        sizes = _BATCH_SIZES if symbol == BATCH else _sizes_of(spec, symbols, symbol)
        for number, size in enumerate(sizes):
            enough = len(survey.accepted[symbol]) >= _ENOUGH_SIZES
            is_last_resort = symbol != BATCH and number >= len(sizes) - _LAST_RESORTS
            shapes = survey.shapes.with_size(symbol, size)
            if size in survey.accepted[symbol] or (is_last_resort and enough) or not _is_sensible(spec, shapes):
                continue
            if (yield survey.make(shapes)):
                survey.accepted[symbol].add(size)
    for place, symbol in symbols.items():
        if list(symbols.values()).count(symbol) > 1:
            alone = f"axis {place[1]} of {spec.inputs[place[0]].name}"
            size = survey.shapes.sizes[symbol] + 1
            loosened = Shapes({**symbols, place: alone}, {**survey.shapes.sizes, alone: size})
            yield survey.make(loosened)


def looks_like_image(spec: TensorSpec) -> bool:
    """Whether an input has the shape of images."""
    shape = spec.shape or ()
    return len(shape) == 4 and (shape[3] in _CHANNELS or shape[1] in _CHANNELS)


def _usual_style(spec: TensorSpec) -> str:
    kind = _kind(spec)
    return {"float": "normal", "integer": "bits", "bool": "mixed"}[kind]


def _kind(spec: TensorSpec) -> str:
    name = DTYPE_NAME[spec.dtype]
    return "bool" if name == "bool" else "float" if "float" in name else "integer"


def styles_of(spec: TensorSpec) -> list[str]:
    """The kinds of values that are tried for an input."""
    kind = _kind(spec)
    if kind == "bool":
        return ["mixed", "ones", "zeros"]
    if kind == "float":
        image = ["image"] if looks_like_image(spec) else []
        return ["normal", "uniform", *image, "small", "large", "digits", "zeros"]
    signed = [] if DTYPE_NAME[spec.dtype].startswith("u") else ["minus one", "signed"]
    # A single number is often a count of something: a large one would take for ever.
    wide = ["wide", "beyond"] if spec.shape or DTYPE_NAME[spec.dtype] in ("int64", "uint8", "int8") else []
    return ["bits", "digits", "hundreds", "thousands", "zeros", *signed, *wide]


def _style_choices(spec: SignatureSpec) -> list[dict[int, str]]:
    """Each kind of values for each input, the others as usual."""
    groups: dict[Any, list[int]] = {}
    for i, item in enumerate(spec.inputs):
        # Inputs that are many share their fate.
        key = (item.dtype, item.shape) if len(spec.inputs) > _MANY_INPUTS else i
        groups.setdefault(key, []).append(i)
    choices: list[dict[int, str]] = []
    for positions in groups.values():
        item = spec.inputs[positions[0]]
        styles = [style for style in styles_of(item) if style != _usual_style(item)]
        choices += [dict.fromkeys(positions, style) for style in styles]
    if len(groups) > 1:
        choices.append(dict.fromkeys(range(len(spec.inputs)), "digits"))
    return choices


def draw(spec: TensorSpec, shape: tuple[int, ...], style: str, random: Random) -> Array:
    """Values of a kind, for an input."""
    dtype = numpy_dtype(spec.dtype)
    kind = _kind(spec)
    if style == "zeros":
        return np.zeros(shape, dtype)
    if kind == "bool":
        return np.ones(shape, dtype) if style == "ones" else random.integers(0, 2, shape).astype(dtype)
    if kind == "float":
        return np.asarray(_floats(style, shape, random)).astype(dtype)
    return _integers(style, shape, dtype, random)


def _floats(style: str, shape: tuple[int, ...], random: Random) -> Any:
    if style == "uniform":
        return random.random(shape)
    if style == "image":
        return random.random(shape) * 255
    if style == "digits":
        return random.integers(0, 10, shape)
    return random.standard_normal(shape) * {"normal": 1.0, "small": 1e-3, "large": 1e2}[style]


def _integers(style: str, shape: tuple[int, ...], dtype: np.dtype[Any], random: Random) -> Array:
    limits = np.iinfo(dtype)
    if style == "wide":
        return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    low, high = {"digits": (0, 9), "hundreds": (0, 99), "thousands": (0, 999), "signed": (-9, 9)}.get(style, (0, 1))
    values = random.integers(low, min(high, limits.max), shape, endpoint=True).astype(dtype)
    if style in ("minus one", "beyond"):
        # One element among usual ones, as a single wrong id would be; of int64, one that int32 does not hold.
        beyond = min(int(limits.max) - 3, (1 << 33) + 3)
        values[(0,) * len(shape)] = -1 if style == "minus one" else beyond
    return values
