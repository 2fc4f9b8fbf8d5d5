"""Scaled dot-product attention, in a form for accelerators and in one that is fast on a CPU.

    y_n = sum_m softmax_m(q_n . k_m / sqrt(D)) v_m,    m = 0 ... M-1, as the mask allows                    (1)

Both equal `jax.nn.dot_product_attention(q, k, v, mask=mask)`. `jax.lax.platform_dependent` decides when the program is
lowered: a CPU that compiles for a TPU compiles the TPU's form. `docs/performance.md` has the measured times.

Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv:1706.03762, eq. (1).
"""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array


def attention(q: Array, k: Array, v: Array, mask: Array | np.ndarray | None = None) -> Array:
    """Computes scaled dot-product attention, equation (1).

    Accelerators compute the scores [B, heads, N, M] of the whole batch at once. CPUs go image by image, so that the
    scores of one image stay in the cache, and recompute them for the gradient.

    Args:
        q: [B, N, heads, D] queries.
        k: [B, M, heads, D] keys.
        v: [B, M, heads, D] values.
        mask: [N, M], or [B, N, M] for each image, bool, whether query n reads key m; each query must read one. None if
            every query reads all keys.
    Returns:
        [B, N, heads, D] y.
    """
    return jax.lax.platform_dependent(q, k, v, mask, cpu=attention_by_image, default=attention_at_once)


def attention_at_once(q: Array, k: Array, v: Array, mask: Array | np.ndarray | None = None) -> Array:
    """Computes equation (1) for the whole batch at once."""
    return jax.vmap(_attend_one, in_axes=(0, 0, 0, _mask_axis(mask)))(q, k, v, mask)


def attention_by_image(q: Array, k: Array, v: Array, mask: Array | np.ndarray | None = None) -> Array:
    """Computes equation (1) for one image after the other, without storing the scores for the gradient."""
    if _mask_axis(mask) == 0:
        return jax.lax.map(lambda qkvm: jax.checkpoint(_attend_one)(*qkvm), (q, k, v, jnp.asarray(mask)))
    return jax.lax.map(lambda qkv: jax.checkpoint(_attend_one)(*qkv, mask), (q, k, v))


def _mask_axis(mask: Array | np.ndarray | None) -> int | None:
    """Returns the axis of the images of a mask; None for one mask of all images, or for none."""
    return 0 if mask is not None and mask.ndim == 3 else None


def attention_of_one_query(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Computes equation (1) for one query of each example, as a step of sampling needs it.

    Heads come first, so that the products read the keys and values in order: CPUs would copy them otherwise.

    Args:
        q: [B, heads, D] queries.
        k: [B, heads, M, D] keys.
        v: [B, heads, M, D] values.
        mask: [M] bool, whether the queries read key m; they must read one.
    Returns:
        [B, heads, D] y.
    """
    scores = jnp.einsum("bhd,bhmd->bhm", q, k) / jnp.sqrt(jnp.asarray(q.shape[-1], q.dtype))
    weights = _exponentials(scores, mask[None, None])
    y = jnp.einsum("bhm,bhmd->bhd", weights.astype(v.dtype), v, preferred_element_type=weights.dtype)
    return (y / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype)


def _attend_one(q: Array, k: Array, v: Array, mask: Array | np.ndarray | None) -> Array:
    """Computes equation (1) for one image, [N, heads, D]; exponentials and their sums are float32 at least."""
    scores = jnp.einsum("nhd,mhd->hnm", q, k) / jnp.sqrt(jnp.asarray(q.shape[-1], q.dtype))
    weights = _exponentials(scores, None if mask is None else mask[None])
    y = jnp.einsum("hnm,mhd->hnd", weights.astype(v.dtype), v, preferred_element_type=weights.dtype)
    # Normalising the D outputs touches fewer numbers than normalising the M weights.
    return jnp.swapaxes(y / jnp.sum(weights, axis=-1, keepdims=True), 0, 1).astype(v.dtype)


def _exponentials(scores: Array, mask: Array | np.ndarray | None) -> Array:
    """Computes the weights of the last axis up to a factor, float32 at least; 0 where the mask is False."""
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    return jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
