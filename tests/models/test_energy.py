"""The deep energy-based model: chains, loss, likelihood and samples compared with a normal density."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.evaluation.partition import log_partition
from gm_jax.models import energy_space
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.energy_chains import Chains
from gm_jax.models.energy_partition import Partition
from gm_jax.networks.energy import EnergyMLP
from gm_jax.samplers import langevin

B = 6


class Quadratic(nn.Module):
    """f(h) = w |h - m|^2 / 2: with the base of variance s^2, E is normal."""

    @nn.compact
    def __call__(self, h, *, train):
        w, m = self.param("w", nn.initializers.ones, ()), self.param("m", nn.initializers.zeros, (2,))
        return 0.5 * w * jnp.sum(jnp.square(h - m[None]), axis=1)


def family(network=None, **settings):
    defaults = {
        "network": network or Quadratic(),
        "space": energy_space.points(),
        "shape": (2,),
        "chains": Chains(num_steps=3, step_size=0.1, num_persistent=2 * B, restart=0.25, sampling_steps=150),
        "base_std": 2.0,
        "partition": Partition(summarize=log_partition, num_cells=200),
    }
    return EnergyBasedModel(**{**defaults, **settings})


def initialised(model):
    batch = {"x": jax.random.normal(jax.random.key(7), (B, 2))}
    params, state = model.init(jax.random.key(0), batch)
    return params, state, batch


def visible(state):
    """What a loss sees of the state on one device: the first block of chains."""
    return {**state, "chains": {**state["chains"], "rows": state["chains"]["rows"][:B]}}


def test_the_log_density_is_that_of_the_normal_whose_energy_it_is():
    model = family()
    params, state, batch = initialised(model)
    params = {"energy": {"w": jnp.float32(1.5), "m": jnp.array([0.5, -1.0])}}
    before = model.log_prob(params, state, jax.random.key(0), batch["x"])
    assert np.isnan(before.log_prob).all()
    state, notes = model.calibrate(params, state, jax.random.key(0), batch["x"])
    found = model.log_prob(params, state, jax.random.key(0), batch["x"])
    precision = 1.5 + 0.25
    mean, std = 1.5 * np.array([0.5, -1.0]) / precision, precision**-0.5
    expected = jax.scipy.stats.norm.logpdf(batch["x"], mean[None], std).sum(axis=1)
    np.testing.assert_allclose(found.log_prob, expected, atol=1e-4)
    assert (found.kind, found.measure) == ("estimate", "continuous")
    assert dict(found.settings) == {"by": "quadrature", "cells": 40_000, "space": "R^2"}
    assert float(notes["log_z"]) == float(state["log_z"]["value"])
    assert not bool(notes["not_converged"])


def test_the_chains_move_by_langevin_dynamics_and_a_share_starts_again():
    model = family()
    params, state, batch = initialised(model)
    seen, key = visible(state), jax.random.key(5)
    _, (after, _) = model.loss(params, seen, key, batch)
    _, restart_key, noise_key, chain_key = jax.random.split(key, 4)
    restarts = np.asarray(jax.random.bernoulli(restart_key, 0.25, (B, 1)))
    start = np.where(restarts, 2.0 * jax.random.normal(noise_key, (B, 2)), seen["chains"]["rows"])
    expected = langevin.langevin(
        chain_key, jnp.asarray(start), lambda h: model.energy(params, state, h), num_steps=3, step_size=0.1
    )
    np.testing.assert_allclose(after["chains"]["rows"], expected, rtol=1e-5)
    assert int(after["chains"]["count"]) == 1
    shares = [model.loss(params, seen, jax.random.key(k), batch)[1][0]["chains"]["rows"] for k in range(3)]
    assert not np.array_equal(shares[0], shares[1])


def test_the_gradient_is_the_difference_of_mean_slopes_at_fixed_chains():
    network = Quadratic()
    model = family(network=network, penalty=0.3)
    params, state, batch = initialised(model)
    seen, key = visible(state), jax.random.key(5)
    rows = model.loss(params, seen, key, batch)[1][0]["chains"]["rows"]

    def surrogate(params):
        data, chains = model.energy(params, state, batch["x"]), model.energy(params, state, rows)
        data_f, chains_f = (network.apply({"params": params["energy"]}, h, train=True) for h in (batch["x"], rows))
        return jnp.mean(data) - jnp.mean(chains) + 0.3 * (jnp.mean(data_f**2) + jnp.mean(chains_f**2))

    found = jax.grad(lambda params: model.loss(params, seen, key, batch)[0])(params)
    expected = jax.grad(surrogate)(params)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_short_runs_start_from_noise_and_keep_no_chains():
    model = family(chains=Chains(num_steps=2, step_size=0.1, num_persistent=None))
    params, state, batch = initialised(model)
    assert set(state) == {"network", "log_z"}
    _, (after, metrics) = model.loss(params, state, jax.random.key(5), batch)
    assert set(after) == {"network", "log_z"}
    assert set(metrics) == {"data_energy", "model_energy", "energy_gap"}


def test_training_finds_the_moments_of_the_data():
    # E is normal with precision w + 1/4 and mean w m / (w + 1/4): the NLL is convex, and its minimum is known.
    model = family(chains=Chains(num_steps=15, step_size=0.2, num_persistent=400, restart=0.0))
    data = jnp.array([0.6, -0.3])[None] + 0.7 * jax.random.normal(jax.random.key(1), (4_000, 2))
    params, state = model.init(jax.random.key(0), {"x": data[:1]})

    @jax.jit
    def step(carry, i):
        params, state = carry
        batch = {"x": jax.lax.dynamic_slice_in_dim(data, (i % 10) * 400, 400)}
        (_, (state, _)), gradient = jax.value_and_grad(model.loss, has_aux=True)(
            params, state, jax.random.fold_in(jax.random.key(2), i), batch
        )
        return (jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), state), None

    (params, state), _ = jax.lax.scan(step, (params, state), jnp.arange(400))
    w, m = params["energy"]["w"], params["energy"]["m"]
    np.testing.assert_allclose(w * m / (w + 0.25), jnp.mean(data, axis=0), atol=0.06)
    # Langevin steps of size e make the chains wider than the model, so that its variance falls by e / 4.
    variance = float(jnp.mean(jnp.var(data, axis=0)))
    np.testing.assert_allclose(1 / (w + 0.25), variance - 0.2 / 4, rtol=0.08)


def test_samples_are_the_model():
    model = family(chains=Chains(step_size=0.05, sampling_steps=300))
    params, state, _ = initialised(model)
    draws = model.sample(params, state, jax.random.key(3), 20_000)
    variance = 1 / 1.25
    expected = variance / (1 - 0.05 / (4 * variance))
    assert abs(float(jnp.var(draws)) - expected) < 4 * expected * np.sqrt(2 / 40_000)


def test_chains_that_diverge_are_not_a_number():
    model = family(network=EnergyMLP((8,)))
    params, state, batch = initialised(model)
    seen = visible(state)
    assert np.isfinite(float(model.loss(params, seen, jax.random.key(0), batch)[1][1]["energy_gap"]))
    far = {**seen, "chains": {**seen["chains"], "rows": seen["chains"]["rows"] + 1e4}}
    assert np.isnan(float(model.loss(params, far, jax.random.key(0), batch)[1][1]["energy_gap"]))


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_images_have_the_measure_of_their_levels(spectral_norm):
    model = dataclasses.replace(
        family(network=EnergyMLP((8,), spectral_norm), base_std=1.0),
        space=energy_space.images(levels=3),
        shape=(2, 2, 1),
        partition=Partition(summarize=log_partition, num_temperatures=20, num_runs=50, step_size=0.2),
    )
    x = jax.random.randint(jax.random.key(0), (B, 2, 2, 1), 0, 3).astype(jnp.uint8)
    params, state = model.init(jax.random.key(0), {"x": x})
    state, notes = jax.jit(model.calibrate)(params, state, jax.random.key(0), x)
    found = model.log_prob(params, state, jax.random.key(1), x)
    assert (found.kind, found.measure) == ("estimate", "3 levels")
    settings = {"temperatures": 20, "runs": 50, "by": "annealed chains"}
    assert dict(found.settings) == settings
    ends = {"low": model.log_prob_above, "high": model.log_prob_below}
    of_ends = {end: log_prob(params, state, jax.random.key(1), x) for end, log_prob in ends.items()}
    assert {end: one.kind for end, one in of_ends.items()} == {"low": "upper_bound", "high": "lower_bound"}
    assert dict(of_ends["low"].settings) == {**settings, "space": "[0,3]^4"}
    assert {end: one.measure for end, one in of_ends.items()} == {"low": "continuous", "high": "3 levels"}
    assert dict(of_ends["high"].settings)["by"] == "reversed chains from data after 80 transitions"
    for end, one in of_ends.items():
        np.testing.assert_allclose(one.log_prob, found.log_prob + notes["log_z"] - notes[f"log_z_{end}"], rtol=1e-5)
    h = model.space.prepare(jax.random.key(1), x)
    expected = -model.energy(params, state, h) - notes["log_z"] + 4 * np.log(2 / 3)
    np.testing.assert_allclose(found.log_prob, expected, rtol=1e-5)
    assert model.sample(params, state, jax.random.key(2), 3).dtype == jnp.uint8


class Column(nn.Module):
    """An energy whose last axis was not removed."""

    @nn.compact
    def __call__(self, h, *, train):
        return nn.Dense(1)(h)


def test_a_network_or_data_of_another_shape_are_refused_at_init():
    batch = {"x": jnp.zeros((B, 2))}
    with pytest.raises(UserError, match=r"the energy must return \[1\] for one example, and returns \[1, 1\]"):
        jax.eval_shape(family(Column()).model.init, jax.random.key(0), batch)
    with pytest.raises(UserError, match=r"examples of shape \[3\], and the data have \[2\]"):
        jax.eval_shape(family(shape=(3,)).model.init, jax.random.key(0), batch)


def test_the_interval_holds_the_truth_in_a_world_of_two_pixels():
    # log Z of two pixels is a quadrature; the annealed chains do not know that.
    model = dataclasses.replace(
        family(network=EnergyMLP((16, 16)), base_std=0.7),
        space=energy_space.images(levels=2),
        shape=(2, 1, 1),
        partition=Partition(
            summarize=log_partition, num_temperatures=200, num_runs=400, step_size=0.3, num_leapfrog=3, reach=4.0
        ),
    )
    rows = jax.random.randint(jax.random.key(0), (400, 2, 1, 1), 0, 2).astype(jnp.uint8)
    params, state = model.init(jax.random.key(0), {"x": rows})
    params = jax.tree.map(lambda leaf: 3.0 * leaf, params)
    before = model.log_prob_above(params, state, jax.random.key(1), rows)
    assert np.all(np.isnan(before.log_prob))
    state, notes = jax.jit(model.calibrate)(params, state, jax.random.key(0), rows)
    truth = float(model.partition.quadrature(lambda h: model.energy(params, state, h.reshape(-1, 2, 1, 1))))
    flat = 2 * np.log(2 * np.sqrt(2 * np.pi) * 0.7 / 2)  # of the network's energy 0
    assert abs(truth - flat) > 0.5
    assert float(notes["log_z_low"]) < truth < float(notes["log_z_high"])
    assert float(notes["log_z_high"] - notes["log_z_low"]) < 0.5
    assert abs(float(notes["log_z"]) - truth) < 4 * float(notes["log_z_standard_error"])
