"""Made-up inputs, alike for the models that are built and for the calls that are made."""

from __future__ import annotations

import numpy as np

PIXELS = 224
VOCABULARY, SENTENCE = 10_000, 128
STEPS, FEATURES = 64, 32
CITIES = tuple(f"city-{number}" for number in range(1000))
USERS = 5000
NUMBERS = 16
_PATCHES = 7


def pictures(random: np.random.Generator, count: int, brightest: float = 1) -> np.ndarray:
    """Patches of colour, and a little noise. Noise alone would look the same to a network, whatever it is."""
    patches = random.random((count, _PATCHES, _PATCHES, 3)) * random.random((count, 1, 1, 3))
    large = patches.repeat(PIXELS // _PATCHES, axis=1).repeat(PIXELS // _PATCHES, axis=2)
    return (brightest * (0.9 * large + 0.1 * random.random(large.shape))).astype(np.float32)


def tokens(random: np.random.Generator, count: int) -> np.ndarray:
    """Words by number."""
    return random.integers(VOCABULARY, size=(count, SENTENCE), dtype=np.int32)


def series(random: np.random.Generator, count: int) -> np.ndarray:
    """Measurements that wander."""
    steps = random.normal(0, 0.3, (count, STEPS, FEATURES))
    return steps.cumsum(axis=1).astype(np.float32)


def deep_inputs(random: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """What is known of a customer: a city's name, a number, and figures. Some cities and numbers are in no table."""
    cities = np.array([*CITIES, "nowhere"], dtype="S")
    return {
        "city": cities[random.integers(len(cities), size=(count, 1))],
        "user": random.integers(USERS + 50, size=(count, 1)),
        "numbers": random.normal(size=(count, NUMBERS)).astype(np.float32),
    }
