"""The class-conditional GAN: the game of p(x|y), its labels, and its density over all classes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.evaluation import kde
from gm_jax.models import adversarial_objectives, gan
from gm_jax.models.conditional_gan import ConditionalGAN
from gm_jax.networks.class_conditional import LabelledInput, ProjectionDiscriminator
from gm_jax.networks.gan_mlp import MLPDiscriminator, MLPGenerator
from gm_jax.networks.normalization import WithReferenceBatch

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
LABEL = jnp.array([0, 2, 1, 1, 0, 2])
KERNELS = gan.Kernels(kde.likelihood, functools.partial(kde.choose_bandwidth, grid=jnp.ones(3)), num_centres=9)


def conditional(**settings):
    return ConditionalGAN(
        gan=gan.GAN(
            **{
                "generator": LabelledInput(MLPGenerator((5,), (2,)), 3),
                "discriminator": ProjectionDiscriminator(MLPDiscriminator((5,)), 3),
                "losses": adversarial_objectives.non_saturating(),
                "scaling": gan.points(),
                "latent_dim": 2,
                "kernels": KERNELS,
                **settings,
            }
        ),
        num_classes=3,
    )


def random_variables(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), {"x": X, "label": LABEL})
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype), shapes)


def test_both_losses_are_those_of_the_game_given_the_labels():
    penalty = {"gradient_penalty": adversarial_objectives.gradient_penalty(weight=2.0)}
    model = conditional(penalties=penalty)
    params, state = random_variables(model)
    batch, key = {"x": X, "label": LABEL}, jax.random.key(4)
    z_key, penalty_key = jax.random.split(key)
    z = jax.random.normal(z_key, (6, 2))
    generator = lambda z, y: model.gan.generator.apply({"params": params["generator"]}, z, y, train=True)  # noqa: E731
    score = lambda x, y: model.gan.discriminator.apply({"params": params["discriminator"]}, x, y, train=True)[0]  # noqa: E731
    fake = generator(z, LABEL)
    game = adversarial_objectives.non_saturating()
    of_penalty = penalty["gradient_penalty"](jax.random.fold_in(penalty_key, 0), lambda x: score(x, LABEL), X, fake)
    expected = game.discriminator(score(X, LABEL), score(fake, LABEL)).mean() + of_penalty.mean()
    np.testing.assert_allclose(model.discriminator_loss(params, state, key, batch)[0], expected, rtol=1e-5)
    fake = generator(jax.random.normal(key, (6, 2)), LABEL)
    expected = game.generator(score(fake, LABEL)).mean()
    np.testing.assert_allclose(model.generator_loss(params, state, key, batch)[0], expected, rtol=1e-5)
    other = model.generator_loss(params, state, key, {**batch, "label": (LABEL + 1) % 3})[0]
    assert abs(float(other - expected)) > 1e-4


def test_a_batch_without_labels_is_refused():
    model = conditional()
    params, state = random_variables(model)
    for loss in (model.discriminator_loss, model.generator_loss):
        with pytest.raises(UserError, match="conditioned on labels, but the data have none"):
            loss(params, state, jax.random.key(0), {"x": X})


def test_samples_have_the_label_that_is_asked_for_or_a_random_one():
    model, key = conditional(), jax.random.key(2)
    params, state = random_variables(model)
    means = [model.sample(params, state, key, 2000, label=jnp.full(2000, y)).mean(0) for y in range(3)]
    assert min(np.abs(means[i] - means[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.1
    np.testing.assert_allclose(model.sample(params, state, key, 6000).mean(0), np.mean(means, axis=0), atol=0.1)
    with pytest.raises(UserError, match="temperature"):
        model.sample(params, state, key, 2, temperature=0.5)


def test_the_density_has_equally_many_centres_of_each_class():
    model = conditional()
    params, state = random_variables(model)
    centres = jax.random.normal(jax.random.key(0), (9, 2))
    centres = model.generate(params, state, centres, jnp.arange(9) % 3)
    expected = kde.likelihood(X, centres, state["bandwidth"]).log_prob
    np.testing.assert_allclose(model.log_prob(params, state, jax.random.key(1), X).log_prob, expected, rtol=1e-5)
    notes = model.calibrate(params, state, jax.random.key(1), X)[1]
    assert float(notes["bandwidth"]) == 1.0
    assert conditional(kernels=None).model.log_prob is None


def test_virtual_batch_norm_and_turns_are_those_of_the_gan():
    generator = LabelledInput(WithReferenceBatch(functools.partial(MLPGenerator, (5,), (2,))), 3)
    model = conditional(generator=generator, feature_matching=True, generator_every=3)
    params, state = model.init(jax.random.key(0), {"x": X, "label": LABEL})
    assert jax.tree.leaves(state["generator"]["reference_batch"])[0].shape == (6, 5)  # latents and labels
    assert np.isfinite(model.generator_loss(params, state, jax.random.key(1), {"x": X, "label": LABEL})[0])
    assert model.model.objectives[1].turns is not None
    assert model.model.sync == dataclasses.replace(model.gan).model.sync
