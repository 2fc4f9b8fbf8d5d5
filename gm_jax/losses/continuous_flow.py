"""Continuous flows: the density of data that an ordinary differential equation carries to noise.

Notation: u(x, t) is the velocity of a flow that runs from the data at t = t_0 to noise at t = t_1, as the
probability-flow ODE of a Gaussian path does; p_1 is the density at t_1.

    dx / dt = u(x, t),    d log p_t(x(t)) / dt = -div u(x(t), t)                                         (1)
    log p_0(x) = log p_1(x(t_1)) + int_(t_0)^(t_1) div u(x(t), t) dt,    x(t_0) = x                      (2)

The divergence is exact, or Hutchinson's estimate v' J v with one probe v for the whole solution: (2) is then unbiased
up to the solver, and the solver sees a smooth function. Each example is solved with steps of its own.

Source: Chen et al., "Neural Ordinary Differential Equations", NeurIPS 2018, arXiv:1806.07366, theorem 1; Grathwohl et
al., "FFJORD", ICLR 2019, arXiv:1810.01367; Song et al., ICLR 2021, arXiv:2011.13456, eq. 39.
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import adaptive_ode, checks, divergence
from gm_jax.types import Array


def continuous_flow_log_prob(
    velocity_fn: Callable[[Array, Array], Array],
    prior_log_prob_fn: Callable[[Array], Array],
    x: Array,
    probe: Array | None,
    *,
    times: tuple[float, float],
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Array:
    """Computes log p of data by (2).

    Args:
        velocity_fn: (x [B, ...], scalar t) -> u [B, ...], each example on its own.
        prior_log_prob_fn: log p_1, z [B, ...] -> [B] nats.
        x: [B, ...] data.
        probe: v [B, ...] with mean 0 and covariance I, for example random signs: (2) is then an estimate, whose error
            `standard_error_of_probes` finds from several. None for the exact divergence, of data of at most 64
            dimensions.
        times: (t_0, t_1).
        rtol: relative tolerance of the solver.
        atol: absolute tolerance of the solver.
    Returns:
        [B] log p_0, nats; larger is better.
    Raises:
        ValueError: a tolerance is not above 0, or the exact divergence is asked of more than 64 dimensions.
    Source: Chen et al., NeurIPS 2018, arXiv:1806.07366, eq. 8; Grathwohl et al., ICLR 2019, arXiv:1810.01367, eq. 7.
    Example:
        >>> def log_normal(z): return -0.5 * jnp.sum(z**2 + jnp.log(2 * jnp.pi), axis=1)
        >>> losses.continuous_flow_log_prob(lambda x, t: -x, log_normal, jnp.array([[0.5]]), None, times=(0.0, 1.0))
        Array([-1.9358], dtype=float32)
    """
    checks.assert_batch_of_events(x)
    if probe is not None:
        chex.assert_equal_shape([x, probe])

    def solve(x: Array, probe: Array | None) -> Array:
        def field(state: tuple[Array, Array], t: Array) -> tuple[Array, Array]:
            def at_t(x: Array) -> Array:
                return velocity_fn(x, t)

            if probe is None:
                return divergence.exact_divergence(at_t, state[0])
            return divergence.probed_divergence(at_t, state[0], probe[None])

        start = (x[None], jnp.zeros(1, x.dtype))
        z, change = adaptive_ode.solve(field, start, start=times[0], end=times[1], rtol=rtol, atol=atol)
        return (prior_log_prob_fn(z) + change)[0]

    return jax.vmap(lambda x: solve(x, None))(x) if probe is None else jax.vmap(solve)(x, probe)


def standard_error_of_probes(log_probs: Array) -> Array:
    """Computes the standard error of the mean over K probes, of each example.

    Args:
        log_probs: [K, B] nats, of the same data by K independent probes: `continuous_flow_log_prob`.
    Returns:
        [B] nats, at least 0.
    Raises:
        ValueError: there is one probe only.
    Source: Grathwohl et al., ICLR 2019, arXiv:1810.01367, section 3.1.
    Example:
        >>> losses.standard_error_of_probes(jnp.array([[-2.0, -1.0], [-4.0, -1.0]]))
        Array([1., 0.], dtype=float32)
    """
    chex.assert_rank(log_probs, 2)
    chex.assert_type(log_probs, float)
    if log_probs.shape[0] < 2:
        raise ValueError("one probe has no standard error: use 2 or more.")
    return jnp.std(log_probs, axis=0, ddof=1) / math.sqrt(log_probs.shape[0])
