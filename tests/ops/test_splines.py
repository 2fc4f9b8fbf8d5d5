from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.ops import bijectors, splines

B, D, K, N = 3, 4, 8, 200
BOUND = 3.0
RAW = 3 * K - 1
EVERY_OTHER = np.arange(D)[None] % 2 == 0


spline_knots = jax.jit(partial(splines.spline_knots, bound=BOUND))
forward, inverse = jax.jit(splines.rational_quadratic), jax.jit(splines.rational_quadratic_inverse)
both_ways = pytest.mark.parametrize("fn", [splines.spline_coupling, splines.spline_coupling_inverse])


def normals(seed, *shape, scale=1.0):
    """Normal draws in the default float type: float64 under the fixture x64."""
    return jnp.asarray(np.random.default_rng(seed).normal(scale=scale, size=shape))


def random_knots(scale=2.0):
    return spline_knots(normals(1, N, RAW, scale=scale))


def at_every_knot(knots):
    """Repeats each spline K + 1 times, for points [N, K + 1]."""
    return splines.Knots(*(jnp.broadcast_to(leaf[:, None], (N, K + 1, K + 1)) for leaf in knots))


def as_printed(x, knots):
    """The paper's rational-quadratic and its derivative, float64, one point and one spline at a time."""
    k = np.searchsorted(knots.x, x, side="right") - 1
    width, height = knots.x[k + 1] - knots.x[k], knots.y[k + 1] - knots.y[k]
    s, left, right = height / width, knots.derivative[k], knots.derivative[k + 1]
    xi = (x - knots.x[k]) / width
    denominator = s + (right + left - 2 * s) * xi * (1 - xi)
    y = knots.y[k] + height * (s * xi**2 + left * xi * (1 - xi)) / denominator
    derivative = s**2 * (right * xi**2 + 2 * s * xi * (1 - xi) + left * (1 - xi) ** 2) / denominator**2
    return y, np.log(derivative)


# Closed forms.


def test_the_spline_is_the_printed_formula(x64):
    knots = random_knots()
    x = jnp.asarray(np.random.default_rng(0).uniform(-BOUND, BOUND, size=N))
    y, log_derivative = forward(x, knots)
    expected = [
        as_printed(*row) for row in zip(np.asarray(x), map(splines.Knots, *map(np.asarray, knots)), strict=True)
    ]
    np.testing.assert_allclose(y, [y for y, _ in expected], atol=1e-12)
    np.testing.assert_allclose(log_derivative, [log for _, log in expected], atol=1e-12)


def test_knots_ascend_between_fixed_ends_with_the_minimum_sizes():
    min_bin, min_derivative = 0.02, 0.05
    raw = normals(0, 100, RAW, scale=30.0)
    knots = splines.spline_knots(raw, bound=BOUND, min_bin=min_bin, min_derivative=min_derivative)
    for edges in (knots.x, knots.y):
        assert edges.shape == (100, K + 1)
        np.testing.assert_array_equal(edges[:, 0], np.full(100, -BOUND, np.float32))
        np.testing.assert_array_equal(edges[:, -1], np.full(100, BOUND, np.float32))
        smallest = np.min(np.diff(edges))
        assert smallest == pytest.approx(2 * BOUND * min_bin, rel=1e-4)
    np.testing.assert_array_equal(knots.derivative[:, [0, -1]], np.ones((100, 2)))
    assert np.min(knots.derivative) == pytest.approx(min_derivative, rel=1e-4)


def test_the_raw_numbers_are_widths_then_heights_then_derivatives(x64):
    raw = normals(0, RAW)
    knots = splines.spline_knots(raw, bound=BOUND)
    widths, heights, derivatives = np.split(np.asarray(raw), [K, 2 * K])
    for edges, part in ((knots.x, widths), (knots.y, heights)):
        shares = 1e-3 + (1 - 1e-3 * K) * np.exp(part) / np.exp(part).sum()
        np.testing.assert_allclose(np.diff(edges), 2 * BOUND * shares, atol=1e-12)
    inner = 1e-3 + np.log1p(np.exp(derivatives + np.log(np.expm1(1 - 1e-3))))
    np.testing.assert_allclose(knots.derivative[1:-1], inner, rtol=1e-12)


def test_zeros_give_the_identity(x64):
    x = jnp.linspace(-2 * BOUND, 2 * BOUND, N)
    knots = spline_knots(jnp.zeros((N, RAW)))
    for fn in (forward, inverse):
        y, log_derivative = fn(x, knots)
        np.testing.assert_allclose(y, x, atol=1e-12)
        np.testing.assert_allclose(log_derivative, np.zeros(N), atol=1e-12)


# Identities.


def test_the_log_derivative_agrees_with_autodiff(x64):
    knots, x = random_knots(), normals(0, N, scale=2.0)
    for fn in (forward, inverse):
        derivative = jax.grad(lambda x, fn=fn: jnp.sum(fn(x, knots)[0]))(x)
        np.testing.assert_allclose(fn(x, knots)[1], np.log(derivative), atol=1e-9)


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_each_direction_undoes_the_other_inside_and_outside(x64, scale):
    knots, x = random_knots(scale), normals(0, N, scale=2.0)
    assert np.any(np.abs(x) > BOUND)
    for first, then in ((forward, inverse), (inverse, forward)):
        y, log_derivative = first(x, knots)
        back, inverse_log_derivative = then(y, knots)
        np.testing.assert_allclose(back, x, rtol=0, atol=1e-8)
        np.testing.assert_allclose(inverse_log_derivative, -log_derivative, rtol=0, atol=1e-8)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_knot_maps_to_its_knot_bit_for_bit_with_its_derivative(x64, precision):
    knots = jax.tree.map(lambda leaf: leaf.astype(precision), random_knots())
    y, log_derivative = forward(knots.x, at_every_knot(knots))
    x, inverse_log_derivative = inverse(knots.y, at_every_knot(knots))
    assert y.dtype == x.dtype == precision
    np.testing.assert_array_equal(y, knots.y)
    np.testing.assert_array_equal(x, knots.x)
    tolerance = 20 * np.finfo(precision).eps
    np.testing.assert_allclose(log_derivative, np.log(knots.derivative), atol=tolerance)
    np.testing.assert_allclose(inverse_log_derivative, -np.log(knots.derivative), atol=tolerance)


def test_value_and_derivative_are_continuous_across_every_knot(x64):
    knots = random_knots(scale=0.5)
    for fn, edges in ((forward, knots.x), (inverse, knots.y)):
        both_sides = fn(edges - 1e-9, at_every_knot(knots)), fn(edges + 1e-9, at_every_knot(knots))
        for below, above in zip(*both_sides, strict=True):
            np.testing.assert_allclose(below, above, atol=1e-6)


def test_the_spline_increases_everywhere(x64):
    x = jnp.linspace(-1.1 * BOUND, 1.1 * BOUND, N)
    one_spline = splines.Knots(*(jnp.broadcast_to(leaf[:1], (N, K + 1)) for leaf in random_knots(scale=5.0)))
    for fn in (forward, inverse):
        assert np.all(np.diff(fn(x, one_spline)[0]) > 0)


@both_ways
def test_outside_the_interval_nothing_moves_and_no_gradient_flows(x64, fn):
    x = jnp.asarray([[-jnp.inf, -100.0, -BOUND, BOUND, 1e300]])

    @jax.jit
    def couple(raw):
        z, log_det = fn(x, raw, bound=BOUND)
        return jnp.sum(z[:, 1:]) + jnp.sum(log_det), (z, log_det)

    gradient, (z, log_det) = jax.grad(couple, has_aux=True)(normals(0, 1, 5, RAW))
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(log_det, [0.0])
    np.testing.assert_array_equal(gradient, np.zeros((1, 5, RAW)))


@both_ways
def test_the_gradient_in_the_parameters_agrees_with_finite_differences(x64, fn):
    @jax.jit
    def couple(raw, x):
        z, log_det = fn(x, raw, bound=BOUND)
        return jnp.sum(z) + jnp.sum(log_det)

    raw, point = normals(1, 1, 1, RAW), jnp.full((1, 1), 0.4)
    steps = 1e-5 * jnp.eye(RAW).reshape(RAW, 1, 1, RAW)
    above, below = (jax.vmap(couple, in_axes=(0, None))(raw[None] + step, point) for step in (steps, -steps))
    np.testing.assert_allclose(jax.grad(couple)(raw, point).ravel(), (above - below) / 2e-5, atol=1e-7)


def test_the_two_cases_of_the_root_meet_with_equal_gradients(x64):
    # p = 0 in the middle of a bin with equal derivatives at its ends, and everywhere in a new flow.
    edges, derivative = jnp.asarray([-BOUND, BOUND]), jnp.ones(2)

    @jax.jit
    def x_of(derivative):
        return inverse(jnp.zeros(()), splines.Knots(edges, edges, derivative))[0]

    steps = 1e-6 * jnp.eye(2)
    differences = [(x_of(derivative + step) - x_of(derivative - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(jax.grad(x_of)(derivative), differences, atol=1e-8)
    assert np.all(np.abs(differences) > 0.1)


@both_ways
@pytest.mark.parametrize("masked", [False, True])
def test_the_log_det_of_a_coupling_equals_that_of_the_jacobian(x64, fn, masked):
    mask = bijectors.checkerboard_mask(2, 3) if masked else None
    raw, x = normals(1, B, 2, 3, 2, RAW, scale=2.0), normals(0, B, 2, 3, 2, scale=2.0)
    couple = jax.jit(partial(fn, raw=raw, bound=BOUND, mask=mask))
    z, log_det = couple(x)
    jacobian = jax.jacfwd(lambda x: couple(x)[0])(x).reshape(B, 12, B, 12)
    expected = [np.linalg.slogdet(jacobian[b, :, b, :])[1] for b in range(B)]
    np.testing.assert_allclose(log_det, expected, rtol=0, atol=1e-8)
    assert np.all(np.abs(log_det) > 1e-2)
    moves = np.abs(x) < BOUND
    np.testing.assert_array_equal(z != x, moves & mask if masked else moves)


def test_a_coupling_is_undone_by_its_inverse_in_both_orders(x64):
    raw, x = normals(1, B, D, RAW, scale=2.0), normals(0, B, D, scale=2.0)
    mask = EVERY_OTHER
    couple = jax.jit(partial(splines.spline_coupling, raw=raw, bound=BOUND, mask=mask))
    undo = jax.jit(partial(splines.spline_coupling_inverse, raw=raw, bound=BOUND, mask=mask))
    for first, then in ((couple, undo), (undo, couple)):
        z, log_det = first(x)
        back, inverse_log_det = then(z)
        np.testing.assert_allclose(back, x, rtol=0, atol=1e-8)
        np.testing.assert_allclose(inverse_log_det, -log_det, rtol=0, atol=1e-8)


# Extremes.


def test_single_precision_is_accurate_in_steep_and_flat_bins(x64):
    # A root written as a difference of nearly equal numbers would lose these digits.
    knots = random_knots(scale=6.0)
    knots = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), knots)
    y = jnp.asarray(np.random.default_rng(0).uniform(-BOUND, BOUND, size=N), jnp.float32)
    x, log_derivative = inverse(y, knots)
    assert x.dtype == log_derivative.dtype == jnp.float32
    exact_x, exact_log_derivative = inverse(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (y, knots)))
    # Rounding y by 1e-7 of the interval moves x by dx/dy times as much.
    rounding = 2e-7 * BOUND * (1.0 + np.exp(exact_log_derivative))
    assert np.max(np.abs(x - exact_x) / rounding) < 1.0
    np.testing.assert_allclose(log_derivative, exact_log_derivative, atol=5e-5)


@both_ways
@pytest.mark.parametrize("loud", [100.0, 1e4])
def test_a_coupling_is_finite_for_extreme_network_outputs(fn, loud):
    rng = np.random.default_rng(0)
    raw = jnp.asarray(rng.choice([-loud, 0.0, loud], size=(64, D, RAW)), jnp.float32)
    x = jnp.asarray(rng.choice([-1e30, -BOUND, -1.0, 0.0, 1e-30, 2.0, np.nextafter(BOUND, 0), BOUND], size=(64, D)))
    x = x.astype(jnp.float32)

    @jax.jit
    def total(x, raw):
        z, log_det = fn(x, raw, bound=BOUND)
        return jnp.sum(z * 1e-30) + jnp.sum(log_det)

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(x, raw)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


# Shape contract.


@both_ways
def test_jit_and_vmap_agree_with_the_plain_call(fn):
    x, raw = normals(0, 2, B, D), normals(1, 2, B, D, RAW)
    couple = partial(fn, bound=BOUND, mask=EVERY_OTHER)
    plain = [couple(*pair) for pair in zip(x, raw, strict=True)]
    for got, expected in zip(jax.jit(jax.vmap(couple))(x, raw), zip(*plain, strict=True), strict=True):
        np.testing.assert_allclose(got, jnp.stack(expected), rtol=1e-4, atol=1e-5)
    assert plain[0][0].shape == (B, D)
    assert plain[0][1].shape == (B,)
    assert plain[0][1].dtype == jnp.float32


@both_ways
def test_wrong_shapes_and_dtypes_are_refused(fn):
    x, raw = normals(0, B, D), normals(1, B, D, RAW)
    mask = EVERY_OTHER
    refused = [
        lambda: fn(x[:, 0], raw[:, 0], bound=BOUND),
        lambda: fn(x[:1], raw, bound=BOUND),
        lambda: fn(x, raw[:, :1], bound=BOUND),
        lambda: fn(x.astype(jnp.int32), raw, bound=BOUND),
        lambda: fn(x, raw.astype(jnp.int32), bound=BOUND),
        lambda: fn(x, raw, bound=BOUND, mask=mask[0]),
        lambda: fn(x, raw, bound=BOUND, mask=mask.astype(jnp.float32)),
        lambda: fn(x, raw, bound=BOUND, mask=jnp.ones((1, D + 1), bool)),
    ]
    for call in refused:
        with pytest.raises(AssertionError):
            call()


@pytest.mark.parametrize(
    ("size", "kwargs"),
    [
        (RAW + 1, {}),
        (0, {}),
        (RAW, {"bound": 0.0}),
        (RAW, {"min_bin": 1 / K}),
        (RAW, {"min_bin": 0.0}),
        (RAW, {"min_bin": -0.1}),
        (RAW, {"min_derivative": 0.0}),
        (RAW, {"min_derivative": 1.0}),
    ],
)
def test_impossible_splines_are_refused(size, kwargs):
    with pytest.raises(ValueError, match=r"3 K - 1|bound must be positive"):
        splines.spline_knots(jnp.zeros((2, size)), **{"bound": BOUND, **kwargs})
