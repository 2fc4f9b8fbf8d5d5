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


def test_encoder_log_prob_is_the_sum_of_scipy_log_densities_over_the_latents():
    z, mean, log_var = floats(K, B, Z), floats(B, Z), floats(B, Z)
    z64, m, lv = float64(z, mean, log_var)
    expected = stats.norm.logpdf(z64, m, np.exp(0.5 * lv)).sum(axis=-1)
    np.testing.assert_allclose(vae.encoder_log_prob(z, mean, log_var), expected, rtol=1e-5, atol=1e-5)


def test_prior_log_prob_is_the_sum_of_scipy_log_densities_over_the_latents():
    z = floats(K, B, Z)
    expected = stats.norm.logpdf(*float64(z)).sum(axis=-1)
    np.testing.assert_allclose(vae.prior_log_prob(z), expected, rtol=1e-5)


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
    log_ratio = np.asarray(vae.encoder_log_prob(z, mean, log_var) - vae.prior_log_prob(z), np.float64)
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
def test_reparameterised_gradients_of_a_second_moment_are_twice_mean_and_std(mean, std, x64):
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
    score = jax.grad(lambda mean: vae.encoder_log_prob(z, mean, log_var).sum())(mean)
    difference = np.asarray(z**2 * score - pathwise)
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(draws)


def test_the_change_of_variables_of_a_sample_is_its_log_density():
    # log q(z) = log N(eps; 0, I) - log |dz / deps|
    mean, log_var, eps = floats(B, Z), floats(B, Z), floats(B, Z)
    z = vae.reparameterize(mean, log_var, eps)
    expected = vae.prior_log_prob(eps) - 0.5 * log_var.sum(axis=1)
    np.testing.assert_allclose(vae.encoder_log_prob(z, mean, log_var), expected, rtol=1e-4, atol=1e-4)


def test_encoder_log_prob_is_minus_normal_nll():
    z, mean, log_var = (floats(B, Z) for _ in range(3))
    np.testing.assert_allclose(
        vae.encoder_log_prob(z, mean, log_var), -vae.normal_nll(z, mean, log_var), rtol=1e-5, atol=1e-6
    )


def test_k_samples_are_k_calls():
    mean, log_var, eps = floats(B, Z), floats(B, Z), floats(K, B, Z)
    z = vae.reparameterize(mean, log_var, eps)
    assert z.shape == (K, B, Z)
    log_q = vae.encoder_log_prob(z, mean, log_var)
    assert log_q.shape == (K, B)
    for k in range(K):
        np.testing.assert_allclose(z[k], vae.reparameterize(mean, log_var, eps[k]), rtol=1e-6)
        np.testing.assert_allclose(log_q[k], vae.encoder_log_prob(z[k], mean, log_var), rtol=1e-5, atol=1e-5)


def test_parameters_already_broadcast_to_the_samples_change_nothing():
    mean, log_var, eps = floats(B, Z), floats(B, Z), floats(K, B, Z)
    wide = [jnp.broadcast_to(p, (K, B, Z)) for p in (mean, log_var)]
    np.testing.assert_array_equal(vae.reparameterize(*wide, eps), vae.reparameterize(mean, log_var, eps))
    np.testing.assert_array_equal(vae.encoder_log_prob(eps, *wide), vae.encoder_log_prob(eps, mean, log_var))


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_derivative_of_the_loss_in_beta_is_the_kl(beta):
    mean, log_var = floats(B, Z), floats(B, Z)
    x, logits = jnp.ones((B, 7)), floats(B, 7)
    terms = {"nll": vae.bernoulli_nll(x, logits), "kl": vae.normal_kl_to_standard(mean, log_var)}
    derivative = jax.grad(lambda beta: combine.weighted_sum(terms, kl=beta).sum())(beta)
    np.testing.assert_allclose(derivative, terms["kl"].sum(), rtol=1e-6)


def test_the_elbo_is_minus_the_sum_of_both_terms():
    nll, kl = floats(B, scale=100.0), floats(B, scale=10.0)
    np.testing.assert_array_equal(vae.elbo(nll, kl), -(nll + kl))


def test_with_one_sample_the_importance_weighted_bound_is_its_log_weight():
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
    log_w = vae.log_importance_weights(-nll, vae.prior_log_prob(z), vae.encoder_log_prob(z, mean, log_var))
    log_p = stats.multivariate_normal.logpdf(np.asarray(x), np.zeros(d), w @ w.T + noise_var * np.eye(d))
    return log_w, np.atleast_1d(log_p)


def test_with_the_exact_posterior_every_weight_is_the_evidence(x64):
    x = jnp.asarray(RNG.normal(size=(B, 5)))
    log_w, log_p = linear_gaussian(x)
    np.testing.assert_allclose(log_w, np.broadcast_to(log_p, (K, B)), rtol=1e-10)
    np.testing.assert_allclose(vae.importance_weighted_bound(log_w), log_p, rtol=1e-10)


def test_with_another_posterior_the_bound_grows_with_k_towards_the_evidence(x64):
    x = jnp.asarray(RNG.normal(size=(1, 5)))
    log_w, log_p = linear_gaussian(x, mean_offset=0.3, num_samples=50 * 400)
    elbo, bound_5, bound_50 = (
        np.mean(jax.vmap(vae.importance_weighted_bound)(log_w.reshape(-1, k, 1))) for k in (1, 5, 50)
    )
    assert elbo + 0.02 < bound_5 < bound_50 - 0.005
    assert bound_50 < log_p[0]


# Extremes.


@pytest.mark.parametrize("std", [1e-8, 1e8])
def test_everything_normal_is_finite_at_extreme_standard_deviations(std):
    log_var, ones = jnp.full((B, Z), 2 * np.log(std), jnp.float32), jnp.ones((B, Z))

    def total(mean, log_var):
        z = vae.reparameterize(mean, log_var, ones)
        parts = (
            vae.normal_kl_to_standard(mean, log_var),
            vae.normal_kl(mean, log_var, -mean, log_var),
            vae.normal_nll(ones, mean, log_var),
            vae.encoder_log_prob(z, mean, log_var),
        )
        return jnp.stack(parts).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(0.5 * ones, log_var)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


def test_the_bound_is_finite_at_extreme_log_weights():
    log_w = jnp.array([[-1e5, 1e5], [-1e5 - 1, -1e5]], jnp.float32)
    gradient = jax.grad(lambda log_w: vae.importance_weighted_bound(log_w).sum())(log_w)
    np.testing.assert_allclose(vae.importance_weighted_bound(log_w), [-1e5, 1e5], rtol=1e-5)
    assert np.all(np.isfinite(gradient))


# Shape contract.


# name: the function and the shapes of its arguments.
CASES = {
    "reparameterize": (vae.reparameterize, [(B, Z)] * 3),
    "normal_kl_to_standard": (vae.normal_kl_to_standard, [(B, Z)] * 2),
    "normal_kl": (vae.normal_kl, [(B, Z)] * 4),
    "elbo": (vae.elbo, [(B,)] * 2),
    "encoder_log_prob": (vae.encoder_log_prob, [(B, Z)] * 3),
    "prior_log_prob": (vae.prior_log_prob, [(B, Z)]),
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
def test_a_loss_keeps_the_batch_axis_and_is_float32(name):
    function, shapes = CASES[name]
    value = function(*(floats(*shape) for shape in shapes))
    assert value.shape == ((K, B) if name == "log_importance_weights" else (B,))
    assert value.dtype == jnp.float32


@pytest.mark.parametrize("name", CASES)
def test_a_missing_axis_is_refused(name):
    function, shapes = CASES[name]
    with pytest.raises(AssertionError):
        function(*(floats(*shape[:-1]) for shape in shapes))


@pytest.mark.parametrize("name", CASES)
def test_extra_axes_are_refused(name):
    function, shapes = CASES[name]
    with pytest.raises(AssertionError):
        function(*(floats(2, 2, *shape) for shape in shapes))


# The two arguments of the resampled bound have different leading sizes: K samples, and those that were drawn.
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


def test_the_resampled_bound_has_the_right_value_and_the_right_mean_gradient(x64):
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


@pytest.mark.parametrize(("samples", "parameters"), [((B, Z), (Z,)), ((B, Z), (K, B, Z)), ((1, Z), (B, Z))])
def test_a_batch_shares_neither_noise_nor_posterior(samples, parameters):
    for function in (vae.encoder_log_prob, lambda eps, mean, log_var: vae.reparameterize(mean, log_var, eps)):
        with pytest.raises(AssertionError):
            function(floats(*samples), floats(*parameters), floats(*parameters))


def test_the_composition_in_the_module_docstring_is_the_bound(x64):
    x, logits = jnp.asarray(RNG.integers(0, 2, (B, 7)), jnp.float64), jnp.asarray(RNG.normal(size=(K, B, 7)))
    z, mean, log_var = (jnp.asarray(RNG.normal(size=shape)) for shape in ((K, B, Z), (B, Z), (B, Z)))
    log_p_x = -jax.vmap(vae.bernoulli_nll, in_axes=(None, 0))(x, logits)
    log_w = vae.log_importance_weights(log_p_x, vae.prior_log_prob(z), vae.encoder_log_prob(z, mean, log_var))
    by_hand = (
        stats.bernoulli.logpmf(np.asarray(x)[None], special.expit(np.asarray(logits))).sum(-1)
        + stats.norm.logpdf(np.asarray(z)).sum(-1)
        - stats.norm.logpdf(np.asarray(z), np.asarray(mean), np.exp(0.5 * np.asarray(log_var))).sum(-1)
    )
    np.testing.assert_allclose(
        vae.importance_weighted_bound(log_w), special.logsumexp(by_hand, axis=0) - np.log(K), rtol=1e-10
    )


def test_the_resampled_bound_refuses_two_batch_sizes():
    with pytest.raises(AssertionError):
        vae.resampled_importance_weighted_bound(floats(K, B), floats(2, 1))
