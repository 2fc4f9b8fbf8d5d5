"""Quantisation of vectors: the nearest of K codes, or each number rounded to a few levels.

Notation: z [N, D] vectors, e [K, D] the codebook, k the code of a vector, sg a stop of the gradient.

    nearest code:       k = argmin_j |z - e_j|^2                                                            (1)
    straight-through:   q = sg(value) + z - sg(z): the value, with the gradient of z                        (2)
    perplexity:         exp(-sum_k f_k log f_k), f the frequencies of the codes; K if all are used equally  (3)

Finite scalar quantisation (FSQ) has no codebook. Entry i of a vector is bounded, and rounded to one of L_i integers,

    b_i = tanh(z_i + tan(o_i / h_i)) h_i - o_i,    h_i = (1 - 1e-3) (L_i - 1) / 2,
                                                   o_i = 1/2 if L_i is even, else 0                         (4)
    q_i = round(b_i) / (L_i // 2)                                                                           (5)
    k   = sum_i (round(b_i) + L_i // 2) L_1 ... L_(i-1),    one of K = L_1 ... L_D codes                    (6)

The shift by o_i puts the even number of integers -L_i / 2 ... L_i / 2 - 1 into the range of (4), with z = 0 near 0.

Sources: (1), (2): van den Oord, Vinyals & Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017,
    arXiv:1711.00937, section 3.1. (4)-(6): Mentzer, Minnen, Agustsson & Tschannen, "Finite Scalar Quantization: VQ-VAE
    Made Simple", ICLR 2024, arXiv:2309.15505, section 3.1 and appendix A.1.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.types import Array

_MARGIN = 1e-3  # as in the source


def nearest_code(z: Array, codebook: Array) -> Array:
    """Finds the nearest code of each vector, eq. (1); of equally near ones the first.

    Args:
        z: [N, D].
        codebook: [K, D].
    Returns:
        [N] int32.
    """
    chex.assert_rank([z, codebook], 2)
    chex.assert_equal(z.shape[1], codebook.shape[1])
    # |z|^2 is the same for all codes. Full precision, because accelerators would round z and the codes to bfloat16.
    products = jnp.matmul(z, codebook.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.argmin(jnp.sum(jnp.square(codebook), axis=1)[None] - 2.0 * products, axis=1).astype(jnp.int32)


def straight_through(z: Array, value: Array) -> Array:
    """Returns exactly the value [...], eq. (2), whose gradient is passed to z [...] unchanged; the value gets none."""
    chex.assert_equal_shape([z, value])
    return jax.lax.stop_gradient(value) + (z - jax.lax.stop_gradient(z))


def code_means(codes: Array, z: Array, *, num_codes: int) -> tuple[Array, Array]:
    """Computes how often each code is used, and the part of the mean vector that each code has.

    Args:
        codes: [N] int32.
        z: [N, D] the vectors of these codes.
        num_codes: K.
    Returns:
        ([K] frequencies, [K, D] sums of the vectors of each code), both divided by N: means over a batch, whose mean
        over equal parts of the batch is that of the whole batch. The ratio is the mean vector of each code.
    """
    chex.assert_rank([codes, z], [1, 2])
    is_used = jax.nn.one_hot(codes, num_codes, dtype=z.dtype, axis=0)
    sums = jnp.matmul(is_used, z, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(is_used, axis=1) / len(codes), sums / len(codes)


def perplexity(frequency: Array) -> Array:
    """Computes (3) from frequencies [K], which are scaled to the sum 1; 1 if all are 0."""
    chex.assert_rank(frequency, 1)
    share = frequency / jnp.maximum(jnp.sum(frequency), jnp.finfo(frequency.dtype).tiny)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share)))


def scalar_values(z: Array, levels: tuple[int, ...]) -> Array:
    """Rounds each number to one of its levels, eqs. (4) and (5), with the gradient of (4).

    Args:
        z: [..., D].
        levels: L of each of the D numbers.
    Returns:
        [..., D] in [-1, 1].
    Raises:
        ValueError: a number has fewer than two levels.
    """
    sizes = _checked(levels)
    chex.assert_axis_dimension(z, -1, len(levels))
    half, offset = (sizes - 1.0) * (1.0 - _MARGIN) / 2.0, np.where(sizes % 2 == 1, 0.0, 0.5)
    shift, half, offset = (jnp.asarray(part, z.dtype) for part in (np.tan(offset / half), half, offset))
    shift, half, offset = (part.reshape((1,) * (z.ndim - 1) + part.shape) for part in (shift, half, offset))
    bounded = jnp.tanh(z + shift) * half - offset
    return straight_through(bounded, jnp.round(bounded)) / _half_widths(sizes, z)


def scalar_code(values: Array, levels: tuple[int, ...]) -> Array:
    """Computes the code of each vector of values, eq. (6): [..., D] -> [...] int32."""
    sizes = _checked(levels)
    chex.assert_axis_dimension(values, -1, len(levels))
    digits = jnp.round((values + 1.0) * _half_widths(sizes, values)).astype(jnp.int32)
    return jnp.sum(digits * _places(sizes, values.ndim), axis=-1)


def scalar_vector(codes: Array, levels: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Computes the values of each code, the inverse of `scalar_code`: [...] -> [..., D]."""
    sizes = _checked(levels)
    digits = codes[..., None] // _places(sizes, codes.ndim + 1) % _row(sizes, codes.ndim + 1)
    halves = _row(sizes // 2, codes.ndim + 1)
    return (digits - halves).astype(dtype) / halves.astype(dtype)


def _checked(levels: tuple[int, ...]) -> np.ndarray:
    if not levels or min(levels) < 2 or math.prod(levels) >= 2**31:
        raise ValueError(f"levels {levels} must be at least 2 each, with a product of less than 2**31")
    return np.asarray(levels, np.int32)


def _row(numbers: np.ndarray, rank: int) -> Array:
    return jnp.asarray(numbers).reshape((1,) * (rank - 1) + numbers.shape)


def _half_widths(sizes: np.ndarray, z: Array) -> Array:
    return _row(sizes // 2, z.ndim).astype(z.dtype)


def _places(sizes: np.ndarray, rank: int) -> Array:
    return _row(np.concatenate([[1], np.cumprod(sizes[:-1])]).astype(np.int32), rank)
