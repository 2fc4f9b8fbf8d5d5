"""The mean log-likelihood of a split: every example counts once, and sums are float64 on the host."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from gm_jax.types import Likelihood, LikelihoodKind


class LikelihoodSummary(NamedTuple):
    """Mean of log p(x) over a split.

    Attributes:
        mean: nats per example; larger is better.
        standard_error: of the mean over examples, nats. It measures the spread of the split, not of the estimator.
        num_examples: number of examples counted.
        kind: see `types.Likelihood`.
        measure: see `types.Likelihood`.
        settings: what else the reader needs to know, e.g. (("K", 500),).
        num_nan: number of examples whose log p is NaN; the mean is then NaN too.
        probe_error: standard error of the mean that comes from probes alone, nats; a part of `standard_error`. None if
            log_prob does not state it.
    """

    mean: float
    standard_error: float
    num_examples: int
    kind: LikelihoodKind
    measure: str
    settings: tuple[tuple[str, Any], ...]
    num_nan: int = 0
    probe_error: float | None = None


def evaluate(
    log_prob: Callable[[int, np.ndarray], Likelihood], batches: Iterable[tuple[dict[str, np.ndarray], np.ndarray]]
) -> LikelihoodSummary:
    """Summarises log_prob over batches of one shape; the last batch is padded.

    Args:
        log_prob: (index of the batch, x [B, ...]) -> Likelihood.
        batches: pairs (batch, mask [B]); an example with mask False is padding.
    Raises:
        ValueError: there are no examples, the kind or the measure changes between batches, or log_prob is not [B].
    """
    values, probe_errors, kinds = [], [], set()
    for index, (batch, mask) in enumerate(batches):
        likelihood = log_prob(index, batch["x"])
        log_probs = np.asarray(likelihood.log_prob, np.float64)
        if log_probs.shape != mask.shape:
            raise ValueError(f"need one log-probability per example, {mask.shape}, got {log_probs.shape}")
        values.append(log_probs[mask])
        if likelihood.probe_error is not None:
            probe_errors.append(np.asarray(likelihood.probe_error, np.float64)[mask])
        kinds.add((likelihood.kind, likelihood.measure, likelihood.settings))
    all_values = np.concatenate(values) if values else np.zeros(0)
    if not all_values.size or len(kinds) != 1:
        raise ValueError(f"cannot summarise {all_values.size} examples of kinds {sorted(kinds, key=repr)}")
    ((kind, measure, settings),) = kinds
    # An infinite log-probability is a result, not a reason to warn: the mean is then infinite and the error NaN.
    with np.errstate(invalid="ignore"):
        mean = float(np.mean(all_values))
        error = float(np.std(all_values, ddof=1)) / math.sqrt(all_values.size) if all_values.size > 1 else math.nan
    num_nan = int(np.isnan(all_values).sum())
    # Each example has probes of its own, so that the squares of the errors add up.
    probe_error = math.sqrt(np.sum(np.square(np.concatenate(probe_errors)))) / all_values.size if probe_errors else None
    return LikelihoodSummary(mean, error, all_values.size, kind, measure, settings, num_nan, probe_error)
