"""Convolutions that are fast where a causal network needs them.

Notation: x [B, H, W, C] padded by zeros, w [I, J, C, F] the kernel, d dilation, y the output, g = dL/dy.

    y[b, h, v, f]     = sum_{i, j, c} x[b, h + i d_h, v + j d_w, c] w[i, j, c, f]                          (1)
    dL/dw[i, j, c, f] = sum_{b, h, v} x[b, h + i d_h, v + j d_w, c] g[b, h, v, f]                          (2)

Equation (2) is itself a convolution, of x over g, with the batch as its channels. XLA's own derivative states it as a
convolution with permuted dimensions. On CPU that form is 30 times as slow as (2) on transposed arrays wherever the
padding is one-sided, as it is in causal networks, and 60 times inside `lax.scan` (jax 0.10.2; jax-ml/jax#12868). So
(2) is written out for CPUs, and left to XLA elsewhere.

Sequences x [B, T, C] have a causal form, k taps of w [k, C, F], zeros before the beginning:

    y[b, t, f] = sum_{i, c} x[b, t - d i, c] w[i, c, f],    i = 0 ... k-1                                  (3)
"""

import functools

import chex
import jax
import jax.numpy as jnp

from gm_jax.types import Array

Sides = tuple[tuple[int, int], tuple[int, int]]  # zeros added (above, below), (left, right)

_IMAGES = ("NHWC", "HWIO", "NHWC")


def conv(x: Array, kernel: Array, *, padding: Sides, dilation: tuple[int, int] = (1, 1)) -> Array:
    """Convolution of stride 1, eq. (1); its derivative in the kernel is eq. (2), written out.

    It has reverse-mode derivatives of every order, and no forward mode (`jax.jvp`, `jax.jacfwd`).

    Args:
        x: [B, H, W, C] maps.
        kernel: [I, J, C, F] weights, of the dtype of `x`.
        padding: zeros added (above, below) and (left, right); negative numbers crop.
        dilation: distance of neighbouring taps, vertical and horizontal.
    Returns:
        [B, H', W', F], with H' = H + above + below - d_h (I - 1), and W' likewise.
    Raises:
        AssertionError: an array is not floating of rank 4, or the dtypes or the numbers of channels differ (at trace
            time).
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_type([x, kernel], float)
    chex.assert_equal(x.dtype, kernel.dtype)
    chex.assert_equal(x.shape[3], kernel.shape[2])
    # Padded here, so that the convolution and both derivatives are "valid" ones: the gradient of a convolution padded
    # by more than it needs is what XLA does slowly.
    widths = [(0, 0), *padding, (0, 0)]
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(*width, 0) for width in widths])
    return _valid_conv(padded, kernel, dilation)


def causal_conv(x: Array, kernel: Array, *, dilation: int = 1) -> Array:
    """Dilated causal convolution of sequences, eq. (3): y[t] sees x[t] and what precedes it.

    Args:
        x: [B, T, C] sequences.
        kernel: [k, C, F] weights; kernel[i] is that of the past i * dilation steps ago.
        dilation: d.
    Returns:
        [B, T, F].
    Raises:
        AssertionError: an array is not floating of rank 3 or the numbers of channels differ (at trace time).
    """
    chex.assert_rank([x, kernel], 3)
    chex.assert_type([x, kernel], float)
    chex.assert_equal(x.shape[2], kernel.shape[1])
    taps, length = kernel.shape[0], x.shape[1]
    # One product over the taps side by side: for the two or three taps that sequences take it beats a convolution.
    padded = jnp.pad(x, [(0, 0), ((taps - 1) * dilation, 0), (0, 0)])
    past = [padded[:, (taps - 1 - i) * dilation :][:, :length] for i in range(taps)]
    return jnp.concatenate(past, axis=-1) @ kernel.reshape(-1, kernel.shape[2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _valid_conv(x: Array, kernel: Array, dilation: tuple[int, int]) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", rhs_dilation=dilation, dimension_numbers=_IMAGES)


def _forward(x: Array, kernel: Array, dilation: tuple[int, int]) -> tuple[Array, tuple[Array, Array]]:
    return _valid_conv(x, kernel, dilation), (x, kernel)


def _backward(dilation: tuple[int, int], residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # dL/dx is the convolution with the kernel turned round.
    reach = [(size - 1) * step for size, step in zip(kernel.shape[:2], dilation, strict=True)]
    turned = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
    dx = jax.lax.conv_general_dilated(
        g, turned, (1, 1), [(r, r) for r in reach], rhs_dilation=dilation, dimension_numbers=_IMAGES
    )
    dw = jax.lax.platform_dependent(
        x,
        g,
        cpu=functools.partial(_kernel_gradient, shape=kernel.shape, dilation=dilation),
        default=functools.partial(_kernel_gradient_of_xla, shape=kernel.shape, dilation=dilation),
    )
    return dx, dw


def _kernel_gradient(x: Array, g: Array, *, shape: tuple[int, ...], dilation: tuple[int, int]) -> Array:
    """Equation (2)."""
    # The barrier keeps XLA from folding the transposes back into the convolution's dimension numbers.
    lhs, rhs = jax.lax.optimization_barrier((jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(g, (1, 2, 0, 3))))
    dw = jax.lax.conv_general_dilated(lhs, rhs, dilation, "VALID", dimension_numbers=_IMAGES)
    return jnp.transpose(dw[:, : shape[0], : shape[1]], (1, 2, 0, 3))


def _kernel_gradient_of_xla(x: Array, g: Array, *, shape: tuple[int, ...], dilation: tuple[int, int]) -> Array:
    """Equation (2), as XLA has it."""
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        x,
        window_strides=(1, 1),
        padding="VALID",
        rhs_dilation=dilation,
        dimension_numbers=_IMAGES,
    )
    (dw,) = jax.linear_transpose(convolve, jax.ShapeDtypeStruct(shape, x.dtype))(g)
    return dw


_valid_conv.defvjp(_forward, _backward)
