"""Vector quantisation: the terms that hold an encoder and its codebook together.

Notation: z [B, D] outputs of the encoder, e [B, D] their codes' vectors, sg a stop of the gradient.

    -log p(x | e) + |sg(z) - e|^2 + beta |z - sg(e)|^2                                                      (1)

The first term reaches the encoder by `ops.quantization.straight_through`. The second one moves the codes to the
encoder's outputs, and the third one, the commitment, moves the outputs to the codes. If the codes are moving averages
of the outputs (appendix A.1), the second term is left out. The source takes beta = 0.25 and finds little difference
between 0.1 and 2, for its reconstruction loss. If an example has N vectors, the source averages the second and third
terms over them; here they are summed, as log p is over the dimensions of x, so that beta counts N times as much.

Source: van den Oord, Vinyals & Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017, arXiv:1711.00937,
    eq. 3.
"""

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import reductions
from gm_jax.types import Array


def codebook_loss(z: Array, e: Array) -> Array:
    """Squared distance |sg(z) - e|^2, the second term of (1): its gradient moves the codes only.

    Args:
        z: [B, ...] outputs of the encoder.
        e: [B, ...] vectors of their codes.
    Returns:
        [B] squared distance, summed over the event; smaller is better.
    Source: van den Oord et al. (2017), eq. 3.
    Example:
        >>> losses.codebook_loss(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]]))
        Array([5.], dtype=float32)
    """
    return commitment_loss(e, z)


def commitment_loss(z: Array, e: Array) -> Array:
    """Squared distance |z - sg(e)|^2, the third term of (1) without beta: its gradient moves the encoder only.

    Args:
        z: [B, ...] outputs of the encoder.
        e: [B, ...] vectors of their codes.
    Returns:
        [B] squared distance, summed over the event; smaller is better.
    Source: van den Oord et al. (2017), eq. 3.
    Example:
        >>> losses.commitment_loss(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]]))
        Array([5.], dtype=float32)
    """
    chex.assert_equal_shape([z, e])
    return reductions.sum_except_batch(jnp.square(z - jax.lax.stop_gradient(e)))
