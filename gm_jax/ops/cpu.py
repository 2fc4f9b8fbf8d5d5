"""Operations in a form that is fast on a CPU, or small inside of a scan; each equals the plain form next to its name.

XLA compiles a few convolutions, products and sums poorly for CPUs. All detours around it are in this file, and in
`ops/attention.py`, so that networks read as their papers do; `docs/performance.md` has the measured times.

    conv              jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, rhs_dilation=dilation)
    strided_conv      jax.lax.conv_general_dilated(x, kernel, strides, padding)
    causal_conv       the same over [B, T, C], with zeros before the beginning
    conv_transpose    jax.lax.conv_transpose(x, kernel, (2, 2), "SAME") of a 4 x 4 kernel
    pointwise         x @ w for x [B, ..., C]
    relu              jax.nn.relu(x), with its output as all that its derivative stores
    group_norm        (h - m) / sqrt(v + eps) over (places, channels of a group)

If accelerators need another form, `jax.lax.platform_dependent` decides when the program is lowered: a CPU that compiles
for a TPU compiles the TPU's form.

Notation: x [B, H, W, C] padded by zeros, w [I, J, C, F] the kernel, d dilation, y the output, g = dL/dy.

    y[b, h, v, f]     = sum_{i, j, c} x[b, h + i d_h, v + j d_w, c] w[i, j, c, f]                          (1)
    dL/dw[i, j, c, f] = sum_{b, h, v} x[b, h + i d_h, v + j d_w, c] g[b, h, v, f]                          (2)
    y[b, t, f]        = sum_{i, c} x[b, t - d i, c] w[i, c, f],    i = 0 ... k-1,    x [B, T, C]           (3)
    y                 = gamma n + beta,    n = (h - m) / sqrt(v + eps),   m, v of places and a group's channels   (4)
    dy                = gamma (dh - E[dh] - n E[n dh]) / sqrt(v + eps) + n dgamma + dbeta,   E the mean of these  (5)
"""

import functools

import chex
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from gm_jax.ops.bijectors import unsqueeze
from gm_jax.types import Array

Sides = tuple[tuple[int, int], tuple[int, int]]  # zeros added (above, below), (left, right)

_IMAGES = ("NHWC", "HWIO", "NHWC")


def conv(x: Array, kernel: Array, *, padding: Sides, dilation: tuple[int, int] = (1, 1)) -> Array:
    """Computes a convolution of stride 1, eq. (1).

    On CPUs the gradient of the kernel is eq. (2), written as a convolution of x with g whose channels are the batch.
    XLA's own derivative is many times slower if the padding is one-sided, as it is in causal networks.

    It has reverse-mode derivatives of every order, and no forward mode (`jax.jvp`, `jax.jacfwd`).

    Args:
        x: [B, H, W, C] maps.
        kernel: [I, J, C, F] weights, of the dtype of `x`.
        padding: zeros added (above, below) and (left, right); negative numbers crop.
        dilation: distance of neighbouring taps, vertical and horizontal.
    Returns:
        [B, H', W', F], with H' = H + above + below - d_h (I - 1), and W' likewise.
    Raises:
        AssertionError: an array is not floating of rank 4, or the dtypes or the numbers of channels differ.
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_type([x, kernel], float)
    chex.assert_equal(x.dtype, kernel.dtype)
    chex.assert_equal(x.shape[3], kernel.shape[2])
    return _conv(x, kernel, padding, dilation)


def strided_conv(
    x: Array, kernel: Array, *, strides: tuple[int, int], padding: Sides, precision: jax.lax.PrecisionLike = None
) -> Array:
    """Computes a convolution whose first derivatives are as fast inside of scans and conditionals as outside.

    XLA brings the convolutions of a CPU program into the one form that it computes fast, but not those in the body of a
    loop or of a conditional, where the gradients that JAX derives took 30 times as long (`docs/performance.md`). Here
    reverse mode finds that form. The numbers are the same. In the body of a loop forward mode (`jax.jvp`) is slow in
    turn, and so are some convolutions of gradients of gradients, such as penalties on slopes.

    Args:
        x: [B, H, W, C] maps.
        kernel: [I, J, C, F] weights, of the dtype of `x`.
        strides: vertical and horizontal.
        padding: zeros added (above, below) and (left, right).
        precision: of the products, as `jax.lax` has it.
    Returns:
        [B, H', W', F].
    Raises:
        AssertionError: an array is not floating of rank 4, or the dtypes or the numbers of channels differ.
    """
    chex.assert_rank([x, kernel], 4)
    chex.assert_type([x, kernel], float)
    chex.assert_equal(x.dtype, kernel.dtype)
    chex.assert_equal(x.shape[3], kernel.shape[2])
    return _strided_conv(x, kernel, strides, padding, precision)


def causal_conv(x: Array, kernel: Array, *, dilation: int = 1) -> Array:
    """Computes a dilated causal convolution of sequences, eq. (3): y[t] depends on x[t] and on earlier steps.

    Args:
        x: [B, T, C] sequences.
        kernel: [k, C, F] weights; kernel[i] multiplies the input of i * dilation steps ago.
        dilation: d.
    Returns:
        [B, T, F].
    Raises:
        AssertionError: an array is not floating of rank 3, or the numbers of channels differ.
    """
    chex.assert_rank([x, kernel], 3)
    chex.assert_type([x, kernel], float)
    chex.assert_equal(x.shape[2], kernel.shape[1])
    taps, length = kernel.shape[0], x.shape[1]
    # One product over concatenated taps is faster than a convolution of two or three taps.
    padded = jnp.pad(x, [(0, 0), ((taps - 1) * dilation, 0), (0, 0)])
    past = [padded[:, (taps - 1 - i) * dilation :][:, :length] for i in range(taps)]
    return jnp.concatenate(past, axis=-1) @ kernel.reshape(-1, kernel.shape[2])


def conv_transpose(x: Array, kernel: Array) -> Array:
    """Computes a transposed ("fractionally strided") convolution with a 4 x 4 kernel and stride 2.

    Args:
        x: [B, H, W, C] maps.
        kernel: [4, 4, C, F] weights, of the dtype of `x`.
    Returns:
        [B, 2 H, 2 W, F].
    Raises:
        AssertionError: the kernel is not 4 x 4, or an array is not as `conv` needs it.
    """
    chex.assert_shape(kernel, (4, 4, None, None))
    channels, features = kernel.shape[2:]
    # On each axis an even output pixel meets taps 0 and 2 of the kernel, an odd one taps 1 and 3. So a 2 x 2
    # convolution with 4 F channels computes, at each corner between input pixels, the 2 x 2 outputs around it.
    taps = kernel.reshape(2, 2, 2, 2, channels, features)[:, ::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
    corners = conv(x, taps.reshape(2, 2, channels, 4 * features), padding=((1, 1), (1, 1)))
    return unsqueeze(corners)[:, 1:-1, 1:-1]


def pointwise(x: Array, w: Array) -> Array:
    """Computes x @ w, the same map of the channels at every position. It has no forward mode.

    CPUs multiply flat arrays, which makes the gradient fast. Elsewhere x keeps its shape, because an accelerator's
    layout of images is not that of a flat array: flattening would copy them.

    Args:
        x: [B, ..., C] points.
        w: [C, F] weights, of the dtype of `x`.
    Returns:
        [B, ..., F].
    Raises:
        AssertionError: an array is not floating, or the dtypes or the numbers of channels differ.
    """
    chex.assert_type([x, w], float)
    chex.assert_shape(w, (x.shape[-1], None))
    chex.assert_equal(x.dtype, w.dtype)
    return _pointwise(x, w)


@jax.custom_vjp
def relu(x: Array) -> Array:
    """Computes max(x, 0), elementwise; the derivative at 0 is 0. It has no forward mode.

    The derivative follows from the output, which the next layer stores anyway: scans need no mask beside it.
    """
    return jnp.maximum(x, 0)


def group_norm(h: Array, scale: Array, bias: Array, *, groups: int, epsilon: float = 1e-5) -> Array:
    """Normalises each example over all places and the channels of a group, then scales and shifts each channel, (4).

    Sums run first over the places of each channel, then over the channels of a group: the long sum has all channels in
    parallel, which suits vector units. The variance is the mean of squared differences, because E[h^2] - m^2 cancels in
    float32. The derivative, in either mode, is (5): a gradient needs one pass over h and dy for its sums. JAX's own has
    one pass more, for the derivative of the variance with respect to the mean, which is zero.

    Args:
        h: [B, ..., C] activations.
        scale: [C] gamma.
        bias: [C] beta.
        groups: number of groups of neighbouring channels; it divides C.
        epsilon: added to the variance.
    Returns:
        [B, ..., C] y, float32 at least.
    Raises:
        ValueError: `groups` does not divide C.
    Source: Wu & He, "Group Normalization", ECCV 2018, arXiv:1803.08494.
    """
    channels = h.shape[-1]
    if channels % groups:
        raise ValueError(f"{groups} groups do not divide {channels} channels: choose a divisor of {channels}.")
    h = h if jnp.issubdtype(h.dtype, jnp.floating) else h.astype(jnp.result_type(float))
    return _group_norm(h, scale, bias, groups, epsilon)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _group_norm(h: Array, scale: Array, bias: Array, groups: int, epsilon: float) -> Array:
    flat = _flat(h)
    mean, root = _group_moments(flat, groups, epsilon)
    factor = root * scale[None]
    return (flat * factor[:, None] + (bias[None] - mean * factor)[:, None]).reshape(h.shape)


@_group_norm.defjvp
def _group_norm_jvp(
    groups: int, epsilon: float, primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]
) -> tuple[Array, Array]:
    (h, scale, bias), (dh, dscale, dbias) = primals, tangents
    flat, dflat = _flat(h), _flat(dh)
    mean, root = _group_moments(flat, groups, epsilon)
    normal = (flat - mean[:, None]) * root[:, None]
    along = _over_groups(jnp.mean(normal * dflat, axis=1), groups)
    dnormal = root[:, None] * (dflat - _over_groups(jnp.mean(dflat, axis=1), groups)[:, None] - normal * along[:, None])
    dy = dnormal * scale[None, None] + normal * dscale[None, None] + dbias[None, None]
    return _group_norm(h, scale, bias, groups, epsilon), dy.reshape(h.shape)


def _flat(h: Array) -> Array:
    """Reshapes [B, ..., C] to [B, N, C], float32 at least."""
    return h.astype(jnp.promote_types(h.dtype, jnp.float32)).reshape(h.shape[0], -1, h.shape[-1])


def _group_moments(flat: Array, groups: int, epsilon: float) -> tuple[Array, Array]:
    """Computes m and 1 / sqrt(v + epsilon) of [B, N, C], [B, C] each."""
    mean = _over_groups(jnp.mean(flat, axis=1), groups)
    var = _over_groups(jnp.mean(jnp.square(flat - mean[:, None]), axis=1), groups)
    return mean, jax.lax.rsqrt(var + epsilon)


def _over_groups(of_channels: Array, groups: int) -> Array:
    """Averages [B, C] over each group and repeats the mean for each channel of the group."""
    batch, channels = of_channels.shape
    means = jnp.mean(of_channels.reshape(batch, groups, -1), axis=-1)
    return jnp.repeat(means, channels // groups, axis=-1)


@jax.custom_vjp
def _pointwise(x: Array, w: Array) -> Array:
    return _product(x, w)


def _product(x: Array, w: Array) -> Array:
    """Computes x @ w, as the platform does it."""

    def on_cpu(x: Array, w: Array) -> Array:
        return (_rows(x) @ w).reshape(*x.shape[:-1], w.shape[1])

    return jax.lax.platform_dependent(x, w, cpu=on_cpu, default=_at_all)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _at_all(x: Array, w: Array) -> Array:
    return x @ w


def _pointwise_derivative(residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    def on_cpu(x: Array, w: Array, g: Array) -> tuple[Array, Array]:
        return (_rows(g) @ w.T).reshape(x.shape), _rows(x).T @ _rows(g)

    def elsewhere(x: Array, w: Array, g: Array) -> tuple[Array, Array]:
        return jax.vjp(_at_all, x, w)[1](g)

    return jax.lax.platform_dependent(*residuals, g, cpu=on_cpu, default=elsewhere)


# The forward rule must not call `_pointwise`: JAX fails at the second derivative of a rule that calls itself in a scan.
_pointwise.defvjp(lambda x, w: (_product(x, w), (x, w)), _pointwise_derivative)


def _relu_forward(x: Array) -> tuple[Array, Array]:
    y = jnp.maximum(x, 0)
    return y, y


relu.defvjp(_relu_forward, lambda y, g: (jnp.where(y > 0, g, 0),))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _strided_conv(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Sides, precision: jax.lax.PrecisionLike
) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_IMAGES, precision=precision)


def _strided_conv_derivative(
    strides: tuple[int, int],
    padding: Sides,
    precision: jax.lax.PrecisionLike,
    primals: tuple[Array, Array],
    tangents: tuple[Array | SymbolicZero, Array | SymbolicZero],
) -> tuple[Array, Array]:
    (x, kernel), (dx, dw) = primals, tangents
    y = _strided_conv(x, kernel, strides, padding, precision)
    convolve = functools.partial(
        jax.lax.conv_general_dilated, window_strides=strides, padding=padding, precision=precision
    )
    # JAX transposes a convolution by exchanging dimension numbers: those below become _IMAGES, the form that is fast.
    terms = []
    if not isinstance(dx, SymbolicZero):
        swapped = jnp.swapaxes(kernel, 2, 3)
        terms.append(convolve(dx, swapped, dimension_numbers=("NHWC", "HWOI", "NHWC")))
    if not isinstance(dw, SymbolicZero):
        channels_first, inputs_first = jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(dw, (2, 0, 1, 3))
        by_row = convolve(channels_first, inputs_first, dimension_numbers=("CHWN", "IHWO", "HWNC"))
        terms.append(jnp.transpose(by_row, (2, 0, 1, 3)))
    return y, sum(terms[1:], terms[0])  # JAX differentiates in one of the arrays, or in both


_strided_conv.defjvp(_strided_conv_derivative, symbolic_zeros=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, padding: Sides, dilation: tuple[int, int]) -> Array:
    """Computes eq. (1)."""
    return _plain_conv(x, kernel, padding=padding, dilation=dilation)


def _forward(x: Array, kernel: Array, padding: Sides, dilation: tuple[int, int]) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, padding, dilation), (x, kernel)


def _backward(
    padding: Sides, dilation: tuple[int, int], residuals: tuple[Array, Array], g: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    settings = {"padding": padding, "dilation": dilation}
    # dL/dx is the convolution of g with the flipped kernel, with the zeros around g that leave it as large as x.
    reach = [(size - 1) * step for size, step in zip(kernel.shape[:2], dilation, strict=True)]
    rows, columns = [(r - first, r - last) for r, (first, last) in zip(reach, padding, strict=True)]
    flipped = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
    dx = _plain_conv(g, flipped, padding=(rows, columns), dilation=dilation)
    dw = jax.lax.platform_dependent(
        x,
        g,
        cpu=functools.partial(kernel_gradient, **settings),
        default=functools.partial(plain_kernel_gradient, shape=kernel.shape, **settings),
    )
    return dx, dw


_conv.defvjp(_forward, _backward)


def kernel_gradient(x: Array, g: Array, *, padding: Sides, dilation: tuple[int, int]) -> Array:
    """Computes eq. (2) as a convolution of the transposed arrays.

    Args:
        x: [B, H, W, C] maps.
        g: [B, H', W', F] dL/dy.
        padding: of the forward convolution.
        dilation: d of the forward convolution.
    Returns:
        dL/dw [I, J, C, F].
    """
    if any(outputs > inputs for outputs, inputs in zip(g.shape[1:3], x.shape[1:3], strict=True)):
        # g is the kernel here. XLA is a hundred times slower if it is larger than the maps without their padding.
        widths = [(0, 0), *padding, (0, 0)]
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(*width, 0) for width in widths])
        padding = ((0, 0), (0, 0))
    # The barrier keeps XLA from folding the transposes back into the convolution's dimension numbers.
    lhs, rhs = jax.lax.optimization_barrier((jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(g, (1, 2, 0, 3))))
    dw = jax.lax.conv_general_dilated(lhs, rhs, dilation, padding, dimension_numbers=_IMAGES)
    return jnp.transpose(dw, (1, 2, 0, 3))


def plain_kernel_gradient(
    x: Array, g: Array, *, shape: tuple[int, ...], padding: Sides, dilation: tuple[int, int]
) -> Array:
    """Computes eq. (2) as XLA transposes the convolution.

    Arguments are those of `kernel_gradient`, and the shape (I, J, C, F) of the kernel.
    """
    convolve = functools.partial(_plain_conv, x, padding=padding, dilation=dilation)
    (dw,) = jax.linear_transpose(convolve, jax.ShapeDtypeStruct(shape, x.dtype))(g)
    return dw


def _plain_conv(x: Array, kernel: Array, *, padding: Sides, dilation: tuple[int, int]) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, rhs_dilation=dilation, dimension_numbers=_IMAGES)
