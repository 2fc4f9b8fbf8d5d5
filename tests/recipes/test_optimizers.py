"""Optimisers follow their configurations."""

import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax.config import AdamConfig, OptimizerConfig, SGDConfig, TrainConfig
from gm_jax.errors import UserError
from gm_jax.recipes.configs import OwnModelConfig
from gm_jax.recipes.optimizers import make_adam, make_average, make_optimizer, make_sgd


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


def adamax(t, m, u, g):
    m, u = 0.8 * m + 0.2 * g, max(0.9 * u, abs(g) + 1e-3)  # the paper has no eps; optax adds it here
    return m, u, m / (1 - 0.8**t) / u


def radam(t, m, v, g):
    m, v, longest = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2, 2 / 0.1 - 1
    length = longest - 2 * t * 0.9**t / (1 - 0.9**t)
    if length <= 5:
        return m, v, m / (1 - 0.8**t)
    rectified = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return m, v, rectified * m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)


def adagrad(t, _, total, g):
    return 0.0, total + g**2, g / np.sqrt(total + g**2 + 1e-3)


def rmsprop(t, _, v, g):
    v = 0.9 * v + 0.1 * g**2
    return 0.0, v, g / np.sqrt(v + 1e-3)


@pytest.mark.parametrize("written_out", [adamax, radam, adagrad, rmsprop])
def test_every_algorithm_is_its_recursion(written_out):
    """Kingma & Ba, algorithm 2; Liu et al. (2020), algorithm 2; Duchi et al. (2011); Tieleman & Hinton (2012)."""
    name = written_out.__name__
    config = OptimizerConfig(algorithm=name, learning_rate=0.1, b1=0.8, b2=0.9, eps=1e-3, l2=0.25)
    optimizer, params, m, v = make_optimizer(config, num_steps=20), jnp.float32(2.0), 0.0, 0.0
    state = optimizer.init(params)
    for t, gradient in enumerate(np.random.default_rng(0).normal(size=20), start=1):
        # Coupled L2: by hand, l2 * theta joins the gradient.
        m, v, update = written_out(t, m, v, gradient + 0.25 * float(params))
        change, state = optimizer.update(jnp.float32(gradient), state, params)
        np.testing.assert_allclose(float(change), -0.1 * update, rtol=2e-4, err_msg=f"update {t}")
        params = params + change


def test_the_moments_decay_follow_the_configuration():
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, b1=0.0, b2=0.0, eps=1e-8), num_steps=2)
    params = jnp.zeros(())
    _, state = optimizer.update(jnp.float32(5.0), optimizer.init(params), params)
    update, _ = optimizer.update(jnp.float32(-1e-3), state, params)
    np.testing.assert_allclose(float(update), 0.1, rtol=1e-4)  # without memory, Adam follows the sign


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"schedule": "linear"}, [0.1, 0.075, 0.05, 0.025]),
        ({"schedule": "exponential", "decay_rate": 0.5}, [0.1, 0.05, 0.025, 0.0125]),
        ({"schedule": "steps", "boundaries": (1, 3), "factors": (0.5, 2.0)}, [0.1, 0.05, 0.05, 0.2]),
    ],
)
def test_every_schedule_follows_its_configuration(fields, rates):
    optimizer, params = make_optimizer(OptimizerConfig(learning_rate=0.1, **fields), num_steps=4), jnp.zeros(())
    state = optimizer.init(params)
    for rate in rates:
        update, state = optimizer.update(jnp.ones(()), state, params)
        np.testing.assert_allclose(-float(update), rate, rtol=1e-4)


def test_the_rate_of_a_player_can_fall_along_a_line():
    optimizer = make_adam(AdamConfig(learning_rate=0.1, schedule="linear"), num_updates=4, section="generator")
    state = optimizer.init(jnp.zeros(()))
    for rate in [0.1, 0.075, 0.05, 0.025]:
        update, state = optimizer.update(jnp.ones(()), state)
        np.testing.assert_allclose(-float(update), rate, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay_rate": 0.5}, "--optimizer.decay-rate 0.5 has no effect on --optimizer.schedule constant"),
        ({"boundaries": (3, 5)}, "--optimizer.boundaries 3 5 has no effect"),
        ({"schedule": "steps", "boundaries": (3,)}, "a factor for each of 1 boundaries"),
        ({"schedule": "linear", "warmup_steps": 8}, "the warm-up takes 8 of 8 updates"),
    ],
)
def test_fields_of_another_schedule_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(OptimizerConfig(**fields), num_steps=8)


@pytest.mark.parametrize(
    ("train", "weights"),
    [
        ({"ema_decay": 0.9}, [0.1, 2 / 11, 0.9]),
        ({"ema_decay": 0.9, "ema_warmup": "none"}, [0.9, 0.9, 0.9]),
        ({"ema_halflife": 640.0, "ema_warmup": "none"}, [0.5**0.3] * 3),
        ({"ema_halflife": 640.0}, [0.1, 2 / 11, 0.5**0.3]),
        ({"ema_halflife": 640.0, "ema_warmup": "ramp"}, [0.0, 0.5**20, 0.5**0.3]),
    ],
)
def test_the_average_follows_the_configuration(train, weights):
    """An update is the gradient of 3 batches of 64: the half-life of 640 images is 10 / 3 updates."""
    config = OwnModelConfig(train=TrainConfig(batch_size=64, **train), optimizer=OptimizerConfig(accumulate_steps=3))
    found = [float(make_average(config)(jnp.int32(n))) for n in (0, 1, 1_000)]
    np.testing.assert_allclose(found, weights, rtol=1e-5, atol=1e-30)


def test_without_a_decay_there_is_no_average_and_two_names_of_one_number_are_refused():
    assert make_average(OwnModelConfig(train=TrainConfig())) is None
    with pytest.raises(UserError, match=r"use --train\.ema-decay 0, or leave out the half-life"):
        make_average(OwnModelConfig(train=TrainConfig(ema_decay=0.9, ema_halflife=100.0)))
