"""VQ-VAE in worlds of 16 images, where all codes and all images are enumerated."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.errors import UserError
from gm_jax.models import autoregressive, autoregressive_networks, decoder_likelihoods, vq_vae
from gm_jax.models.quantizers import FSQ, EMACodebook
from gm_jax.networks.transformer import CausalTransformer
from gm_jax.ops import binarization
from gm_jax.training import state, step
from gm_jax.training.checkpoint import Checkpointer

KEY = jax.random.key(0)
PLACES = 2
IMAGES = np.array(list(itertools.product([0, 1], repeat=4)), np.uint8).reshape(16, 2, 2, 1)


class Linear(nn.Module):
    """A matrix without a bias, from all numbers to `shape`."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        w = self.param("w", nn.initializers.normal(1.0), (x.shape[1], int(np.prod(self.shape))))
        return (x @ w).reshape(len(x), *self.shape)


class Signs(nn.Module):
    """z of 9 for each pixel of 1, and of -9 for each of 0: what FSQ of two levels rounds to 0 and -1."""

    @nn.compact
    def __call__(self, x):
        return self.param("scale", nn.initializers.constant(9.0), (1, 1)) * (2 * x.reshape(len(x), -1) - 1)


class Certain(nn.Module):
    """Logits of 30 for values of 0, and of -30 for those of -1."""

    @nn.compact
    def __call__(self, e):
        return self.param("scale", nn.initializers.constant(30.0), (1, 1, 1, 1)) * (2 * e.reshape(-1, 2, 2, 1) + 1)


def codes_model(num_codes, num_classes=None):
    network = CausalTransformer((PLACES, 1, 1), num_codes, num_codes, features=8, heads=2, layers=1)
    return autoregressive.Autoregressive(
        network=autoregressive_networks.sequence_network(network.clone(num_classes=num_classes), length=PLACES),
        likelihood=autoregressive_networks.codes(num_codes=num_codes),
        shape=(PLACES, 1, 1),
        num_classes=num_classes,
    )


def family(quantizer=None, *, num_classes=None, **settings):
    quantizer = quantizer or EMACodebook(num_codes=3, dim=2, restart_below=0.0)
    return vq_vae.VQVAE(
        **{
            "encoder": Linear((PLACES * quantizer.dim,)),
            "decoder": Linear((2, 2, 1)),
            "likelihood": decoder_likelihoods.bernoulli(lambda key, x: binarization.static(x), levels=2),
            "quantizer": quantizer,
            "prior": codes_model(quantizer.num_codes, num_classes),
            "vae_steps": 3,
            **settings,
        }
    )


def certain():
    """A model that decodes the codes of each image to that image, and to no other."""
    return family(FSQ(levels=(2, 2)), encoder=Signs(), decoder=Certain())


def created(model, seed=0):
    """Random parameters, also where the network starts at 0, and the state of the codes."""
    batch = {"x": jnp.asarray(IMAGES), "label": jnp.zeros(16, jnp.int32)}
    params, model_state = jax.jit(model.model.init)(jax.random.key(seed), batch)
    leaves, structure = jax.tree.flatten(params["autoregressive"])
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    drawn = [leaf + 0.5 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return {**params, "autoregressive": structure.unflatten(drawn)}, model_state


def all_codes(model):
    grids = itertools.product(range(model.quantizer.num_codes), repeat=PLACES)
    return jnp.asarray(np.array(list(grids), np.int32).reshape(-1, PLACES, 1, 1))


def exact_log_prob(model, params, model_state):
    """Returns log sum_c P(c) p(x | c) [16], and log P(c) of all codes."""
    codes = all_codes(model)
    log_p_c = np.asarray(model.prior.log_prob(params, {}, KEY, codes).log_prob, np.float64)
    e = np.asarray(model.quantizer.vectors(model_state["quantizer"], codes.reshape(len(codes), -1)))
    logits = np.asarray(model.decoder_outputs(params, jnp.asarray(e.reshape(len(codes), -1))), np.float64)
    x = IMAGES.astype(np.float64)[:, None]
    log_p_x = -np.logaddexp(0.0, (1 - 2 * x) * logits[None]).sum(axis=(2, 3, 4))
    return np.logaddexp.reduce(log_p_c[None] + log_p_x, axis=1), log_p_c


MODELS = {
    "codebook": family,
    "fsq": lambda: family(FSQ(levels=(2, 3))),
    "labels": lambda: family(num_classes=3),
    "certain": certain,
}


@pytest.mark.parametrize("name", MODELS)
def test_log_prob_bounds_the_sum_over_all_codes_from_below(name):
    model = MODELS[name]()
    params, model_state = created(model)
    exact, log_p_c = exact_log_prob(model, params, model_state)
    assert np.exp(log_p_c).sum() == pytest.approx(1.0, abs=1e-5)  # over all grids of codes
    assert np.exp(exact).sum() == pytest.approx(1.0, abs=1e-5)
    likelihood = jax.jit(model.model.log_prob)(params, model_state, KEY, jnp.asarray(IMAGES))
    assert (likelihood.kind, likelihood.measure) == ("lower_bound", "binary")
    assert likelihood.settings == ((("labels", 3),) if name == "labels" else ())
    bound = np.asarray(likelihood.log_prob, np.float64)
    assert (bound <= exact + 1e-5).all()
    if name == "certain":
        np.testing.assert_allclose(bound, exact, atol=1e-4)  # one code explains each image
    else:
        assert (bound < exact - 0.01).any()
        assert (exact < 0).all()


def test_the_bound_is_the_term_of_the_codes_of_x():
    model = family()
    params, model_state = created(model)
    codes = model.codes(params, model_state, KEY, jnp.asarray(IMAGES))
    index = np.asarray(codes)[:, 0, 0, 0] * 3 + np.asarray(codes)[:, 1, 0, 0]
    _, log_p_c = exact_log_prob(model, params, model_state)
    mean = np.asarray(model.decode(params, model_state, codes), np.float64)
    log_p_x = np.log(np.where(IMAGES == 1, mean, 1 - mean)).sum(axis=(1, 2, 3))
    log_prob, uniform = (
        bound(params, model_state, KEY, jnp.asarray(IMAGES)) for bound in (model.log_prob, model.uniform_prior_bound)
    )
    np.testing.assert_allclose(log_prob.log_prob, log_p_x + log_p_c[index], rtol=1e-4)
    np.testing.assert_allclose(uniform.log_prob, log_p_x - PLACES * np.log(3), rtol=1e-4)
    assert uniform.kind == "lower_bound"


def test_codes_are_those_of_the_nearest_vectors():
    model = family()
    params, model_state = created(model)
    z = IMAGES.reshape(16, 4).astype(np.float32) @ np.asarray(params["vae"]["encoder"]["w"])
    codebook = np.asarray(model.quantizer.codebook(model_state["quantizer"]))
    distances = np.linalg.norm(z.reshape(16, PLACES, 1, 2) - codebook, axis=-1)
    codes = model.codes(params, model_state, KEY, jnp.asarray(IMAGES))
    np.testing.assert_array_equal(codes[..., 0, 0], distances.argmin(axis=-1))


def test_samples_have_the_probabilities_of_the_model():
    model, num = certain(), 6_000
    params, model_state = created(model)
    x = jax.jit(model.model.sample, static_argnums=3)(params, model_state, KEY, num)
    counts = np.bincount(np.asarray(x).reshape(num, 4) @ [8, 4, 2, 1], minlength=16)
    p = np.exp(exact_log_prob(model, params, model_state)[0])
    assert np.all(np.abs(counts / num - p) < 4 * np.sqrt(p * (1 - p) / num))
    assert np.abs(p - 1 / 16).max() > 0.05
    means = model.sample_mean(params, model_state, KEY, 10)
    np.testing.assert_allclose(means, model.sample(params, model_state, KEY, 10), atol=1e-5)


def test_only_codes_are_decoded():
    model = certain()
    params, model_state = created(model)
    codes = model.codes(params, model_state, KEY, jnp.asarray(IMAGES))
    assert model.decode(params, model_state, codes).shape == IMAGES.shape
    for wrong in (codes.astype(jnp.float32), codes[..., 0], codes[:, :0]):
        with pytest.raises(UserError, match="codes are integers"):
            model.decode(params, model_state, wrong)


def loss_gradients(model, params, model_state, x):
    def loss(encoder, decoder):
        changed = {**params, "vae": {"encoder": encoder, "decoder": decoder}}
        return model.vae_loss(changed, model_state, KEY, {"x": x})[0]

    return jax.grad(loss, argnums=(0, 1))(params["vae"]["encoder"], params["vae"]["decoder"])


def test_the_encoder_gets_the_gradient_of_the_decoder_at_the_codes_and_beta_times_that_of_the_commitment():
    model, x = family(), jnp.asarray(IMAGES)
    params, model_state = created(model)
    pixels = IMAGES.reshape(16, 4).astype(np.float32)
    z = jnp.asarray(pixels @ np.asarray(params["vae"]["encoder"]["w"]))
    e = model.quantizer.quantize(model_state["quantizer"], z.reshape(-1, 2))[1].reshape(z.shape)

    def nll(e):
        return jnp.mean(model.likelihood.nll(jnp.float32(IMAGES), model.decoder_outputs(params, e)))

    at_e = np.asarray(jax.grad(nll)(e))
    for beta in (0.0, 0.25, 2.0):
        found, _ = loss_gradients(dataclasses.replace(model, commitment=beta), params, model_state, x)
        expected = pixels.T @ (at_e + beta * 2 * np.asarray(z - e) / 16)
        np.testing.assert_allclose(found["w"], expected, rtol=1e-3, atol=1e-5)


def test_the_prior_leaves_the_autoencoder_and_the_codes_alone():
    model = family()
    params, model_state = created(model)
    prior_loss = model.model.objectives[1].loss
    gradient = jax.grad(lambda params: prior_loss(params, model_state, KEY, {"x": jnp.asarray(IMAGES)})[0])(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["vae"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient["autoregressive"]))
    value, (after, _) = prior_loss(params, model_state, KEY, {"x": jnp.asarray(IMAGES)})
    codes = model.codes(params, model_state, KEY, jnp.asarray(IMAGES))
    expected = -np.mean(model.prior.log_prob(params, {}, KEY, codes).log_prob)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert after is model_state


def test_metrics_are_the_terms_and_the_perplexity_of_the_codes():
    model = family(FSQ(levels=(2, 3)), commitment=0.0)
    params, model_state = created(model)
    value, (after, metrics) = model.vae_loss(params, model_state, KEY, {"x": jnp.asarray(IMAGES)})
    assert set(metrics) == {"nll", "perplexity"}
    assert value == metrics["nll"]
    _, (_, metrics) = model.vae_loss(params, after, KEY, {"x": jnp.asarray(IMAGES)})
    codes = np.asarray(model.codes(params, model_state, KEY, jnp.asarray(IMAGES))).ravel()
    shares = np.bincount(codes, minlength=6) / len(codes)
    shares = shares[shares > 0]
    assert float(metrics["perplexity"]) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), rel=1e-5)


# Two stages of one run.


def trained(model, num_steps, start=None):
    """The states from the start, step 0 by default, to a step."""
    optimizers = {"vae": optax.adam(1e-2), "autoregressive": optax.adam(1e-2)}
    train = jax.jit(step.make_train_step(model.model, optimizers, seed=0, ema_decay=0.5))
    batches = np.random.default_rng(0).integers(0, 2, (6, 32, 2, 2, 1)).astype(np.uint8)
    history = [state.create(model.model, optimizers, KEY, {"x": batches[0]}, ema=True) if start is None else start]
    for k in range(int(history[0].step), num_steps):
        history.append(train(history[-1], {"x": batches[k]})[0])
    return history


def moved(before, after):
    return [bool(np.any(a != b)) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]


def test_the_autoencoder_and_its_codes_train_first_and_stay_while_the_prior_trains():
    history = trained(family(EMACodebook(num_codes=3, dim=2)), 6)
    start, middle, end = history[0], history[3], history[6]
    assert all(moved(start.params["vae"], middle.params["vae"]))
    assert all(moved(start.model_state["quantizer"]["usage"], middle.model_state["quantizer"]["usage"]))
    assert not any(moved(start.params["autoregressive"], middle.params["autoregressive"]))
    assert not any(moved(middle.params["vae"], end.params["vae"]))
    assert not any(moved(middle.ema_params["vae"], end.ema_params["vae"]))
    assert not any(moved(middle.model_state, end.model_state))
    assert any(moved(middle.params["autoregressive"], end.params["autoregressive"]))


@pytest.mark.slow
def test_a_run_restored_in_either_stage_is_bit_for_bit_the_whole_run(tmp_path):
    model = family(EMACodebook(num_codes=3, dim=2))
    history = trained(model, 6)
    for stop in (2, 4):
        with Checkpointer(tmp_path / str(stop)) as checkpointer:
            checkpointer.save(stop, history[stop])
        with Checkpointer(tmp_path / str(stop)) as checkpointer:
            restored = checkpointer.restore_latest(history[0]).state
        assert not any(moved(history[6], trained(model, 6, start=restored)[-1]))


def test_networks_of_another_size_are_refused():
    batch = {"x": jnp.asarray(IMAGES)}
    with pytest.raises(UserError, match=r"the encoder must return \[1, 4\]"):
        family(encoder=Linear((6,))).model.init(KEY, batch)
    with pytest.raises(UserError, match=r"the decoder must return \[1, 2, 2, 1\]"):
        family(decoder=Linear((2, 2, 2))).model.init(KEY, batch)


def test_labels_are_those_of_the_prior():
    params, model_state = created(family())
    with pytest.raises(UserError, match="no labels"):
        family().sample(params, model_state, KEY, 2, label=jnp.zeros(2, jnp.int32))
    model = family(num_classes=3)
    params, model_state = created(model)
    draws = [model.sample(params, model_state, KEY, 50, label=jnp.full(50, y)) for y in (0, 1)]
    assert np.any(draws[0] != draws[1])
