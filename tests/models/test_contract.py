"""One contract for every family. A new model joins by one row in `contract_rows.MODELS`.

Each row is small: it is compiled for the step under jit, pmap and the vmap oracle.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.training import parallel, state, step
from gm_jax.training.checkpoint import Checkpointer
from tests.models.contract_rows import BATCH, MODELS, STEPS

SLOW = {"vae[conv, discretized_logistic]", "pixelrnn", "ddpm"}
each_model = pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, row in MODELS.items()],
)


def data(row, count=BATCH):
    rng = np.random.default_rng(0)
    if row.levels is None:
        return rng.normal(size=(count, *row.shape)).astype(np.float32)
    return rng.integers(0, row.levels, (count, *row.shape)).astype(np.uint8)


@functools.cache
def setup(row):
    model = row.make()
    optimizers = {objective.wrt: optax.adam(3e-3) for objective in model.objectives}
    fresh = state.create(model, optimizers, jax.random.key(1), {"x": data(row)}, ema=True)
    return model, optimizers, fresh


STRATEGIES = {"jit": parallel.jit, "pmap": parallel.pmap, "vmap": lambda: parallel.vmap(len(jax.devices()))}


@functools.cache
def compiled_step(row, name):
    strategy = STRATEGIES[name]()
    model, optimizers, _ = setup(row)
    return strategy, strategy.compile(
        step.make_train_step(model, optimizers, seed=2, ema_decay=0.9, axis_name=strategy.axis_name)
    )


def trained(row, name, *, calls, start=None, same_batch=False):
    """The state after some calls of one step, and each call's metrics."""
    strategy, compiled = compiled_step(row, name)
    current = strategy.place(setup(row)[2] if start is None else start)
    batches = data(row, BATCH * STEPS).reshape(STEPS, 1, BATCH, *row.shape)
    history = []
    for _ in range(calls):
        batch = batches[0 if same_batch else int(current.step) % STEPS]
        current, metrics = compiled(current, strategy.place_batches({"x": batch}))
        history.append(jax.device_get(metrics))
    return current, history


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@each_model
def test_steps_lower_the_loss_move_every_leaf_and_keep_the_structure_of_the_state(row):
    model, _, fresh = setup(row)
    assert sorted(objective.wrt for objective in model.objectives) == sorted(fresh.params)
    after, history = trained(row, "jit", calls=150, same_batch=True)
    losses = np.asarray([metrics[row.loss][0] for metrics in history])
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 3 * np.std(losses[-20:]) / np.sqrt(20)
    assert int(after.step) == 150
    assert jax.tree.structure(after) == jax.tree.structure(fresh)
    for old, new in zip(jax.tree.leaves(fresh), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    # A leaf that never got a gradient lies where it lay: Adam moves by the gradient alone.
    for (path, old), new in zip(jax.tree.leaves_with_path(fresh.params), jax.tree.leaves(after.params), strict=True):
        assert np.isfinite(new).all(), path
        assert np.any(old != new), path


@each_model
def test_samples_are_data_and_follow_the_key(row):
    model, _, fresh = setup(row)
    sample = jax.jit(model.sample, static_argnums=3)
    draws, again, other = (sample(fresh.params, fresh.model_state, jax.random.key(k), 6) for k in (0, 0, 1))
    assert draws.shape == (6, *row.shape)
    assert draws.dtype == data(row).dtype
    np.testing.assert_array_equal(draws, again)
    assert np.any(np.asarray(draws) != np.asarray(other))
    if row.levels is not None:
        assert 0 <= int(draws.min()) <= int(draws.max()) < row.levels


@each_model
def test_log_prob_is_one_finite_number_an_example_and_says_its_kind(row):
    model, _, fresh = setup(row)
    if model.log_prob is None:
        pytest.skip("the family has no likelihood")
    likelihood = jax.jit(model.log_prob)(fresh.params, fresh.model_state, jax.random.key(0), jnp.asarray(data(row)))
    assert (likelihood.kind, likelihood.measure) == (row.kind, row.measure)
    assert likelihood.log_prob.shape == (BATCH,)
    assert likelihood.log_prob.dtype == jnp.float32
    assert np.isfinite(likelihood.log_prob).all()


# One row of each family, because its networks know nothing of devices.
FAMILIES = (
    "vae[bernoulli]",
    "made[two orderings]",
    "glow",
    "ddpm[points]",
    "gan[points]",
    "ebm[points]",
    "rbm",
    "energy with chains[points]",
)


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param(MODELS[name], id=name) for name in FAMILIES])
def test_pmap_is_its_vmap_oracle(row):
    mapped, mapped_history = trained(row, "pmap", calls=2)
    oracle, oracle_history = trained(row, "vmap", calls=2)
    # Adam divides by a root of tiny squares at first: parameters agree to a hundredth of a learning rate.
    for one, other in zip(jax.tree.leaves(mapped.params), jax.tree.leaves(oracle.params), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=3e-5)
    for one, other in zip(jax.tree.leaves(mapped.model_state), jax.tree.leaves(oracle.model_state), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=3e-5)
    for one, other in zip(mapped_history, oracle_history, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name)


@each_model
def test_a_run_saved_and_restored_in_the_middle_is_bit_for_bit_the_whole_run(row, tmp_path):
    whole, history = trained(row, "jit", calls=4)
    half, _ = trained(row, "jit", calls=2)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(2, half)
    with Checkpointer(tmp_path) as checkpointer:
        restored = checkpointer.restore_latest(setup(row)[2])
    rest, rest_history = trained(row, "jit", calls=2, start=restored.state)
    assert_equal(whole, rest)
    assert_equal(history[2:], rest_history)
