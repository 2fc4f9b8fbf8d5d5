import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.losses import flow
from gm_jax.ops import bijectors, splines

RNG = np.random.default_rng(0)
B = 4
each_event = pytest.mark.parametrize("event", [(6,), (2, 3, 2)])


def normals(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape))


def raw_log_scale(log_scale, bound):
    """The network output that gives this log-scale."""
    return bound * np.arctanh(log_scale / bound)


# Closed forms.


@each_event
def test_the_priors_are_sums_of_scipy_log_densities(x64, event):
    z, mean, log_var = (normals(B, *event, scale=2.0) for _ in range(3))
    axes = tuple(range(1, z.ndim))
    for log_prob, expected in (
        (flow.standard_normal_log_prob(z), stats.norm.logpdf(z)),
        (flow.standard_logistic_log_prob(z), stats.logistic.logpdf(z)),
        (flow.normal_log_prob(z, mean, log_var), stats.norm.logpdf(z, mean, np.exp(0.5 * log_var))),
    ):
        np.testing.assert_allclose(log_prob, expected.sum(axis=axes), rtol=1e-12)


def test_an_affine_flow_of_a_normal_is_scipy_multivariate_normal(x64):
    """Z = W (exp(log s) x + t) ~ N(0, I): x is normal, with covariance and mean from linear algebra."""
    dim = 3
    x, matrix, shift, log_scale = normals(B, dim), normals(dim, dim), normals(dim), normals(dim)
    h, log_det = bijectors.actnorm(x, shift, log_scale)
    z, more = bijectors.invertible_conv(h, bijectors.lu_factors(matrix))
    nll = flow.change_of_variables_nll(flow.standard_normal_log_prob(z), log_det + more)
    inverse = np.linalg.inv(np.asarray(matrix) @ np.diag(np.exp(log_scale)))
    mean = -np.exp(-np.asarray(log_scale)) * np.asarray(shift)
    np.testing.assert_allclose(nll, -stats.multivariate_normal.logpdf(x, mean, inverse @ inverse.T), rtol=1e-10)
    assert np.all(np.abs(log_det + more) > 0.1)


# Identities.


def test_a_constant_log_scale_adds_to_log_p_at_fixed_z(x64):
    # A common mistake in lecture notes: for z = x exp(s) + t they subtract the sum of s.
    dim, s, bound = 6, 0.7, 2.0
    z = normals(B, dim)
    kept, z_b = jnp.split(z, 2, axis=-1)
    raw, shift = jnp.full_like(z_b, raw_log_scale(s, bound)), normals(B, dim // 2)
    x_b, _ = bijectors.affine_coupling_inverse(z_b, shift, raw, bound=bound)
    z_again, log_det = bijectors.affine_coupling(x_b, shift, raw, bound=bound)
    log_p_z = flow.standard_normal_log_prob(z)
    np.testing.assert_allclose(jnp.concatenate([kept, z_again], axis=-1), z, atol=1e-12)
    np.testing.assert_allclose(-flow.change_of_variables_nll(log_p_z, log_det) - log_p_z, dim / 2 * s, rtol=1e-12)


def test_the_jacobian_belongs_to_f_and_not_to_its_inverse(x64):
    # Another mistake: log |det J| of the inverse, or with the power -1. If z = 2 x ~ N(0, 1), then x ~ N(0, 1/4).
    x, log_scale = normals(B, 1), jnp.full(1, np.log(2.0))
    z, log_det = bijectors.scaling(x, log_scale)
    log_prob = -flow.change_of_variables_nll(flow.standard_normal_log_prob(z), log_det)
    np.testing.assert_allclose(log_prob, stats.norm.logpdf(x[:, 0], 0.0, 0.5), rtol=1e-12)
    _, inverse_log_det = bijectors.scaling_inverse(z, log_scale)
    wrong = -flow.change_of_variables_nll(flow.standard_normal_log_prob(z), inverse_log_det)
    np.testing.assert_allclose(log_prob - wrong, 2 * np.log(2.0), rtol=1e-12)


def test_the_log_det_of_nice_comes_from_its_scaling_layer_only(x64):
    # Another mistake: log p(x) = log p_Z(f(x)), which holds for the couplings only.
    dim, log_scale = 6, normals(6)
    h = normals(B, dim)
    log_det = jnp.zeros(B)
    for layer in range(4):
        mask = jnp.arange(dim)[None] % 2 == 0
        mask = mask if layer % 2 else ~mask
        shift = jnp.tanh(jnp.where(mask, 0.0, h) @ normals(dim, dim))
        h, more = bijectors.additive_coupling(h, shift, mask=mask)
        log_det += more
    log_p_z = flow.standard_logistic_log_prob(h)
    np.testing.assert_array_equal(flow.change_of_variables_nll(log_p_z, log_det), -log_p_z)
    z, more = bijectors.scaling(h, log_scale)
    log_p_z = flow.standard_logistic_log_prob(z)
    log_prob = -flow.change_of_variables_nll(log_p_z, log_det + more)
    np.testing.assert_allclose(log_prob - log_p_z, np.full(B, np.sum(log_scale)), rtol=1e-12)


def test_the_parts_of_a_multi_scale_latent_add_up_to_the_whole(x64):
    z = normals(B, 4, 4, 2)
    squeezed = bijectors.squeeze(z)
    first, rest = jnp.split(squeezed, 2, axis=-1)
    second, third = jnp.split(bijectors.squeeze(rest), 2, axis=-1)
    parts = [first, second, third]
    assert sum(part[0].size for part in parts) == z[0].size
    whole = flow.standard_normal_log_prob(z)
    log_probs = [flow.standard_normal_log_prob(part) for part in parts]
    np.testing.assert_allclose(flow.multi_scale_log_prob(log_probs), whole, rtol=1e-12)
    np.testing.assert_array_equal(flow.multi_scale_log_prob(log_probs[:1]), log_probs[0])
    # A generator works too: RealNVP's line in the module's docstring maps over the parts.
    np.testing.assert_allclose(flow.multi_scale_log_prob(map(flow.standard_normal_log_prob, parts)), whole, rtol=1e-12)


def test_a_learned_prior_at_zero_is_the_standard_one(x64):
    z = normals(B, 2, 3, 2)
    zeros = jnp.zeros_like(z)
    np.testing.assert_array_equal(flow.normal_log_prob(z, zeros, zeros), flow.standard_normal_log_prob(z))


def test_the_density_of_a_two_dimensional_flow_integrates_to_one(x64):
    # A wrong sign of a log-determinant passes every round trip, but not this test.
    bound, weights, spline_weights = 1.5, normals(2, 4, 3), normals(3, 23, scale=0.2)
    mask = jnp.array([[True, False]])

    @jax.jit
    def log_prob(x):
        total = jnp.zeros(len(x))
        for layer in range(2):
            here = mask if layer else ~mask
            hidden = jnp.tanh(jnp.where(here, 0.0, x) @ weights[layer, :2] + weights[layer, 2:3])
            shift, raw = hidden[:, :1] + jnp.zeros((1, 2)), 2.0 * hidden[:, 1:2] + jnp.zeros((1, 2))
            x, log_det = bijectors.affine_coupling(x, shift, raw, bound=bound, mask=here)
            raw_spline = jnp.broadcast_to((hidden @ spline_weights)[:, None], (len(x), 2, 23))
            x, more = splines.spline_coupling(x, raw_spline, bound=3.0, mask=here)
            total += log_det + more
        return -flow.change_of_variables_nll(flow.standard_normal_log_prob(x), total), total

    axis, step = np.linspace(-15.0, 15.0, 601, retstep=True)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
    log_density, log_det = log_prob(grid)
    assert np.std(log_det) > 0.1
    assert np.exp(log_density).sum() * step**2 == pytest.approx(1.0, abs=1e-3)


def test_the_gradient_in_the_log_det_is_minus_one():
    log_p, log_det = normals(B), normals(B)
    gradients = jax.grad(lambda *terms: flow.change_of_variables_nll(*terms).sum(), argnums=(0, 1))(log_p, log_det)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, -np.ones(B))


# Extremes.


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15])
def test_priors_are_finite_far_out(scale):
    z = jnp.asarray([[-scale, 0.0, scale]])
    for log_prob_fn in (flow.standard_normal_log_prob, flow.standard_logistic_log_prob):
        value, gradient = jax.value_and_grad(lambda z, fn=log_prob_fn: fn(z).sum())(z)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


# Shape contract.


def test_jit_and_vmap_agree_with_the_plain_call():
    z, mean, log_var = (normals(2, B, 3) for _ in range(3))
    log_p, log_det = normals(2, B), normals(2, B)
    for fn, arguments in (
        (flow.standard_normal_log_prob, (z,)),
        (flow.standard_logistic_log_prob, (z,)),
        (flow.normal_log_prob, (z, mean, log_var)),
        (flow.change_of_variables_nll, (log_p, log_det)),
        (lambda *parts: flow.multi_scale_log_prob(parts), (log_p, log_det)),
    ):
        plain = jnp.stack([fn(*one) for one in zip(*arguments, strict=True)])
        assert plain.shape == (2, B)
        assert plain.dtype == jnp.float32
        np.testing.assert_allclose(jax.jit(jax.vmap(fn))(*arguments), plain, rtol=1e-5, atol=1e-6)


def test_wrong_shapes_and_dtypes_are_refused():
    per_example, z = normals(B), normals(B, 3)
    refused = [
        lambda: flow.change_of_variables_nll(per_example, per_example[:1]),
        lambda: flow.change_of_variables_nll(z, z),
        lambda: flow.change_of_variables_nll(per_example, per_example.astype(jnp.int32)),
        lambda: flow.multi_scale_log_prob([]),
        lambda: flow.multi_scale_log_prob([per_example, per_example[:1]]),
        lambda: flow.multi_scale_log_prob([z]),
        lambda: flow.standard_normal_log_prob(per_example),
        lambda: flow.standard_normal_log_prob(z.astype(jnp.int32)),
        lambda: flow.standard_logistic_log_prob(per_example),
        lambda: flow.normal_log_prob(z, z[:1], z),
        lambda: flow.normal_log_prob(per_example, per_example, per_example),
    ]
    for call in refused:
        with pytest.raises(AssertionError):
            call()
