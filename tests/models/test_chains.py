"""Markov chains of real families on two devices: each refreshes its own rows, and all hold the same state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.models import energy, energy_space, rbm
from gm_jax.networks.energy import EnergyMLP
from gm_jax.networks.rbm import RBM
from gm_jax.ops import binarization
from gm_jax.training import parallel, state, step

BATCH, SEED = 8, 5
FAMILIES = {
    "ebm": lambda width=16: energy.EnergyBasedModel(
        network=EnergyMLP((width,)),
        space=energy_space.points(),
        shape=(2,),
        chains=energy.Chains(num_steps=5, step_size=0.1, num_persistent=2 * BATCH),
        base_std=2.0,
    ),
    "rbm": lambda width=16: rbm.RestrictedBoltzmannMachine(
        network=RBM(6, width),
        binarize=lambda key, x: binarization.static(x),
        levels=2,
        shape=(6,),
        num_sweeps=3,
        num_chains=2 * BATCH,
    ),
}
each_family = pytest.mark.parametrize("name", FAMILIES)


def setup(name, width=16):
    family = FAMILIES[name](width)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, BATCH, 2)).astype(np.float32) if name == "ebm" else rng.integers(0, 2, (1, BATCH, 6), "u1")
    optimizers = {family.model.objectives[0].wrt: optax.sgd(0.1)}
    return family, optimizers, state.create(family.model, optimizers, jax.random.key(3), {"x": x[0]}), x


def placed_step(strategy, family, optimizers, *, spread=None):
    return step.make_train_step(family.model, optimizers, seed=SEED, axis_name=strategy.axis_name, spread=spread)


@each_family
def test_the_chains_of_two_devices_are_those_of_the_halves_run_alone_and_joined(name):
    family, optimizers, start, x = setup(name)
    strategy = parallel.pmap(jax.devices()[:2])
    compiled = strategy.compile(placed_step(strategy, family, optimizers))
    after, _ = compiled(strategy.place(start), strategy.place_batches({"x": x}))
    rows, seen = np.asarray(after.model_state["chains"]["rows"]), start.model_state["chains"]["rows"]
    size = (2 * BATCH if name == "rbm" else BATCH) // 2
    # The step with its gradient, alone on one device: the program whose halves pmap runs.
    alone = jax.jit(jax.value_and_grad(family.loss, has_aux=True))
    for device in range(2):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), 0), device), 0)
        part = slice(size * device, size * (device + 1))
        own = {**start.model_state, "chains": {"rows": seen[part], "count": jnp.int32(0)}}
        half = {"x": x[0, BATCH // 2 * device : BATCH // 2 * (device + 1)]}
        (_, (expected, _)), _ = alone(start.params, own, key, half)
        np.testing.assert_array_equal(rows[part], expected["chains"]["rows"])
    np.testing.assert_array_equal(rows[2 * size :], seen[2 * size :])
    assert np.any(rows[:size] != seen[:size])
    assert int(after.model_state["chains"]["count"]) == 1


@each_family
def test_one_program_over_two_devices_divides_the_chains_among_them(name):
    family, optimizers, start, x = setup(name, width=256)
    two, one = parallel.jit(jax.devices()[:2]), parallel.jit(jax.devices()[:1])
    assert one.spread is None

    def flops(strategy, spread):
        lowered = strategy.lower(placed_step(strategy, family, optimizers, spread=spread), start, {"x": x})
        return lowered.compile().cost_analysis()["flops"]

    alone, divided = flops(one, None), flops(two, two.spread)
    assert 0.45 * alone < divided < 0.6 * alone
    if name == "rbm":
        # The compiler divides the chains of an EBM by itself, because they share a network with the data.
        assert flops(two, None) > 0.9 * alone

    def trained(strategy):
        compiled = strategy.compile(placed_step(strategy, family, optimizers, spread=strategy.spread))
        return compiled(strategy.place(start), strategy.place_batches({"x": x}))[0]

    for found, expected in zip(*(jax.tree.leaves(trained(strategy)) for strategy in (two, one)), strict=True):
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=2e-6)


def test_rows_that_do_not_divide_stay_whole():
    two = parallel.jit(jax.devices()[:2])
    odd, even = jax.jit(functools.partial(jax.tree.map, lambda leaf: 2.0 * leaf))(
        jax.jit(two.spread)((jnp.ones((3, 2)), jnp.ones((4, 2))))
    )
    assert odd.sharding.is_fully_replicated
    assert not even.sharding.is_fully_replicated
