"""The interval that holds a model's mean -log p, if both of its ends are known, and what makes each end.

    exact likelihoods            both ends are the number itself
    energies with an unknown Z   the two ends of log Z: annealed chains, forwards and reversed
    minimax energies of points   the entropy of the generator, and a quadrature, which is the number itself
    VAEs, flows of levels        importance weights without and with the true latent, for the model's own samples alone

An end holds in expectation. The reversed chains start at samples of the model only approximately.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np

from gm_jax.evaluation import enumeration
from gm_jax.evaluation.results import Record
from gm_jax.models import bidirectional
from gm_jax.runner.run import Run
from gm_jax.training.state import TrainState

NUM_SAMPLES = 1_000  # draws of a model, whose both ends are computed
_K = 100  # latents per draw
_OF_SAMPLES = "nll_of_samples"
_ENDS = (  # names of the low and the high end
    ("nll_at_low_log_z", "nll_at_high_log_z"),
    ("nll", "nll_with_computed_log_z"),
    (_OF_SAMPLES, _OF_SAMPLES),
)


class Interval(NamedTuple):
    """Both ends of a mean -log p, nats.

    Attributes:
        low: the record of the low end.
        high: the record of the high end; equal to low for an exact likelihood.
        truth: the record of the exact value of the same mean, where an enumeration knows it.
    """

    low: Record
    high: Record
    truth: Record | None


def find(records: Sequence[Record]) -> Interval | None:
    """Returns the interval that the records of a model hold; None if an end is missing or not known, or if they cross.

    Ends are means of noise, so that those of a narrow interval may cross by chance.
    """

    def one(name: str, kind: str) -> Record | None:
        fits = (r for r in records if (r.name, r.unit) == (name, "nats") and r.value is not None and is_kind(r, kind))
        return next(fits, None)

    def is_kind(record: Record, kind: str) -> bool:
        # A quadrature that found its error too large has no value.
        is_value = record.kind == "estimate" and record.settings.get("by") == "quadrature"
        return record.kind == kind or (kind == "lower_bound" and is_value)

    exact = one("nll", "exact")
    if exact is not None:
        return Interval(exact, exact, exact)
    for low_name, high_name in _ENDS:
        # A record states the kind of log p: the low end of -log p is an upper bound of log p.
        low, high = one(low_name, "upper_bound"), one(high_name, "lower_bound")
        if low is None or high is None or low.measure != high.measure:
            continue
        if cast(float, low.value) <= cast(float, high.value):
            return Interval(low, high, one(low_name, "exact"))
    return None


def measure(
    run: Run, state: TrainState, log_q: np.ndarray | None, *, settings: dict[str, Any], seed: int
) -> list[Record]:
    """Computes both ends of the mean -log p of a model's own samples, as records; none for other families.

    Args:
        run: the trained run.
        state: state to evaluate.
        log_q: [S] exact log-probabilities of all states of a small world; None elsewhere.
        settings: settings to add to every record.
        seed: of the samples and the weights.
    """
    family = run.experiment.family
    if not bidirectional.has_ends(family):
        return []
    compiled = jax.jit(
        lambda params, model_state, key: bidirectional.ends(
            family, params, model_state, key, NUM_SAMPLES, num_samples=_K
        )
    )
    ends = compiled(state.eval_params, state.model_state, jax.random.key(seed))
    counted = np.asarray(ends.is_counted)
    rows = [(one.kind, one.log_prob, dict(one.settings)) for one in (ends.low, ends.high)]
    if log_q is not None:
        rows.append(("exact", log_q[enumeration.state_index(ends.x)], {"by": "quadrature"}))
    if not counted.any():
        return []
    found = []
    for kind, log_prob, own in rows:
        nll = -np.asarray(log_prob, np.float64)[counted]
        error = float(nll.std(ddof=1) / np.sqrt(len(nll))) if len(nll) > 1 else None
        found.append(
            Record(
                name=_OF_SAMPLES,
                value=float(nll.mean()) if np.isfinite(nll.mean()) else None,
                unit="nats",
                kind=kind,
                data=run.spec.name,
                measure=ends.low.measure,
                split="samples",
                examples=len(nll),
                settings={**settings, **own, "standard_error": error},
            )
        )
    return found
