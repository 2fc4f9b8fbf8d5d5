"""log Z of energies whose integral is known: normal densities, by quadrature and by annealed chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.evaluation.partition import log_partition
from gm_jax.models.energy_partition import Partition

S = 1.5


def tilted(h):
    """F of a normal density with mean 1 and variance 1/4 in each dimension, up to its constant."""
    return jnp.sum(2.0 * jnp.square(h - 1.0) - jnp.square(h) / (2.0 * S**2), axis=1)


def truth(num_dims):
    return num_dims * 0.5 * np.log(2.0 * np.pi * 0.25)


def test_quadrature_finds_the_integral_at_any_cell():
    found = [
        float(Partition(summarize=log_partition, num_cells=n).estimate(None, tilted, S, jnp.zeros((1, 2)))["log_z"])
        for n in (100, 200, 400)
    ]
    np.testing.assert_allclose(found, truth(2), atol=1e-4)


def test_a_grid_that_is_too_coarse_or_too_small_says_so():
    def flags(f, **settings):
        return bool(
            Partition(summarize=log_partition, **settings).estimate(None, f, S, jnp.zeros((1, 2)))["not_converged"]
        )

    def wide(h):
        return -1.1 * jnp.sqrt(1.0 + jnp.sum(jnp.square(h), axis=1))

    assert not flags(tilted, num_cells=200)
    assert flags(tilted, num_cells=12)
    assert flags(wide, reach=4.0 * S)
    assert not flags(wide, reach=10.0 * S)


def test_annealed_chains_find_the_integral_and_bracket_it():
    partition = Partition(summarize=log_partition, num_temperatures=400, num_runs=300, step_size=0.25, num_leapfrog=3)
    data = 1.0 + 0.5 * jax.random.normal(jax.random.key(1), (400, 5))
    found = jax.jit(lambda h: partition.estimate(jax.random.key(0), tilted, S, h))(data)
    assert float(found["log_z_low"]) < truth(5) < float(found["log_z_high"])
    assert abs(float(found["log_z"]) - truth(5)) < 4 * float(found["log_z_standard_error"])
    assert float(found["log_z_high"] - found["log_z_low"]) < 0.5
    assert not bool(found["not_converged"])


def test_the_settings_name_the_way():
    partition = Partition(summarize=log_partition, num_temperatures=60, num_runs=300, num_cells=50)
    assert dict(partition.settings((2,))) == {"by": "quadrature", "cells": 2_500}
    assert dict(partition.settings((8, 8, 1))) == {"temperatures": 60, "runs": 300}


@pytest.mark.parametrize("num_runs", [4, 9])
def test_fewer_data_than_runs_are_repeated(num_runs):
    partition = Partition(summarize=log_partition, num_temperatures=5, num_runs=num_runs, num_leapfrog=1)
    found = partition.estimate(jax.random.key(0), tilted, S, jnp.ones((3, 5)))
    assert np.isfinite(float(found["log_z_high"]))
