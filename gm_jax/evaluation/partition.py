"""The normalising constant of a model from annealed importance sampling, and the bracket that holds it.

    estimate:      log Z^ = log Z_0 + log 1/R sum_r exp(log w_r),    E exp(log Z^) = Z                (1)
    low end:       log Z_0 + mean_r log w_r,    in expectation at most log Z                          (2)
    high end:      log Z_0 - mean_r log w'_r,   in expectation at least log Z                         (3)
    sample size:   ESS = (sum w)^2 / sum w^2                                                          (4)

w are weights of chains from Z_0 to Z, and w' of reversed chains that start at exact samples of the target. Chains that
start at data and run for long only come close to such samples, so the high end is as good as its starts.

An estimate from weights of a small ESS is far too low, and -log p far too good, with nothing else to show it. Ends
that cross show that the reversed chains did not start at samples of the target. So R chains count as converged if the
ESS is at least a tenth of R and the high end is not below the estimate by more than three of its standard errors.
Chains that never left a part of the target cannot be detected from their weights.

Source: Neal 2001; Grosse, Ghahramani & Adams, "Sandwiching the marginal likelihood using bidirectional Monte Carlo",
2015, arXiv:1511.02543.
"""

from typing import NamedTuple

import jax.numpy as jnp

from gm_jax.ops.reductions import log_mean_exp
from gm_jax.types import Array

CONVERGED_SHARE = 0.1  # of the runs, that the effective sample size must reach


class LogPartition(NamedTuple):
    """What is known of log Z; scalars, nats.

    Attributes:
        log_z: the estimate (1).
        low: the end (2).
        high: the end (3).
        standard_error: of the estimate, by the delta method.
        effective_sample_size: (4), between 1 and the number of runs.
        converged: whether the effective sample size is at least a tenth of the runs, and the ends do not cross.
    """

    log_z: Array
    low: Array
    high: Array
    standard_error: Array
    effective_sample_size: Array
    converged: Array


def log_partition(log_z_0: Array, forward_log_w: Array, reverse_log_w: Array) -> LogPartition:
    """Summarises the weights of annealed chains in both directions.

    Args:
        log_z_0: log of the normalising constant at the start of the path, scalar, nats.
        forward_log_w: [R] log-weights of the chains from the start.
        reverse_log_w: [R'] log-weights of the reversed chains from the target.
    """
    weights = jnp.exp(forward_log_w - jnp.max(forward_log_w))
    num_runs = forward_log_w.shape[0]
    ess = jnp.sum(weights) ** 2 / jnp.sum(weights**2)
    relative_variance = jnp.var(weights, ddof=1) / jnp.mean(weights) ** 2
    log_z, high = log_z_0 + log_mean_exp(forward_log_w, axis=0), log_z_0 - jnp.mean(reverse_log_w)
    error = jnp.sqrt(relative_variance / num_runs)
    return LogPartition(
        log_z=log_z,
        low=log_z_0 + jnp.mean(forward_log_w),
        high=high,
        standard_error=error,
        effective_sample_size=ess,
        converged=(ess >= CONVERGED_SHARE * num_runs) & (high >= log_z - 3.0 * error - 1e-3),
    )
