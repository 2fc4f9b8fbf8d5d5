"""The density of a model on a Gaussian path by its probability-flow ODE (Song et al., arXiv:2011.13456, section 4.3).

    dx / dt = u(x, t),    log p(x) = log N(x_T; 0, s_T^2 I) + int div u dt                               (1)

The normal density at the last time stands in for the true one, which costs at most the KL divergence of `prior_kl`.
"""

import jax
import jax.numpy as jnp

from gm_jax.losses import continuous_flow, score_matching
from gm_jax.ops.distributions import normal_log_prob
from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.samplers.ode import PredictFn
from gm_jax.types import Array


def ode_log_densities(
    predict_fn: PredictFn, path: GaussianPath, x_0: Array, probes: Array | None, *, tolerance: float
) -> Array:
    """Computes (1) by each of K probes.

    Args:
        predict_fn: the model.
        path: of the model, with noise at both ends.
        x_0: [B, ...] in the space that is diffused.
        probes: [K, B, ...], for example random signs; None for the exact divergence, with K = 1.
        tolerance: relative and absolute, of the solver.
    Returns:
        [K, B] nats.
    """
    last = jnp.asarray(path.range[1], x_0.dtype)

    def velocity(x: Array, t: Array) -> Array:
        t = jnp.full(x.shape[:1], t, x.dtype)
        return path.velocity(*predict_fn(x, t), t)

    def prior_log_prob(z: Array) -> Array:
        log_var = jnp.full_like(z, 2.0 * jnp.log(path.noise(last)))
        return sum_except_batch(normal_log_prob(z, jnp.zeros_like(z), log_var))

    def by_probe(probe: Array | None) -> Array:
        return continuous_flow.continuous_flow_log_prob(
            velocity, prior_log_prob, x_0, probe, times=path.range, rtol=tolerance, atol=tolerance
        )

    return by_probe(None)[None] if probes is None else jax.vmap(by_probe)(probes)


def prior_kl(path: GaussianPath, shape: tuple[int, ...], *, largest: float) -> float:
    """Bounds KL(p_T || N(0, s_T^2 I)), in nats and in two digits.

    Args:
        path: of the model.
        shape: of an example.
        largest: of the absolute values of the data, or their root mean square.
    """
    with jax.ensure_compile_time_eval():
        x_0, last = jnp.full((1, *shape), largest), jnp.asarray(path.range[1], jnp.float32)
        kl = score_matching.continuous_prior_kl(x_0, path.signal(last), path.noise(last))
        return float(f"{float(kl[0]):.1e}")
