"""Pictures of restricted Boltzmann machines have the shapes of data, and show what they say."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.models.rbm import RestrictedBoltzmannMachine
from gm_jax.networks.rbm import RBM
from gm_jax.ops import binarization
from gm_jax.plotting import rbm


def machine(shape, num_hidden):
    return RestrictedBoltzmannMachine(
        network=RBM(int(np.prod(shape)), num_hidden),
        binarize=lambda key, x: binarization.static(x),
        levels=2,
        shape=shape,
        sampling_sweeps=25,
    )


def test_chains_end_at_the_right_in_samples_and_filters_are_weights():
    family = machine((4, 4, 1), 12)
    params, state = family.init(jax.random.key(0), {"x": jnp.zeros((3, 4, 4, 1), jnp.uint8)})
    grids = rbm.grids(family, (4, 4, 1))
    labelled = grids["chains"](params, state, jax.random.key(1), None)
    assert labelled.columns == tuple(str(count) for count in range(3, 26, 2))  # of 25 sweeps
    chains = labelled.examples
    assert chains.shape == (10, 12, 4, 4, 1)
    np.testing.assert_allclose(chains[:, -1], family.sample_mean(params, state, jax.random.key(1), 10), atol=1e-5)
    kernel = np.zeros((16, 12))
    kernel[3, 5] = -2.0
    kernel[4, 5] = 1.0
    params = {"rbm": {**params["rbm"], "kernel": jnp.asarray(kernel, jnp.float32) + 1e-6}}
    filters = grids["filters"](params, state, jax.random.key(1), None).examples
    assert filters.shape == (1, 10, 4, 4, 1)
    np.testing.assert_allclose(np.ravel(filters[0, 0])[[3, 4, 0]], [0.0, 0.75, 0.5], atol=1e-5)


def test_a_row_of_bits_has_no_filters():
    assert set(rbm.grids(machine((6,), 3), (6,))) == {"chains"}
