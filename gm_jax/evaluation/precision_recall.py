"""Precision and recall of generated samples: the share that looks real, and the share of real examples covered.

Notation: the manifold of a set is the union of balls around its examples in feature space; the radius of each ball is
the distance from its centre to the k-th nearest neighbour in the set.

    precision = share of generated examples inside the real manifold                               (1)
    recall    = share of real examples inside the generated manifold                               (2)

A generator that draws few things well has high precision and low recall; one that covers everything but blurs has low
precision and high recall. Both grow with k and depend on the sizes of the sets: compare only equal sizes.

Source: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019,
    arXiv:1904.06991.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError

_CHUNK = 512  # rows of the distance matrix computed at a time


class PrecisionRecall(NamedTuple):
    """Precision and recall, shares in [0, 1]; larger is better.

    Attributes:
        precision: eq. (1).
        recall: eq. (2).
        neighbour: k.
    """

    precision: float
    recall: float
    neighbour: int


def precision_recall(real: np.ndarray, generated: np.ndarray, *, neighbour: int = 3) -> PrecisionRecall:
    """Computes precision and recall of two sets of features, in float64 on the host.

    Args:
        real: [n, D] floats.
        generated: [m, D].
        neighbour: k, which sets the radii.
    Raises:
        UserError: a set has fewer than k + 1 examples, or a feature that is not finite.
        ValueError: the shapes are not [n, D] and [m, D].
    """
    real, generated = (_checked(features, neighbour) for features in (real, generated))
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"the features differ: {real.shape[1]} and {generated.shape[1]} dimensions")
    # Distances come from norms and products; centring loses fewer digits to cancellation.
    centre = real.mean(axis=0, keepdims=True)
    real, generated = real - centre, generated - centre
    precision = _share_inside(generated, real, _radii(real, neighbour))
    return PrecisionRecall(precision, _share_inside(real, generated, _radii(generated, neighbour)), neighbour)


def _radii(features: np.ndarray, neighbour: int) -> np.ndarray:
    """Returns [N] squared distances from each example to its k-th nearest neighbour, not counting itself."""
    # Index k, because index 0 is the example itself, at distance 0 up to rounding.
    return np.concatenate(
        [np.partition(squared, neighbour, axis=1)[:, neighbour] for squared in _squared(features, features)]
    )


def _share_inside(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """Returns the share of the points that lie inside at least one ball."""
    # Copies of an example are at distance 0 up to rounding, and must lie inside a ball of radius 0.
    rounding = 1e-12 * np.square(centres).sum(axis=1).max()
    inside = [(squared <= radii[None] + rounding).any(axis=1) for squared in _squared(points, centres)]
    return float(np.concatenate(inside).mean())


def _squared(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Yields [n, N] squared distances from a chunk of rows of `a` to all rows of `b`."""
    norms = np.square(b).sum(axis=1)
    for start in range(0, len(a), _CHUNK):
        chunk = a[start : start + _CHUNK]
        yield np.maximum(np.square(chunk).sum(axis=1)[:, None] + norms[None] - 2.0 * chunk @ b.T, 0.0)


def _checked(features: np.ndarray, neighbour: int) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"features must be [N, D], got {features.shape}")
    if not 1 <= neighbour < len(features):
        raise UserError(f"{len(features)} examples have no neighbour number {neighbour}: use at least {neighbour + 1}.")
    if not np.isfinite(features).all():
        raise UserError("some features are infinite or NaN: check the images.")
    return features
