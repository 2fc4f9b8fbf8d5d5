"""Black and white digits, which every family can model and be compared on.

    binarized_digits   scikit-learn's 8x8 digits, 1 above the middle of their 17 levels; the splits of `digits`
    digits4x4          a world of 2^16 states with a known distribution p: sum each 2x2 pixels of the 1,797 digits and
                       threshold at half; the results, equally probable, are the whole distribution,

        p(x) = (number of digits that look like x) / 1797                                            (1)

    and the splits are independent draws from it.

A model cannot overfit to digits4x4: its training data are draws from p, as many as needed, and every quantity of a
model can be compared with p, state by state (`small_world_probabilities`, `evaluation.enumeration`).
"""

import functools
from typing import Any

import numpy as np

from gm_jax.data.array_cache import Splits

BINARIZED, SMALL_WORLD = "binarized_digits", "digits4x4"
NAMES = (BINARIZED, SMALL_WORLD)
NUM_EXAMPLES = {"train": 50_000, "validation": 10_000, "test": 10_000}

_LEVELS = 17


def binarized_splits(digits: Splits) -> Splits:
    """Binarizes the digits and keeps their labels.

    Args:
        digits: splits of uint8 levels 0..16, [N, 8, 8, 1].
    Returns:
        The same splits of 0 and 1; the middle level, 8, is 0.
    """
    return {
        split: {"x": (arrays["x"] > (_LEVELS - 1) // 2).astype(np.uint8), "label": arrays["label"]}
        for split, arrays in digits.items()
    }


def small_world_splits() -> Splits:
    """Draws the splits of the small world, always the same arrays.

    Returns:
        "train", "validation", "test" -> {"x": [N, 4, 4, 1] uint8 of 0 and 1, "label": [N] int32}.
    """
    states, labels = _small_digits()
    splits = {}
    for seed, (split, num_examples) in enumerate(NUM_EXAMPLES.items()):
        # Raw words of a bit generator, because numpy guarantees their stream; modulo 1797 is uniform to 1e-16.
        words = np.random.Philox(key=np.array([seed, 4], np.uint64)).random_raw(num_examples)
        drawn = (words % np.uint64(len(states))).astype(np.int64)
        splits[split] = {"x": states[drawn], "label": labels[drawn]}
    return splits


@functools.cache
def small_world_probabilities() -> np.ndarray:
    """Computes the distribution (1) of digits4x4.

    Returns:
        [65536] float64, read-only: entry s is p of the image whose i-th pixel in raster order is bit i of s.
    """
    states, _ = _small_digits()
    index = states.reshape(len(states), -1).astype(np.int64) @ (1 << np.arange(16))
    probabilities = np.bincount(index, minlength=2**16) / len(states)
    probabilities.flags.writeable = False
    return probabilities


def _small_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns all digits as [1797, 4, 4, 1] uint8 of 0 and 1, and their labels."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    summed = digits.images.reshape(-1, 4, 2, 4, 2).sum(axis=(2, 4))
    states = (summed > 2 * (_LEVELS - 1)).astype(np.uint8)[..., None]
    return states, digits.target.astype(np.int32)
