import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import convolution
from gm_jax.ops.convolution import causal_conv, conv

# Image, kernel, padding, dilation: as VALID, as SAME, causal, "pad and crop", dilated, longer than it needs.
SETTINGS = [
    ((2, 5, 6, 3), (3, 3, 3, 4), ((0, 0), (0, 0)), (1, 1)),
    ((2, 5, 6, 3), (3, 3, 3, 4), ((1, 1), (1, 1)), (1, 1)),
    ((2, 5, 6, 1), (2, 3, 1, 4), ((1, 0), (1, 1)), (1, 1)),
    ((3, 4, 4, 2), (2, 1, 2, 3), ((2, -1), (0, 0)), (1, 1)),
    ((2, 7, 9, 2), (2, 3, 2, 2), ((2, 0), (3, 3)), (2, 3)),
    ((1, 3, 3, 2), (1, 2, 2, 2), ((3, 2), (4, 1)), (1, 1)),
]
each_setting = pytest.mark.parametrize(("image", "kernel", "padding", "dilation"), SETTINGS)


def draw(*shapes, dtype=jnp.float32):
    return [jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)]


def of_xla(x, kernel, *, padding, dilation):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_definition(x, kernel, padding, dilation):
    """Equation (1), a loop over places and taps."""
    padded = np.pad(x, [(0, 0), *(tuple(max(side, 0) for side in sides) for sides in padding), (0, 0)])
    (above, below), (left, right) = [[max(-side, 0) for side in sides] for sides in padding]
    padded = padded[:, above : padded.shape[1] - below, left : padded.shape[2] - right]
    rows, columns = kernel.shape[:2]
    height = padded.shape[1] - dilation[0] * (rows - 1)
    width = padded.shape[2] - dilation[1] * (columns - 1)
    y = np.zeros((x.shape[0], height, width, kernel.shape[3]))
    for i, j in np.ndindex(rows, columns):
        di, dj = i * dilation[0], j * dilation[1]
        y += padded[:, di : di + height, dj : dj + width] @ kernel[i, j]
    return y


@each_setting
def test_conv_is_its_definition(image, kernel, padding, dilation):
    x, w = draw(image, kernel)
    expected = by_definition(np.asarray(x, np.float64), np.asarray(w, np.float64), padding, dilation)
    np.testing.assert_allclose(conv(x, w, padding=padding, dilation=dilation), expected, atol=1e-5)


@each_setting
def test_conv_and_its_derivatives_are_those_of_xla(x64, image, kernel, padding, dilation):
    x, w = draw(image, kernel, dtype=jnp.float64)
    settings = {"padding": padding, "dilation": dilation}
    y, pull = jax.vjp(functools.partial(conv, **settings), x, w)
    expected, pull_of_xla = jax.vjp(functools.partial(of_xla, **settings), x, w)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    g = jax.random.normal(jax.random.key(5), y.shape, jnp.float64)
    for mine, theirs in zip(pull(g), pull_of_xla(g), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-11)


@each_setting
def test_the_kernels_gradient_elsewhere_is_that_written_out_for_cpus(x64, image, kernel, padding, dilation):
    x, w = draw(image, kernel, dtype=jnp.float64)
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)])
    y = of_xla(padded, w, padding="VALID", dilation=dilation)
    g = jax.random.normal(jax.random.key(5), y.shape, jnp.float64)
    forms = convolution._kernel_gradient, convolution._kernel_gradient_of_xla
    written_out, of_other_platforms = (form(padded, g, shape=w.shape, dilation=dilation) for form in forms)
    np.testing.assert_allclose(written_out, of_other_platforms, atol=1e-11)


def test_the_gradient_of_the_gradient_is_that_of_xla(x64):
    image, kernel, padding, dilation = SETTINGS[2]
    x, w = draw(image, kernel, dtype=jnp.float64)

    def squared_gradient(fn):
        loss = lambda x, w: jnp.sum(jnp.tanh(fn(x, w, padding=padding, dilation=dilation)))  # noqa: E731
        return lambda x, w: sum(jnp.sum(leaf**2) for leaf in jax.grad(loss, (0, 1))(x, w))

    ours = jax.grad(squared_gradient(conv), (0, 1))(x, w)
    theirs = jax.grad(squared_gradient(of_xla), (0, 1))(x, w)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-10)


def test_the_gradient_in_a_scan_is_the_unrolled_one():
    x, kernels = draw((2, 4, 4, 3), (3, 2, 3, 3, 3))
    padding = ((1, 0), (1, 1))

    def scanned(kernels):
        return jnp.sum(jax.lax.scan(lambda x, w: (jnp.tanh(conv(x, w, padding=padding)), None), x, kernels)[0])

    def unrolled(kernels):
        h = x
        for w in kernels:
            h = jnp.tanh(conv(h, w, padding=padding))
        return jnp.sum(h)

    np.testing.assert_allclose(jax.jit(jax.grad(scanned))(kernels), jax.grad(unrolled)(kernels), atol=1e-5)


def test_jit_and_vmap_agree_with_the_plain_call():
    x, w = draw((3, 2, 4, 5, 2), (2, 3, 2, 4))
    plain = functools.partial(conv, padding=((1, 0), (1, 1)))
    gradient = jax.grad(lambda w, x: jnp.sum(jnp.tanh(plain(x, w))))
    each = jnp.stack([plain(leaf, w) for leaf in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(plain, in_axes=(0, None)))(x, w), each, atol=1e-5)
    each = jnp.stack([gradient(w, leaf) for leaf in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(w, x), each, atol=1e-4)


def test_large_and_small_numbers_stay_finite():
    x, w = jnp.full((1, 3, 3, 1), 1e18), jnp.full((2, 3, 1, 1), 1e18)
    loss = lambda x, w: jnp.sum(conv(x, w, padding=((1, 0), (1, 1))))  # noqa: E731
    for scale in (1.0, 1e-36):
        value, gradients = jax.value_and_grad(loss, (0, 1))(x * scale, w * scale)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in gradients)


@pytest.mark.parametrize(
    ("x", "kernel"),
    [
        (jnp.zeros((4, 4, 1)), jnp.zeros((2, 2, 1, 1))),
        (jnp.zeros((1, 4, 4, 1)), jnp.zeros((2, 1, 1))),
        (jnp.zeros((1, 4, 4, 1), jnp.uint8), jnp.zeros((2, 2, 1, 1))),
        (jnp.zeros((1, 4, 4, 1), jnp.bfloat16), jnp.zeros((2, 2, 1, 1))),
        (jnp.zeros((1, 4, 4, 2)), jnp.zeros((2, 2, 1, 1))),
    ],
)
def test_wrong_arrays_raise(x, kernel):
    with pytest.raises(AssertionError):
        conv(x, kernel, padding=((0, 0), (0, 0)))


@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (2, 1), (2, 4), (3, 2), (2, 9), (3, 20)])
def test_causal_conv_is_the_explicit_sum(taps, dilation):
    x, w = draw((2, 9, 3), (taps, 3, 4))
    expected = np.zeros((2, 9, 4))
    for t in range(9):
        for i in range(taps):
            if t - dilation * i >= 0:
                expected[:, t] += np.asarray(x, np.float64)[:, t - dilation * i] @ np.asarray(w, np.float64)[i]
    np.testing.assert_allclose(causal_conv(x, w, dilation=dilation), expected, atol=1e-5)


def test_causal_conv_is_a_convolution_with_the_kernel_turned_round():
    x, w = draw((2, 9, 3), (3, 3, 4))
    expected = conv(x[:, None], jnp.flip(w, 0)[None], padding=((0, 0), (4, 0)), dilation=(1, 2))[:, 0]
    np.testing.assert_allclose(jax.jit(functools.partial(causal_conv, dilation=2))(x, w), expected, atol=1e-5)


def test_causal_conv_stays_finite_and_refuses_wrong_arrays():
    value, gradient = jax.value_and_grad(lambda w: jnp.sum(causal_conv(jnp.full((1, 4, 1), 1e18), w)))(
        jnp.full((2, 1, 1), 1e18)
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    for x, w in [((4, 2), (2, 2, 3)), ((1, 4, 2), (2, 2)), ((1, 4, 2), (2, 1, 3))]:
        with pytest.raises(AssertionError):
            causal_conv(jnp.zeros(x), jnp.zeros(w))
    with pytest.raises(AssertionError):
        causal_conv(jnp.zeros((1, 4, 2), jnp.int32), jnp.zeros((2, 2, 3)))
