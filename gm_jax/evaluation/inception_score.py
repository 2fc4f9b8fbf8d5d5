"""Inception Score: how sure a classifier is of each sample, and how evenly its classes are used.

Notation: p(y|x) the classifier's probability of class y, K classes; p(y) its mean over a set of samples.

    IS = exp E_x KL(p(y|x) || p(y)) = exp E_x sum_y p(y|x) (log p(y|x) - log p(y))                (1)

It lies between 1 and K. The samples are cut into splits, (1) is computed for each, and the mean and the standard
deviation over splits are what is reported. They are shuffled first: in samples sorted by class every split has few
classes, and the score is far too small. It needs no real data, knows nothing of them, and depends on the classifier:
a result names it.

Source: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, arXiv:1606.03498.
"""

import itertools
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError


class InceptionScore(NamedTuple):
    """Mean and standard deviation of (1) over splits.

    Attributes:
        mean: larger is better, between 1 and the number of classes.
        standard_deviation: over splits, divided by their number (ddof 0, as the literature's code has it).
        num_examples: how many were scored.
        num_splits: into how many parts.
    """

    mean: float
    standard_deviation: float
    num_examples: int
    num_splits: int


def inception_score(log_probs: np.ndarray, *, num_splits: int = 10, seed: int = 0) -> InceptionScore:
    """The score of a set of samples, eq. (1), in float64 on the host.

    Args:
        log_probs: [N, K] log p(y|x), normalised; -inf is a probability of 0.
        num_splits: parts, of N // num_splits examples or one more.
        seed: of the shuffle.
    Returns:
        Mean and standard deviation over splits.
    Raises:
        UserError: there are fewer than two examples in a split, or the rows are no log-probabilities.
    """
    log_probs = np.asarray(log_probs, np.float64)
    if log_probs.ndim != 2:
        raise ValueError(f"log-probabilities are [N, K], got {log_probs.shape}")
    if num_splits < 1 or len(log_probs) < 2 * num_splits:
        raise UserError(f"{num_splits} splits of at least two examples cannot be made of {len(log_probs)}.")
    probs = np.exp(log_probs)
    if not np.allclose(probs.sum(axis=1), 1.0, rtol=0, atol=1e-3):
        raise UserError("the rows are no log-probabilities: they do not sum to 1.")
    order = np.random.default_rng(seed).permutation(len(log_probs))
    edges = np.arange(num_splits + 1) * len(log_probs) // num_splits
    scores = [_score(log_probs[order[start:end]]) for start, end in itertools.pairwise(edges)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), len(log_probs), num_splits)


def _score(log_probs: np.ndarray) -> float:
    probs = np.exp(log_probs)
    marginal = probs.mean(axis=0)
    # 0 log 0 is 0: a class that no probability is left for adds nothing, neither does one that nobody uses.
    used = probs > 0.0
    ratio = np.where(used, log_probs, 0.0) - np.log(np.where(marginal > 0.0, marginal, 1.0))[None]
    return float(np.exp(np.where(used, probs * ratio, 0.0).sum(axis=1).mean()))
