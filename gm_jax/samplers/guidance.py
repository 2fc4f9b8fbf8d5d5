"""Guidance: how the predictions of a conditional and an unconditional model combine.

classifier-free: (1 + w) eps(x_t, c) - w eps(x_t)                                                             (1)
"""

import chex

from gm_jax.types import Array


def classifier_free_guidance(conditional: Array, unconditional: Array, *, weight: float | Array) -> Array:
    """Combines two predictions by classifier-free guidance with the paper's weight w, eq. (1).

    It applies to eps, x_0, v and score alike, if both predictions are from the same x_t and of the same kind. Other
    libraries call 1 + w the guidance scale.

    Args:
        conditional: [B, ...] prediction given the class.
        unconditional: [B, ...] prediction given no class.
        weight: w; 0 is the conditional model, -1 the unconditional one.
    Returns:
        [B, ...] (1 + w) conditional - w unconditional.
    Raises:
        AssertionError: shapes differ or an array is not floating.
    Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, eq. 6.
    """
    chex.assert_equal_shape([conditional, unconditional])
    chex.assert_type([conditional, unconditional], float)
    # In this form w = 0 is the conditional prediction bit for bit.
    return conditional + weight * (conditional - unconditional)
