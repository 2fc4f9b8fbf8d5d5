"""Precision and recall of generated samples: which of them look real, and which real ones they cover.

Notation: a set's manifold is the union of balls about its examples, in feature space, each as wide as the distance to
its own k-th nearest neighbour in the set.

    precision = share of generated examples inside the real manifold                               (1)
    recall    = share of real examples inside the generated manifold                               (2)

A generator that draws few things well has high precision and low recall; one that covers all and blurs has the
reverse. Both grow with k and depend on the sizes of the sets: compare at equal ones.

Source: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019,
    arXiv:1904.06991.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError

_CHUNK = 512  # rows of a distance matrix at a time


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]; larger is better.

    Attributes:
        precision: (1).
        recall: (2).
        neighbour: k.
    """

    precision: float
    recall: float
    neighbour: int


def precision_recall(real: np.ndarray, generated: np.ndarray, *, neighbour: int = 3) -> PrecisionRecall:
    """Precision and recall of two sets of features, in float64 on the host.

    Args:
        real: [n, D] floats.
        generated: [m, D].
        neighbour: k of the balls.
    Raises:
        UserError: a set has no k-th neighbour, or a feature that is not finite.
        ValueError: the shapes are not [n, D] and [m, D].
    """
    real, generated = (_checked(features, neighbour) for features in (real, generated))
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"features of {real.shape[1]} and {generated.shape[1]} dimensions are not the same")
    # Distances are made of norms and products, of which fewer digits cancel about the mean.
    centre = real.mean(axis=0, keepdims=True)
    real, generated = real - centre, generated - centre
    precision = _share_inside(generated, real, _radii(real, neighbour))
    return PrecisionRecall(precision, _share_inside(real, generated, _radii(generated, neighbour)), neighbour)


def _radii(features: np.ndarray, neighbour: int) -> np.ndarray:
    """[N] squared distances of each example to its k-th nearest neighbour, itself not counted."""
    # The k-th after the nearest, which is the example itself, at a distance of 0 or its rounding.
    return np.concatenate(
        [np.partition(squared, neighbour, axis=1)[:, neighbour] for squared in _squared(features, features)]
    )


def _share_inside(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    # Copies of one example lie at a distance of 0 but for rounding, and then inside a ball of that radius.
    rounding = 1e-12 * np.square(centres).sum(axis=1).max()
    inside = [(squared <= radii[None] + rounding).any(axis=1) for squared in _squared(points, centres)]
    return float(np.concatenate(inside).mean())


def _squared(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Yields [n, N] squared distances of a chunk of rows of `a` to all of `b`."""
    norms = np.square(b).sum(axis=1)
    for start in range(0, len(a), _CHUNK):
        chunk = a[start : start + _CHUNK]
        yield np.maximum(np.square(chunk).sum(axis=1)[:, None] + norms[None] - 2.0 * chunk @ b.T, 0.0)


def _checked(features: np.ndarray, neighbour: int) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"features are [N, D], got {features.shape}")
    if not 1 <= neighbour < len(features):
        raise UserError(f"{len(features)} examples have no neighbour number {neighbour}: take more of them.")
    if not np.isfinite(features).all():
        raise UserError("the features are not all finite.")
    return features
