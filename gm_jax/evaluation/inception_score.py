"""Inception Score: how certain a classifier is of each sample, and how evenly the samples use its classes.

Notation: p(y|x) is the classifier's probability of class y, of K classes; p(y) is its mean over a set of samples.

    IS = exp E_x KL(p(y|x) || p(y)) = exp E_x sum_y p(y|x) (log p(y|x) - log p(y))                (1)

The score lies between 1 and K. The samples are divided into splits, (1) is computed for each split, and the mean and
the standard deviation over splits are reported. The samples are shuffled first, because in samples sorted by class each
split has few classes and the score is far too small. The score uses no real data. It depends on the classifier, so
every result names the classifier.

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
        standard_deviation: over splits, with ddof 0 as in the literature's code; None for a single split.
        num_examples: number of samples scored.
        num_splits: number of splits.
    """

    mean: float
    standard_deviation: float | None
    num_examples: int
    num_splits: int


def inception_score(log_probs: np.ndarray, *, num_splits: int = 10, seed: int = 0) -> InceptionScore:
    """Computes the score of a set of samples, eq. (1), in float64 on the host.

    Args:
        log_probs: [N, K] log p(y|x), normalised; -inf stands for probability 0.
        num_splits: number of splits, each of N // num_splits samples or one more.
        seed: seed of the shuffle.
    Returns:
        Mean and standard deviation over splits.
    Raises:
        UserError: a split has fewer than two samples, or the rows are not log-probabilities.
    """
    log_probs = np.asarray(log_probs, np.float64)
    if log_probs.ndim != 2:
        raise ValueError(f"log-probabilities must be [N, K], got {log_probs.shape}")
    if num_splits < 1 or len(log_probs) < 2 * num_splits:
        raise UserError(
            f"{len(log_probs)} samples are too few for {num_splits} splits: "
            f"provide at least {2 * num_splits}, or use fewer splits."
        )
    probs = np.exp(log_probs)
    if not np.allclose(probs.sum(axis=1), 1.0, rtol=0, atol=1e-3):
        raise UserError("the rows are not log-probabilities, because they do not sum to 1: pass log_softmax(logits).")
    order = np.random.default_rng(seed).permutation(len(log_probs))
    edges = np.arange(num_splits + 1) * len(log_probs) // num_splits
    scores = [_score(log_probs[order[start:end]]) for start, end in itertools.pairwise(edges)]
    deviation = float(np.std(scores)) if num_splits > 1 else None
    return InceptionScore(float(np.mean(scores)), deviation, len(log_probs), num_splits)


def _score(log_probs: np.ndarray) -> float:
    probs = np.exp(log_probs)
    marginal = probs.mean(axis=0)
    # 0 log 0 is 0: a class of probability 0 adds nothing, nor does a class that no sample uses.
    used = probs > 0.0
    ratio = np.where(used, log_probs, 0.0) - np.log(np.where(marginal > 0.0, marginal, 1.0))[None]
    return float(np.exp(np.where(used, probs * ratio, 0.0).sum(axis=1).mean()))
