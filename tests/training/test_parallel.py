"""jit, pmap and the vmap oracle give the same update; a run compiles once; batches that do not divide are refused."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.training import optimizers, parallel, state, step
from gm_jax.types import Mean, Model, Objective


def mlp_model(*, noise):
    """Returns a small network. With `noise`, devices draw their own; without it, the loss is a mean over the batch."""

    def init(key, batch):
        first, second = jax.random.split(key)
        params = {"w1": 0.3 * jax.random.normal(first, (4, 16)), "w2": 0.3 * jax.random.normal(second, (16, 2))}
        return {"net": params}, {"mean": jnp.zeros((16,)), "count": jnp.zeros((), jnp.int32)}

    def loss(params, model_state, key, batch):
        x = batch["x"] + (0.5 * jax.random.normal(key, batch["x"].shape) if noise else 0.0)
        hidden = jnp.tanh(x @ params["net"]["w1"])
        error = hidden @ params["net"]["w2"] - batch["y"]
        new_state = {"mean": 0.9 * model_state["mean"] + 0.1 * hidden.mean(axis=0), "count": model_state["count"] + 1}
        return jnp.mean(jnp.sum(error**2, axis=1)), (new_state, {"hidden": jnp.mean(hidden)})

    return Model(init, (Objective("net", loss),), sample=None, sync={"mean": Mean(), "count": Mean()})


def train(strategy, *, noise, calls=3, steps_per_call=2, batch_size=16):
    model = mlp_model(noise=noise)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(1e-2), clip_norm=1.0)}
    rng = np.random.default_rng(0)
    shape = (calls, steps_per_call, batch_size)
    x, y = (rng.normal(size=(*shape, d)).astype(np.float32) for d in (4, 2))
    first = {"x": x[0, 0], "y": y[0, 0]}
    current = strategy.place(state.create(model, txs, jax.random.key(0), first, ema=True))
    train_step = step.make_train_step(model, txs, seed=7, ema_decay=0.9, axis_name=strategy.axis_name)
    compiled, losses = strategy.compile(train_step), []
    for call in range(calls):
        current, metrics = compiled(current, strategy.place_batches({"x": x[call], "y": y[call]}))
        losses.append(np.asarray(metrics["loss"]))
    return current, np.concatenate(losses), compiled


def assert_close(left, right, rtol, atol=1e-7):
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=rtol, atol=atol)


def check_agreement(devices):
    count = len(devices)
    for noise in (True, False):
        mapped, mapped_losses, _ = train(parallel.pmap(devices), noise=noise)
        oracle, oracle_losses, _ = train(parallel.vmap(count), noise=noise)
        assert_close(mapped, oracle, rtol=2e-5)
        np.testing.assert_allclose(mapped_losses, oracle_losses, rtol=1e-5)
    # Noise differs between the local and the global view by design; without it all three are one update.
    whole, whole_losses, _ = train(parallel.jit(devices), noise=False)
    assert_close(whole, mapped, rtol=2e-5)
    np.testing.assert_allclose(whole_losses, mapped_losses, rtol=1e-5)
    # The global view draws the same noise on any number of devices.
    for noise in (True, False):
        many, _, _ = train(parallel.jit(devices), noise=noise)
        one, _, _ = train(parallel.jit(devices[:1]), noise=noise)
        assert_close(many, one, rtol=2e-5)


@pytest.mark.two_devices
def test_jit_pmap_and_the_vmap_oracle_give_the_same_update_on_two_devices():
    assert len(jax.devices()) == 2
    check_agreement(jax.devices())


@pytest.mark.slow
def test_jit_pmap_and_the_vmap_oracle_give_the_same_update_on_eight_devices():
    program = (
        "import runpy, jax; jax.config.update('jax_numpy_rank_promotion', 'raise')\n"
        f"names = runpy.run_path({str(Path(__file__))!r})\n"
        "assert len(jax.devices()) == 8\n"
        "names['check_agreement'](jax.devices())"
    )
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"  # the last one counts
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.two_devices
def test_devices_draw_different_noise_under_pmap():
    def loss(params, model_state, key, batch):
        noise = jax.random.normal(key, ())
        return jnp.sum(params["net"]) * 0.0, (model_state, {"noise": noise, "square": noise**2})

    strategy = parallel.pmap()
    model = Model(lambda key, batch: ({"net": jnp.zeros(2)}, {}), (Objective("net", loss),), sample=None)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(1e-2))}
    batch = {"x": np.zeros((1, 8, 4), np.float32)}
    current = strategy.place(state.create(model, txs, jax.random.key(0), {"x": batch["x"][0]}))
    compiled = strategy.compile(step.make_train_step(model, txs, seed=0, axis_name=strategy.axis_name))
    _, metrics = compiled(current, strategy.place_batches(batch))
    # Equal draws would have a mean square equal to the square of their mean.
    assert float(metrics["square"][0] - metrics["noise"][0] ** 2) > 1e-4


def test_the_vmap_oracle_refuses_a_step_that_does_not_average():
    model = mlp_model(noise=True)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(1e-2))}
    strategy = parallel.vmap(2)
    batch = {"x": np.ones((1, 8, 4), np.float32), "y": np.ones((1, 8, 2), np.float32)}
    current = state.create(model, txs, jax.random.key(0), {"x": batch["x"][0], "y": batch["y"][0]})
    unaveraged = strategy.compile(step.make_train_step(model, txs, seed=0, axis_name=None))
    sharded = strategy.place_batches(batch)
    sharded["x"] = sharded["x"] * np.arange(1.0, 3.0, dtype=np.float32).reshape(2, 1, 1, 1)
    with pytest.raises(ValueError, match="None"):
        unaveraged(current, sharded)


@pytest.mark.parametrize("make", [parallel.jit, parallel.pmap])
def test_the_step_is_compiled_once_per_run(make):
    traces = []
    strategy = make()
    model = mlp_model(noise=True)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(1e-2))}
    inner = step.make_train_step(model, txs, seed=0, axis_name=strategy.axis_name)

    def counted(current, batch):
        traces.append(None)
        return inner(current, batch)

    batch = {"x": np.ones((2, 8, 4), np.float32), "y": np.ones((2, 8, 2), np.float32)}
    current = strategy.place(state.create(model, txs, jax.random.key(0), {"x": batch["x"][0], "y": batch["y"][0]}))
    compiled = strategy.compile(counted)
    current, _ = compiled(current, strategy.place_batches(batch))
    after_first = len(traces)
    for _ in range(4):
        current, _ = compiled(current, strategy.place_batches(batch))
    assert len(traces) == after_first
    if make is parallel.jit:
        assert compiled.function._cache_size() == 1


def test_the_state_is_donated():
    strategy = parallel.jit()
    model = mlp_model(noise=False)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(1e-2))}
    batch = {"x": np.ones((1, 8, 4), np.float32), "y": np.ones((1, 8, 2), np.float32)}
    current = strategy.place(state.create(model, txs, jax.random.key(0), {"x": batch["x"][0], "y": batch["y"][0]}))
    compiled = strategy.compile(step.make_train_step(model, txs, seed=0))
    compiled(current, strategy.place_batches(batch))
    assert current.params["net"]["w1"].is_deleted()


@pytest.mark.parametrize("make", [parallel.jit, parallel.pmap])
def test_a_state_that_was_donated_is_refused_with_what_happened(make):
    strategy = make()
    model = mlp_model(noise=False)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(1e-2))}
    batch = {"x": np.ones((1, 8, 4), np.float32), "y": np.ones((1, 8, 2), np.float32)}
    current = strategy.place(state.create(model, txs, jax.random.key(0), {"x": batch["x"][0], "y": batch["y"][0]}))
    kept = jax.tree.map(jnp.copy, current)
    compiled = strategy.compile(step.make_train_step(model, txs, seed=0, axis_name=strategy.axis_name))
    once, _ = compiled(current, strategy.place_batches(batch))
    with pytest.raises(UserError, match=r"was given to a train step before.*\n.*copy it before"):
        compiled(current, strategy.place_batches(batch))
    again, _ = compiled(kept, strategy.place_batches(batch))
    assert_close(once.params, again.params, rtol=0, atol=0)


@pytest.mark.parametrize("make", [parallel.jit, parallel.pmap])
def test_evaluation_agrees_between_strategies_and_keeps_the_order_of_examples(make):
    compiled = make().compile_eval(lambda params, model_state, index, x: params["a"] * jnp.sum(x, axis=1) + index)
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    values = compiled({"a": jnp.float32(2.0)}, {}, 3, x)
    np.testing.assert_allclose(values, 2 * x.sum(axis=1) + 3)


@pytest.mark.two_devices
def test_a_batch_that_devices_cannot_divide_is_refused():
    parallel.check_batch_size(8, parallel.jit())
    for size in (7, 0, -2):
        with pytest.raises(UserError, match="devices"):
            parallel.check_batch_size(size, parallel.jit())


@pytest.mark.parametrize("strategy", [parallel.jit, parallel.pmap])
def test_with_one_process_local_and_everywhere_change_nothing(strategy):
    placed = strategy().place({"w": jnp.arange(3.0)})
    assert parallel.local(placed)["w"] is placed["w"]
    assert parallel.everywhere(placed)["w"] is placed["w"]
