"""Kernel distance between two sets of features: the unbiased squared maximum mean discrepancy with a cubic kernel.

Notation: f_i and g_j in R^D are the features of n real and m generated examples.

    k(a, b) = (a . b / D + 1)^3                                                                     (1)
    MMD^2 = 1/(n(n-1)) sum_{i != i'} k(f_i, f_i') + 1/(m(m-1)) sum_{j != j'} k(g_j, g_j')
            - 2/(nm) sum_{i,j} k(f_i, g_j)                                                          (2)

(2) is unbiased for every n and m: for two samples of the same distribution its mean is 0 and it may be negative. So,
unlike the Frechet distance, its expectation does not depend on the number of samples. With the 2,048 features of
Inception it is the KID. The literature reports the mean and the standard deviation over random subsets:
`subset_kernel_distance`.

Source: Binkowski, Sutherland, Arbel & Gretton, "Demystifying MMD GANs", ICLR 2018, arXiv:1801.01401.
"""

from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError

_CHUNK = 1024  # rows of the kernel matrix computed at a time


class KernelDistance(NamedTuple):
    """Mean and standard deviation of (2) over subsets.

    Attributes:
        mean: smaller is better; near 0, of either sign, if both sets have the same distribution.
        standard_deviation: over subsets, with ddof 0; None if a set is no larger than a subset, so that every subset
            is the same set.
        num_subsets: number of subsets.
        subset_size: examples of each set in one subset.
    """

    mean: float
    standard_deviation: float | None
    num_subsets: int
    subset_size: int


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Computes the unbiased squared distance (2) between two whole sets, in float64 on the host.

    Args:
        real: [n, D] floats.
        generated: [m, D].
    Raises:
        UserError: a set has fewer than two examples, or a feature that is not finite.
        ValueError: the shapes are not [n, D] and [m, D].
    """
    real, generated = _checked(real), _checked(generated)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(f"the features differ: {real.shape[1]} and {generated.shape[1]} dimensions")
    within = sum(_mean_of_pairs(features) for features in (real, generated))
    return within - 2.0 * _kernel_sum(real, generated) / (len(real) * len(generated))


def subset_kernel_distance(
    real: np.ndarray, generated: np.ndarray, *, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Computes (2) on random subsets of both sets, each drawn without replacement.

    Args:
        real: [n, D] floats.
        generated: [m, D].
        num_subsets: number of subsets.
        subset_size: examples in each subset; at most n and m.
        seed: seed of the draws.
    Raises:
        UserError: a set has fewer than subset_size examples, or subset_size is less than two.
    """
    fewest = min(len(real), len(generated))
    if not 2 <= subset_size <= fewest:
        raise UserError(f"cannot draw subsets of {subset_size} examples: choose a size from 2 to {fewest}.")
    rng = np.random.default_rng(seed)
    draw = lambda features: features[rng.permutation(len(features))[:subset_size]]  # noqa: E731
    distances = [kernel_distance(draw(real), draw(generated)) for _ in range(num_subsets)]
    varies = num_subsets > 1 and subset_size < fewest
    return KernelDistance(
        float(np.mean(distances)), float(np.std(distances)) if varies else None, num_subsets, subset_size
    )


def _mean_of_pairs(features: np.ndarray) -> float:
    """Computes the first or second term of (2): the mean over all pairs of different examples."""
    count = len(features)
    itself = np.square(features).sum(axis=1) / features.shape[1] + 1.0
    return (_kernel_sum(features, features) - np.sum(itself**3)) / (count * (count - 1))


def _kernel_sum(a: np.ndarray, b: np.ndarray) -> float:
    """Sums (1) over all pairs."""
    total = 0.0
    for start in range(0, len(a), _CHUNK):
        base = a[start : start + _CHUNK] @ b.T / a.shape[1] + 1.0
        total += float(np.sum(base * base * base))  # np.power is ten times slower
    return total


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2:
        raise ValueError(f"features must be [N, D], got {features.shape}")
    if len(features) < 2:
        raise UserError(f"a kernel distance needs at least two examples in each set, got {len(features)}.")
    if not np.isfinite(features).all():
        raise UserError("some features are infinite or NaN: check the images.")
    return features
