"""The mean log-likelihood of a split: every example counts once, sums are float64 on the host."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from gm_jax.types import Likelihood, LikelihoodKind


class LikelihoodSummary(NamedTuple):
    """Mean of log p(x) over a split.

    Attributes:
        mean: nats an example; larger is better.
        standard_error: of the mean over examples, nats: the split's spread, not the estimator's.
        num_examples: how many were counted.
        kind: of `types.Likelihood`.
        measure: of `types.Likelihood`.
        settings: what else the number needs, e.g. (("K", 500),).
    """

    mean: float
    standard_error: float
    num_examples: int
    kind: LikelihoodKind
    measure: str
    settings: tuple[tuple[str, Any], ...]


def evaluate(
    log_prob: Callable[[int, np.ndarray], Likelihood], batches: Iterable[tuple[dict[str, np.ndarray], np.ndarray]]
) -> LikelihoodSummary:
    """Summarise log_prob over batches of one shape, the last of them padded.

    Args:
        log_prob: (number of the batch, x [B, ...]) -> Likelihood.
        batches: (batch, mask [B]) pairs; examples whose mask is False are padding.

    Raises:
        ValueError: there is no example, the kind or the measure changes from batch to batch, or log_prob is not [B].
    """
    values, kinds = [], set()
    for index, (batch, mask) in enumerate(batches):
        likelihood = log_prob(index, batch["x"])
        log_probs = np.asarray(likelihood.log_prob, np.float64)
        if log_probs.shape != mask.shape:
            raise ValueError(f"need one log-probability an example, {mask.shape}, got {log_probs.shape}")
        values.append(log_probs[mask])
        kinds.add((likelihood.kind, likelihood.measure, likelihood.settings))
    all_values = np.concatenate(values) if values else np.zeros(0)
    if not all_values.size or len(kinds) != 1:
        raise ValueError(f"cannot summarise {all_values.size} examples of kinds {sorted(kinds, key=repr)}")
    ((kind, measure, settings),) = kinds
    # An infinite log-probability is a finding, not a reason to warn: it makes the mean infinite and the error NaN.
    with np.errstate(invalid="ignore"):
        mean = float(np.mean(all_values))
        error = float(np.std(all_values, ddof=1)) / math.sqrt(all_values.size) if all_values.size > 1 else math.nan
    return LikelihoodSummary(mean, error, all_values.size, kind, measure, settings)
