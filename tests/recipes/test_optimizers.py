"""Optimisers follow their configurations."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.config import AdamConfig, OptimizerConfig, SGDConfig
from gm_jax.errors import UserError
from gm_jax.recipes.optimizers import make_adam, make_optimizer, make_sgd


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_optimizer_follows_its_configuration(schedule):
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, schedule=schedule, accumulate_steps=2), num_steps=8)
    params, state, path = jnp.zeros(()), None, []
    state = optimizer.init(params)
    for _ in range(8):
        update, state = optimizer.update(jnp.ones(()), state, params)
        path.append(-float(update))
    # Adam's update of a constant gradient is the learning rate itself; every other step waits.
    rates = [0.1] * 4 if schedule == "constant" else [0.05 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    np.testing.assert_allclose(path, [rate for pair in zip([0.0] * 4, rates, strict=True) for rate in pair], rtol=1e-4)


@pytest.mark.parametrize(("kind", "expected"), [("weight_decay", 0.1 * 0.25 * 2.0), ("l2", 0.1)])
def test_both_kinds_of_weight_decay_follow_the_configuration(kind, expected):
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, **{kind: 0.25}), num_steps=1)
    params = jnp.full((), 2.0)
    update, _ = optimizer.update(jnp.zeros(()), optimizer.init(params), params)
    # Adam's first update of a gradient that is not zero, here 0.25 * 2, is the learning rate.
    np.testing.assert_allclose(-float(update), expected, rtol=1e-5)


def test_a_warm_up_that_leaves_no_updates_is_an_error():
    with pytest.raises(UserError, match="warm-up takes 4 of 4 updates"):
        make_optimizer(OptimizerConfig(schedule="cosine", warmup_steps=4, accumulate_steps=2), num_steps=8)


@pytest.mark.parametrize(("warmup_steps", "reported"), [(3, False), (4, True), (40, True), (None, True)])
def test_a_constant_rate_that_never_reaches_its_peak_is_reported(warmup_steps, reported, caplog):
    optimizer = OptimizerConfig(schedule="constant", warmup_steps=warmup_steps, accumulate_steps=2)
    make_optimizer(optimizer, num_steps=8)
    text = f"the warm-up takes {100 if warmup_steps is None else warmup_steps} updates and the run has 4"
    assert (text in caplog.text) == reported
    assert ("Use --optimizer.warmup-steps 0, or train for more steps" in caplog.text) == reported


def test_the_adam_of_a_player_has_its_moments_and_its_number_of_updates():
    optimizer = make_adam(AdamConfig(learning_rate=0.1, b1=0.5, b2=0.75), num_updates=4, section="generator")
    params, gradients, m, v = jnp.zeros(()), [1.0, -2.0, 0.5, 3.0], 0.0, 0.0
    state = optimizer.init(params)
    for t, gradient in enumerate(gradients):
        update, state = optimizer.update(jnp.float32(gradient), state, params)
        m, v = 0.5 * m + 0.5 * gradient, 0.75 * v + 0.25 * gradient**2
        rate = 0.05 * (1 + np.cos(np.pi * t / 4))
        expected = -rate * (m / (1 - 0.5 ** (t + 1))) / np.sqrt(v / (1 - 0.75 ** (t + 1)))
        np.testing.assert_allclose(float(update), expected, rtol=1e-4)


@pytest.mark.parametrize(("schedule", "rates"), [("constant", [0.1] * 4), ("linear", [0.1, 0.075, 0.05, 0.025])])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sgd_follows_its_configuration(schedule, rates, momentum):
    optimizer = make_sgd(SGDConfig(learning_rate=0.1, schedule=schedule, momentum=momentum), num_steps=4)
    params, gradients, trace = jnp.zeros(()), [1.0, -2.0, 0.5, 3.0], 0.0
    state = optimizer.init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        update, state = optimizer.update(jnp.float32(gradient), state, params)
        trace = gradient + momentum * trace
        np.testing.assert_allclose(float(update), -rate * trace, rtol=1e-5)
