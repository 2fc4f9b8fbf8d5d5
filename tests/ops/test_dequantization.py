import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.ops import dequantization

RNG = np.random.default_rng(0)
B, EVENT = 3, (4, 4, 2)
each_levels = pytest.mark.parametrize("levels", [2, 17, 255, 256])
LARGEST_NOISE = np.nextafter(np.float32(1), np.float32(0))


def normals(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape))


def random_levels(levels, *shape):
    return jnp.asarray(RNG.integers(0, levels, size=shape))


# Closed forms.


@each_levels
def test_dequantisation_adds_the_noise_and_divides_by_the_levels(x64, levels):
    x, uniform = random_levels(levels, B, *EVENT), RNG.random((B, *EVENT))
    y, log_det = dequantization.uniform_dequantize(x, jnp.asarray(uniform), levels=levels)
    np.testing.assert_allclose(y, (np.asarray(x) + uniform) / levels, rtol=1e-15)
    np.testing.assert_allclose(log_det, np.full(B, -32 * np.log(levels)), rtol=1e-15)


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_the_logit_agrees_with_scipy(x64, alpha):
    y = RNG.random((B, *EVENT))
    h, log_det = dequantization.logit(jnp.asarray(y), alpha=alpha)
    s = alpha + (1 - 2 * alpha) * y
    np.testing.assert_allclose(h, special.logit(s), atol=1e-12)
    expected = np.log((1 - 2 * alpha) / (s * (1 - s))).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(log_det, expected, rtol=1e-12)


# Identities.


@pytest.mark.parametrize("alpha", [0.05, 1e-3])
def test_the_log_det_of_the_logit_equals_the_jacobian_in_both_directions(x64, alpha):
    y, h = jnp.asarray(RNG.random((B, 5))), normals(B, 5, scale=3.0)
    for fn, x in ((dequantization.logit, y), (dequantization.logit_inverse, h)):
        jacobian = jax.vmap(jax.jacfwd(lambda x, fn=fn: fn(x[None], alpha=alpha)[0][0]))(x)
        expected = np.linalg.slogdet(np.asarray(jacobian))[1]
        np.testing.assert_allclose(fn(x, alpha=alpha)[1], expected, rtol=0, atol=1e-8)


def test_the_log_det_of_dequantisation_is_that_of_the_division(x64):
    # y depends on the continuous v = k + u, and within a level v moves as u does.
    x, uniform = random_levels(17, B, 5), jnp.asarray(RNG.uniform(0.1, 0.9, size=(B, 5)))
    fn = lambda x, u: dequantization.uniform_dequantize(x[None], u[None], levels=17)  # noqa: E731
    jacobian = jax.vmap(jax.jacfwd(lambda u, x: fn(x, u)[0][0]))(uniform, x)
    log_det = dequantization.uniform_dequantize(x, uniform, levels=17)[1]
    np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobian))[1], rtol=0, atol=1e-8)


def test_logit_and_logit_inverse_are_inverse(x64):
    y, h = jnp.asarray(RNG.random((B, 5))), normals(B, 5, scale=3.0)
    for there, back, x in (
        (dequantization.logit, dequantization.logit_inverse, y),
        (dequantization.logit_inverse, dequantization.logit, h),
    ):
        moved, log_det = there(x, alpha=0.05)
        returned, inverse_log_det = back(moved, alpha=0.05)
        np.testing.assert_allclose(returned, x, rtol=0, atol=1e-8)
        np.testing.assert_allclose(inverse_log_det, -log_det, rtol=0, atol=1e-8)


@each_levels
def test_quantize_recovers_every_level_under_any_noise(levels):
    x = jnp.broadcast_to(jnp.arange(levels)[:, None], (levels, 4))
    noise = jnp.broadcast_to(jnp.asarray([0.0, 1e-30, 0.5, LARGEST_NOISE], jnp.float32), x.shape)

    def there_and_back(x, noise):
        y, _ = dequantization.uniform_dequantize(x, noise, levels=levels)
        return y, dequantization.quantize(y, levels=levels)

    # Compiled into one, the division and the product may be rounded otherwise.
    for fn in (there_and_back, jax.jit(there_and_back)):
        y, k = fn(x, noise)
        assert y.dtype == jnp.float32
        assert np.all(y >= 0)
        assert np.all(y < 1)
        np.testing.assert_array_equal(k, x)


def test_samples_outside_the_interval_become_the_nearest_level():
    y = jnp.asarray([-jnp.inf, -0.03, 0.0, 0.999, 1.0, 1.05, jnp.inf])
    k = dequantization.quantize(y, levels=256)
    assert k.dtype == jnp.int32
    np.testing.assert_array_equal(k, [0, 0, 0, 255, 255, 255, 255])


# What the number means: by quadrature, a flow h ~ N(m, s^2) behind the logit and the dequantisation, one dimension.

LEVELS, ALPHA = 4, 0.05
MEAN, STD = 0.4, 0.8


@pytest.fixture
def density_over_noise(x64):
    """(weights [N], log p(k + u) [L, N]) at the nodes u of a quadrature over [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    uniform = jnp.broadcast_to(jnp.asarray(0.5 + 0.5 * nodes), (LEVELS, 60))
    x = jnp.broadcast_to(jnp.arange(LEVELS)[:, None], (LEVELS, 60))
    y, log_det = dequantization.uniform_dequantize(x.reshape(-1, 1), uniform.reshape(-1, 1), levels=LEVELS)
    h, more = dequantization.logit(y, alpha=ALPHA)
    log_p = stats.norm.logpdf(h[:, 0], MEAN, STD) + log_det + more
    return 0.5 * weights, np.asarray(log_p).reshape(LEVELS, 60)


def test_with_both_log_dets_the_level_mass_is_the_integral_of_the_density(density_over_noise):
    weights, log_p = density_over_noise
    edges = stats.norm.cdf(special.logit(ALPHA + (1 - 2 * ALPHA) * np.arange(LEVELS + 1) / LEVELS), MEAN, STD)
    masses = np.exp(log_p) @ weights
    np.testing.assert_allclose(masses, np.diff(edges), rtol=1e-10)
    # The rest is what the flow spends beyond the ends of the logit.
    assert masses.sum() == pytest.approx(edges[-1] - edges[0], rel=1e-10)


def test_the_mean_over_noise_is_a_lower_bound_on_the_log_mass(density_over_noise):
    weights, log_p = density_over_noise
    bound, log_mass = log_p @ weights, np.log(np.exp(log_p) @ weights)
    assert np.all(bound < log_mass)
    assert np.all(log_mass - bound < 1.0)  # nor is it a loose one, of a density so smooth


# Extremes.


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_the_ends_of_the_interval_have_a_finite_logit_and_gradient(alpha, y):
    ends = jnp.full((1, 1), y)
    h, log_det = dequantization.logit(ends, alpha=alpha)
    # Both ends alike: 1 - s of a small alpha would be off by 6 per cent.
    assert float(h[0, 0]) == pytest.approx((2 * y - 1) * special.logit(1 - alpha), rel=1e-6)
    assert float(log_det[0]) == pytest.approx(np.log((1 - 2 * alpha) / (alpha * (1 - alpha))), rel=1e-6)
    gradient = jax.grad(lambda y: sum(map(jnp.sum, dequantization.logit(y, alpha=alpha))))(ends)
    assert np.all(np.isfinite(gradient))


def test_the_inverse_of_the_logit_is_finite_for_any_sample():
    h = jnp.asarray([[-1e30, -100.0, 0.0, 100.0, 1e30]])
    y, log_det = dequantization.logit_inverse(h, alpha=0.05)
    np.testing.assert_allclose(y, [[-1 / 18, -1 / 18, 0.5, 19 / 18, 19 / 18]], rtol=1e-6)
    assert np.all(np.isfinite(log_det))
    gradient = jax.grad(lambda h: sum(map(jnp.sum, dequantization.logit_inverse(h, alpha=0.05))))(h)
    assert np.all(np.isfinite(gradient))


# Shape contract.


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, u: dequantization.uniform_dequantize(x, u, levels=17),
        lambda x, u: dequantization.logit(u, alpha=0.05),
        lambda x, u: dequantization.logit_inverse(u, alpha=0.05),
    ],
)
def test_jit_and_vmap_agree_with_the_plain_call(fn):
    x, uniform = random_levels(17, 2, B, *EVENT), jnp.asarray(RNG.random((2, B, *EVENT)), jnp.float32)
    plain = [fn(*pair) for pair in zip(x, uniform, strict=True)]
    assert plain[0][0].shape == (B, *EVENT)
    assert plain[0][1].shape == (B,)
    assert plain[0][1].dtype == jnp.float32
    for got, expected in zip(jax.jit(jax.vmap(fn))(x, uniform), zip(*plain, strict=True), strict=True):
        np.testing.assert_allclose(got, jnp.stack(expected), rtol=1e-5, atol=1e-6)


def test_values_outside_the_levels_give_nan():
    x = jnp.asarray([[-1, 0, 16, 17, 255]])
    y, _ = dequantization.uniform_dequantize(x, jnp.full((1, 5), 0.5), levels=17)
    assert np.isnan(y[0]).tolist() == [True, False, False, True, True]


def test_wrong_shapes_and_dtypes_are_refused():
    x, uniform = random_levels(17, B, 5), jnp.full((B, 5), 0.5)
    refused = [
        lambda: dequantization.uniform_dequantize(uniform, uniform, levels=17),
        lambda: dequantization.uniform_dequantize(x, x, levels=17),
        lambda: dequantization.uniform_dequantize(x, uniform[:1], levels=17),
        lambda: dequantization.uniform_dequantize(x[:, 0], uniform[:, 0], levels=17),
        lambda: dequantization.quantize(x, levels=17),
        lambda: dequantization.logit(x, alpha=0.05),
        lambda: dequantization.logit(uniform[:, 0], alpha=0.05),
        lambda: dequantization.logit_inverse(x, alpha=0.05),
        lambda: dequantization.logit_inverse(uniform[:, 0], alpha=0.05),
    ]
    for call in refused:
        with pytest.raises(AssertionError):
            call()


def test_hyper_parameters_out_of_range_are_refused():
    x, uniform = random_levels(2, B, 5), jnp.full((B, 5), 0.5)
    with pytest.raises(ValueError, match="levels"):
        dequantization.uniform_dequantize(x, uniform, levels=1)
    with pytest.raises(ValueError, match="levels"):
        dequantization.quantize(uniform, levels=1)
    for alpha in (0.0, 0.5, -0.1):
        with pytest.raises(ValueError, match="alpha"):
            dequantization.logit(uniform, alpha=alpha)
        with pytest.raises(ValueError, match="alpha"):
            dequantization.logit_inverse(uniform, alpha=alpha)
