"""Markov chains of real families on two devices: each refreshes its own rows, and all hold the same state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.losses import energy as losses
from gm_jax.models import energy, energy_space, jem, rbm
from gm_jax.networks.energy import EnergyMLP
from gm_jax.networks.rbm import RBM
from gm_jax.ops import binarization
from gm_jax.training import parallel, state, step
from gm_jax.training.checkpoint import Checkpointer

BATCH, SEED = 8, 5


def _ebm(width=16, *, spectral_norm=False, num_classes=None):
    return energy.EnergyBasedModel(
        network=EnergyMLP((width,), spectral_norm, num_classes=num_classes),
        space=energy_space.points(),
        shape=(2,),
        chains=energy.Chains(num_steps=5, step_size=0.1, num_persistent=2 * BATCH),
        base_std=2.0,
        to_energy=None if num_classes is None else losses.energy_from_logits,
    )


FAMILIES = {
    "ebm": _ebm,
    "ebm with spectral norm": functools.partial(_ebm, spectral_norm=True),
    "jem": lambda width=16: jem.JointEnergyModel(energy=_ebm(width, num_classes=3), num_classes=3),
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
    x = rng.normal(size=(1, BATCH, 2)).astype(np.float32) if name != "rbm" else rng.integers(0, 2, (1, BATCH, 6), "u1")
    batch = {"x": x, "label": np.arange(BATCH)[None] % 3}
    optimizers = {family.model.objectives[0].wrt: optax.sgd(0.1)}
    first = {name: leaf[0] for name, leaf in batch.items()}
    return family, optimizers, state.create(family.model, optimizers, jax.random.key(3), first), batch


def placed_step(strategy, family, optimizers, *, spread=None):
    return step.make_train_step(family.model, optimizers, seed=SEED, axis_name=strategy.axis_name, spread=spread)


@each_family
def test_the_chains_of_two_devices_are_those_of_the_halves_run_alone_and_joined(name):
    family, optimizers, start, batch = setup(name)
    strategy = parallel.pmap(jax.devices()[:2])
    compiled = strategy.compile(placed_step(strategy, family, optimizers))
    after, _ = compiled(strategy.place(start), strategy.place_batches(batch))
    rows, seen = np.asarray(after.model_state["chains"]["rows"]), start.model_state["chains"]["rows"]
    size = (2 * BATCH if name == "rbm" else BATCH) // 2
    # The step with its gradient, alone on one device: the program whose halves pmap runs.
    alone = jax.jit(jax.value_and_grad(family.loss, has_aux=True))
    for device in range(2):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), 0), device), 0)
        part = slice(size * device, size * (device + 1))
        own = {**start.model_state, "chains": {"rows": seen[part], "count": jnp.int32(0)}}
        half = {name: leaf[0, BATCH // 2 * device : BATCH // 2 * (device + 1)] for name, leaf in batch.items()}
        (_, (expected, _)), _ = alone(start.params, own, key, half)
        np.testing.assert_array_equal(rows[part], expected["chains"]["rows"])
        # Estimates of the largest singular values, which parameters alone move.
        for one, other in zip(*(jax.tree.leaves(s.get("network")) for s in (after.model_state, expected)), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(rows[2 * size :], seen[2 * size :])
    assert np.any(rows[:size] != seen[:size])
    assert int(after.model_state["chains"]["count"]) == 1


@each_family
def test_one_program_over_two_devices_divides_the_chains_among_them(name):
    family, optimizers, start, batch = setup(name, width=256)
    two, one = parallel.jit(jax.devices()[:2]), parallel.jit(jax.devices()[:1])
    assert one.spread is None

    def flops(strategy, spread):
        lowered = strategy.lower(placed_step(strategy, family, optimizers, spread=spread), start, batch)
        return lowered.compile().cost_analysis()["flops"]

    alone, divided = flops(one, None), flops(two, two.spread)
    assert 0.45 * alone < divided < 0.6 * alone
    if name == "rbm":
        # The compiler divides the chains of an EBM by itself, because they share a network with the data.
        assert flops(two, None) > 0.9 * alone

    def trained(strategy):
        compiled = strategy.compile(placed_step(strategy, family, optimizers, spread=strategy.spread))
        return compiled(strategy.place(start), strategy.place_batches(batch))[0]

    for found, expected in zip(*(jax.tree.leaves(trained(strategy)) for strategy in (two, one)), strict=True):
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=2e-6)


@each_family
def test_chains_saved_and_restored_three_times_are_those_of_one_run(name, tmp_path):
    family, optimizers, start, batch = setup(name)
    strategy = parallel.jit(jax.devices()[:1])
    compiled = strategy.compile(placed_step(strategy, family, optimizers))

    def trained(before, num_steps):
        for _ in range(num_steps):
            before, _ = compiled(strategy.place(before), strategy.place_batches(batch))
        return before

    after = start
    for step_ in (2, 4, 6):
        after = trained(after, 2)
        with Checkpointer(tmp_path) as checkpointer:
            checkpointer.save(step_, after)
        with Checkpointer(tmp_path) as checkpointer:
            after = checkpointer.restore_latest(start).state
    whole = trained(start, 6)
    assert int(whole.model_state["chains"]["count"]) == 6
    for found, expected in zip(*(jax.tree.leaves(one) for one in (after, whole)), strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_rows_that_do_not_divide_stay_whole():
    two = parallel.jit(jax.devices()[:2])
    odd, even = jax.jit(functools.partial(jax.tree.map, lambda leaf: 2.0 * leaf))(
        jax.jit(two.spread)((jnp.ones((3, 2)), jnp.ones((4, 2))))
    )
    assert odd.sharding.is_fully_replicated
    assert not even.sharding.is_fully_replicated
