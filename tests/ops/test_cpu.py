import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import cpu
from gm_jax.ops.cpu import causal_conv, conv

# Image, kernel, padding, dilation: as VALID, as SAME, causal, "pad and crop", dilated, longer than needed.
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


def assert_equal_to_the_plain_form(ours, plain, *arrays):
    """Values and gradients in float64, with random weights of the outputs."""
    y, pull = jax.vjp(ours, *arrays)
    expected, pull_plain = jax.vjp(plain, *arrays)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-11)
    g = jax.random.normal(jax.random.key(5), y.shape, y.dtype)
    for one, other in zip(pull(g), pull_plain(g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)
        assert np.abs(other).max() > 1e-3


def plain_conv(x, kernel, *, padding, dilation):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, rhs_dilation=dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_definition(x, kernel, padding, dilation):
    """Computes equation (1) by a loop over places and taps."""
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
def test_conv_equals_its_definition(image, kernel, padding, dilation):
    x, w = draw(image, kernel)
    expected = by_definition(np.asarray(x, np.float64), np.asarray(w, np.float64), padding, dilation)
    np.testing.assert_allclose(conv(x, w, padding=padding, dilation=dilation), expected, atol=1e-5)


@each_setting
def test_conv_equals_the_plain_form(x64, image, kernel, padding, dilation):
    x, w = draw(image, kernel, dtype=jnp.float64)
    settings = {"padding": padding, "dilation": dilation}
    y, pull = jax.vjp(functools.partial(conv, **settings), x, w)
    expected, pull_plain = jax.vjp(functools.partial(plain_conv, **settings), x, w)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    g = jax.random.normal(jax.random.key(5), y.shape, jnp.float64)
    for one, other in zip(pull(g), pull_plain(g), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)


@each_setting
def test_kernel_gradients_of_all_platforms_are_equal(x64, image, kernel, padding, dilation):
    x, w = draw(image, kernel, dtype=jnp.float64)
    settings = {"padding": padding, "dilation": dilation}
    y = plain_conv(x, w, **settings)
    g = jax.random.normal(jax.random.key(5), y.shape, jnp.float64)
    on_cpu = cpu.kernel_gradient(x, g, **settings)
    elsewhere = cpu.plain_kernel_gradient(x, g, shape=w.shape, **settings)
    np.testing.assert_allclose(on_cpu, elsewhere, atol=1e-11)


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 0), (0, 3)), ((4, -1), (0, 0)), ((1, 0), (0, 0))])
def test_the_kernel_gradient_is_no_convolution_with_a_kernel_larger_than_its_maps(padding):
    x, w = draw((2, 7, 5, 3), (2, 2, 3, 4))
    g = plain_conv(x, w, padding=padding, dilation=(1, 1))
    traced = jax.make_jaxpr(functools.partial(cpu.kernel_gradient, padding=padding, dilation=(1, 1)))(x, g)
    (convolution,) = (eqn for eqn in traced.eqns if eqn.primitive.name == "conv_general_dilated")
    maps, kernel = (variable.aval.shape for variable in convolution.invars)
    assert kernel[:2] == g.shape[1:3]
    assert all(side >= taps for side, taps in zip(maps[1:3], kernel[:2], strict=True))


def test_second_derivatives_of_conv_equal_the_plain_ones(x64):
    image, kernel, padding, dilation = SETTINGS[2]
    x, w = draw(image, kernel, dtype=jnp.float64)

    def squared_gradient(fn):
        loss = lambda x, w: jnp.sum(jnp.tanh(fn(x, w, padding=padding, dilation=dilation)))  # noqa: E731
        return lambda x, w: sum(jnp.sum(leaf**2) for leaf in jax.grad(loss, (0, 1))(x, w))

    ours = jax.grad(squared_gradient(conv), (0, 1))(x, w)
    theirs = jax.grad(squared_gradient(plain_conv), (0, 1))(x, w)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-10)


def test_the_gradient_of_conv_in_a_scan_equals_the_unrolled_one():
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


def test_the_gradient_of_conv_in_a_scan_stores_no_padded_maps():
    def loss(kernels, conv):
        return jnp.sum(jax.lax.scan(lambda x, w: (jnp.tanh(conv(x, w)), None), jnp.ones((2, 4, 5, 3)), kernels)[0])

    def padded(x, w):
        return conv(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), w, padding=((0, 0), (0, 0)))

    (kernels,) = draw((7, 3, 3, 3, 3))
    same = functools.partial(conv, padding=((1, 1), (1, 1)))
    traced = [str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(kernels, fn)) for fn in (same, padded)]
    assert ["f32[7,2,6,7,3]" in text for text in traced] == [False, True]


def test_conv_agrees_with_itself_under_jit_and_vmap():
    x, w = draw((3, 2, 4, 5, 2), (2, 3, 2, 4))
    plain = functools.partial(conv, padding=((1, 0), (1, 1)))
    gradient = jax.grad(lambda w, x: jnp.sum(jnp.tanh(plain(x, w))))
    each = jnp.stack([plain(leaf, w) for leaf in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(plain, in_axes=(0, None)))(x, w), each, atol=1e-5)
    each = jnp.stack([gradient(w, leaf) for leaf in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(w, x), each, atol=1e-4)


def test_conv_stays_finite_for_large_and_small_numbers():
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
def test_conv_rejects_wrong_arrays(x, kernel):
    with pytest.raises(AssertionError):
        conv(x, kernel, padding=((0, 0), (0, 0)))


STRIDED = [
    ((2, 6, 5, 3), (3, 3, 3, 4), (1, 1), ((1, 1), (1, 1))),
    ((2, 7, 6, 2), (4, 3, 2, 5), (2, 2), ((1, 2), (0, 1))),
]
each_stride = pytest.mark.parametrize(("image", "kernel", "strides", "padding"), STRIDED)
FAST = ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))  # NHWC, HWIO, NHWC


def plain_strided_conv(x, w, *, strides, padding):
    return jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@each_stride
def test_strided_conv_and_its_derivatives_of_both_modes_equal_the_plain_ones(x64, image, kernel, strides, padding):
    x, w = draw(image, kernel, dtype=jnp.float64)
    dx, dw = jnp.sin(3.0 * x), jnp.cos(2.0 * w)

    def found(conv):
        conv = functools.partial(conv, strides=strides, padding=padding)

        def slope(x, w):
            return jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, w))))(x)

        y, pull = jax.vjp(conv, x, w)
        of_slope = jax.grad(lambda w: jnp.sum(slope(x, w) ** 2))(w)
        along = jax.jvp(lambda w: slope(x, w), (w,), (dw,))
        one_each = jax.vmap(lambda x, w: conv(x[None], w), (0, None))(x, w)
        return y, pull(jnp.cos(y)), jax.jvp(conv, (x, w), (dx, dw)), of_slope, along, one_each

    of_both = (
        jax.tree.leaves(jax.jit(lambda conv=conv: found(conv))()) for conv in (cpu.strided_conv, plain_strided_conv)
    )
    for one, other in zip(*of_both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@each_stride
def test_gradients_of_strided_conv_are_convolutions_in_the_form_that_is_fast(image, kernel, strides, padding):
    x, w = draw(image, kernel)

    def forms(conv, argnums):
        loss = jax.grad(lambda x, w: jnp.sum(jnp.sin(conv(x, w, strides=strides, padding=padding))), argnums)
        equations = jax.make_jaxpr(loss)(x, w).jaxpr.eqns
        found = [eqn.params["dimension_numbers"] for eqn in equations if eqn.primitive.name == "conv_general_dilated"]
        return [(tuple(numbers.lhs_spec), tuple(numbers.rhs_spec), tuple(numbers.out_spec)) for numbers in found]

    assert forms(cpu.strided_conv, (0, 1)) == [FAST, FAST]  # the convolution itself is in a call
    assert forms(cpu.strided_conv, 1) == [FAST]  # the data need no gradient
    assert set(forms(plain_strided_conv, (0, 1))) != {FAST}


def test_strided_conv_rejects_wrong_arrays():
    x, w = draw((2, 5, 5, 3), (3, 3, 3, 4))
    for wrong_x, wrong_w in ((x[0], w), (x, w[:, :, :2]), (x.astype(jnp.int32), w), (x, w.astype(jnp.bfloat16))):
        with pytest.raises(AssertionError):
            cpu.strided_conv(wrong_x, wrong_w, strides=(1, 1), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (2, 1), (2, 4), (3, 2), (2, 9), (3, 20)])
def test_causal_conv_equals_the_explicit_sum(taps, dilation):
    x, w = draw((2, 9, 3), (taps, 3, 4))
    expected = np.zeros((2, 9, 4))
    for t in range(9):
        for i in range(taps):
            if t - dilation * i >= 0:
                expected[:, t] += np.asarray(x, np.float64)[:, t - dilation * i] @ np.asarray(w, np.float64)[i]
    np.testing.assert_allclose(causal_conv(x, w, dilation=dilation), expected, atol=1e-5)


def test_causal_conv_equals_conv_with_the_kernel_flipped():
    x, w = draw((2, 9, 3), (3, 3, 4))
    expected = conv(x[:, None], jnp.flip(w, 0)[None], padding=((0, 0), (4, 0)), dilation=(1, 2))[:, 0]
    np.testing.assert_allclose(jax.jit(functools.partial(causal_conv, dilation=2))(x, w), expected, atol=1e-5)


def test_causal_conv_equals_the_plain_form(x64):
    def plain(x, w):
        flipped = jnp.flip(w, 0)[None]
        return plain_conv(x[:, None], flipped, padding=((0, 0), (4, 0)), dilation=(1, 2))[:, 0]

    arrays = draw((2, 9, 3), (3, 3, 4), dtype=jnp.float64)
    assert_equal_to_the_plain_form(functools.partial(causal_conv, dilation=2), plain, *arrays)


def test_causal_conv_stays_finite_and_rejects_wrong_arrays():
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


def test_conv_transpose_equals_the_plain_form(x64):
    def plain(x, w):
        return jax.lax.conv_transpose(x, w, (2, 2), "SAME")

    assert_equal_to_the_plain_form(cpu.conv_transpose, plain, *draw((2, 3, 5, 4), (4, 4, 4, 6), dtype=jnp.float64))


def test_conv_transpose_rejects_kernels_of_other_sizes():
    for shape in ((3, 3, 2, 2), (4, 2, 2, 2), (4, 4, 2)):
        with pytest.raises(AssertionError):
            cpu.conv_transpose(jnp.zeros((1, 2, 2, 2)), jnp.zeros(shape))


def test_pointwise_equals_the_product(x64):
    arrays = draw((2, 3, 4, 5), (5, 6), dtype=jnp.float64)
    assert_equal_to_the_plain_form(cpu.pointwise, lambda x, w: x @ w, *arrays)


def test_second_derivatives_of_pointwise_in_a_scan_equal_the_plain_ones(x64):
    def squared_gradient(x, ws, product):
        def loss(x):
            return jnp.sum(jax.lax.scan(lambda x, w: (jnp.tanh(product(x, w)), None), x, ws)[0])

        return jnp.sum(jax.grad(loss)(x) ** 2)

    x, ws = draw((2, 3, 5), (4, 5, 5), dtype=jnp.float64)
    gradient = jax.jit(jax.grad(squared_gradient, (0, 1)), static_argnums=2)
    ours, plain = (gradient(x, ws, product) for product in (cpu.pointwise, jnp.matmul))
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)
        assert np.abs(other).max() > 1e-3


@pytest.mark.parametrize(("x", "w"), [((2, 5), (4, 6)), ((2, 5), (5,))])
def test_pointwise_rejects_wrong_arrays(x, w):
    assert cpu.pointwise(jnp.zeros((0, 3, 5)), jnp.zeros((5, 6))).shape == (0, 3, 6)
    with pytest.raises(AssertionError):
        cpu.pointwise(jnp.zeros(x), jnp.zeros(w))
    with pytest.raises(AssertionError):
        cpu.pointwise(jnp.zeros((2, 5)), jnp.zeros((5, 6), jnp.bfloat16))


def test_only_cpus_flatten_the_points():
    traced = jax.jit(jax.grad(lambda w, x: jnp.sum(jnp.sin(cpu.pointwise(x, w))))).trace(*draw((5, 6), (2, 3, 4, 5)))
    lowered = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda", "tpu")}
    flattens = {name: "reshape" in text and "tensor<24x5xf32>" in text for name, text in lowered.items()}
    assert flattens == {"cpu": True, "cuda": False, "tpu": False}


def test_relu_equals_the_plain_form_at_zero_too(x64):
    x = jnp.concatenate([jnp.zeros((2, 3)), *draw((2, 7), dtype=jnp.float64)], axis=1)
    assert_equal_to_the_plain_form(cpu.relu, jax.nn.relu, x)
    assert jax.grad(lambda x: jnp.sum(cpu.relu(x)))(jnp.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_gradient_of_relu_in_a_scan_stores_no_mask():
    def loss(ws, relu):
        return jnp.sum(jax.lax.scan(lambda x, w: (relu(x @ w), None), jnp.ones((4, 5)), ws)[0])

    ws = jax.random.normal(jax.random.key(0), (3, 5, 5))
    ours, plain = (jax.make_jaxpr(jax.grad(loss), static_argnums=1)(ws, fn) for fn in (cpu.relu, jax.nn.relu))
    assert "bool[3,4,5]" in str(plain)
    assert "bool[3,4,5]" not in str(ours)


def plain_group_norm(h, scale, bias):
    split = h.reshape(len(h), -1, 3, 2)
    mean, var = (moment(split, axis=(1, 3), keepdims=True) for moment in (jnp.mean, jnp.var))
    normalized = ((split - mean) / jnp.sqrt(var + 1e-3)).reshape(h.shape)
    return normalized * scale[None, None, None] + bias[None, None, None]


three_groups = functools.partial(cpu.group_norm, groups=3, epsilon=1e-3)


def test_group_norm_equals_the_plain_form(x64):
    arrays = draw((2, 4, 5, 6), (6,), (6,), dtype=jnp.float64)
    assert_equal_to_the_plain_form(three_groups, plain_group_norm, *arrays)


def test_derivatives_of_group_norm_of_both_modes_equal_the_plain_ones(x64):
    h, scale, bias = draw((2, 4, 5, 6), (6,), (6,), dtype=jnp.float64)
    dh, dscale, dbias = jnp.sin(3.0 * h), jnp.cos(2.0 * scale), jnp.sin(bias)
    weight = jnp.cos(5.0 * h)  # the sum of squares of normalised values has no slope

    def found(norm):
        def slope(h, scale):
            return jax.grad(lambda h: jnp.sum(weight * jnp.sin(norm(h, scale, bias))))(h)

        of_slope = jax.grad(lambda h, scale: jnp.sum(slope(h, scale) ** 2), (0, 1))(h, scale)
        one_each = jax.vmap(lambda h: norm(h[None], scale, bias))(h)
        whole = jax.jvp(norm, (h, scale, bias), (dh, dscale, dbias))
        return whole, jax.jvp(lambda h: slope(h, scale), (h,), (dh,)), of_slope, one_each

    of_both = (jax.tree.leaves(jax.jit(lambda norm=norm: found(norm))()) for norm in (three_groups, plain_group_norm))
    for one, other in zip(*of_both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)
        assert np.abs(other).max() > 1e-3


def test_group_norm_of_integers_has_gradients_of_its_scale_and_bias(x64):
    h, scale, bias = jnp.arange(48).reshape(2, 2, 2, 6), *draw((6,), (6,), dtype=jnp.float64)
    gradient = jax.grad(lambda h, *params: jnp.sum(jnp.sin(three_groups(h, *params))), (1, 2))
    for one, other in zip(gradient(h, scale, bias), gradient(h.astype(float), scale, bias), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
        assert np.abs(one).max() > 1e-3


def test_the_gradient_of_group_norm_sums_over_places_once(x64):
    """Two sums for the means of (6), one each for the gradients of scale and bias; JAX's own has one sum more."""

    def sums(norm):
        arrays = draw((2, 4, 5, 6), (6,), (6,), dtype=jnp.float64)
        y, pull = jax.vjp(norm, *arrays)
        equations = jax.make_jaxpr(pull)(y).jaxpr.eqns
        inner = [
            eqn for outer in equations for eqn in (outer.params["jaxpr"].eqns if "jaxpr" in outer.params else [outer])
        ]
        return sum(eqn.primitive.name == "reduce_sum" and eqn.invars[0].aval.size == 240 for eqn in inner)

    assert sums(three_groups) == 4
    assert sums(plain_group_norm) > 4
