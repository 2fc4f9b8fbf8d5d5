"""How often a classifier is right, and whether it is as sure as it is right.

Notation: p_n = max_y p(y | x_n) is the confidence of example n, and r_n is 1 if that class is the label, else 0. M bins
of equal width divide [0, 1]; B_m holds the examples with p_n in ((m - 1) / M, m / M].

    accuracy:                      mean_n r_n                                                        (1)
    expected calibration error:    sum_m |B_m| / N |mean_(n in B_m) r_n - mean_(n in B_m) p_n|       (2)

(2) is 0 for a classifier that is right in 80 % of the cases in which it is 80 % sure. It depends on M, and with few
examples it is above 0 for a perfectly calibrated classifier too.

Source: Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599, eq. 3;
M = 15 as there.
"""

import numpy as np


def accuracy(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share (1) of examples whose most likely class is the label.

    Args:
        log_probs: [N, C] log p(y | x).
        labels: [N] 0 ... C - 1.
    Raises:
        ValueError: there are no examples, or the shapes differ.
    """
    _check(log_probs, labels)
    return float(np.mean(np.argmax(log_probs, axis=1) == labels))


def expected_calibration_error(log_probs: np.ndarray, labels: np.ndarray, *, num_bins: int = 15) -> float:
    """Returns (2), between 0 and 1; smaller is better.

    Args:
        log_probs: [N, C] log p(y | x).
        labels: [N] 0 ... C - 1.
        num_bins: M.
    Raises:
        ValueError: there are no examples, or the shapes differ.
    """
    _check(log_probs, labels)
    confidence = np.exp(np.max(log_probs.astype(np.float64), axis=1))
    is_right = np.argmax(log_probs, axis=1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    # The sizes of the bins cancel: what is left of each is the sum of its differences.
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=num_bins)
    return float(np.sum(np.abs(gaps)) / len(labels))


def _check(log_probs: np.ndarray, labels: np.ndarray) -> None:
    if len(labels) == 0 or log_probs.ndim != 2 or log_probs.shape[0] != len(labels):
        raise ValueError(f"need [N, C] log-probabilities and [N] labels, got {log_probs.shape} and {labels.shape}")
