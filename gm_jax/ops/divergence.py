"""Divergence of a vector field, the trace of its Jacobian: exact, or estimated by probes.

Notation: f maps x [B, ...] to [B, ...], each example on its own; J_b is the Jacobian of example b, D its dimension.

    exact:       div f(x)_b = tr J_b = sum_(i=1..D) (J_b e_i)_i                                          (1)
    Hutchinson:  v' J_b v,    E[v v'] = I,    E[v' J_b v] = tr J_b                                       (2)

(1) costs D forward derivatives, (2) costs one. Probes v of signs (Rademacher) have the smallest variance of all probes
with independent entries: 2 sum_(i != j) ((J + J')_ij / 2)^2.

Source: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1989; Grathwohl et al., "FFJORD",
ICLR 2019, arXiv:1810.01367, section 3.1.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array

FieldFn = Callable[[Array], Array]  # x [B, ...] -> [B, ...], each example on its own

MOST_EXACT_DIMENSIONS = 64  # where D forward derivatives at once are still cheap


def exact_divergence(field_fn: FieldFn, x: Array) -> tuple[Array, Array]:
    """Computes a field and its divergence, eq. (1).

    Args:
        field_fn: f.
        x: [B, ...] with at most 64 dimensions in an example.
    Returns:
        f(x) [B, ...], div f(x) [B].
    Raises:
        ValueError: an example has more than 64 dimensions.
    """
    num_dims = x[0].size
    if num_dims > MOST_EXACT_DIMENSIONS:
        raise ValueError(
            f"an exact divergence in {num_dims} dimensions takes {num_dims} derivatives: use probes above "
            f"{MOST_EXACT_DIMENSIONS}."
        )
    value, pushforward = jax.linearize(field_fn, x)
    basis = jnp.eye(num_dims, dtype=x.dtype).reshape(num_dims, 1, *x.shape[1:])

    def diagonal(e: Array) -> Array:
        return sum_except_batch(e * pushforward(jnp.broadcast_to(e, x.shape)))

    return value, jnp.sum(jax.vmap(diagonal)(basis), axis=0)


def probed_divergence(field_fn: FieldFn, x: Array, probe: Array) -> tuple[Array, Array]:
    """Computes a field and Hutchinson's estimate of its divergence, eq. (2).

    Args:
        field_fn: f.
        x: [B, ...].
        probe: v [B, ...], for example random signs.
    Returns:
        f(x) [B, ...], v' J v [B].
    """
    chex.assert_equal_shape([x, probe])
    value, slope = jax.jvp(field_fn, (x,), (probe,))
    return value, sum_except_batch(probe * slope)
