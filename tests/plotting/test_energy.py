"""Pictures of chains start in noise; those of classes hold samples of one class in each row."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.losses.energy import energy_from_logits
from gm_jax.models import energy_space
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.energy_chains import Chains
from gm_jax.models.jem import JointEnergyModel
from gm_jax.networks.energy import EnergyMLP
from gm_jax.plotting import energy


def test_chains_start_in_noise_at_the_left():
    model = EnergyBasedModel(
        network=EnergyMLP((4,)),
        space=energy_space.images(levels=4),
        shape=(3, 3, 1),
        chains=Chains(sampling_steps=18, num_persistent=None),
        base_std=1.0,
    )
    params, state = model.init(jax.random.key(0), {"x": jnp.zeros((1, 3, 3, 1), jnp.uint8)})
    grid = energy.grids(model, (3, 3, 1))["chains"](params, state, jax.random.key(1), None)
    assert grid.columns == ("noise", *(f"{2 * count}" for count in range(1, 10)))
    chains = grid.examples
    assert chains.shape == (10, 10, 3, 3, 1)
    start = model.space.to_data(model.noise(jax.random.split(jax.random.key(1))[0], 10))
    np.testing.assert_array_equal(chains[:, 0], start)
    assert np.any(chains[:, 0] != chains[:, -1])
    assert energy.grids(model, (2,)) == {}


def test_a_row_of_classes_holds_samples_of_one_class():
    inner = EnergyBasedModel(
        network=EnergyMLP((4,), num_classes=3),
        space=energy_space.images(levels=4),
        shape=(3, 3, 1),
        chains=Chains(sampling_steps=18, num_persistent=None),
        base_std=1.0,
        to_energy=energy_from_logits,
    )
    model = JointEnergyModel(energy=inner, num_classes=3)
    params, state = model.model.init(jax.random.key(0), {"x": jnp.zeros((1, 3, 3, 1), jnp.uint8)})
    classes = energy.class_grids(model, (3, 3, 1))["classes"](params, state, jax.random.key(1), None)
    assert classes.row_labels()[:2] == ["class 0", "class 1"]
    classes = classes.examples
    assert classes.shape == (3, 10, 3, 3, 1)
    labels = jnp.repeat(jnp.arange(3), 10)
    np.testing.assert_array_equal(
        classes.reshape(30, 3, 3, 1), model.sample(params, state, jax.random.key(1), 30, label=labels)
    )
    assert energy.class_grids(model, (2,)) == {}
