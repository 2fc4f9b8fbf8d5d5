"""Every device holds the same model state, bit for bit what the devices would make alone and joined."""

import functools
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.errors import UserError
from gm_jax.training import model_state, parallel, state, step
from gm_jax.training.checkpoint import Checkpointer
from gm_jax.types import Fixed, Mean, Model, Objective, Replicated, Rows, every
from tests.training import _chains as chains

STRATEGIES = {"jit": parallel.jit, "pmap": parallel.pmap, "vmap": lambda: parallel.vmap(2)}
each_strategy = pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES.keys())
mapped = pytest.mark.parametrize("make", [parallel.pmap, lambda: parallel.vmap(2)], ids=["pmap", "vmap"])


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), strict=True)


def alone_and_joined(num_steps, *, per_step, devices):
    """Refreshes the rows of each device alone, one device after the other, and joins them: states after each step."""
    start = state.create(chains.model(), chains.OPTIMIZERS, jax.random.key(3), {"x": chains.data()[0, 0]})
    rows = jax.tree.map(np.array, start.model_state["chains"]["rows"])
    size, history = per_step // devices, []
    for at in range(num_steps):
        for device in range(devices):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), at), device)
            first = (at % (chains.NUM_ROWS // per_step)) * per_step + device * size
            own = jax.tree.map(lambda leaf, first=first: leaf[first : first + size], rows)
            new = jax.jit(chains.refresh)(own, jax.random.fold_in(key, 0))
            jax.tree.map(lambda leaf, part, first=first: leaf.__setitem__(slice(first, first + size), part), rows, new)
        history.append(jax.tree.map(np.copy, rows))
    return history


@pytest.mark.two_devices
@mapped
@pytest.mark.parametrize("per_step", [None, 2, 12])
def test_a_mapped_step_equals_both_halves_run_alone_and_joined(make, per_step):
    states = chains.train(make(), chains.model(per_step=per_step))
    expected = alone_and_joined(8, per_step=per_step or chains.BATCH, devices=2)
    for found, rows in zip(states, expected[1::2], strict=True):
        assert_same_bits(found.model_state["chains"]["rows"], rows)
    assert int(states[-1].model_state["chains"]["count"]) == 8


def test_one_program_over_all_devices_equals_one_device_alone():
    states = chains.train(parallel.jit(), chains.model())
    for found, rows in zip(states, alone_and_joined(8, per_step=4, devices=1)[1::2], strict=True):
        assert_same_bits(found.model_state["chains"]["rows"], rows)


@each_strategy
def test_blocks_are_refreshed_in_turn(make):
    states = chains.train(make(), chains.model())
    visits = [found.model_state["chains"]["rows"]["visits"].reshape(3, 4) for found in states]
    for found, expected in zip(visits, [(1, 1, 0), (2, 1, 1), (2, 2, 2), (3, 3, 2)], strict=True):
        np.testing.assert_array_equal(found, np.repeat(np.array(expected)[:, None], 4, axis=1))


@each_strategy
def test_a_replay_buffer_keeps_its_rows_on_two_devices(make):
    def loss(params, model_state, key, batch):
        return params["net"] ** 2, ({"replay": {**model_state["replay"], "rows": batch["x"]}}, {})

    buffer = {"rows": jnp.zeros(4), "count": jnp.int32(0)}
    model = Model(
        lambda key, batch: ({"net": jnp.ones(())}, {"replay": buffer}),
        (Objective("net", loss),),
        sample=None,
        sync={"replay": Rows()},
    )
    strategy, txs = make(), {"net": optax.sgd(0.1)}
    x = np.array([[0.0, 1.0, 10.0, 11.0]], np.float32)
    current = strategy.place(state.create(model, txs, jax.random.key(0), {"x": x[0]}))
    compiled = strategy.compile(step.make_train_step(model, txs, seed=0, axis_name=strategy.axis_name))
    current, _ = compiled(current, strategy.place_batches({"x": x}))
    np.testing.assert_array_equal(current.model_state["replay"]["rows"], x[0])


@each_strategy
def test_a_run_restored_between_two_blocks_is_bit_for_bit_the_whole_run(make, tmp_path):
    whole = chains.train(make(), chains.model())
    half = make().place(chains.train(make(), chains.model(), calls=2)[-1])
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(4, half)
        restored = checkpointer.restore_latest(half).state
    rest = chains.train(make(), chains.model(), start=jax.device_get(restored), first=2, calls=2)
    assert_same_bits(rest[-1], whole[-1])


@each_strategy
def test_a_player_that_is_held_leaves_rows_and_count_alone(make):
    states = chains.train(make(), chains.model(turns=every(4)))
    assert [int(found.model_state["chains"]["count"]) for found in states] == [0, 1, 1, 2]
    assert_same_bits(states[2].model_state, states[1].model_state)


@mapped
def test_a_player_that_does_not_touch_the_rows_leaves_them_alone(make):
    def idle(params, model_state, key, batch):
        return params["other"] ** 2, (model_state, {})

    one = chains.model()

    def init(key, batch):
        params, model_state = one.init(key, batch)
        return {**params, "other": jnp.ones(())}, model_state

    two = one._replace(
        init=init,
        objectives=(
            Objective("other", idle),
            *one.objectives,
        ),
    )
    txs, strategy = {**chains.OPTIMIZERS, "other": optax.sgd(0.1)}, make()
    current = strategy.place(state.create(two, txs, jax.random.key(3), {"x": chains.data()[0, 0]}))
    compiled = strategy.compile(step.make_train_step(two, txs, seed=5, axis_name=strategy.axis_name))
    for x in chains.data():
        current, _ = compiled(current, strategy.place_batches({"x": x}))
    assert int(current.model_state["chains"]["count"]) == 8
    np.testing.assert_array_equal(current.model_state["chains"]["rows"]["visits"], np.repeat([3, 3, 2], 4))


@pytest.mark.slow
def test_two_processes_equal_two_devices_of_one_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    environment["XLA_FLAGS"] = environment["XLA_FLAGS"].replace("device_count=2", "device_count=1")
    processes = [
        subprocess.Popen(
            [sys.executable, chains.__file__, address, "2", str(index)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    last = chains.train(parallel.pmap(), chains.model())[-1]
    expected = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(last)).hex()
    assert [output.splitlines()[-1] for output, _ in outputs] == [expected, expected]


def test_a_collection_that_sync_does_not_declare_is_an_error_that_names_it():
    declared = {"net": {"batch_stats": Mean()}}
    model_state.check({"net": {"batch_stats": jnp.ones(2)}}, {**declared, "other": Fixed()})
    with pytest.raises(ValueError, match=r"model_state\['replay'\]"):
        model_state.check({"net": {}, "replay": jnp.ones(2)}, declared)
    with pytest.raises(ValueError, match=r"model_state\['net'\]\['spectral_norm'\]"):
        model_state.check({"net": {"spectral_norm": jnp.ones(2)}}, declared)


@each_strategy
def test_the_step_refuses_an_undeclared_collection_when_it_is_traced(make):
    undeclared = chains.model()._replace(sync={"seen": Mean()})
    with pytest.raises(ValueError, match=r"does not declare model_state\['chains'\].*Rows\(\)"):
        chains.train(make(), undeclared)


@pytest.mark.parametrize(("num_rows", "per_step"), [(10, 4), (12, 3), (2, 4)])
def test_rows_that_blocks_or_devices_cannot_divide_are_refused(num_rows, per_step):
    with pytest.raises(UserError, match=rf"\['chains'\] has {num_rows} rows, .* {per_step} on 2 devices"):
        chains.train(parallel.vmap(2), chains.model(num_rows, per_step))


@pytest.mark.parametrize(("num_rows", "per_step", "devices"), [(10, 4, 2), (12, 3, 2), (2, 4, 1), (12, None, 5)])
def test_rows_that_cannot_be_divided_are_found_from_shapes_alone(num_rows, per_step, devices):
    start = jax.eval_shape(chains.model().init, jax.random.key(0), {"x": jnp.zeros((5, 3))})[1]
    shapes = {"chains": {**start["chains"], "rows": jax.ShapeDtypeStruct((num_rows, 3), jnp.float32)}}
    with pytest.raises(UserError, match=rf"has {num_rows} rows, .* refreshes {per_step or 5} on {devices} devices"):
        model_state.check_rows(shapes, {"chains": Rows(per_step)}, batch_size=5, devices=devices)
    model_state.check_rows(shapes, {"chains": Fixed()}, batch_size=5, devices=devices)
    model_state.check_rows(start, {"chains": Rows(6), "seen": Mean()}, batch_size=5, devices=2)


@pytest.mark.parametrize("wrong", [lambda x: x[:1], lambda x: x.astype(jnp.float16)])
def test_a_loss_that_returns_other_rows_is_refused(wrong):
    whole = {"chains": {"rows": jnp.ones((4, 2)), "count": jnp.int32(0)}}
    where = {"sync": {"chains": Rows(2)}, "batch_size": 4, "axis_name": None}
    seen = model_state.local_view(whole, **where)
    assert seen["chains"]["rows"].shape == (2, 2)
    new = {"chains": {**seen["chains"], "rows": wrong(seen["chains"]["rows"])}}
    with pytest.raises(ValueError, match=r"must return its 2 rows"):
        model_state.merge(whole, new, **where)


def test_means_are_averaged_counters_agree_and_fixed_state_stays():
    def keep(part):
        new = {"stats": {"mean": part, "count": jnp.int32(7)}, "reference": part}
        return model_state.merge(old, new, sync, batch_size=1, axis_name="devices")

    old = {"stats": {"mean": jnp.zeros(2), "count": jnp.int32(6)}, "reference": jnp.array([3.0, 0.1])}
    sync = {"stats": Mean(), "reference": Fixed()}
    found = jax.vmap(keep, axis_name="devices", out_axes=None)(jnp.array([[1.0, 5.0], [3.0, 6.0]]))
    np.testing.assert_array_equal(found["stats"]["mean"], [2.0, 5.5])
    assert int(found["stats"]["count"]) == 7
    np.testing.assert_array_equal(found["reference"], old["reference"])


@pytest.mark.two_devices
@each_strategy
def test_fixed_rows_are_shared_out_and_never_changed(make):
    def init(key, batch):
        return {"energy": jnp.zeros(())}, {"own": {"rows": jnp.arange(6), "count": jnp.int32(0)}, "seen": jnp.zeros(6)}

    def loss(params, model_state, key, batch):
        own = model_state["own"]["rows"]
        after = {"rows": own + 1, "count": jnp.int32(7)}
        seen = jnp.zeros(6).at[own].set(6 / len(own) * own)
        return params["energy"] + jnp.mean(batch["x"]), ({"own": after, "seen": seen}, {})

    sync = {"own": Rows(per_step=6, fixed=True), "seen": Mean()}
    model = Model(init, (Objective("energy", loss),), sample=None, sync=sync)
    found = chains.train(make(), model)[-1].model_state
    np.testing.assert_array_equal(found["own"]["rows"], np.arange(6))
    assert int(found["own"]["count"]) == 0
    np.testing.assert_allclose(found["seen"], np.arange(6))  # each row was seen by one device


def test_untouched_means_stay_bit_for_bit_on_any_number_of_devices():
    # A mean of three equal floats is off by a rounding for a part of them.
    old = {"own": jax.random.normal(jax.random.key(0), (200,)), "other": jax.random.normal(jax.random.key(1), (200,))}

    def keep(part):
        new = {"own": old["own"] + part, "other": old["other"]}
        return model_state.merge(old, new, {"own": Mean(), "other": Mean()}, batch_size=1, axis_name="devices")

    found = jax.jit(jax.vmap(keep, axis_name="devices", out_axes=None))(jnp.arange(3.0)[:, None])
    np.testing.assert_array_equal(found["other"], old["other"])
    np.testing.assert_allclose(found["own"], old["own"] + 1.0, rtol=1e-6)


def test_replicated_state_is_kept_as_computed_and_a_part_of_the_batch_in_it_is_refused_by_the_oracle():
    def keep(part, *, own):
        new = {"history": {"mean": part if own else old["history"]["mean"] + 1.0}}
        return model_state.merge(old, new, {"history": Replicated()}, batch_size=1, axis_name="devices")

    old = {"history": {"mean": jnp.zeros(2)}}
    mapped = functools.partial(jax.vmap, axis_name="devices", out_axes=None)
    parts = jnp.array([[1.0, 5.0], [3.0, 6.0]])
    np.testing.assert_array_equal(mapped(functools.partial(keep, own=False))(parts)["history"]["mean"], [1.0, 1.0])
    with pytest.raises(ValueError, match="out_axes"):
        mapped(functools.partial(keep, own=True))(parts)


def test_rows_with_anything_but_rows_and_a_count_are_refused():
    whole = {"chains": {"rows": jnp.zeros((4, 2)), "count": jnp.int32(0), "energy": jnp.zeros(())}}
    with pytest.raises(ValueError, match="rows and count alone"):
        model_state.local_view(whole, {"chains": Rows(2)}, batch_size=2, axis_name=None)
