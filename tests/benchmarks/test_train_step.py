import os

import jax
import numpy as np
import optax

from benchmarks import comparison, timing, train_step
from gm_jax.types import Model, Objective

RNG = np.random.default_rng(0)
SPLIT = {"x": RNG.normal(size=(12, 3)).astype(np.float32)}


def least_squares():
    """min_w E (x w)^2, for which Adam's first steps are known."""

    def loss(params, model_state, key, batch):
        value = (batch["x"] @ params["player"]["w"]).__pow__(2).mean()
        return value, (model_state, {"loss": value})

    return Model(
        init=lambda key, batch: ({"player": {"w": jax.numpy.zeros(3)}}, {}),
        objectives=(Objective("player", loss),),
        log_prob=None,
        sample=None,
    )


def training(**settings):
    given = {"params": {"player": {"w": np.array([1.0, -2.0, 0.5], np.float32)}}, **settings}
    return train_step.Training(least_squares(), SPLIT, 12, 2, **given)


def test_a_call_takes_steps_of_adam_from_the_given_parameters():
    state, step, batches = train_step.ready(training(b1=0.5))
    state, _ = step(state, batches(0))
    w, adam = np.array([1.0, -2.0, 0.5]), optax.adam(train_step.LEARNING_RATE, b1=0.5)
    moments = adam.init(w)
    for _ in range(2):  # a batch is the whole split; only the order differs
        gradient = 2 * SPLIT["x"].T @ (SPLIT["x"] @ w) / 12
        update, moments = adam.update(gradient, moments)
        w = w + np.asarray(update)
    assert int(state.step) == 2
    np.testing.assert_allclose(state.params["player"]["w"], w, rtol=1e-5)


def test_each_call_continues_where_the_last_one_stopped(monkeypatch):
    asked = []
    prepared = train_step.ready(training())
    counted = prepared._replace(batches=lambda first: (asked.append(first), prepared.batches(first))[1])
    monkeypatch.setattr(train_step, "ready", lambda training, strategy: counted)
    run = train_step.make_run(training, ())
    run(2)
    run(1)
    assert asked == [0, 2, 4]


def test_a_device_for_each_core_takes_its_part_of_the_batch(monkeypatch):
    *found, params = timing.in_own_process(spread_over_two_devices)
    assert found == ["pmap", 2]
    state, step, batches = train_step.ready(training())
    np.testing.assert_allclose(params, step(state, batches(0))[0].params["player"]["w"], rtol=1e-6)
    monkeypatch.setattr(timing, "cores", lambda: [0, 1])
    cases = train_step.cases(training, (), {"gm_jax": "-f", "plain": ""})
    assert {name: case.args for name, case in cases.items()} == {
        "gm_jax": (training, (), "-f"),
        "plain": (training, (), ""),
        comparison.SPREAD: (training, (), "-f", 2),
    }
    monkeypatch.setattr(timing, "cores", lambda: [0])
    assert list(train_step.cases(training, (), {"gm_jax": "-f"})) == ["gm_jax"]


def spread_over_two_devices():
    """In a process of its own: the strategy and the devices of a run of two, and its parameters after a call."""
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "").replace("--xla_force_host_platform_device_count=2", "")
    prepared, found = train_step.ready, []

    def ready(training, strategy):
        made = prepared(training, strategy)

        def step(state, batch):
            after = made.step(state, batch)
            found.extend([strategy, jax.device_count(), np.asarray(after[0].params["player"]["w"])])
            return after

        return made._replace(step=step)

    train_step.ready = ready
    train_step.make_run(training, (), devices=2)(1)
    return found


def test_compiling_takes_time():
    assert 0.0 < train_step.compile_seconds(training, ()) < 60.0
