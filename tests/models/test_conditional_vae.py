"""The class-conditional VAE: the bound of p(x|y) label by label, and the sum over the classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.losses import vae as losses
from gm_jax.models import decoder_likelihoods, vae
from gm_jax.models.conditional_vae import ConditionalVAE
from gm_jax.networks.class_conditional import LabelledInput
from gm_jax.networks.mlp import MLPDecoder, MLPEncoder
from gm_jax.ops import binarization

X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (6, 2, 2, 1)), jnp.uint8)
LABEL = jnp.array([0, 2, 1, 1, 0, 2])


def conditional(*, latent_dim=2, num_samples=3, objective=None):
    likelihood = decoder_likelihoods.bernoulli(lambda key, x: binarization.static(x), levels=2)
    return ConditionalVAE(
        vae=vae.VAE(
            encoder=LabelledInput(MLPEncoder((5,), latent_dim), 3, flat=True),
            decoder=LabelledInput(MLPDecoder((5,), (2, 2, 1)), 3),
            likelihood=likelihood,
            latent_dim=latent_dim,
            objective=objective or vae.elbo_objective(),
            num_importance_samples=num_samples,
        ),
        num_classes=3,
    )


@pytest.fixture(scope="module")
def params():
    model = conditional()
    shapes = jax.eval_shape(model.init, jax.random.key(0), {"x": X, "label": LABEL})[0]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def test_the_density_sums_to_one_over_all_pictures(params):
    """With very many samples, the bound of p(x) is p(x): 16 pictures of four binary pixels."""
    every = jnp.asarray((np.arange(16)[:, None] >> np.arange(4)) & 1, jnp.uint8).reshape(16, 2, 2, 1)
    # The encoder is the prior, whose weights have a small variance.
    params = {"vae": {**params["vae"], "encoder": jax.tree.map(jnp.zeros_like, params["vae"]["encoder"])}}
    found = conditional(num_samples=4000).log_prob(params, {}, jax.random.key(0), every)
    assert found.kind == "lower_bound"
    assert dict(found.settings)["labels"] == 3
    assert float(jnp.exp(found.log_prob).sum()) == pytest.approx(1.0, abs=0.02)


def test_the_bound_is_the_mean_of_the_classes(params):
    model, key = conditional(), jax.random.key(3)
    each = [model.log_prob_given(params, {}, key, X, jnp.full(6, y)).log_prob for y in range(3)]
    np.testing.assert_allclose(
        model.log_prob(params, {}, key, X).log_prob, np.logaddexp.reduce(each, axis=0) - np.log(3), rtol=1e-5
    )
    assert np.ptp(np.stack(each), axis=0).min() > 1e-3  # the label matters


def test_each_of_several_latents_is_decoded_with_the_label_of_its_example(params):
    model = conditional()
    z = jnp.asarray(np.random.default_rng(2).normal(size=(4, 6, 2)), jnp.float32)
    x = X.astype(jnp.float32)
    found = model.given(LABEL).nll(params, x, z)
    for k in range(4):
        for b in range(6):
            logits = model.vae.decoder.apply({"params": params["vae"]["decoder"]}, z[k, b][None], LABEL[b][None])
            expected = losses.bernoulli_nll(x[b][None], logits)[0]
            np.testing.assert_allclose(found[k, b], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        vae.elbo_objective(),
        vae.iwae_objective(num_samples=3),
        vae.resampled_iwae_objective(num_samples=3, num_resampled=1),
    ],
)
def test_the_loss_depends_on_the_labels_of_the_batch(params, objective):
    model, key = conditional(objective=objective), jax.random.key(1)
    value, _ = model.loss(params, {}, key, {"x": X, "label": LABEL})
    other, _ = model.loss(params, {}, key, {"x": X, "label": (LABEL + 1) % 3})
    assert np.isfinite(value)
    assert abs(float(value - other)) > 1e-4
    with pytest.raises(UserError, match="conditioned on labels, but the data have none"):
        model.loss(params, {}, key, {"x": X})


def test_samples_have_the_label_that_is_asked_for_or_a_random_one(params):
    model, key = conditional(), jax.random.key(5)
    drawn = {y: model.sample(params, {}, key, 3000, label=jnp.full(3000, y)).mean(0) for y in range(3)}
    means = {y: model.decode(params, jax.random.normal(key, (3000, 2)), jnp.full(3000, y)).mean(0) for y in range(3)}
    for y in range(3):
        np.testing.assert_allclose(drawn[y], means[y], atol=0.05)
    mixed = model.sample(params, {}, key, 6000).mean(0)
    np.testing.assert_allclose(mixed, np.mean(list(drawn.values()), axis=0), atol=0.05)
    with pytest.raises(UserError, match="temperature"):
        model.sample(params, {}, key, 2, temperature=0.5)


def test_the_model_learns_what_the_label_says():
    """Pictures that are a function of their label: after training a sample shows its label."""
    import optax

    model = conditional()
    patterns = jnp.asarray([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1]], jnp.uint8).reshape(3, 2, 2, 1)
    label = jnp.arange(48) % 3
    batch = {"x": patterns[label], "label": label}
    params, _ = model.init(jax.random.key(0), batch)
    optimizer = optax.adam(0.03)

    @jax.jit
    def step(carry, key):
        params, state = carry
        gradient = jax.grad(lambda p: model.loss(p, {}, key, batch)[0])(params)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(jax.random.key(1), 200))
    drawn = model.sample(params, {}, jax.random.key(2), 300, label=jnp.arange(300) % 3)
    assert float((drawn == patterns[jnp.arange(300) % 3]).mean()) > 0.95
