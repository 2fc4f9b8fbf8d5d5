import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gm_jax.errors import UserError
from gm_jax.models import decoder_likelihoods, diffusion, diffusion_space, latent_diffusion, vae
from gm_jax.networks.diffusion_mlp import DiffusionMLP
from gm_jax.ops import diffusion_process
from gm_jax.samplers.ddpm import ancestral
from gm_jax.training import state, step
from gm_jax.training.checkpoint import Checkpointer
from tests.captioned_model import CAPTIONS, IMAGES, STATE, captioned

KEY = jax.random.key(0)
SCHEDULE = diffusion_process.linear_schedule(40, beta_min=0.5, beta_max=15.0)
MEAN, LOG_VAR = 0.5, -1.2  # of the encoder below: q(z|x) = N(0.5 + 2 x, exp(-1.2)), the same in each dimension


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        mean = MEAN + self.param("slope", nn.initializers.constant(2.0), (1, 1)) * x
        return mean, jnp.full_like(mean, LOG_VAR)


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, z):
        return z + self.param("shift", nn.initializers.constant(0.25), (1, 2))


def composed(prior_network=None, *, vae_steps=3, levels=None, **settings):
    prior = diffusion.Diffusion(
        network=prior_network or DiffusionMLP(8, 1),
        space=diffusion_space.points(),
        schedule=SCHEDULE,
        shape=(2,),
        parameterization=diffusion.v_prediction(),
        sampler=ancestral(SCHEDULE, 40, variance_fn=diffusion_process.transition_variance),
        variance_fn=diffusion_process.transition_variance,
    )
    autoencoder = vae.VAE(
        encoder=Encoder(),
        decoder=Decoder(),
        likelihood=decoder_likelihoods.normal(levels=None, log_var=-1.0),
        latent_dim=2,
        objective=vae.elbo_objective(),
        **settings,
    )
    return latent_diffusion.LatentDiffusion(autoencoder=autoencoder, prior=prior, levels=levels, vae_steps=vae_steps)


def points(num, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(num, 2)), jnp.float32)


def moments(mean, mean_square, count=1):
    values = {"mean": mean, "mean_square": mean_square, "count": count}
    return {"latents": {name: jnp.float32(value) for name, value in values.items()}}


def trained(model, num_steps, start=None):
    """The states from the start, step 0 by default, to a step."""
    txs = {"vae": optax.sgd(1e-3), "diffusion": optax.adam(1e-2)}
    train = jax.jit(step.make_train_step(model.model, txs, seed=0, ema_decay=0.5))
    history = [state.create(model.model, txs, KEY, {"x": points(64)}, ema=True) if start is None else start]
    for k in range(int(history[0].step), num_steps):
        history.append(train(history[-1], {"x": points(64, seed=k)})[0])
    return history


def moved(before, after):
    return [bool(np.any(a != b)) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]


def test_the_vae_trains_first_and_is_fixed_while_the_diffusion_model_trains():
    history = trained(composed(vae_steps=3), 6)
    start, middle, end = history[0], history[3], history[6]
    assert all(moved(start.params["vae"], middle.params["vae"]))
    assert not any(moved(start.params["diffusion"], middle.params["diffusion"]))
    assert not any(moved(middle.params["vae"], end.params["vae"]))
    assert not any(moved(middle.ema_params["vae"], end.ema_params["vae"]))
    assert any(moved(middle.params["diffusion"], end.params["diffusion"]))
    # The scale is learned in the first stage and stays.
    assert all(moved(start.model_state, middle.model_state)[:2])
    assert not any(moved(middle.model_state, end.model_state))


@pytest.mark.slow
def test_a_run_restored_in_either_stage_is_bit_for_bit_the_whole_run(tmp_path):
    model = composed(vae_steps=3)
    history = trained(model, 6)
    for stop in (2, 4):
        with Checkpointer(tmp_path / str(stop)) as checkpointer:
            checkpointer.save(stop, history[stop])
        with Checkpointer(tmp_path / str(stop)) as checkpointer:
            restored = checkpointer.restore_latest(history[0]).state
        assert not any(moved(history[6], trained(model, 6, start=restored)[-1]))


@pytest.mark.slow
def test_scaled_latents_of_the_training_data_have_unit_variance():
    model = composed(vae_steps=400)
    txs = {"vae": optax.sgd(0.0), "diffusion": optax.sgd(0.0)}
    current = state.create(model.model, txs, KEY, {"x": points(256)})
    train = jax.jit(step.make_train_step(model.model, txs, seed=0))
    for k in range(60):
        current, _ = train(current, {"x": points(256, seed=k)})
    np.testing.assert_allclose(model.scale(current.model_state), 1 / np.sqrt(4 + np.exp(LOG_VAR)), rtol=0.01)
    z = jax.jit(model.latents)(current.params, current.model_state, KEY, points(40_000, seed=99))
    np.testing.assert_allclose(np.std(z), 1.0, atol=0.01)


def test_the_moments_are_a_mean_at_first_and_then_forget_a_hundredth_a_step():
    model = composed()
    params, now = model.model.init(KEY, {"x": points(1)})
    loss = jax.jit(model.vae_loss)
    means, mean_squares = [], []
    for k in range(3):
        x = points(32, seed=k)
        _, (now, _) = loss(params, now, jax.random.key(k), {"x": x})
        # E z and E z^2 over the batch and over q(z|x), whose noise is not drawn.
        z = MEAN + 2 * np.asarray(x, np.float64)
        means.append(z.mean())
        mean_squares.append(np.mean(z**2 + np.exp(LOG_VAR)))
    found = {name: float(value) for name, value in now["latents"].items()}
    expected = {"mean": np.mean(means), "mean_square": np.mean(mean_squares), "count": 3}
    assert found == pytest.approx(expected, rel=1e-5)
    _, (later, _) = loss(params, moments(-1.0, 7.0, count=500), KEY, {"x": x})
    found = {name: float(value) for name, value in later["latents"].items()}
    expected = {"mean": 0.99 * -1.0 + 0.01 * means[2], "mean_square": 0.99 * 7.0 + 0.01 * mean_squares[2], "count": 501}
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_scale_is_one_without_latents_and_finite_for_constant_ones():
    model = composed()
    assert model.scale(moments(0.0, 0.0, count=0)) == 1.0
    assert np.isfinite(model.scale(moments(2.0, 4.0)))
    np.testing.assert_allclose(model.scale(moments(1.0, 5.0)), 0.5, rtol=1e-6)


def test_with_a_standard_normal_prior_the_bound_is_the_elbo():
    # At first it predicts v = 0, the best one of N(0, 1), and its reverse process is exact: with c = 1 the
    # bound is the ELBO, here in closed form.
    model, num = composed(num_elbo_samples=1), 20_000
    params, _ = model.model.init(KEY, {"x": points(1)})
    x = jnp.broadcast_to(jnp.asarray([[0.3, -0.4]]), (num, 2))
    likelihood = jax.jit(model.model.log_prob)(params, moments(0.0, 1.0), KEY, x)
    mean, var = MEAN + 2 * np.asarray([0.3, -0.4]), np.exp(LOG_VAR)
    reconstruction = stats.norm.logpdf([0.3, -0.4], mean + 0.25, np.exp(-0.5)).sum() - 2 * 0.5 * var / np.exp(-1.0)
    kl = 0.5 * np.sum(mean**2 + var - 1 - LOG_VAR)
    found = np.asarray(likelihood.log_prob, np.float64)
    np.testing.assert_allclose(found.mean(), reconstruction - kl, atol=4 * found.std() / np.sqrt(num))
    assert found.std() / np.sqrt(num) < 0.04
    assert likelihood.kind == "lower_bound"
    # The space of the data, and not the space of the latents.
    assert likelihood.settings == (("L", 1), ("space", "R^2"), ("T", 40), ("bound_terms", 39))


def test_the_scale_counts_in_the_bound():
    # With c = 1/2 the same prior of c z is N(0, 4) of z: log p(z) by hand, all else as before.
    model, num = composed(num_elbo_samples=1), 4_000
    params, _ = model.model.init(KEY, {"x": points(1)})
    x = jnp.broadcast_to(jnp.asarray([[0.3, -0.4]]), (num, 2))
    bound = jax.jit(model.model.log_prob)
    gaps = [np.asarray(bound(params, moments(0.0, s), KEY, x).log_prob, np.float64) for s in (1.0, 4.0)]
    mean, var = MEAN + 2 * np.asarray([0.3, -0.4]), np.exp(LOG_VAR)
    expected = np.sum(-np.log(2) + 0.5 * (mean**2 + var) * (1 - 1 / 4))
    difference = gaps[1] - gaps[0]
    np.testing.assert_allclose(difference.mean(), expected, atol=4 * difference.std() / np.sqrt(num))
    assert 4 * difference.std() / np.sqrt(num) < 0.3  # another sign of Z log c is 4 log 2 away


def test_samples_are_unscaled_before_they_are_decoded():
    model = composed()
    params, _ = model.model.init(KEY, {"x": points(1)})
    x = jax.jit(model.model.sample, static_argnums=3)(params, moments(0.0, 9.0), KEY, 20_000)
    # z' is N(0, 1), z is N(0, 9), and the decoder adds 1/4.
    np.testing.assert_allclose(np.mean(x, axis=0), [0.25, 0.25], atol=0.1)
    np.testing.assert_allclose(np.std(x, axis=0), [3.0, 3.0], rtol=0.03)


def test_the_diffusion_loss_does_not_depend_on_the_size_of_latents():
    model = composed()
    params, _ = model.model.init(KEY, {"x": points(1)})
    objective = model.model.objectives[1]
    x = points(5_000)
    doubled = {**params, "vae": jax.tree.map(lambda leaf: leaf, params["vae"])}
    doubled["vae"]["encoder"]["slope"] = 2 * doubled["vae"]["encoder"]["slope"]
    losses = []
    for candidate, slope in ((params, 2.0), (doubled, 4.0)):
        total = slope**2 + np.exp(LOG_VAR)
        losses.append(objective.loss(candidate, moments(MEAN, MEAN**2 + total), KEY, {"x": x})[0])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)


def test_levels_are_drawn_as_levels():
    model = composed(levels=5)
    params, _ = model.model.init(KEY, {"x": points(1)})
    x = model.model.sample(params, moments(0.0, 9.0), KEY, 50)
    assert x.dtype == jnp.uint8
    assert set(np.unique(x)) == set(range(5))


def test_labels_are_refused():
    with pytest.raises(UserError, match="no labels"):
        composed().model.sample({}, moments(0.0, 1.0), KEY, 2, label=jnp.zeros(2, jnp.int32))


def test_latents_of_two_sizes_are_refused():
    model = composed()
    other = dataclasses.replace(model, prior=dataclasses.replace(model.prior, shape=(3,)))
    with pytest.raises(UserError, match=r"have shape \[3\], and those of the autoencoder \[2\]"):
        other.model.init(KEY, {"x": points(4)})


# Latents that are an image, of captioned images of 8 x 8 pixels.


def test_captions_change_samples_and_a_caption_without_words_is_no_caption():
    model, params = captioned()
    sample = jax.jit(model.sample, static_argnums=3)
    with_words, other, without, none = (
        np.asarray(sample(params, STATE, KEY, 3, label=label))
        for label in (CAPTIONS, CAPTIONS[::-1], jnp.zeros_like(CAPTIONS), None)
    )
    assert with_words.shape == (3, 8, 8, 3)
    assert np.any(with_words != other)
    np.testing.assert_array_equal(without, none)


def guided(weight, negative=None):
    model, params = captioned()
    prior = dataclasses.replace(model.prior, guidance=weight, negative=negative)
    return np.asarray(prior.sample(params, {}, KEY, 3, label=CAPTIONS))


def test_no_guidance_is_the_conditional_model_bit_for_bit_and_null_is_no_negative_caption():
    model, params = captioned()
    x, t = jnp.ones((3, 4, 4, 2)), jnp.full(3, 7, jnp.int32)
    prior = dataclasses.replace(model.prior, guidance=0.0)
    prediction = prior.predict_fn(params, {}, CAPTIONS)(x, t)
    output = prior.output(params, x, t, CAPTIONS)
    expected = prior.parameterization.predict(x, output, SCHEDULE.signal(t), SCHEDULE.noise(t))
    for found, wanted in zip(prediction, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(guided(3.0), guided(3.0, np.zeros(3, np.int32)))
    assert np.abs(guided(3.0) - guided(3.0, np.array([5, 1, 0]))).max() > 1e-3
    np.testing.assert_array_equal(guided(0.0), guided(0.0, np.array([5, 1, 0])))


def test_strength_0_returns_the_decoded_latents_and_1_a_sample():
    model, params = captioned()
    edit = jax.jit(model.edit, static_argnames="strength")
    mean, _ = model.autoencoder.encode(params, KEY, IMAGES)
    decoded = np.clip(np.rint(model.autoencoder.decode(params, mean)), 0, 255)
    found = np.asarray(edit(params, STATE, KEY, IMAGES, strength=0.0), np.int32)
    assert np.abs(found - decoded).max() <= 1  # a value at half a level may be rounded to either side
    assert np.mean(found != decoded) < 0.01
    sample = model.sample(params, STATE, KEY, 3, label=CAPTIONS)
    np.testing.assert_array_equal(edit(params, STATE, KEY, IMAGES, strength=1.0, label=CAPTIONS), sample)


def test_what_the_mask_keeps_is_the_picture_itself():
    model, params = captioned()
    mask = np.zeros((8, 8), bool)
    mask[:3, :5] = True
    part = np.asarray(model.edit(params, STATE, KEY, IMAGES, strength=1.0, mask=jnp.asarray(mask), label=CAPTIONS))
    np.testing.assert_array_equal(part[:, ~mask], IMAGES[:, ~mask])
    assert np.mean(part[:, mask] != np.asarray(IMAGES)[:, mask]) > 0.9


def test_the_bound_of_images_of_latents_is_finite_and_of_the_data():
    model, params = captioned()
    likelihood = jax.jit(model.log_prob)(params, STATE, KEY, IMAGES)
    assert likelihood.log_prob.shape == (3,)
    assert np.isfinite(likelihood.log_prob).all()
    assert dict(likelihood.settings)["space"] == "[0,255]^192"
    own = model.autoencoder_elbo(params, STATE, KEY, IMAGES)
    np.testing.assert_array_equal(own.log_prob, model.autoencoder.elbo(params, {}, KEY, IMAGES).log_prob)
