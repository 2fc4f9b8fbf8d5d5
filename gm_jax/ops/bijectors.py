"""Bijectors of normalizing flows, each with its log-determinant.

The direction is always z = f(x), from data towards the latent, and

    log p(x) = log p_Z(f(x)) + log |det df/dx|                                                         (1)

A forward function returns (z, log |det df/dx|), its `*_inverse` returns (x, log |det df^-1/dz|). Log-determinants are
[B], in nats, summed over the event; at the same point one is the negative of the other. Along a chain they add.
`squeeze` and `unsqueeze` return no log-determinant, because they only permute entries.

Notation: x, z [B, ...] with any event; C channels, the last axis; t shift, log s log-scale, r raw (the unbounded
output of a network), b bound, W matrix, P permutation, L unit lower and U strictly upper triangular, m mask.

    additive coupling:   z = x + t                                 log det = 0                         (2)
    affine coupling:     z = x exp(log s) + t                      log det = sum_i log s_i             (3)
                         log s = b tanh(r / b)
    scaling:             z_i = x_i exp(log s_i)                    log det = sum_i log s_i             (4)
    actnorm:             z_hwc = x_hwc exp(log s_c) + t_c          log det = H W sum_c log s_c         (5)
    1x1 convolution:     z_hw = W x_hw,  W = P L (U + diag(s))     log det = H W sum_c log |s_c|       (6)
    squeeze:             2 x 2 pixels into channels                log det = 0                         (7)

`ops.splines` holds the spline coupling, by the same rules.

A coupling transforms one part of x with parameters that a network computed from the other part. The Jacobian is
therefore triangular, and the sum (3) is its log-determinant. The functions here take the parameters as arrays; the call
site chooses the parts:

    halves:  x_a, x_b = jnp.split(x, 2, axis=-1)
             z_b, log_det = affine_coupling(x_b, *net(x_a), bound=b)
             z = jnp.concatenate([x_a, z_b], axis=-1)
    mask:    mask = checkerboard_mask(H, W)                          # True where transformed
             z, log_det = affine_coupling(x, *net(jnp.where(mask, 0.0, x)), bound=b, mask=mask)

Entries whose mask is False have t = 0 and log s = 0: they pass unchanged and add nothing to the log-determinant.

Sources: Dinh, Krueger & Bengio, "NICE: Non-linear Independent Components Estimation", ICLR 2015 workshop,
arXiv:1410.8516; Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", ICLR 2017, arXiv:1605.08803; Kingma
& Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, arXiv:1807.03039.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops import checks
from gm_jax.ops.reductions import sum_except_batch
from gm_jax.types import Array


def additive_coupling(x: Array, shift: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """Applies NICE's coupling, eq. (2), which preserves volume.

    Args:
        x: [B, ...] the part that is transformed, or all of it under a mask.
        shift: [B, ...] t, from the other part.
        mask: bool, of the rank of `x`, True for the entries that are transformed; None transforms all.
    Returns:
        z [B, ...], log_det [B] = 0.
    Source: NICE.
    """
    _assert_coupling(x, shift, mask=mask)
    return x + _masked(shift, mask), jnp.zeros(x.shape[:1], x.dtype)


def additive_coupling_inverse(z: Array, shift: Array, *, mask: Array | None = None) -> tuple[Array, Array]:
    """Inverts eq. (2): x = z - t.

    Args:
        z: [B, ...] the part that was transformed, or all of it under a mask.
        shift: [B, ...] t, from the other part, which the coupling did not change.
        mask: as in `additive_coupling`.
    Returns:
        x [B, ...], log_det [B] of the inverse = 0.
    """
    _assert_coupling(z, shift, mask=mask)
    return z - _masked(shift, mask), jnp.zeros(z.shape[:1], z.dtype)


def affine_coupling(
    x: Array, shift: Array, raw_log_scale: Array, *, bound: float, mask: Array | None = None
) -> tuple[Array, Array]:
    """Applies RealNVP's coupling, eq. (3); the log-scale is added to log p(x).

    Args:
        x: [B, ...] the part that is transformed, or all of it under a mask.
        shift: [B, ...] t, from the other part.
        raw_log_scale: [B, ...] r, from the other part; log s = b tanh(r / b), about r near 0.
        bound: b > 0: scales stay within [exp(-b), exp(b)], so neither direction overflows.
        mask: bool, of the rank of `x`, True for the entries that are transformed; None transforms all.
    Returns:
        z [B, ...], log_det [B] = sum of log s over the event.
    Raises:
        ValueError: `bound` is not positive.
    Source: RealNVP.
    """
    _assert_coupling(x, shift, raw_log_scale, mask=mask)
    log_scale = _bounded(_masked(raw_log_scale, mask), bound)
    return x * jnp.exp(log_scale) + _masked(shift, mask), sum_except_batch(log_scale)


def affine_coupling_inverse(
    z: Array, shift: Array, raw_log_scale: Array, *, bound: float, mask: Array | None = None
) -> tuple[Array, Array]:
    """Inverts eq. (3): x = (z - t) exp(-log s).

    Args:
        z: [B, ...] the part that was transformed, or all of it under a mask.
        shift: [B, ...] t, from the other part, which the coupling did not change.
        raw_log_scale: [B, ...] r, also from the other part.
        bound: as in `affine_coupling`.
        mask: as in `affine_coupling`.
    Returns:
        x [B, ...], log_det [B] of the inverse = -sum of log s.
    """
    _assert_coupling(z, shift, raw_log_scale, mask=mask)
    log_scale = _bounded(_masked(raw_log_scale, mask), bound)
    return (z - _masked(shift, mask)) * jnp.exp(-log_scale), -sum_except_batch(log_scale)


def scaling(x: Array, log_scale: Array) -> tuple[Array, Array]:
    """Applies NICE's last layer, eq. (4); a chain of additive couplings alone cannot change the volume.

    Args:
        x: [B, ...] points.
        log_scale: [...] log s, one for each dimension of the event.
    Returns:
        z [B, ...], log_det [B] = sum of log s.
    Source: NICE.
    """
    _assert_points(x)
    chex.assert_type(log_scale, float)
    chex.assert_shape(log_scale, x.shape[1:])
    return x * jnp.exp(log_scale)[None], jnp.broadcast_to(jnp.sum(log_scale), x.shape[:1])


def scaling_inverse(z: Array, log_scale: Array) -> tuple[Array, Array]:
    """Inverts eq. (4): x_i = z_i exp(-log s_i).

    Args:
        z: [B, ...] points.
        log_scale: [...] log s, one for each dimension of the event.
    Returns:
        x [B, ...], log_det [B] of the inverse = -sum of log s.
    """
    return scaling(z, -log_scale)


def actnorm(x: Array, shift: Array, log_scale: Array) -> tuple[Array, Array]:
    """Applies Glow's activation normalisation, eq. (5): one affine map per channel, the same at every position.

    Args:
        x: [B, ..., C] points.
        shift: [C] t.
        log_scale: [C] log s.
    Returns:
        z [B, ..., C], log_det [B] = positions * sum of log s; the positions of an image are its H W pixels.
    Source: Glow, section 3.1.
    """
    _assert_per_channel(x, shift, log_scale)
    return x * _of_rank(jnp.exp(log_scale), x) + _of_rank(shift, x), _positionwise_log_det(x, log_scale)


def actnorm_inverse(z: Array, shift: Array, log_scale: Array) -> tuple[Array, Array]:
    """Inverts eq. (5): x = (z - t) exp(-log s), for each channel.

    Args:
        z: [B, ..., C] points.
        shift: [C] t.
        log_scale: [C] log s.
    Returns:
        x [B, ..., C], log_det [B] of the inverse = -positions * sum of log s.
    """
    _assert_per_channel(z, shift, log_scale)
    return (z - _of_rank(shift, z)) * _of_rank(jnp.exp(-log_scale), z), _positionwise_log_det(z, -log_scale)


def actnorm_from_batch(x: Array, *, shared_scale: bool = False, min_std: float = 1e-6) -> tuple[Array, Array]:
    """Computes the parameters for which `actnorm` gives this batch mean 0 and variance 1 in each channel.

    Call it once, on the first batch: afterwards they are trained parameters, and a resumed run keeps them.

    Args:
        x: [B, ..., C] the first batch as it arrives at this layer.
        shared_scale: use one scale for all channels, so that the mean of their variances is 1. This suits channels of
            one unit, such as the pixels of flattened images: with separate scales, a pixel that is black in this batch
            would be stretched until its noise has variance 1, and lie dozens of deviations out in a later batch.
        min_std: a channel that varies no more than this, such as a constant one, is only centred. This is not a floor
            for the std: in a chain of actnorms, each would stretch such a channel again by 1 / min_std.
    Returns:
        (shift [C], log_scale [C]) for `actnorm`.
    Source: Glow, section 3.1.
    """
    _assert_points(x)
    positions = tuple(range(x.ndim - 1))
    std = jnp.std(x, axis=positions)
    if shared_scale:
        std = jnp.broadcast_to(jnp.sqrt(jnp.mean(jnp.square(std))), std.shape)
    std = jnp.where(std > min_std, std, 1.0)
    return -jnp.mean(x, axis=positions) / std, -jnp.log(std)


class LUFactors(NamedTuple):
    """An invertible matrix W = P L (U + diag(s)), eq. (6).

    P and the signs are fixed; L, U and log |s| are learned, and W is invertible for all their values.

    Attributes:
        lower: [C, C]; L is its part below the diagonal, and ones on it.
        upper: [C, C]; U is its part above the diagonal.
        log_abs_diagonal: [C] log |s|.
        sign: [C] sign of s, 1. or -1.
        permutation: [C] integer: row i of W is row permutation[i] of L (U + diag(s)).
    """

    lower: Array
    upper: Array
    log_abs_diagonal: Array
    sign: Array
    permutation: Array


def lu_factors(matrix: Array) -> LUFactors:
    """Factorises a matrix; Glow starts from a random rotation, `jax.random.orthogonal(key, C)`.

    Args:
        matrix: [C, C] W, invertible.
    Returns:
        The factors of W, eq. (6).
    Source: Glow, section 3.2.
    """
    chex.assert_type(matrix, float)
    chex.assert_shape(matrix, (matrix.shape[-1],) * 2)
    lu, _, permutation = jax.lax.linalg.lu(matrix)  # W[permutation] = L (U + diag(s))
    diagonal = jnp.diagonal(lu)
    return LUFactors(
        lower=jnp.tril(lu, -1),
        upper=jnp.triu(lu, 1),
        log_abs_diagonal=jnp.log(jnp.abs(diagonal)),
        sign=jnp.sign(diagonal),
        permutation=jnp.argsort(permutation),
    )


def invertible_conv(x: Array, factors: LUFactors) -> tuple[Array, Array]:
    """Applies Glow's invertible 1x1 convolution, eq. (6): one matrix over the channels, the same at every position.

    Args:
        x: [B, ..., C] points.
        factors: the factors of W.
    Returns:
        z [B, ..., C], log_det [B] = positions * sum of log |s|; the positions of an image are its H W pixels.
    Source: Glow, section 3.2.
    """
    _assert_factors(x, factors)
    lower, upper = _triangles(factors)
    # Highest precision: an accelerator's default keeps 8 to 11 bits of each factor, too few to invert accurately.
    matrix = jnp.dot(lower, upper, precision="highest")[factors.permutation]
    z = jnp.dot(x, matrix.T, precision="highest")
    return z, _positionwise_log_det(x, factors.log_abs_diagonal)


def invertible_conv_inverse(z: Array, factors: LUFactors) -> tuple[Array, Array]:
    """Inverts eq. (6) by two triangular solves.

    Args:
        z: [B, ..., C] points.
        factors: the factors of W.
    Returns:
        x [B, ..., C], log_det [B] of the inverse = -positions * sum of log |s|.
    """
    _assert_factors(z, factors)
    lower, upper = _triangles(factors)
    # Solve for the C columns of W^-1, not for every pixel: the rest is one matrix product, as in the forward direction.
    columns = jnp.eye(z.shape[-1], dtype=lower.dtype)[jnp.argsort(factors.permutation)]
    columns = jax.scipy.linalg.solve_triangular(lower, columns, lower=True, unit_diagonal=True)
    inverse = jax.scipy.linalg.solve_triangular(upper, columns, lower=False)
    x = jnp.dot(z, inverse.T, precision="highest")
    return x, _positionwise_log_det(z, -factors.log_abs_diagonal)


def squeeze(x: Array) -> Array:
    """Moves squares of 2 x 2 pixels into channels, eq. (7): a permutation, so its log-determinant is 0.

    Channel (2 i + j) C + c of the result is channel c of the pixels in row i and column j of the squares: every C
    consecutive channels form an image of every other row and column.

    Args:
        x: [B, H, W, C] maps, H and W even.
    Returns:
        [B, H/2, W/2, 4 C].
    Source: RealNVP.
    """
    chex.assert_rank(x, 4)
    batch, height, width, channels = x.shape
    chex.assert_is_divisible(height, 2)
    chex.assert_is_divisible(width, 2)
    squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def unsqueeze(z: Array) -> Array:
    """Inverts `squeeze`.

    Args:
        z: [B, H, W, 4 C] maps.
    Returns:
        [B, 2 H, 2 W, C].
    """
    chex.assert_rank(z, 4)
    batch, height, width, channels = z.shape
    chex.assert_is_divisible(channels, 4)
    squares = z.reshape(batch, height, width, 2, 2, channels // 4)
    return squares.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


def checkerboard_mask(height: int, width: int) -> Array:
    """Returns [1, H, W, 1] bool: True if row + column is even, 1 - b of RealNVP; `~mask` is the other half."""
    parity = jnp.arange(height)[:, None] + jnp.arange(width)[None, :]
    return (parity % 2 == 0)[None, :, :, None]


def channel_mask(channels: int) -> Array:
    """Returns [1, 1, 1, C] bool: True on the second half of the channels, 1 - b of RealNVP; `~mask` is the rest."""
    return (jnp.arange(channels) >= channels // 2)[None, None, None, :]


def _masked(parameter: Array, mask: Array | None) -> Array:
    return parameter if mask is None else jnp.where(mask, parameter, 0.0)


def _bounded(raw: Array, bound: float) -> Array:
    if bound <= 0:
        raise ValueError(f"bound must be positive; got {bound}.")
    return bound * jnp.tanh(raw / bound)


def _positionwise_log_det(x: Array, log_scale: Array) -> Array:
    """Log-determinant of the same log-scales [C] at every position, the factor H W in (5) and (6)."""
    return jnp.broadcast_to(math.prod(x.shape[1:-1]) * jnp.sum(log_scale), x.shape[:1])


def _of_rank(parameter: Array, x: Array) -> Array:
    return parameter.reshape((1,) * (x.ndim - 1) + parameter.shape)


def _triangles(factors: LUFactors) -> tuple[Array, Array]:
    """Returns L and U + diag(s); the other triangles of the factors are ignored."""
    lower = jnp.tril(factors.lower, -1) + jnp.eye(factors.lower.shape[-1], dtype=factors.lower.dtype)
    diagonal = factors.sign * jnp.exp(factors.log_abs_diagonal)
    return lower, jnp.triu(factors.upper, 1) + jnp.diag(diagonal)


def _assert_points(x: Array) -> None:
    checks.assert_batch_of_events(x)
    chex.assert_type(x, float)


def _assert_coupling(x: Array, *parameters: Array, mask: Array | None) -> None:
    _assert_points(x)
    chex.assert_equal_shape([x, *parameters])
    chex.assert_type(parameters, float)
    if mask is not None:
        chex.assert_type(mask, bool)
        chex.assert_rank(mask, x.ndim)
        chex.assert_is_broadcastable(mask.shape, x.shape)


def _assert_per_channel(x: Array, *parameters: Array) -> None:
    _assert_points(x)
    chex.assert_type(parameters, float)
    chex.assert_shape(parameters, x.shape[-1:])


def _assert_factors(x: Array, factors: LUFactors) -> None:
    _assert_points(x)
    matrix, vector = x.shape[-1:] * 2, x.shape[-1:]
    chex.assert_shape(factors, [matrix, matrix, vector, vector, vector])
    chex.assert_type(factors, [float, float, float, float, int])
