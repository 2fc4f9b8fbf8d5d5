"""Mode coverage: how many modes of a known mixture, or classes of a data set, samples reach.

Notation: m_k one of K modes, s their common standard deviation; x_n one of N samples, k(n) the mode nearest to it.

    x_n is at a mode:     |x_n - m_k(n)| <= 3 s                                        (1)
    mode k is covered:    at least N / (10 K) of the x_n are at it                     (2)

Of an isotropic normal in the plane 1 - exp(-9/2) = 98.9 % lies within 3 s, and 1 - exp(-1/2) = 39.3 % within s. Where
modes lie close, (1) and (2) say little: of samples spread evenly along the ring of `toy:eight_gaussians`, as far across
it as its data, 90.5 % are at modes, and all eight are covered. The share within s tells: 17.6 % of these.

(2) asks for a tenth of an even share, and not for one example as the paper does: the circles of `toy:eight_gaussians`
all but touch, and where one mode of its data is left out, 3 of the 8,738 examples of its neighbours still lie in its.

Where modes are not known, a classifier's likeliest classes stand in for them: with r_c the share of class c among real
images, and g_c among generated ones,

    class c is covered:    g_c >= r_c / 10,  r_c > 0                                   (3)

Source: Lin, Khetan, Fanti & Oh, "PacGAN", NeurIPS 2018, arXiv:1712.04086: modes and high-quality samples.
"""

from typing import NamedTuple

import numpy as np

_TENTH = 10  # (2) and (3) are held in whole numbers: a share at the very edge is covered


class ModeCoverage(NamedTuple):
    """What samples say of the modes.

    Attributes:
        modes_covered: number of modes with (2).
        share_at_modes: of all samples, those with (1).
        share_of_rarest: of all samples, those at the mode that has the fewest; at best 1/K.
        share_within_std: of all samples, those within s of a mode: fewer than of the data where samples lie between
            modes, more where modes are too narrow.
    """

    modes_covered: int
    share_at_modes: float
    share_of_rarest: float
    share_within_std: float


class ClassCoverage(NamedTuple):
    """What a classifier says of samples.

    Attributes:
        classes_covered: number of classes with (3).
        num_classes: how many have r_c > 0: at best so many are covered.
    """

    classes_covered: int
    num_classes: int


def mode_coverage(samples: np.ndarray, modes: np.ndarray, std: float, *, radius: float = 3.0) -> ModeCoverage:
    """Counts samples at modes, (1) and (2).

    Args:
        samples: [N, D].
        modes: [K, D] centres.
        std: s, of every mode.
        radius: what is still at a mode, in s.
    Raises:
        ValueError: the shapes do not fit.
    """
    samples, modes = np.asarray(samples, np.float64), np.asarray(modes, np.float64)
    if samples.ndim != 2 or modes.ndim != 2 or samples.shape[1] != modes.shape[1] or not len(samples):
        raise ValueError(f"need samples [N, D] and modes [K, D], got {samples.shape} and {modes.shape}")
    distances = np.linalg.norm(samples[:, None] - modes[None], axis=-1)
    nearest, distance = distances.argmin(axis=1), distances.min(axis=1)
    at_mode = distance <= radius * std
    counts = np.bincount(nearest[at_mode], minlength=len(modes))
    return ModeCoverage(
        int(np.sum(_TENTH * counts * len(modes) >= len(samples))),
        float(np.mean(at_mode)),
        float(counts.min() / len(samples)),
        float(np.mean(distance <= std)),
    )


def class_coverage(real_log_probs: np.ndarray, generated_log_probs: np.ndarray) -> ClassCoverage:
    """Counts the classes that samples reach, (3).

    Args:
        real_log_probs: [N, K] log p(y|x) of real images.
        generated_log_probs: [M, K] of generated ones.
    Raises:
        ValueError: the shapes do not fit.
    """
    sets = [np.asarray(rows) for rows in (real_log_probs, generated_log_probs)]
    if any(rows.ndim != 2 or not len(rows) for rows in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"need log-probabilities [N, K] and [M, K], got {sets[0].shape} and {sets[1].shape}")
    real, generated = (np.bincount(rows.argmax(axis=1), minlength=rows.shape[1]) for rows in sets)
    covered = (_TENTH * generated * len(sets[0]) >= real * len(sets[1])) & (real > 0)
    return ClassCoverage(int(covered.sum()), int((real > 0).sum()))
