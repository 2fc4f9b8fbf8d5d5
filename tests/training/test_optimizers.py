"""Holds schedules to values worked out by hand, and Adam to its recursion in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.training import optimizers

PARAMS = {"w": np.array([[0.5, -1.5], [2.0, 0.25]]), "b": np.array([-0.75, 1.25])}


def gradients(count, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [{name: scale * rng.normal(size=p.shape) for name, p in PARAMS.items()} for _ in range(count)]


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.asarray(leaf, np.float64) ** 2) for leaf in tree.values())))


def run(tx, grads):
    """Returns the parameters after each gradient."""

    @jax.jit
    def step(params, opt_state, grad):
        updates, opt_state = tx.update(grad, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state, history = PARAMS, tx.init(PARAMS), []
    for grad in grads:
        params, opt_state = step(params, opt_state, grad)
        history.append(jax.device_get(params))
    return history


def adam_written_out(grads, rate, *, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, l2=0.0, clip_norm=np.inf):
    """Runs Kingma & Ba, algorithm 1, on clipped gradients, with both decays of Loshchilov & Hutter, algorithm 2."""
    params = {name: np.asarray(leaf, np.float64) for name, leaf in PARAMS.items()}
    m, v = ({name: np.zeros(leaf.shape) for name, leaf in PARAMS.items()} for _ in range(2))
    history = []
    for t, grad in enumerate(grads, start=1):
        shrink = min(1.0, clip_norm / norm(grad))
        new = {}
        for name, p in params.items():
            g = shrink * np.asarray(grad[name], np.float64) + l2 * p
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            m_hat, v_hat = m[name] / (1 - b1**t), v[name] / (1 - b2**t)
            new[name] = p - rate(t - 1) * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * p)
        params = new
        history.append(params)
    return history


def assert_same(history, expected, rtol=1e-12):
    for step, (left, right) in enumerate(zip(history, expected, strict=True)):
        for name in PARAMS:
            np.testing.assert_allclose(left[name], right[name], rtol=rtol, err_msg=f"{name} after update {step + 1}")


def values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_constant_schedule_is_constant():
    assert values(optimizers.constant_schedule(0.3), [0, 1, 1000]) == pytest.approx([0.3] * 3, rel=1e-7)


def test_constant_schedule_warms_up_linearly_from_zero():
    schedule = optimizers.constant_schedule(0.4, warmup_steps=4)
    expected = [0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4]
    np.testing.assert_allclose(values(schedule, [0, 1, 2, 3, 4, 5, 1000]), expected, rtol=1e-6, atol=0)


def test_cosine_schedule_falls_to_zero_along_half_a_cosine_and_stays_there():
    schedule = optimizers.cosine_schedule(0.8, num_steps=12)
    # 0.8 (1 + cos(pi t / 12)) / 2 at the angles with known cosines: 0, 45, 60, 90, 120, 180 degrees
    expected = [0.8, 0.4 * (1 + np.sqrt(0.5)), 0.6, 0.4, 0.2]
    np.testing.assert_allclose(values(schedule, [0, 3, 4, 6, 8]), expected, rtol=1e-6)
    assert values(schedule, [12, 13, 1000]) == [0.0, 0.0, 0.0]


def test_cosine_schedule_includes_the_warm_up_in_its_steps():
    schedule = optimizers.cosine_schedule(0.8, num_steps=16, warmup_steps=4)
    expected = [0.0, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2]
    np.testing.assert_allclose(values(schedule, [0, 1, 2, 3, 4, 8, 10, 12]), expected, rtol=1e-6, atol=0)
    assert values(schedule, [16, 17]) == [0.0, 0.0]


def test_schedules_take_the_counter_of_the_compiled_step():
    for schedule in (
        optimizers.constant_schedule(0.4, warmup_steps=4),
        optimizers.cosine_schedule(0.8, num_steps=16, warmup_steps=4),
    ):
        traced = jax.jit(lambda counts, schedule=schedule: jax.vmap(schedule)(counts))(jnp.arange(20, dtype=jnp.int32))
        np.testing.assert_allclose(traced, values(schedule, range(20)), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("num_steps", "warmup_steps"), [(10, 10), (10, 11), (10, -1), (0, 0)])
def test_a_cosine_schedule_without_steps_after_the_warm_up_is_refused(num_steps, warmup_steps):
    with pytest.raises(ValueError, match=f"less than num_steps = {num_steps} and not negative, got {warmup_steps}"):
        optimizers.cosine_schedule(0.1, num_steps=num_steps, warmup_steps=warmup_steps)


def test_a_negative_warm_up_is_refused():
    # optax would keep the learning rate at 0 forever.
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        optimizers.constant_schedule(0.1, warmup_steps=-1)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_a_clip_norm_that_is_not_positive_is_refused(clip_norm):
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        optimizers.adam(optimizers.constant_schedule(0.1), clip_norm=clip_norm)


@pytest.mark.parametrize("accumulate_steps", [0, -2])
def test_accumulating_no_steps_is_refused(accumulate_steps):
    with pytest.raises(ValueError, match="accumulate_steps must be at least 1"):
        optimizers.adam(optimizers.constant_schedule(0.1), accumulate_steps=accumulate_steps)


def test_adam_is_its_recursion(x64):
    grads = gradients(8)
    # The schedule's rates are float32 for any parameters; these rates are exact in float32.
    tx = optimizers.adam(optimizers.constant_schedule(0.125, warmup_steps=4), b1=0.8, b2=0.95)
    expected = adam_written_out(grads, lambda t: 0.125 * min(t / 4, 1.0), b1=0.8, b2=0.95)
    assert_same(run(tx, grads), expected)


def test_adam_has_the_defaults_of_the_paper(x64):
    grads = gradients(4)
    tx = optimizers.adam(optimizers.constant_schedule(0.1))
    assert_same(run(tx, grads), adam_written_out(grads, lambda t: 0.1, b1=0.9, b2=0.999, eps=1e-8))


def test_eps_is_added_outside_the_root(x64):
    # If gradients are as small as eps, m / (sqrt(v) + eps) and m / sqrt(v + eps) differ much.
    grads = gradients(4, scale=1e-3)
    tx = optimizers.adam(optimizers.constant_schedule(0.1), eps=1e-3)
    assert_same(run(tx, grads), adam_written_out(grads, lambda t: 0.1, eps=1e-3))


def test_weight_decay_is_decoupled_from_the_gradient_and_follows_the_schedule(x64):
    grads = gradients(6)
    tx = optimizers.adam(optimizers.cosine_schedule(0.1, num_steps=10), weight_decay=0.3)
    expected = adam_written_out(grads, lambda t: 0.05 * (1 + np.cos(np.pi * t / 10)), weight_decay=0.3)
    assert_same(run(tx, grads), expected)


def test_coupled_decay_joins_the_clipped_gradient_before_the_moments(x64):
    grads = gradients(6, scale=3.0)
    tx = optimizers.adam(optimizers.constant_schedule(0.125), weight_decay=0.1, l2=0.3, clip_norm=1.0)
    assert_same(run(tx, grads), adam_written_out(grads, lambda t: 0.125, weight_decay=0.1, l2=0.3, clip_norm=1.0))
    decoupled = adam_written_out(grads, lambda t: 0.125, weight_decay=0.4, clip_norm=1.0)
    assert max(np.abs(decoupled[-1][name] - run(tx, grads)[-1][name]).max() for name in PARAMS) > 1e-2


def test_weight_decay_alone_shrinks_the_parameters_geometrically():
    zeros = [jax.tree.map(np.zeros_like, PARAMS)] * 3
    history = run(optimizers.adam(optimizers.constant_schedule(0.1), weight_decay=0.5, clip_norm=1.0), zeros)
    for count, params in enumerate(history, start=1):
        for name in PARAMS:
            np.testing.assert_allclose(params[name], PARAMS[name] * 0.95**count, rtol=1e-6)


def test_only_a_larger_global_norm_is_clipped(x64):
    grads = gradients(3, scale=3.0) + gradients(3, scale=0.01, seed=1) + gradients(2, scale=3.0, seed=2)
    assert [norm(grad) > 1.0 for grad in grads] == [True] * 3 + [False] * 3 + [True] * 2
    tx = optimizers.adam(optimizers.constant_schedule(0.1), b2=0.9, weight_decay=0.1, clip_norm=1.0)
    clipped = adam_written_out(grads, lambda t: 0.1, b2=0.9, weight_decay=0.1, clip_norm=1.0)
    assert_same(run(tx, grads), clipped)
    free = adam_written_out(grads, lambda t: 0.1, b2=0.9, weight_decay=0.1)
    assert max(np.abs(free[-1][name] - clipped[-1][name]).max() for name in PARAMS) > 1e-2


def test_accumulated_gradients_make_the_update_of_their_mean(x64):
    grads = gradients(9, scale=3.0)
    means = [
        {name: np.mean([np.asarray(grad[name], np.float64) for grad in grads[i : i + 3]], axis=0) for name in PARAMS}
        for i in (0, 3, 6)
    ]
    assert all(norm(mean) > 1.0 for mean in means)
    # The schedule counts updates, not gradients: it is warm after 2 updates. Clipping applies to the mean.
    schedule = optimizers.constant_schedule(0.125, warmup_steps=2)
    history = run(optimizers.adam(schedule, clip_norm=1.0, weight_decay=0.1, accumulate_steps=3), grads)
    expected = adam_written_out(means, lambda t: 0.125 * min(t / 2, 1.0), clip_norm=1.0, weight_decay=0.1)
    assert_same(history[2::3], expected, rtol=1e-7)  # optax divides by a float32 counter
    for held, update in zip(history, [PARAMS] * 2 + [history[2]] * 3 + [history[5]] * 3, strict=False):
        for name in PARAMS:
            np.testing.assert_array_equal(held[name], update[name])


def test_clipping_scales_a_gradient_down_to_the_norm_and_keeps_its_direction():
    grad = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([-4.0])}
    tx = optimizers.clip_by_global_norm(2.0)
    clipped, _ = tx.update(grad, tx.init(grad))
    np.testing.assert_allclose(clipped["a"], [1.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [-1.6], rtol=1e-6)
    small = jax.tree.map(lambda leaf: 0.1 * leaf, grad)
    jax.tree.map(np.testing.assert_array_equal, tx.update(small, tx.init(small))[0], small)


def test_the_number_of_accumulated_steps_is_declared():
    adam = optimizers.adam(optimizers.constant_schedule(0.1), accumulate_steps=3)
    assert isinstance(adam, optax.GradientTransformation)
    assert optimizers.accumulate_steps(adam) == 3
    assert optimizers.accumulate_steps(optax.sgd(0.1)) == 1
    assert optimizers.accumulate(sgd := optax.sgd(0.1), 1) is sgd


def test_a_linear_schedule_falls_to_zero_after_its_warm_up():
    schedule = optimizers.linear_schedule(0.8, num_steps=12, warmup_steps=4)
    expected = [0.0, 0.2, 0.4, 0.6, 0.8, 0.7, 0.4, 0.1, 0.0, 0.0]
    np.testing.assert_allclose(values(schedule, [0, 1, 2, 3, 4, 5, 8, 11, 12, 99]), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rate", [0.999995, 0.99, 0.4, 1.0])
def test_an_exponential_schedule_multiplies_the_rate_at_each_update(rate):
    # In float32, 0.999995 to the power of a million is 3 % off unless the power is taken of something else.
    schedule = optimizers.exponential_schedule(0.5, decay_rate=rate)
    steps = np.array([0, 1, 7, 100, 1_000_000 if rate > 0.9999 else 200])
    np.testing.assert_allclose(values(schedule, steps), 0.5 * np.float64(rate) ** steps, rtol=2e-5, atol=1e-38)


def test_an_exponential_schedule_starts_after_its_warm_up():
    schedule = optimizers.exponential_schedule(0.5, decay_rate=0.9, warmup_steps=5)
    expected = [0.0, 0.1, 0.4, 0.5, 0.45, 0.405]
    np.testing.assert_allclose(values(schedule, [0, 1, 4, 5, 6, 7]), expected, rtol=1e-5)


def test_a_step_schedule_changes_at_its_boundaries():
    schedule = optimizers.step_schedule(0.8, boundaries=(6, 9), factors=(0.5, 0.125), warmup_steps=2)
    expected = [0.0, 0.4, 0.8, 0.8, 0.4, 0.4, 0.1, 0.1]
    np.testing.assert_allclose(values(schedule, [0, 1, 2, 5, 6, 8, 9, 10_000]), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("boundaries", "factors", "message"),
    [((3,), (), "a factor for each of 1"), ((3, 3), (1.0, 0.5), "must increase"), ((2,), (0.5,), "must increase")],
)
def test_a_step_schedule_of_other_steps_is_refused(boundaries, factors, message):
    with pytest.raises(ValueError, match=message):
        optimizers.step_schedule(0.1, boundaries=boundaries, factors=factors, warmup_steps=2)
