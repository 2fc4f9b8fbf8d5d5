"""log Z of energies whose integral is known: normal densities, by quadrature and by annealed chains."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gm_jax.data import toy
from gm_jax.evaluation.partition import log_partition
from gm_jax.models.energy_partition import Partition, fitted_normal

S = 1.5


def narrow(h):
    """The energy of a normal density with mean 1 and variance 1/4 in each dimension."""
    return jnp.sum(2.0 * jnp.square(h - 1.0), axis=1)


def truth(num_dims):
    return num_dims * 0.5 * np.log(2.0 * np.pi * 0.25)


def test_quadrature_finds_the_integral_at_any_cell():
    found = [
        float(Partition(summarize=log_partition, num_cells=n).estimate(None, narrow, jnp.zeros((1, 2)))["log_z"])
        for n in (100, 200, 400)
    ]
    np.testing.assert_allclose(found, truth(2), atol=1e-4)


def test_quadrature_knows_the_normaliser_and_the_entropy_of_eight_gaussians():
    centres, std = toy.eight_gaussians_modes()
    centres, log_z = jnp.asarray(centres, jnp.float32), 3.7

    def energy_fn(h, std=std):
        squares = jnp.sum(jnp.square(h[:, None] - centres[None]), axis=2) / (2.0 * std**2)
        return -jax.nn.logsumexp(-squares, axis=1) + np.log(8 * 2 * np.pi * std**2) - log_z

    partition = Partition(summarize=log_partition, reach=16.0)  # as experiments.ebm has it
    found = partition.estimate(None, energy_fn, jnp.zeros((1, 2)))
    half = float(dataclasses.replace(partition, num_cells=800).quadrature(energy_fn))
    assert not bool(found["not_converged"])
    assert abs(float(found["log_z"]) - log_z) < 1e-3
    assert abs(float(found["log_z"]) - half) < 1e-3
    x = jnp.asarray(toy.toy_splits("eight_gaussians")["test"]["x"])
    nll = np.asarray(energy_fn(x) + found["log_z"], np.float64)
    error, entropy = nll.std() / np.sqrt(len(nll)), toy.toy_entropy("toy:eight_gaussians")
    assert abs(entropy - 2.832) < 1e-3
    # The true energy has the entropy as its expected NLL, neither more nor less; another energy has more.
    assert abs(nll.mean() - entropy) < 3 * error
    wider = functools.partial(energy_fn, std=1.3 * std)
    of_wider = np.asarray(wider(x) + partition.quadrature(wider), np.float64)
    assert of_wider.mean() > entropy + 3 * error


def test_a_grid_that_is_too_coarse_or_too_small_says_so():
    def flags(f, **settings):
        return bool(
            Partition(summarize=log_partition, **settings).estimate(None, f, jnp.zeros((1, 2)))["not_converged"]
        )

    def wide(h):
        return jnp.sum(jnp.square(h), axis=1) / (2.0 * S**2) - 1.1 * jnp.sqrt(1.0 + jnp.sum(jnp.square(h), axis=1))

    assert not flags(narrow, num_cells=200)
    assert flags(narrow, num_cells=12)
    assert flags(wide, reach=4.0 * S)
    assert not flags(wide, reach=10.0 * S)


def test_annealed_chains_find_the_integral_and_bracket_it():
    partition = Partition(summarize=log_partition, num_temperatures=400, num_runs=300, step_size=0.25, num_leapfrog=3)
    data = 1.0 + 0.5 * jax.random.normal(jax.random.key(1), (400, 5))
    found = jax.jit(lambda h: partition.estimate(jax.random.key(0), narrow, h))(data)
    assert float(found["log_z_low"]) < truth(5) < float(found["log_z_high"])
    assert abs(float(found["log_z"]) - truth(5)) < 4 * float(found["log_z_standard_error"])
    assert float(found["log_z_high"] - found["log_z_low"]) < 0.5
    assert not bool(found["not_converged"])


def test_reversed_chains_forget_that_they_start_at_data():
    # Data twice as wide as the model: chains that are still there when they are reversed put the high end below log Z.
    partition = Partition(summarize=log_partition, num_temperatures=40, num_runs=400, step_size=0.03, num_leapfrog=3)
    samples = 1.0 + 0.5 * jax.random.normal(jax.random.key(1), (400, 5))
    data = 1.0 + 1.0 * jax.random.normal(jax.random.key(2), (400, 5))
    found = jax.jit(lambda h: partition.estimate(jax.random.key(0), narrow, h, samples=samples))(data)
    assert -0.05 < float(found["log_z_high"]) - truth(5) < 0.2
    assert not bool(found["not_converged"])


def test_two_modes_apart_are_found_from_one_normal_density():
    # Weights 0.3 and 0.7; far apart in the first dimension, at which the path starts as one wide density.
    def energy_fn(h):
        places = jnp.array([-1.5, 1.5])
        distances = jnp.sum(jnp.square(h[:, 1:]), axis=1)[:, None] + jnp.square(h[:, :1] - places[None])
        return -jax.nn.logsumexp(jnp.log(jnp.array([0.3, 0.7]))[None] - distances / (2 * 0.3**2), axis=1)

    modes = jnp.where(jax.random.uniform(jax.random.key(1), (500, 1)) < 0.3, -1.5, 1.5)
    data = 0.3 * jax.random.normal(jax.random.key(2), (500, 5)) + jnp.pad(modes, ((0, 0), (0, 4)))
    partition = Partition(summarize=log_partition, num_temperatures=300, num_runs=300, step_size=0.15, num_leapfrog=3)
    found = jax.jit(lambda h: partition.estimate(jax.random.key(0), energy_fn, h))(data)
    expected = 2.5 * np.log(2 * np.pi * 0.3**2)
    assert float(found["log_z_low"]) < expected < float(found["log_z_high"])
    assert abs(float(found["log_z"]) - expected) < 4 * float(found["log_z_standard_error"])
    assert 0.003 < float(found["log_z_standard_error"]) < 0.1


def test_the_start_of_the_path_is_the_normal_density_of_the_samples():
    rng = np.random.default_rng(0)
    samples = (1.0 + rng.normal(size=(4_000, 3)) @ rng.normal(size=(3, 3))).reshape(-1, 3, 1)
    q = fitted_normal(jnp.asarray(samples, jnp.float32))
    flat = samples[:, :, 0]
    variance = flat.var(axis=0)
    covariance = np.cov(flat.T, bias=True) + np.diag(0.1 * variance + 1e-3 * variance.mean() + 1e-6)
    expected = stats.multivariate_normal.logpdf(flat[:20], flat.mean(axis=0), covariance)
    np.testing.assert_allclose(q.log_prob(jnp.asarray(samples[:20], jnp.float32)), expected, rtol=1e-4)
    draws = q.sample(jax.random.key(0), 50_000)
    assert draws.shape == (50_000, 3, 1)
    np.testing.assert_allclose(np.cov(draws[:, :, 0].T), covariance, atol=0.03 * covariance.max())
    few = fitted_normal(jnp.asarray(samples[:5], jnp.float32))
    np.testing.assert_array_equal(few.root, np.diag(np.diag(few.root)))


def test_the_settings_name_the_way():
    partition = Partition(summarize=log_partition, num_temperatures=60, num_runs=300, num_cells=50)
    assert dict(partition.settings((2,))) == {"by": "quadrature", "cells": 2_500}
    annealed = {"temperatures": 60, "runs": 300, "by": "annealed chains"}
    assert dict(partition.settings((8, 8, 1))) == annealed
    by = "reversed chains from data after 240 transitions"
    assert dict(partition.settings((8, 8, 1), is_reversed=True)) == {**annealed, "by": by}


@pytest.mark.parametrize("num_runs", [4, 9])
def test_fewer_data_than_runs_are_repeated(num_runs):
    partition = Partition(summarize=log_partition, num_temperatures=5, num_runs=num_runs, num_leapfrog=1)
    found = partition.estimate(jax.random.key(0), narrow, jnp.ones((3, 5)))
    assert np.isfinite(float(found["log_z_high"]))
