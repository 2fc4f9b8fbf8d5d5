"""Scalar energies: one number an example, which depends on no other example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.networks.energy import EnergyConvNet, EnergyMLP

NETWORKS = {
    "mlp": lambda spectral: EnergyMLP((6, 5), spectral),
    "conv": lambda spectral: EnergyConvNet((3, 4), spectral),
}


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_an_energy_is_a_smooth_function_of_its_example_alone(make, spectral_norm):
    network = make(spectral_norm)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 2))
    variables = network.init(jax.random.key(1), x[:1], train=True)
    energy = network.apply(variables, x, train=False)
    assert energy.shape == (4,)
    changed = network.apply(variables, x.at[3].set(7.0), train=False)
    np.testing.assert_array_equal(changed[:3], energy[:3])
    assert float(changed[3]) != float(energy[3])
    assert set(variables) == ({"params", "spectral_norm"} if spectral_norm else {"params"})


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_logits_have_biases_and_are_functions_of_their_example_alone(spectral_norm):
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 2))
    for network in (EnergyMLP((6,), spectral_norm, num_classes=3), EnergyConvNet((3,), spectral_norm, num_classes=3)):
        variables = network.init(jax.random.key(1), x, train=True)
        logits = network.apply(variables, x, train=False)
        assert logits.shape == (4, 3)
        np.testing.assert_array_equal(network.apply(variables, x.at[3].set(7.0), train=False)[:3], logits[:3])
        assert any(leaf.shape == (3,) for leaf in jax.tree.leaves(variables["params"]))


def test_spectral_norm_bounds_the_slope_of_a_perceptron():
    network = EnergyMLP((16, 16), True)
    x = jax.random.normal(jax.random.key(0), (50, 6))
    variables = network.init(jax.random.key(1), x, train=True)
    scaled = {"params": jax.tree.map(lambda leaf: 30.0 * leaf, variables["params"])}
    state = {"spectral_norm": variables["spectral_norm"]}
    for _ in range(60):
        _, state = network.apply({**scaled, **state}, x, train=True, mutable=["spectral_norm"])
    slope = jax.vmap(jax.grad(lambda x: network.apply({**scaled, **state}, x[None], train=False)[0]))(x)
    # The largest slope of swish is 1.1; without the norm the slope is thousands.
    assert 0.0 < float(jnp.max(jnp.linalg.norm(slope, axis=1))) < 1.1**2 + 1e-3


def test_sides_that_cannot_be_halved_are_refused():
    with pytest.raises(UserError):
        EnergyConvNet((3, 4)).init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)), train=True)
