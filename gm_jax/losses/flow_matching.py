"""Flow matching: learning the velocity of the flow that carries noise to data.

Notation as in `ops.gaussian_path`: x_t = a_t x_0 + s_t eps, and u = dx_t / dt = a_t' x_0 + s_t' eps is the velocity of
one pair of data and noise. The mean E[u | x_t] is the velocity of a flow whose marginals are those of x_t, and

    L = |u - u_hat(x_t, t)|^2                                                                            (1)

is least at that mean. On the straight path x_t = (1 - t) x_0 + t eps, u = eps - x_0: rectified flow. (1) on pairs of
noise and the sample that the flow makes of it, in place of independent pairs, straightens the flow: reflow.

Source: Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023, arXiv:2210.02747; Liu, Gong & Liu, "Flow
Straight and Fast", ICLR 2023, arXiv:2209.03003.
"""

import chex
import jax.numpy as jnp

from gm_jax.ops import checks
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array


def conditional_flow_matching_loss(u: Array, u_hat: Array) -> Array:
    """Computes the squared error of the predicted velocity, eq. (1).

    Args:
        u: [B, ...] the velocity of the pair in x_t: `gaussian_path.GaussianPath.velocity`.
        u_hat: [B, ...] the network's prediction of it from x_t.
    Returns:
        [B] loss, summed over the event; smaller is better. Its least mean is above 0, because x_t leaves u open.
    Source: Lipman et al., ICLR 2023, arXiv:2210.02747, eq. 14.
    Example:
        >>> losses.conditional_flow_matching_loss(jnp.array([[1.0, -2.0]]), jnp.array([[0.0, 0.0]]))
        Array([5.], dtype=float32)
    """
    checks.assert_batch_of_events(u)
    chex.assert_equal_shape([u, u_hat])
    chex.assert_type([u, u_hat], float)
    return sum_except_batch(jnp.square(u - u_hat))
