"""Ancestral sampling of discrete diffusion: every dimension of x_(t-1) is drawn from p(x_(t-1) | x_t), t = T ... 1.

    predict(x_t [n, D] states, t [n]) -> logits [n, D, L] of p(x_0 | x_t)

Source: Austin, Johnson, Ho, Tarlow & van den Berg, NeurIPS 2021, arXiv:2107.03006, eq. 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.ops.transitions import Transitions, reverse_log_prob
from gm_jax.types import Array, Key

PredictFn = Callable[[Array, Array], Array]


def ancestral(predict: PredictFn, transitions: Transitions, key: Key, n: int, num_dims: int) -> Array:
    """Draws [n, D] int32 states x_0, with T passes of the network.

    Args:
        predict: the network.
        transitions: the process.
        key: noise.
        n: number of samples.
        num_dims: D.
    """
    start_key, key = jax.random.split(key)
    x_T = jax.random.categorical(start_key, transitions.log_stationary, shape=(n, num_dims)).astype(jnp.int32)

    def step(x_t: Array, time: Array) -> tuple[Array, None]:
        t = jnp.broadcast_to(time, (n,))
        log_p = reverse_log_prob(transitions, predict(x_t, t), x_t, t)
        return jax.random.categorical(jax.random.fold_in(key, time), log_p).astype(jnp.int32), None

    return jax.lax.scan(step, x_T, jnp.arange(transitions.num_steps, 0, -1))[0]
