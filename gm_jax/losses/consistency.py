"""Consistency models: learning where a flow ends, so that one step carries noise to data.

Notation as in `ops.gaussian_path`: s < t are two neighbours on a grid of times, x_s is where the flow of a trained
teacher carries x_t, and f(x, t) is the student's prediction of where the flow ends at the first time.

    consistency:  f(x_t, t) = f(x_s, s) along the flow,    f(x, t_min) = x                               (1)
    distance:     d(x, y) = sqrt(|x - y|^2 + c^2) - c,     c = 0.00054 sqrt(D)                           (2)
    loss:         d(f(x_t, t), stop_gradient(f(x_s, s))) / (t - s)                                       (3)

(1) holds for the flow's own end alone. (2) is the pseudo-Huber distance: quadratic below c and linear above it. The
weight of (3) is for pairs near the data, where f changes little with the network's output: by t - t_min for a change of
one, and at large times by the standard deviation of the data. Unweighted, such pairs hardly train.

Source: Song et al., "Consistency Models", ICML 2023, arXiv:2303.01469, for (1) and (3); Song & Dhariwal, "Improved
Techniques for Training Consistency Models", ICLR 2024, arXiv:2310.14189, for (2), for the weight of (3) and for a
target without averaging.
"""

import math

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import checks
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array


def consistency_loss(end: Array, earlier_end: Array, gap: Array, *, huber: float = 0.00054) -> Array:
    """Computes the distance of two predictions of the end of the flow over the time between them, eq. (3).

    Args:
        end: [B, ...] f(x_t, t), which the gradient moves.
        earlier_end: [B, ...] f(x_s, s), the target.
        gap: [B] t - s, above 0.
        huber: c / sqrt(D), above 0.
    Returns:
        [B] loss; smaller is better, 0 if both agree.
    Raises:
        ValueError: `huber` is not above 0.
    Source: Song & Dhariwal, ICLR 2024, arXiv:2310.14189, eq. 7 and sections 3.1 and 3.3.
    Example:
        >>> losses.consistency_loss(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2)), gap=jnp.array([2.0]))
        Array([2.4996], dtype=float32)
    """
    checks.assert_batch_of_events(end)
    chex.assert_equal_shape([end, earlier_end])
    chex.assert_shape(gap, end.shape[:1])
    chex.assert_type([end, earlier_end, gap], float)
    if huber <= 0.0:
        raise ValueError(f"huber must be above 0: got {huber}.")
    c = huber * math.sqrt(end[0].size)
    square = sum_except_batch(jnp.square(end - jax.lax.stop_gradient(earlier_end)))
    # The difference of two near numbers, without the cancellation.
    return square / (jnp.sqrt(square + c**2) + c) / gap
