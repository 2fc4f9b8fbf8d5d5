import dataclasses
import itertools
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.errors import UserError
from gm_jax.models import decoder_likelihoods, vae
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder
from gm_jax.ops import binarization

BERNOULLI = decoder_likelihoods.bernoulli(lambda key, x: binarization.threshold(x, levels=17), levels=17)
LIKELIHOODS = {
    "bernoulli": BERNOULLI,
    "normal_fixed": decoder_likelihoods.normal(levels=17, log_var=-2.0),
    "normal_learned": decoder_likelihoods.normal(levels=17),
    "discretized_logistic": decoder_likelihoods.discretized_logistic(levels=17),
}
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS.keys())


def images(num=6, shape=(8, 8, 1), levels=17):
    return jnp.asarray(np.random.default_rng(3).integers(0, levels, (num, *shape)), jnp.uint8)


def mlp_vae(likelihood=BERNOULLI, *, shape=(8, 8, 1), objective=None, **settings):
    return vae.VAE(
        encoder=MLPEncoder((16,), 3),
        decoder=MLPDecoder((16,), shape, likelihood.outputs_per_dim),
        likelihood=likelihood,
        latent_dim=3,
        objective=vae.elbo_objective() if objective is None else objective,
        **settings,
    )


def random_params(bound, x, scale=0.3):
    """Parameters of the shapes that init gives, none at zero; nothing is compiled for them."""
    params, _ = jax.eval_shape(bound.model.init, jax.random.key(0), {"x": x})
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype), params)


def loss_of(bound, params, x, key):
    return jax.jit(bound.model.objectives[0].loss)(params, {}, key, {"x": x})


def log_prob_of(bound, params, x, key):
    return jax.jit(bound.model.log_prob)(params, {}, key, x).log_prob


def elbo_of(bound, params, x, key):
    return jax.jit(bound.elbo)(params, {}, key, x).log_prob


# --- Objectives ---


def test_beta_one_is_the_negative_elbo_bit_for_bit():
    bound = mlp_vae()
    loss, (_, metrics) = loss_of(bound, random_params(bound, images()), images(), jax.random.key(5))
    assert loss == -metrics["elbo"]
    np.testing.assert_allclose(metrics["elbo"], -metrics["nll"] - metrics["kl"], rtol=1e-6)


def test_beta_weights_the_kl_and_not_the_reported_elbo():
    plain, weighted = mlp_vae(), mlp_vae(objective=vae.elbo_objective(beta=4.0))
    params, key = random_params(plain, images()), jax.random.key(5)
    loss, (_, metrics) = loss_of(plain, params, images(), key)
    weighted_loss, (_, weighted_metrics) = loss_of(weighted, params, images(), key)
    np.testing.assert_allclose(weighted_loss - loss, 3.0 * metrics["kl"], rtol=1e-5)
    np.testing.assert_allclose(weighted_metrics["elbo"], metrics["elbo"])


def test_the_elbo_objective_averages_the_nll_over_its_samples():
    mean, log_var = jnp.asarray([[0.5, -1.0]]), jnp.asarray([[0.2, -0.4]])
    loss, _ = vae.elbo_objective(num_samples=100_000)(jax.random.key(0), mean, log_var, lambda z: (z**2).sum(-1))
    second_moment = np.sum(np.exp(log_var) + mean**2)
    kl = 0.5 * np.sum(np.exp(log_var) + mean**2 - 1.0 - log_var)
    np.testing.assert_allclose(loss, second_moment + kl, atol=0.03)


def spy(drawn):
    def nll_fn(z):
        drawn.append(np.asarray(z))
        return (z**2).sum(-1)

    return nll_fn


def test_iwae_draws_each_sample_with_its_own_noise():
    drawn = []
    mean, log_var = jnp.zeros((3, 2)), jnp.zeros((3, 2))
    vae.iwae_objective(num_samples=4)(jax.random.key(0), mean, log_var, spy(drawn))
    (z,) = drawn
    assert z.shape == (4, 3, 2)
    assert len(np.unique(z)) == z.size


def test_iwae_is_the_log_mean_weight_of_its_samples():
    drawn = []
    mean, log_var = jax.random.normal(jax.random.key(0), (2, 3, 2))
    loss, metrics = vae.iwae_objective(num_samples=4)(jax.random.key(1), mean, log_var, spy(drawn))
    (z,) = drawn
    log_q = stats.norm(np.asarray(mean), np.exp(0.5 * np.asarray(log_var))).logpdf(z).sum(-1)
    log_w = -(z**2).sum(-1) + stats.norm.logpdf(z).sum(-1) - log_q
    bound = np.log(np.exp(log_w).mean(0)).mean()
    np.testing.assert_allclose([-loss, metrics["iw_bound"]], [bound, bound], rtol=1e-5)
    np.testing.assert_allclose(metrics["elbo"], log_w.mean(), rtol=1e-5)


def test_iwae_of_one_sample_is_the_single_sample_elbo(x64):
    # log p(x|z) - log q(z|x)/p(z), whose constants cancel, of the z that was drawn; no KL in closed form.
    drawn = []
    mean, log_var = jax.random.normal(jax.random.key(0), (2, 3, 2))
    loss, metrics = vae.iwae_objective(num_samples=1)(jax.random.key(1), mean, log_var, spy(drawn))
    z, mean, log_var = np.asarray(drawn[0][0]), np.asarray(mean), np.asarray(log_var)
    eps = (z - mean) * np.exp(-0.5 * log_var)
    reconstruction, kl_sample = -(z**2).sum(-1), 0.5 * (z**2 - eps**2 - log_var).sum(-1)
    expected = (reconstruction - kl_sample).mean()
    np.testing.assert_allclose(-loss, expected, rtol=1e-12)
    np.testing.assert_allclose([metrics["elbo"], metrics["iw_bound"]], [expected] * 2, rtol=1e-12)


def test_resampled_iwae_estimates_the_gradient_of_iwae_without_bias():
    x, k = images(2), 3
    plain, resampled = (
        mlp_vae(objective=objective)
        for objective in (vae.iwae_objective(num_samples=k), vae.resampled_iwae_objective(num_samples=k))
    )
    params = random_params(plain, x, scale=0.2)

    def gradients(bound, count):
        def one(key):
            return jax.grad(lambda p: bound.model.objectives[0].loss(p, {}, key, {"x": x})[0])(params)

        keys = jax.random.split(jax.random.key(7), count)
        return np.concatenate(
            [np.asarray(leaf).reshape(count, -1) for leaf in jax.tree.leaves(jax.jit(jax.vmap(one))(keys))], axis=1
        )

    exact, estimate = gradients(plain, 2000), gradients(resampled, 2000)
    difference = exact.mean(0) - estimate.mean(0)
    error = np.sqrt((exact.var(0) + estimate.var(0)) / 2000)
    moved = error > 0
    assert moved.sum() > 100
    z = difference[moved] / error[moved]
    assert np.abs(z).max() < 6.0
    assert 0.5 < z.std() < 1.5


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        *((name, vae.elbo_objective(beta=2.0)) for name in LIKELIHOODS),
        ("bernoulli", vae.iwae_objective(num_samples=3)),
        ("bernoulli", vae.resampled_iwae_objective(num_samples=3, num_resampled=2)),
    ],
)
def test_every_parameter_gets_a_gradient(name, objective):
    bound = mlp_vae(LIKELIHOODS[name], objective=objective)
    params = random_params(bound, images())
    grads = jax.jit(jax.grad(lambda p: loss_of(bound, p, images(), jax.random.key(5))[0]))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_bfloat16_networks_leave_the_loss_in_float32():
    encoder = MLPEncoder((16,), 3, dtype=jnp.bfloat16)
    decoder = MLPDecoder((16,), (8, 8, 1), dtype=jnp.bfloat16)
    bound = dataclasses.replace(mlp_vae(), encoder=encoder, decoder=decoder)
    params = random_params(bound, images())
    loss, _ = loss_of(bound, params, images(), jax.random.key(5))
    full, _ = loss_of(mlp_vae(), params, images(), jax.random.key(5))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, full, rtol=0.03)


# --- Evaluation ---


def test_log_prob_in_chunks_is_log_prob_at_once():
    bounds = [mlp_vae(num_importance_samples=7, chunk_size=size) for size in (7, 1, 3, 50)]
    params, key = random_params(bounds[0], images()), jax.random.key(4)
    at_once, *chunked = (log_prob_of(bound, params, images(), key) for bound in bounds)
    for values in chunked:
        np.testing.assert_allclose(values, at_once, rtol=1e-5)


def test_the_samples_of_log_prob_differ():
    bound = mlp_vae(num_importance_samples=1), mlp_vae(num_importance_samples=2)
    params, key = random_params(bound[0], images(), scale=1.0), jax.random.key(4)
    one, two = (log_prob_of(b, params, images(), key) for b in bound)
    assert (np.abs(one - two) > 1e-4).all()


def test_the_kind_and_settings_of_a_likelihood_pass_through_jit():
    bound = mlp_vae(num_importance_samples=5, num_elbo_samples=3)
    params = random_params(bound, images())
    for function, settings in ((bound.model.log_prob, (("K", 5),)), (bound.elbo, (("L", 3),))):
        likelihood = jax.jit(function)(params, {}, jax.random.key(4), images())
        assert likelihood.kind == "lower_bound"
        assert likelihood.settings == settings
        assert likelihood.log_prob.shape == (6,)


@pytest.mark.parametrize(
    ("likelihood", "levels", "shape"),
    [
        (decoder_likelihoods.bernoulli(lambda key, x: binarization.static(x), levels=2), 2, (2, 2, 1)),
        (decoder_likelihoods.discretized_logistic(levels=3), 3, (1, 3, 1)),
    ],
    ids=["bernoulli", "discretized_logistic"],
)
def test_probabilities_of_all_images_sum_to_one(likelihood, levels, shape):
    # exp of the bound estimates p(x) without bias, so the sum estimates 1, from either side.
    size = int(np.prod(shape))
    x = np.asarray(list(itertools.product(range(levels), repeat=size)), np.uint8).reshape(-1, *shape)
    bound = mlp_vae(likelihood, shape=shape, num_importance_samples=2000, chunk_size=500)
    params = random_params(bound, jnp.asarray(x))
    # An encoder close to the prior: the weights stay near p(x|z), and their mean has a standard error to rely on.
    params["vae"]["encoder"] = jax.tree.map(lambda leaf: 0.1 * leaf, params["vae"]["encoder"])
    log_prob = jax.jit(bound.model.log_prob)
    totals = [np.exp(log_prob(params, {}, jax.random.key(i), jnp.asarray(x)).log_prob).sum() for i in range(8)]
    error = np.std(totals, ddof=1) / np.sqrt(len(totals))
    assert error < 0.01
    assert abs(np.mean(totals) - 1.0) < 5 * error


def test_with_one_key_both_bounds_binarize_the_data_alike():
    seen = []

    def binarize(key, x):
        seen.append(binarization.dynamic(x, jax.random.uniform(key, x.shape), levels=17))
        return seen[-1]

    bound = mlp_vae(decoder_likelihoods.bernoulli(binarize, levels=17), num_importance_samples=2)
    params = random_params(bound, images())
    seen.clear()
    for likelihood_fn, seed in ((bound.model.log_prob, 1), (bound.elbo, 1), (bound.elbo, 2)):
        likelihood_fn(params, {}, jax.random.key(seed), images())
    assert (seen[0] == seen[1]).all()
    assert (seen[0] != seen[2]).any()


# --- Samples ---


@each_likelihood
def test_samples_and_their_means_lie_on_the_scale_of_the_data(likelihood):
    bound = mlp_vae(likelihood)
    params = random_params(bound, images())
    draws = jax.jit(bound.model.sample, static_argnums=3)(params, {}, jax.random.key(1), 5)
    means = jax.jit(bound.sample_mean, static_argnums=3)(params, {}, jax.random.key(1), 5)
    assert draws.shape == means.shape == (5, 8, 8, 1)
    assert draws.dtype == jnp.uint8
    assert means.dtype == jnp.float32
    assert 0 <= means.min() <= means.max() <= 16
    assert draws.max() <= 16


def test_points_are_modelled_unscaled():
    likelihood = decoder_likelihoods.normal(levels=None)
    bound = mlp_vae(likelihood, shape=(2,))
    x = jax.random.normal(jax.random.key(0), (4, 2))
    params = random_params(bound, x)
    draws = bound.model.sample(params, {}, jax.random.key(1), 7)
    assert draws.shape == (7, 2)
    assert draws.dtype == jnp.float32
    outputs = jnp.asarray([[0.5, -0.3, 0.1, -0.2]])
    std = np.exp(0.5 * np.asarray([0.1, -0.2]))
    np.testing.assert_allclose(
        likelihood.nll(x[:1], outputs), -stats.norm([0.5, -0.3], std).logpdf(x[0]).sum(), rtol=1e-3
    )


def test_a_sample_and_its_mean_come_from_the_same_latents():
    bound = mlp_vae(decoder_likelihoods.normal(levels=None, log_var=-20.0), shape=(2,))
    params = random_params(bound, jnp.zeros((1, 2)))
    draws = bound.model.sample(params, {}, jax.random.key(1), 50)
    np.testing.assert_allclose(draws, bound.sample_mean(params, {}, jax.random.key(1), 50), atol=1e-3)
    assert draws.std() > 0.1


def test_a_label_is_refused():
    bound = mlp_vae()
    params = random_params(bound, images())
    with pytest.raises(UserError, match="no labels"):
        bound.model.sample(params, {}, jax.random.key(1), 2, label=jnp.zeros(2, jnp.int32))


# --- The contract with the networks ---


def test_a_shape_error_names_the_method_of_the_family():
    bound = mlp_vae()
    params = random_params(bound, images())
    with pytest.raises(Exception, match="shape") as error:
        bound.model.objectives[0].loss(params, {}, jax.random.key(0), {"x": images(shape=(4, 4, 1))})
    names = [frame.f_code.co_qualname for frame, _ in traceback.walk_tb(error.value.__traceback__)]
    assert "VAE.loss" in names
    assert not [name for name in names if name.startswith("vae.<locals>")]


def test_replace_changes_an_evaluation_number_and_nothing_else():
    bound = mlp_vae(num_importance_samples=7)
    few = dataclasses.replace(bound, num_importance_samples=2)
    params, key = random_params(bound, images()), jax.random.key(5)
    assert few.log_prob(params, {}, key, images()).settings == (("K", 2),)
    assert bound.log_prob(params, {}, key, images()).settings == (("K", 7),)
    assert loss_of(few, params, images(), key)[0] == loss_of(bound, params, images(), key)[0]


def test_networks_that_do_not_fit_are_refused_at_init():
    x = {"x": images()}
    too_few = dataclasses.replace(mlp_vae(), likelihood=decoder_likelihoods.discretized_logistic(levels=17))
    with pytest.raises(UserError, match=r"the decoder must return \[1, 8, 8, 2\] .* returns \[1, 8, 8, 1\]"):
        jax.eval_shape(too_few.model.init, jax.random.key(0), x)
    other_latents = dataclasses.replace(mlp_vae(), encoder=MLPEncoder((4,), 2))
    with pytest.raises(UserError, match=r"the encoder must return \[1, 3\] and .* returns \[1, 2\] and \[1, 2\]"):
        jax.eval_shape(other_latents.model.init, jax.random.key(0), x)


def test_the_loss_is_the_same_under_jit_and_vmap():
    bound = mlp_vae()
    params = random_params(bound, images())
    keys = jax.random.split(jax.random.key(5), 2)
    eager = [loss_of(bound, params, images(), key)[0] for key in keys]
    mapped = jax.jit(jax.vmap(lambda key: loss_of(bound, params, images(), key)[0]))(keys)
    np.testing.assert_allclose(mapped, jnp.stack(eager), rtol=1e-5)
