import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from gm_jax.losses import combine, vae

RNG = np.random.default_rng(0)
B, Z, K = 6, 4, 5


def floats(*shape, scale=1.0):
    return jnp.asarray(RNG.normal(scale=scale, size=shape), jnp.float32)


def float64(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


# Closed forms.


def test_reparameterize_is_mean_plus_std_times_eps():
    mean, log_var, eps = floats(B, Z), floats(B, Z), floats(B, Z)
    m, lv, e = float64(mean, log_var, eps)
    np.testing.assert_allclose(
        vae.reparameterize(mean, log_var, eps), m + np.sqrt(np.exp(lv)) * e, rtol=1e-5, atol=1e-6
    )


def test_kl_to_standard_is_the_float64_closed_form():
    mean, log_var = floats(B, Z), floats(B, Z)
    m, lv = float64(mean, log_var)
    expected = 0.5 * np.sum(np.exp(lv) + m**2 - lv - 1, axis=1)
    np.testing.assert_allclose(vae.normal_kl_to_standard(mean, log_var), expected, rtol=1e-5)


def test_kl_of_two_normals_is_the_matrix_formula():
    arguments = [floats(B, Z) for _ in range(4)]
    kl = vae.normal_kl(*arguments)
    for b, (mq, lvq, mp, lvp) in enumerate(zip(*float64(*arguments), strict=True)):
        covariance_q, covariance_p = np.diag(np.exp(lvq)), np.diag(np.exp(lvp))
        trace = np.trace(np.linalg.solve(covariance_p, covariance_q))
        distance = (mp - mq) @ np.linalg.solve(covariance_p, mp - mq)
        log_det = np.linalg.slogdet(covariance_p)[1] - np.linalg.slogdet(covariance_q)[1]
        assert float(kl[b]) == pytest.approx(0.5 * (trace + distance - Z + log_det), rel=1e-5)


@pytest.mark.parametrize("event", [(7,), (3, 3, 2)])
def test_bernoulli_nll_is_scipy_s_sum_over_the_event(event):
    x = jnp.asarray(RNG.integers(0, 2, size=(B, *event)), jnp.float32)
    logits = floats(B, *event, scale=2.0)
    log_mass = stats.bernoulli.logpmf(np.asarray(x), special.expit(np.asarray(logits, np.float64)))
    np.testing.assert_allclose(vae.bernoulli_nll(x, logits), -log_mass.reshape(B, -1).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("event", [(7,), (3, 3, 2)])
def test_normal_nll_is_scipy_s_sum_over_the_event(event):
    x, mean, log_var = (floats(B, *event) for _ in range(3))
    x64, m, lv = float64(x, mean, log_var)
    log_density = stats.norm.logpdf(x64, m, np.exp(0.5 * lv))
    np.testing.assert_allclose(vae.normal_nll(x, mean, log_var), -log_density.reshape(B, -1).sum(axis=1), rtol=1e-5)


def test_normal_nll_of_unit_variance_is_half_the_squared_error_and_its_constant():
    x, mean = floats(B, 7), floats(B, 7)
    x64, m = float64(x, mean)
    expected = 0.5 * np.sum((x64 - m) ** 2, axis=1) + 7 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(vae.normal_nll(x, mean, jnp.zeros((B, 7))), expected, rtol=1e-5)


@pytest.mark.parametrize("levels", [17, 256])
def test_discretized_logistic_nll_is_scipy_s_sum_over_the_event(levels):
    shape = (B, 3, 3, 1)
    x = RNG.integers(1, levels - 1, size=shape)
    mean, log_scale = floats(*shape, scale=0.3), floats(*shape, scale=0.3) - 1.0
    m, ls = float64(mean, log_scale)
    edges = (2 * x + np.array([-1, 1]).reshape(2, 1, 1, 1, 1)) / (levels - 1) - 1
    lower, upper = stats.logistic.cdf(edges, m, np.exp(ls))
    expected = -np.log(upper - lower).reshape(B, -1).sum(axis=1)
    nll = vae.discretized_logistic_nll(jnp.asarray(x, jnp.uint8), mean, log_scale, levels=levels)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_normal_log_prob_of_samples_is_scipy_s_sum_over_the_latents():
    z, mean, log_var = floats(K, B, Z), floats(B, Z), floats(B, Z)
    z64, m, lv = float64(z, mean, log_var)
    expected = stats.norm.logpdf(z64, m, np.exp(0.5 * lv)).sum(axis=-1)
    np.testing.assert_allclose(vae.normal_log_prob(z, mean, log_var), expected, rtol=1e-5, atol=1e-5)


def test_standard_normal_log_prob_of_samples_is_scipy_s_sum_over_the_latents():
    z = floats(K, B, Z)
    expected = stats.norm.logpdf(*float64(z)).sum(axis=-1)
    np.testing.assert_allclose(vae.standard_normal_log_prob(z), expected, rtol=1e-5)


def test_importance_weighted_bound_is_the_float64_log_mean_of_weights():
    log_w = floats(K, B, scale=3.0) - 100.0
    expected = special.logsumexp(*float64(log_w), axis=0) - np.log(K)
    np.testing.assert_allclose(vae.importance_weighted_bound(log_w), expected, rtol=1e-6)


def test_importance_weights_by_hand():
    log_w = vae.log_importance_weights(jnp.array([[-5.0]]), jnp.array([[-2.0]]), jnp.array([[-1.5]]))
    np.testing.assert_array_equal(log_w, [[-5.5]])


# Identities.


def test_kl_is_zero_at_the_prior():
    np.testing.assert_array_equal(vae.normal_kl_to_standard(jnp.zeros((B, Z)), jnp.zeros((B, Z))), np.zeros(B))


def test_kl_to_standard_is_the_kl_to_zero_mean_and_unit_variance():
    mean, log_var, zeros = floats(B, Z), floats(B, Z), jnp.zeros((B, Z))
    expected = vae.normal_kl(mean, log_var, zeros, zeros)
    np.testing.assert_allclose(vae.normal_kl_to_standard(mean, log_var), expected, rtol=1e-6)


def test_kl_is_the_mean_of_log_q_minus_log_p_over_samples():
    draws = 20_000
    mean, log_var = floats(2, Z), floats(2, Z)
    z = vae.reparameterize(mean, log_var, jax.random.normal(jax.random.key(0), (draws, 2, Z)))
    log_ratio = np.asarray(vae.normal_log_prob(z, mean, log_var) - vae.standard_normal_log_prob(z), np.float64)
    standard_error = log_ratio.std(axis=0) / np.sqrt(draws)
    assert np.all(abs(log_ratio.mean(axis=0) - vae.normal_kl_to_standard(mean, log_var)) < 3 * standard_error)


def test_samples_have_the_moments_of_q():
    draws = 20_000
    mean, log_var = jnp.array([[1.5, -0.5]]), jnp.array([[0.8, -2.0]])
    z = np.asarray(vae.reparameterize(mean, log_var, jax.random.normal(jax.random.key(1), (draws, 1, 2))), np.float64)
    variance = np.exp(np.asarray(log_var, np.float64))
    assert np.all(abs(z.mean(axis=0) - mean) < 3 * np.sqrt(variance / draws))
    assert np.all(abs(z.var(axis=0) - variance) < 3 * variance * np.sqrt(2 / draws))


@pytest.mark.parametrize(("mean", "std"), [(1.3, 0.7), (-0.4, 2.0)])
def test_the_reparameterised_gradient_of_a_second_moment_is_twice_mean_and_std(mean, std, x64):
    # E_q[z^2] = mean^2 + std^2; in log_var, d std^2 / d log_var = std^2.
    draws = 50_000
    eps = jax.random.normal(jax.random.key(2), (draws, 1))

    def squares(mean, std):
        log_var = 2 * jnp.log(std)
        return vae.reparameterize(jnp.full((draws, 1), mean), jnp.full((draws, 1), log_var), eps)[:, 0] ** 2

    for derivative, expected in zip(jax.jacfwd(squares, argnums=(0, 1))(mean, std), (2 * mean, 2 * std), strict=True):
        standard_error = float(derivative.std()) / np.sqrt(draws)
        assert abs(float(derivative.mean()) - expected) < 3 * standard_error


def test_the_reparameterised_gradient_is_the_score_function_gradient(x64):
    draws = 200_000
    mean, log_var = jnp.full((draws, 1), 0.8), jnp.full((draws, 1), -0.5)
    eps = jax.random.normal(jax.random.key(3), (draws, 1))
    pathwise = jax.grad(lambda mean: jnp.sum(vae.reparameterize(mean, log_var, eps) ** 2))(mean)
    z = vae.reparameterize(mean, log_var, eps)
    score = jax.grad(lambda mean: vae.normal_log_prob(z, mean, log_var).sum())(mean)
    difference = np.asarray(z**2 * score - pathwise)
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(draws)


def test_the_change_of_variables_of_a_sample_is_its_log_density():
    # log q(z) = log N(eps; 0, I) - log |dz / deps|
    mean, log_var, eps = floats(B, Z), floats(B, Z), floats(B, Z)
    z = vae.reparameterize(mean, log_var, eps)
    expected = vae.standard_normal_log_prob(eps) - 0.5 * log_var.sum(axis=1)
    np.testing.assert_allclose(vae.normal_log_prob(z, mean, log_var), expected, rtol=1e-4, atol=1e-4)


def test_normal_log_prob_is_minus_normal_nll():
    z, mean, log_var = (floats(B, Z) for _ in range(3))
    np.testing.assert_allclose(
        vae.normal_log_prob(z, mean, log_var), -vae.normal_nll(z, mean, log_var), rtol=1e-5, atol=1e-6
    )


def test_k_samples_are_k_calls():
    mean, log_var, eps = floats(B, Z), floats(B, Z), floats(K, B, Z)
    z = vae.reparameterize(mean, log_var, eps)
    assert z.shape == (K, B, Z)
    log_q = vae.normal_log_prob(z, mean, log_var)
    assert log_q.shape == (K, B)
    for k in range(K):
        np.testing.assert_allclose(z[k], vae.reparameterize(mean, log_var, eps[k]), rtol=1e-6)
        np.testing.assert_allclose(log_q[k], vae.normal_log_prob(z[k], mean, log_var), rtol=1e-5, atol=1e-5)


def test_parameters_already_broadcast_to_the_samples_change_nothing():
    mean, log_var, eps = floats(B, Z), floats(B, Z), floats(K, B, Z)
    wide = [jnp.broadcast_to(p, (K, B, Z)) for p in (mean, log_var)]
    np.testing.assert_array_equal(vae.reparameterize(*wide, eps), vae.reparameterize(mean, log_var, eps))
    np.testing.assert_array_equal(vae.normal_log_prob(eps, *wide), vae.normal_log_prob(eps, mean, log_var))


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_derivative_of_the_loss_in_beta_is_the_kl(beta):
    mean, log_var = floats(B, Z), floats(B, Z)
    x, logits = jnp.ones((B, 7)), floats(B, 7)
    terms = {"nll": vae.bernoulli_nll(x, logits), "kl": vae.normal_kl_to_standard(mean, log_var)}
    derivative = jax.grad(lambda beta: combine.weighted_sum(terms, kl=beta).sum())(beta)
    np.testing.assert_allclose(derivative, terms["kl"].sum(), rtol=1e-6)


def test_the_elbo_is_minus_both_terms():
    nll, kl = floats(B, scale=100.0), floats(B, scale=10.0)
    np.testing.assert_array_equal(vae.elbo(nll, kl), -(nll + kl))


def test_one_sample_makes_the_importance_weighted_bound_the_elbo_of_that_sample():
    log_w = floats(1, B, scale=3.0)
    np.testing.assert_allclose(vae.importance_weighted_bound(log_w), log_w[0], rtol=1e-6)


def test_the_bound_lies_between_the_mean_and_the_maximum_of_log_weights():
    log_w = floats(K, B, scale=3.0)
    bound = vae.importance_weighted_bound(log_w)
    assert np.all(bound > log_w.mean(axis=0))
    assert np.all(bound < log_w.max(axis=0))


def test_the_bound_is_not_the_weighted_sum_of_log_weights(x64):
    # That sum has the bound's gradient when its weights are held, and a value too large by log K - H(w~).
    log_w = jnp.asarray(RNG.normal(scale=2.0, size=(K, B)))
    weights = jax.nn.softmax(log_w, axis=0)
    entropy = -jnp.sum(weights * jnp.log(weights), axis=0)
    weighted = jnp.sum(weights * log_w, axis=0)
    excess = np.log(K) - entropy
    np.testing.assert_allclose(weighted - vae.importance_weighted_bound(log_w), excess, rtol=1e-10, atol=1e-12)
    assert np.all(excess > 0.01)


def test_the_gradient_of_the_bound_is_the_normalised_weights():
    log_w = floats(K, B, scale=3.0)
    gradient = jax.grad(lambda log_w: vae.importance_weighted_bound(log_w).sum())(log_w)
    np.testing.assert_allclose(gradient, jax.nn.softmax(log_w, axis=0), rtol=1e-5, atol=1e-7)


def linear_gaussian(x, mean_offset=0.0, num_samples=K):
    """Probabilistic PCA x = W z + noise with orthogonal columns, whose posterior is diagonal: log weights, log p(x)."""
    d, noise_var = 5, 0.3
    w = np.linalg.qr(np.random.default_rng(1).normal(size=(d, 2)))[0] * np.array([2.0, 0.7])
    posterior_var = 1 / (1 + np.sum(w**2, axis=0) / noise_var)
    posterior_mean = posterior_var * (np.asarray(x) @ w) / noise_var
    mean = jnp.asarray(posterior_mean) + mean_offset
    log_var = jnp.broadcast_to(jnp.log(jnp.asarray(posterior_var)), mean.shape)
    eps = jax.random.normal(jax.random.key(4), (num_samples, *mean.shape))
    z = vae.reparameterize(mean, log_var, eps)
    log_noise_var = jnp.full(x.shape, np.log(noise_var))
    nll = jax.vmap(lambda z: vae.normal_nll(x, z @ w.T, log_noise_var))(z)
    log_w = vae.log_importance_weights(-nll, vae.standard_normal_log_prob(z), vae.normal_log_prob(z, mean, log_var))
    log_p = stats.multivariate_normal.logpdf(np.asarray(x), np.zeros(d), w @ w.T + noise_var * np.eye(d))
    return log_w, np.atleast_1d(log_p)


def test_with_the_exact_posterior_every_importance_weight_is_the_evidence(x64):
    x = jnp.asarray(RNG.normal(size=(B, 5)))
    log_w, log_p = linear_gaussian(x)
    np.testing.assert_allclose(log_w, np.broadcast_to(log_p, (K, B)), rtol=1e-10)
    np.testing.assert_allclose(vae.importance_weighted_bound(log_w), log_p, rtol=1e-10)


def test_with_another_posterior_the_bounds_rise_with_k_towards_the_evidence(x64):
    x = jnp.asarray(RNG.normal(size=(1, 5)))
    log_w, log_p = linear_gaussian(x, mean_offset=0.3, num_samples=50 * 400)
    elbo, bound_5, bound_50 = (
        np.mean(jax.vmap(vae.importance_weighted_bound)(log_w.reshape(-1, k, 1))) for k in (1, 5, 50)
    )
    assert elbo + 0.02 < bound_5 < bound_50 - 0.005
    assert bound_50 < log_p[0]


def test_a_discretized_logistic_decoder_is_a_distribution_over_images():
    levels = 5
    images = jnp.stack(jnp.meshgrid(jnp.arange(levels), jnp.arange(levels), indexing="ij"), axis=-1).reshape(-1, 2)
    mean, log_scale = (jnp.tile(jnp.array([p]), (levels**2, 1)) for p in ([0.4, -0.9], [-1.0, 0.3]))
    nll = vae.discretized_logistic_nll(images, mean, log_scale, levels=levels)
    assert float(jnp.exp(-nll).sum()) == pytest.approx(1.0, abs=1e-5)


# Extremes.


@pytest.mark.parametrize("logit", [-100.0, 100.0])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_bernoulli_nll_is_finite_at_extreme_logits(logit, value):
    x, logits = jnp.full((1, 3), value), jnp.full((1, 3), logit)
    nll, gradient = jax.value_and_grad(lambda logits: vae.bernoulli_nll(x, logits).sum())(logits)
    assert float(nll) == pytest.approx(300.0 if value != (logit > 0) else 0.0, abs=1e-5)
    np.testing.assert_allclose(gradient, np.full((1, 3), float(logit > 0) - value), atol=1e-6)


@pytest.mark.parametrize("std", [1e-8, 1e8])
def test_everything_normal_is_finite_at_extreme_standard_deviations(std):
    log_var, ones = jnp.full((B, Z), 2 * np.log(std), jnp.float32), jnp.ones((B, Z))

    def total(mean, log_var):
        z = vae.reparameterize(mean, log_var, ones)
        parts = (
            vae.normal_kl_to_standard(mean, log_var),
            vae.normal_kl(mean, log_var, -mean, log_var),
            vae.normal_nll(ones, mean, log_var),
            vae.normal_log_prob(z, mean, log_var),
        )
        return jnp.stack(parts).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(0.5 * ones, log_var)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize("levels", [17, 256])
def test_discretized_logistic_nll_is_finite_at_a_vanishing_scale(levels):
    x = jnp.arange(levels)[None]
    mean, log_scale = jnp.full((1, levels), 0.1), jnp.full((1, levels), np.log(1e-6), jnp.float32)
    nll_fn = lambda mean, log_scale: vae.discretized_logistic_nll(x, mean, log_scale, levels=levels).sum()  # noqa: E731
    nll, gradients = jax.value_and_grad(nll_fn, argnums=(0, 1))(mean, log_scale)
    assert np.isfinite(nll)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_the_bound_is_finite_at_extreme_log_weights():
    log_w = jnp.array([[-1e5, 1e5], [-1e5 - 1, -1e5]], jnp.float32)
    gradient = jax.grad(lambda log_w: vae.importance_weighted_bound(log_w).sum())(log_w)
    np.testing.assert_allclose(vae.importance_weighted_bound(log_w), [-1e5, 1e5], rtol=1e-5)
    assert np.all(np.isfinite(gradient))


# Shape contract.


def discretized_logistic_nll_17(x, mean, log_scale):
    return vae.discretized_logistic_nll(jnp.abs(4 * x).astype(jnp.int32), mean, log_scale, levels=17)


# name: the function and the shapes of its arguments.
CASES = {
    "reparameterize": (vae.reparameterize, [(B, Z)] * 3),
    "normal_kl_to_standard": (vae.normal_kl_to_standard, [(B, Z)] * 2),
    "normal_kl": (vae.normal_kl, [(B, Z)] * 4),
    "bernoulli_nll": (vae.bernoulli_nll, [(B, 3, 3, 1)] * 2),
    "normal_nll": (vae.normal_nll, [(B, 3, 3, 1)] * 3),
    "discretized_logistic_nll": (discretized_logistic_nll_17, [(B, 3, 3, 1)] * 3),
    "elbo": (vae.elbo, [(B,)] * 2),
    "normal_log_prob": (vae.normal_log_prob, [(B, Z)] * 3),
    "standard_normal_log_prob": (vae.standard_normal_log_prob, [(B, Z)]),
    "log_importance_weights": (vae.log_importance_weights, [(K, B)] * 3),
    "importance_weighted_bound": (vae.importance_weighted_bound, [(K, B)]),
    "resampled_importance_weighted_bound": (vae.resampled_importance_weighted_bound, [(K, B), (2, B)]),
}


@pytest.mark.parametrize("name", CASES)
def test_jit_and_vmap_agree_with_the_plain_call(name):
    function, shapes = CASES[name]
    stacked = [jnp.round(4 * abs(floats(3, *shape))) / 4 for shape in shapes]
    plain = jnp.stack([function(*arguments) for arguments in zip(*stacked, strict=True)])
    np.testing.assert_allclose(jax.vmap(function)(*stacked), plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(*stacked), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if name != "reparameterize"])
def test_a_loss_keeps_the_batch_and_is_float32(name):
    function, shapes = CASES[name]
    value = function(*(floats(*shape) for shape in shapes))
    assert value.shape == ((K, B) if name == "log_importance_weights" else (B,))
    assert value.dtype == jnp.float32


@pytest.mark.parametrize("name", CASES)
def test_a_missing_axis_is_refused(name):
    function, shapes = CASES[name]
    lowest = 1 if name.endswith("nll") else len(shapes[0]) - 1
    with pytest.raises(AssertionError):
        function(*(floats(*shape[:lowest]) for shape in shapes))


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith("nll")])
def test_axes_too_many_are_refused(name):
    function, shapes = CASES[name]
    with pytest.raises(AssertionError):
        function(*(floats(2, 2, *shape) for shape in shapes))


# Of the resampled bound's arguments one has K samples and the other as many as were drawn.
@pytest.mark.parametrize(
    "name", [name for name in CASES if len(CASES[name][1]) > 1 and not name.startswith("resampled")]
)
def test_shapes_that_would_broadcast_are_refused(name):
    function, (first, *rest) = CASES[name]
    with pytest.raises(AssertionError):
        function(floats(1, *first[1:]), *(floats(*shape) for shape in rest))
    with pytest.raises(AssertionError):
        function(floats(*first[:-1], 1), *(floats(*shape) for shape in rest[:-1]), floats(*rest[-1][:-1], 2))


@pytest.mark.parametrize("name", CASES)
def test_integers_are_refused_where_floats_belong(name):
    function, shapes = CASES[name]
    with pytest.raises(AssertionError):
        function(*(jnp.ones(shape, jnp.int32) for shape in shapes))


def test_one_noise_cannot_be_shared_by_a_batch():
    with pytest.raises(AssertionError):
        vae.reparameterize(floats(B, Z), floats(B, Z), floats(1, Z))
    with pytest.raises(AssertionError):
        vae.reparameterize(floats(1, Z), floats(1, Z), floats(B, Z))


def test_resampled_bound_has_the_value_of_the_bound_and_on_average_its_gradient(x64):
    rng = np.random.default_rng(11)
    k, batch = 4, 3
    theta, features = jnp.asarray(rng.normal(size=2)), jnp.asarray(rng.normal(size=(k, batch, 2)))

    def log_weights(theta):
        return jnp.sin(features @ theta) + (features**2) @ theta

    def bound(theta):
        return vae.importance_weighted_bound(log_weights(theta)).sum()

    weights = np.asarray(jax.nn.softmax(log_weights(theta), axis=0))
    expected = 0.0
    for chosen in itertools.product(range(k), repeat=batch):  # every draw of one sample for each example

        def resampled(theta, chosen=chosen):
            log_w = log_weights(theta)
            return vae.resampled_importance_weighted_bound(log_w, log_w[jnp.asarray(chosen), jnp.arange(batch)][None])

        # theta reaches the value through both arguments; its gradient must come through the drawn ones alone.
        value = resampled(theta)
        np.testing.assert_allclose(value.sum(), bound(theta), rtol=1e-12)
        probability = np.prod(weights[np.asarray(chosen), np.arange(batch)])
        expected = expected + probability * np.asarray(jax.grad(lambda t, f=resampled: f(t).sum())(theta))
    np.testing.assert_allclose(expected, jax.grad(bound)(theta), rtol=1e-10)


def test_an_image_scaled_to_the_unit_interval_is_no_level():
    x = jnp.asarray([[0.5, 0.99]])
    with pytest.raises(AssertionError):
        vae.discretized_logistic_nll(x, jnp.zeros_like(x), jnp.zeros_like(x), levels=256)


@pytest.mark.parametrize(("samples", "parameters"), [((B, Z), (Z,)), ((B, Z), (K, B, Z)), ((1, Z), (B, Z))])
def test_a_batch_shares_neither_noise_nor_posterior(samples, parameters):
    for function in (vae.normal_log_prob, lambda eps, mean, log_var: vae.reparameterize(mean, log_var, eps)):
        with pytest.raises(AssertionError):
            function(floats(*samples), floats(*parameters), floats(*parameters))


def test_an_importance_weighted_bound_is_put_together_as_the_module_says(x64):
    x, logits = jnp.asarray(RNG.integers(0, 2, (B, 7)), jnp.float64), jnp.asarray(RNG.normal(size=(K, B, 7)))
    z, mean, log_var = (jnp.asarray(RNG.normal(size=shape)) for shape in ((K, B, Z), (B, Z), (B, Z)))
    log_p_x = -jax.vmap(vae.bernoulli_nll, in_axes=(None, 0))(x, logits)
    log_w = vae.log_importance_weights(log_p_x, vae.standard_normal_log_prob(z), vae.normal_log_prob(z, mean, log_var))
    by_hand = (
        stats.bernoulli.logpmf(np.asarray(x)[None], special.expit(np.asarray(logits))).sum(-1)
        + stats.norm.logpdf(np.asarray(z)).sum(-1)
        - stats.norm.logpdf(np.asarray(z), np.asarray(mean), np.exp(0.5 * np.asarray(log_var))).sum(-1)
    )
    np.testing.assert_allclose(
        vae.importance_weighted_bound(log_w), special.logsumexp(by_hand, axis=0) - np.log(K), rtol=1e-10
    )


def test_the_resampled_bound_takes_one_batch():
    with pytest.raises(AssertionError):
        vae.resampled_importance_weighted_bound(floats(K, B), floats(2, 1))
