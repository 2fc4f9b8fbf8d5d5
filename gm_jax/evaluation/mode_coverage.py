"""Mode coverage: how many modes of a known mixture, or classes of a data set, the samples reach.

Notation: m_k is one of K modes, s their common standard deviation; x_n is one of N samples, k(n) its nearest mode.

    x_n is at a mode:     |x_n - m_k(n)| <= 3 s                                        (1)
    mode k is covered:    at least N / (10 K) of the x_n are at mode k                 (2)

An isotropic normal in the plane has 1 - exp(-9/2) = 98.9 % of its mass within 3 s, and 1 - exp(-1/2) = 39.3 % within s.
If the modes lie close together, (1) and (2) distinguish little. Example: samples spread evenly along the ring of
`toy:eight_gaussians`, with the data's radial spread, are at modes in 90.5 % of cases and cover all eight modes. The
share within s separates the two: 17.6 % for the ring.

(2) asks for a tenth of an even share; the paper asks for one example. The reason: the circles of `toy:eight_gaussians`
nearly touch. If one mode is removed from the data, 3 of the 8,738 examples of its neighbours still lie in its circle.

If the modes are not known, the most likely classes of a classifier replace them. With r_c and g_c the share of class c
among real and among generated images,

    class c is covered:    g_c >= r_c / 10,  r_c > 0                                   (3)

Source: Lin, Khetan, Fanti & Oh, "PacGAN", NeurIPS 2018, arXiv:1712.04086: modes and high-quality samples.
"""

from typing import NamedTuple

import numpy as np

_TENTH = 10  # (2) and (3) are compared in integers, so that a share exactly at the limit counts as covered


class ModeCoverage(NamedTuple):
    """How samples cover the modes.

    Attributes:
        modes_covered: number of modes that fulfil (2).
        share_at_modes: share of all samples that fulfil (1).
        share_of_rarest: share of all samples that lie at the rarest mode; at best 1/K.
        share_within_std: share of all samples within s of a mode: lower than for the data if samples lie between modes,
            higher if the modes are too narrow.
    """

    modes_covered: int
    share_at_modes: float
    share_of_rarest: float
    share_within_std: float


class ClassCoverage(NamedTuple):
    """How samples cover the classes of a classifier.

    Attributes:
        classes_covered: number of classes that fulfil (3).
        num_classes: number of classes with r_c > 0, the largest possible value.
    """

    classes_covered: int
    num_classes: int


def mode_coverage(samples: np.ndarray, modes: np.ndarray, std: float, *, radius: float = 3.0) -> ModeCoverage:
    """Counts the samples at each mode, eqs. (1) and (2).

    Args:
        samples: [N, D].
        modes: [K, D] centres of the modes.
        std: s, the standard deviation of every mode.
        radius: largest distance from a mode, in units of s.
    Raises:
        ValueError: the shapes do not match.
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
    """Counts the classes that samples reach, eq. (3).

    Args:
        real_log_probs: [N, K] log p(y|x) for real images.
        generated_log_probs: [M, K] log p(y|x) for generated images.
    Raises:
        ValueError: the shapes do not match.
    """
    sets = [np.asarray(rows) for rows in (real_log_probs, generated_log_probs)]
    if any(rows.ndim != 2 or not len(rows) for rows in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"need log-probabilities [N, K] and [M, K], got {sets[0].shape} and {sets[1].shape}")
    real, generated = (np.bincount(rows.argmax(axis=1), minlength=rows.shape[1]) for rows in sets)
    covered = (_TENTH * generated * len(sets[0]) >= real * len(sets[1])) & (real > 0)
    return ClassCoverage(int(covered.sum()), int((real > 0).sum()))
