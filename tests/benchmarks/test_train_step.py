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


def test_a_device_for_each_core_takes_its_part_of_the_batch():
    found = timing.in_own_process(devices_and_parameters)
    state, step, batches = train_step.ready(training())
    np.testing.assert_allclose(found[1], step(state, batches(0))[0].params["player"]["w"], rtol=1e-6)
    assert found[0] == 2
    cases = train_step.cases(training, (), {"gm_jax": "-f", "plain": ""})
    assert {name: case.args for name, case in cases.items()} == {
        "gm_jax": (training, (), "-f"),
        "plain": (training, (), ""),
        comparison.SPREAD: (training, (), "-f", timing.THREADS),
    }


def devices_and_parameters():
    """In a process of its own: how many devices a run of two has, and the parameters after its first call."""
    prepared, states = train_step.ready, []

    def ready(training, strategy):
        found = prepared(training, strategy)
        return found._replace(step=lambda state, batch: states.append(found.step(state, batch)) or states[-1])

    train_step.ready = ready
    train_step.make_run(training, (), devices=2)(1)
    return len(jax.devices()), np.asarray(states[0][0].params["player"]["w"])


def test_compiling_takes_time():
    assert 0.0 < train_step.compile_seconds(training, ()) < 60.0
