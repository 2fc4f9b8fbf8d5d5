"""MeanFlow: learning the mean velocity of a flow, which carries noise to data in one step and without a teacher.

Notation as in `ops.gaussian_path`: u is the velocity of one pair of data and noise in x_t, U_hat the network, r <= t
two times.

    mean velocity:  U(x_t, r, t) = 1 / (t - r) int_r^t E[u | x_s] ds    along the flow through x_t          (1)
    one step:       x_r = x_t - (t - r) U(x_t, r, t)                                                        (2)
    identity:       U = E[u | x_t] - (t - r) dU / dt,    dU / dt = E[u | x_t] . grad U + d_t U              (3)
    loss:           |U_hat - stop_gradient(u - (t - r) (u . grad U_hat + d_t U_hat))|^2                     (4)
    weight:         stop_gradient(1 / (L + c)^p)                                                            (5)

dU / dt is the derivative along the direction (u, 0, 1) of (x, r, t), in which r stays; d_t is the partial one in t. The
target in (4) is linear in u, so its mean over the pairs in x_t is (3). With r = t, (4) is flow matching. Improved
MeanFlow takes the derivative along an estimate of E[u | x_t] in place of u. That has less noise, and the same mean if
the estimate is exact.

Source: Geng et al., "Mean Flows for One-step Generative Modeling", NeurIPS 2025, arXiv:2505.13447; for the direction of
the derivative, Geng et al., "Improved Mean Flows: On the Challenges of Fastforward Generative Models", CVPR 2026,
arXiv:2512.02012, section 4.1.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gm_jax.losses.flow_matching import conditional_flow_matching_loss
from gm_jax.ops import checks
from gm_jax.ops.predictions import per_example
from gm_jax.types import Array

MeanVelocityFn = Callable[[Array, Array, Array], Array]  # (x [B, ...], r [B], t [B]) -> U [B, ...]


def mean_flow_loss(
    mean_velocity_fn: MeanVelocityFn, x_t: Array, u: Array, r: Array, t: Array, *, direction: Array | None = None
) -> Array:
    """Computes the squared error of the mean velocity, eq. (4), unweighted.

    Args:
        mean_velocity_fn: the network U_hat.
        x_t: [B, ...] noisy data at the time t.
        u: [B, ...] the velocity of the pair in x_t: `gaussian_path.GaussianPath.velocity`.
        r: [B] the earlier time, at most t.
        t: [B].
        direction: [B, ...] the velocity along which the derivative is taken: u by default, or an estimate of
            E[u | x_t], such as U_hat(x_t, t, t).
    Returns:
        [B] loss, summed over the event; smaller is better. Its least mean is above 0, because x_t leaves u open.
    Source: Geng et al., NeurIPS 2025, arXiv:2505.13447, eqs. 8-11; arXiv:2512.02012, algorithm 1, for a direction.
    Example:
        >>> x_t, u, r, t = jnp.array([[2.0]]), jnp.array([[1.0]]), jnp.array([0.0]), jnp.array([0.5])
        >>> losses.mean_flow_loss(lambda x, r, t: x * t[:, None], x_t, u, r, t)
        Array([1.5625], dtype=float32)
    """
    checks.assert_batch_of_events(x_t)
    chex.assert_equal_shape([x_t, u])
    chex.assert_shape([r, t], x_t.shape[:1])
    chex.assert_type([x_t, u, r, t], float)
    direction = u if direction is None else direction
    chex.assert_equal_shape([x_t, direction])
    tangents = (direction, jnp.zeros_like(r), jnp.ones_like(t))
    u_mean, slope = jax.jvp(mean_velocity_fn, (x_t, r, t), tangents)
    # With r = t the product is 0 exactly.
    target = jax.lax.stop_gradient(u - per_example(t - r, u) * slope)
    return conditional_flow_matching_loss(target, u_mean)


def adaptive_weight(loss: Array, *, power: float, offset: float = 1e-2) -> Array:
    """Computes the weight of an example from its own loss, eq. (5): large errors count less.

    Args:
        loss: [B] L, at least 0.
        power: p; 0 for the squared error as it is, 1 for a gradient of bounded length, 1/2 for nearly its root.
        offset: c, above 0.
    Returns:
        [B] weight, a constant to the gradient.
    Raises:
        ValueError: `offset` is not above 0.
    Source: Geng et al., NeurIPS 2025, arXiv:2505.13447, eq. 22.
    Example:
        >>> losses.adaptive_weight(jnp.array([0.0, 1.0]), power=1.0, offset=0.25)
        Array([4. , 0.8], dtype=float32)
    """
    chex.assert_rank(loss, 1)
    if offset <= 0.0:
        raise ValueError(f"offset must be above 0: got {offset}.")
    return jax.lax.stop_gradient((loss + offset) ** -power)
