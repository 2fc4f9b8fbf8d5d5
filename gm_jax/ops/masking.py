"""Masks of absorbing diffusion: which dimensions are masked at which time.

Notation: D dimensions; t in [0, 1], 0 the data; alpha(t) the probability that a dimension is still visible at t,
alpha(0) = 1 and alpha(1) = 0; k the number of masked dimensions.

    each dimension alone:   P(i is masked at t) = 1 - alpha(t), independently                              (1)
    a fixed number:         k dimensions, each subset of k equally likely                                  (2)

(1) at a given k is (2). If t is drawn with the weight of the bound, -alpha'(t) / (1 - alpha(t)), every k from 1 to D
has the weight 1 / k, with any alpha: `losses.masked_diffusion`.

Sources: Austin, Johnson, Ho, Tarlow & van den Berg, "Structured Denoising Diffusion Models in Discrete State-Spaces",
NeurIPS 2021, arXiv:2107.03006; Shi, Han, Wang, Doucet & Titsias, "Simplified and Generalized Masked Diffusion for
Discrete Data", NeurIPS 2024, arXiv:2406.04329, section 2 and table 4.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.types import Array, Key

Schedule = Callable[[Array], Array]  # t -> alpha(t), both of any shape


def linear(t: Array) -> Array:
    """Returns alpha(t) = 1 - t."""
    return 1.0 - t


def cosine(t: Array) -> Array:
    """Returns alpha(t) = 1 - cos(pi/2 (1 - t)): more of the time goes to many masked dimensions."""
    return 1.0 - jnp.cos(0.5 * jnp.pi * (1.0 - t))


def loss_weight(schedule: Schedule, t: Array) -> Array:
    """Computes -alpha'(t) / (1 - alpha(t)), the weight of the bound at t > 0; 1 / t for the linear schedule."""
    alpha, slope = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    return -slope / (1.0 - alpha)


def draw_masked(key: Key, schedule: Schedule, t: Array, num_dims: int) -> Array:
    """Draws (1): bool [B, D], True where masked, at times t [B]."""
    return jax.random.uniform(key, (t.shape[0], num_dims)) >= schedule(t)[:, None]


def draw_counts(key: Key, batch_size: int, num_dims: int) -> Array:
    """Draws k [B] int32, each uniform on 1 ... D and spread evenly over the batch, so that their mean varies little."""
    places = (jax.random.uniform(key) + jnp.arange(batch_size) / batch_size) % 1.0
    return 1 + jnp.minimum((num_dims * places).astype(jnp.int32), num_dims - 1)


def mask_first(counts: Array, orders: Array) -> Array:
    """Hides the first k [B] dimensions of each order [B, D]: bool [B, D]."""
    return jnp.argsort(orders, axis=1) < counts[:, None]


def draw_orders(key: Key, batch_size: int, num_dims: int) -> Array:
    """Draws B orders of D dimensions, each equally likely: int32 [B, D]."""
    return jnp.argsort(jax.random.uniform(key, (batch_size, num_dims)), axis=1).astype(jnp.int32)
