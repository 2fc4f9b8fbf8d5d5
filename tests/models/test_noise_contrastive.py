"""Noise-contrastive estimation of a normal density, whose log Z is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.evaluation.partition import log_partition
from gm_jax.models import energy_space, flow
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.energy_chains import Chains
from gm_jax.models.energy_partition import Partition
from gm_jax.models.noise_contrastive import NoiseContrastiveModel
from gm_jax.networks.affine_flow import AffineFlow
from gm_jax.networks.energy import EnergyMLP
from tests.models.test_energy import Quadratic

W, M, S = 1.5, np.array([0.5, -1.0], np.float32), 2.0
PRECISION = W + 1 / S**2
MEAN, STD = W * M / PRECISION, PRECISION**-0.5
# The energy at the mean, which the normal density does not have.
LOG_Z = np.log(2 * np.pi * STD**2) - 0.5 * W * np.sum((MEAN - M) ** 2) - np.sum(MEAN**2) / (2 * S**2)


def family(network=None, *, noise_ratio=1):
    energy = EnergyBasedModel(
        network=network or Quadratic(),
        space=energy_space.points(),
        shape=(2,),
        chains=Chains(step_size=0.05, num_persistent=None, sampling_steps=200),
        base_std=S,
        partition=Partition(summarize=log_partition, num_cells=200),
    )
    noise = flow.Flow(network=AffineFlow((2,)), prior=flow.standard_normal(), dequantization=flow.no_dequantization())
    return NoiseContrastiveModel(energy=energy, noise=noise, noise_ratio=noise_ratio)


def draws(key, n):
    return MEAN[None] + STD * jax.random.normal(key, (n, 2))


def true_params(params, offset=0.0):
    energy = {"w": jnp.float32(W), "m": jnp.asarray(M), "log_normalizer": jnp.float32(offset - LOG_Z)}
    return {**params, "energy": energy}


@pytest.mark.parametrize("noise_ratio", [1, 4])
def test_the_gradient_is_zero_at_the_true_energy_and_normaliser_and_nowhere_else(noise_ratio):
    model = family(noise_ratio=noise_ratio)
    params, state = model.init(jax.random.key(0), {"x": draws(jax.random.key(1), 200)})

    @jax.jit
    def gradient(params, key):
        data_key, key = jax.random.split(key)
        found = jax.grad(lambda p: model.loss(p, state, key, {"x": draws(data_key, 500)})[0])(params)["energy"]
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found)])

    def mean_and_error(params):
        found = np.asarray(jax.lax.map(lambda key: gradient(params, key), jax.random.split(jax.random.key(2), 400)))
        return found.mean(axis=0), found.std(axis=0) / 20

    mean, error = mean_and_error(true_params(params))
    assert np.all(np.abs(mean) < 4 * error)
    assert np.all(error < 0.01)
    for offset in (-0.3, 0.3):  # leaves in the order of their names: the normaliser is the first
        mean, error = mean_and_error(true_params(params, offset))
        assert np.sign(offset) * mean[0] > 10 * error[0]


def test_descent_on_the_normaliser_finds_log_z():
    model = family()
    params, state = model.init(jax.random.key(0), {"x": draws(jax.random.key(1), 200)})
    params = true_params(params, offset=1.0)

    @jax.jit
    def descend(params, key):
        def step(c, key):
            data_key, key = jax.random.split(key)
            energy = {**params["energy"], "log_normalizer": c}
            slope = jax.grad(
                lambda c: model.loss(
                    {**params, "energy": {**energy, "log_normalizer": c}}, state, key, {"x": draws(data_key, 2_000)}
                )[0]
            )(c)
            return c - 2.0 * slope, c

        return jax.lax.scan(step, params["energy"]["log_normalizer"], jax.random.split(key, 300))[1]

    path = np.asarray(descend(params, jax.random.key(5)))
    assert abs(path[0] + LOG_Z - 1.0) < 1e-5
    assert abs(path[100:].mean() + LOG_Z) < 0.01


def test_the_first_normaliser_is_an_estimate_of_minus_log_z():
    model = family(EnergyMLP((8,)))
    batch = {"x": draws(jax.random.key(1), 200)}
    params, state = model.init(jax.random.key(0), batch)
    _, notes = model.energy.calibrate(params, state, jax.random.key(0), batch["x"])
    assert abs(float(params["energy"]["log_normalizer"] + notes["log_z"])) < 0.5


def test_the_learned_and_the_computed_normaliser_are_two_likelihoods_that_agree_at_the_truth():
    model = family()
    x = draws(jax.random.key(1), 200)
    params, state = model.init(jax.random.key(0), {"x": x})
    params = true_params(params)
    learned = model.log_prob(params, state, jax.random.key(0), x)
    assert np.isnan(model.energy.log_prob(params, state, jax.random.key(0), x).log_prob).all()
    state, _ = model.energy.calibrate(params, state, jax.random.key(0), x)
    computed = model.energy.log_prob(params, state, jax.random.key(0), x)
    expected = jax.scipy.stats.norm.logpdf(x, MEAN[None], STD).sum(axis=1)
    np.testing.assert_allclose(learned.log_prob, expected, atol=1e-4)
    np.testing.assert_allclose(computed.log_prob, expected, atol=1e-4)
    assert (learned.kind, dict(learned.settings)) == ("estimate", {"normalizer": "learned", "space": "R^2"})
    assert dict(computed.settings)["by"] == "quadrature"


def test_the_noise_maximises_the_likelihood_of_the_data_and_has_no_gradient_from_the_energy():
    model = family()
    batch = {"x": draws(jax.random.key(1), 200)}
    params, state = model.init(jax.random.key(0), batch)
    found, (_, metrics) = model.noise_loss(params, state, jax.random.key(3), batch)
    log_q = model.noise.log_density({"flow": params["noise"]}, state["noise"], batch["x"])
    np.testing.assert_allclose(found, -jnp.mean(log_q), rtol=1e-6)
    assert set(metrics) == {"nll"}
    gradient = jax.grad(lambda p: model.loss(p, state, jax.random.key(3), batch)[0])(params)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(gradient["noise"]))
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient["energy"]))


def test_samples_are_the_energy_based_model():
    model = family()
    params, state = model.init(jax.random.key(0), {"x": draws(jax.random.key(1), 200)})
    found = model.sample(true_params(params), state, jax.random.key(3), 20_000)
    variance = STD**2 / (1 - 0.05 / (4 * STD**2))  # the chains' own, see `samplers.langevin`
    np.testing.assert_allclose(np.mean(found, axis=0), MEAN, atol=4 * STD / np.sqrt(20_000))
    assert abs(float(np.var(found, axis=0).mean()) - variance) < 4 * variance * np.sqrt(2 / 40_000)


def test_images_have_the_measure_of_their_levels():
    model = family(EnergyMLP((8,)))
    energy = dataclasses.replace(model.energy, space=energy_space.images(levels=3), shape=(2, 2, 1), base_std=1.0)
    noise = dataclasses.replace(model.noise, network=AffineFlow((2, 2, 1)))
    model = dataclasses.replace(model, energy=energy, noise=noise)
    x = jax.random.randint(jax.random.key(0), (6, 2, 2, 1), 0, 3).astype(jnp.uint8)
    params, state = model.init(jax.random.key(0), {"x": x})
    found = model.log_prob(params, state, jax.random.key(1), x)
    assert (found.kind, found.measure, dict(found.settings)) == ("estimate", "3 levels", {"normalizer": "learned"})
    h = energy.space.prepare(jax.random.key(1), x)
    inner = energy.energy(params, state, h)
    np.testing.assert_allclose(
        found.log_prob, params["energy"]["log_normalizer"] - inner + 4 * np.log(2 / 3), rtol=1e-5
    )
    assert model.sample(params, state, jax.random.key(2), 3).dtype == jnp.uint8
