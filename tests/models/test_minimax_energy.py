"""The minimax game of a normal energy and a normal generator: value, bound and optimum are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.evaluation.partition import log_partition
from gm_jax.models import energy_space, flow
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.energy_chains import Chains
from gm_jax.models.energy_partition import Partition
from gm_jax.models.minimax_energy import MinimaxEnergyModel
from gm_jax.networks.affine_flow import AffineFlow
from gm_jax.networks.energy import EnergyMLP
from tests.models.test_energy import Quadratic
from tests.models.test_noise_contrastive import LOG_Z, MEAN, STD, M, S, W, draws

Q_MEAN, Q_STD = np.array([0.3, -0.4], np.float32), 0.9
KL = 2 * (np.log(STD / Q_STD) + Q_STD**2 / (2 * STD**2) - 0.5) + np.sum((Q_MEAN - MEAN) ** 2) / (2 * STD**2)


def family(network=None, **settings):
    energy = EnergyBasedModel(
        network=network or Quadratic(),
        space=energy_space.points(),
        shape=(2,),
        chains=Chains(num_persistent=None),
        base_std=S,
        partition=Partition(summarize=log_partition, num_cells=200),
    )
    generator = flow.Flow(
        network=AffineFlow((2,)), prior=flow.standard_normal(), dequantization=flow.no_dequantization()
    )
    return MinimaxEnergyModel(energy=energy, generator=generator, **settings)


def players(mean=Q_MEAN, std=Q_STD):
    generator = {
        "mean": jnp.asarray(mean),
        "log_diagonal": jnp.full(2, jnp.log(jnp.float32(std))),
        "below": jnp.zeros(1),
    }
    return {"energy": {"w": jnp.float32(W), "m": jnp.asarray(M)}, "generator": generator}


def state_of(model):
    return model.init(jax.random.key(0), {"x": draws(jax.random.key(1), 50)})[1]


def test_the_value_is_the_nll_minus_the_divergence_of_the_generator():
    model = family()
    state, x = state_of(model), draws(jax.random.key(1), 400_000)
    _, (_, metrics) = jax.jit(model.energy_loss)(players(), state, jax.random.key(2), {"x": x})
    nll = -np.mean(jax.scipy.stats.norm.logpdf(x, MEAN[None], STD).sum(axis=1))
    assert abs(float(metrics["value"]) - (nll - KL)) < 0.01
    assert KL > 0.1


def test_the_bound_on_log_z_is_below_it_by_the_divergence_and_closes_at_the_model():
    model = family(num_samples=200_000)
    state, x = state_of(model), draws(jax.random.key(1), 30)
    before = model.log_prob(players(), state, jax.random.key(0), x)
    assert np.isnan(before.log_prob).all()
    log_p = jax.scipy.stats.norm.logpdf(x, MEAN[None], STD).sum(axis=1)
    for params, gap in ((players(), KL), (players(MEAN, STD), 0.0)):
        prepared, notes = model.calibrate(params, state, jax.random.key(3), x)
        error = float(notes["log_z_bound_of_generator_standard_error"])
        assert abs(float(notes["log_z_bound_of_generator"]) - (LOG_Z - gap)) < 4 * error + 1e-4
        assert abs(float(notes["log_z"]) - LOG_Z) < 1e-3
        found = model.log_prob(params, prepared, jax.random.key(0), x)
        np.testing.assert_allclose(found.log_prob, log_p + gap, atol=4 * error + 1e-3)
        assert (found.kind, found.measure) == ("upper_bound", "continuous")
        assert dict(found.settings) == {"by": "entropy of the generator", "samples": 200_000, "space": "R^2"}
    assert error < 1e-5  # at q = p every sample gives log Z


def test_each_player_has_the_gradient_of_its_side_of_the_value():
    model = family(slope_penalty=0.3)
    params, state = players(), state_of(model)
    batch = {"x": draws(jax.random.key(1), 200)}
    key = jax.random.key(2)
    z = jax.random.normal(key, (200, 2))  # the noise of the generator in its own loss

    def generator_side(params):
        h = params["generator"]["mean"][None] + jnp.exp(params["generator"]["log_diagonal"])[None] * z
        entropy = jnp.sum(params["generator"]["log_diagonal"]) + 0.5 * jnp.mean(jnp.sum(z**2, axis=1))
        energy = 0.5 * W * jnp.sum((h - M[None]) ** 2, axis=1) + jnp.sum(h**2, axis=1) / (2 * S**2)
        return jnp.mean(energy) - entropy

    found = jax.grad(lambda p: model.generator_loss(p, state, key, batch)[0])(params)["generator"]
    expected = jax.grad(generator_side)(params)["generator"]
    for name in ("mean", "log_diagonal"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
    drawn, _ = model.generate(params, state, jax.random.split(key)[1], 200)

    def energy_side(params):
        def slope(h):
            return params["energy"]["w"] * (h - params["energy"]["m"][None]) + h / S**2

        data, model_energy = (model.energy.energy(params, state, h) for h in (batch["x"], drawn))
        penalty = 0.3 * jnp.mean(jnp.sum(slope(batch["x"]) ** 2, axis=1))
        return jnp.mean(data) - jnp.mean(model_energy) + penalty

    found = jax.grad(lambda p: model.energy_loss(p, state, key, batch)[0])(params)
    expected = jax.grad(energy_side)(params)["energy"]
    for name in ("w", "m"):
        np.testing.assert_allclose(found["energy"][name], expected[name], rtol=1e-4, atol=1e-5)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(found["generator"]))


def test_a_generator_that_diverges_is_not_a_number():
    model = family()
    state, batch = state_of(model), {"x": draws(jax.random.key(1), 20)}
    far = players(mean=np.array([1e3, 0.0], np.float32))
    assert np.isfinite(float(model.energy_loss(players(), state, jax.random.key(2), batch)[1][1]["energy_gap"]))
    assert np.isnan(float(model.energy_loss(far, state, jax.random.key(2), batch)[1][1]["energy_gap"]))


def test_samples_are_the_generators():
    model = family()
    found = model.sample(players(), state_of(model), jax.random.key(3), 20_000)
    np.testing.assert_allclose(np.mean(found, axis=0), Q_MEAN, atol=0.03)
    np.testing.assert_allclose(np.std(found, axis=0), Q_STD, atol=0.03)


def test_the_bound_for_images_is_on_the_density_of_noisy_levels():
    model = family(EnergyMLP((8,)), num_samples=50)
    energy = dataclasses.replace(
        model.energy,
        space=energy_space.images(levels=3),
        shape=(2, 2, 1),
        base_std=1.0,
        partition=Partition(summarize=log_partition, num_temperatures=3, num_runs=5),
    )
    generator = dataclasses.replace(model.generator, network=AffineFlow((2, 2, 1)))
    model = dataclasses.replace(model, energy=energy, generator=generator)
    x = jax.random.randint(jax.random.key(0), (6, 2, 2, 1), 0, 3).astype(jnp.uint8)
    params, state = model.init(jax.random.key(0), {"x": x})
    state, _ = jax.jit(model.calibrate)(params, state, jax.random.key(0), x)
    found = model.log_prob(params, state, jax.random.key(1), x)
    assert (found.kind, found.measure) == ("upper_bound", "continuous")
    assert dict(found.settings) == {"by": "entropy of the generator", "samples": 50, "space": "[-1,1]^4"}
    assert model.sample(params, state, jax.random.key(2), 3).dtype == jnp.uint8
