"""Holds the step to written-out updates: gradient descent, players, averages, accumulation, resuming."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax.training import optimizers, state, step
from gm_jax.training.metrics import TAKES_PART
from gm_jax.types import Likelihood, Mean, Model, Objective, every, steps


def noisy_regression():
    """Returns a model of one player whose loss has noise, metrics and model state."""

    def init(key, batch):
        w_key, b_key = jax.random.split(key)
        dims = batch["x"].shape[1]
        return {"net": {"w": jax.random.normal(w_key, (dims,)), "b": jax.random.normal(b_key, ())}}, {
            "mean": jnp.zeros(()),
            "count": jnp.zeros((), jnp.int32),
        }

    def loss(params, model_state, key, batch):
        x = batch["x"] + 0.1 * jax.random.normal(key, batch["x"].shape)
        error = x @ params["net"]["w"] + params["net"]["b"] - batch["y"]
        new_state = {"mean": jnp.mean(x), "count": model_state["count"] + 1}
        return jnp.mean(error**2), (new_state, {"max_error": jnp.max(jnp.abs(error))})

    return Model(init, (Objective("net", loss),), sample=None, sync={"mean": Mean(), "count": Mean()})


def two_players(turns_of_b=None):
    """Returns a scalar game: each player's loss depends on the other's parameter."""

    def init(key, batch):
        return {"a": jnp.asarray(0.7), "b": jnp.asarray(-0.3)}, {}

    def loss_a(params, model_state, key, batch):
        return (params["a"] - params["b"]) ** 2 + 0.1 * params["a"], (model_state, {"seen": params["b"]})

    def loss_b(params, model_state, key, batch):
        return params["b"] * params["a"] + params["b"] ** 2, (model_state, {"seen": params["a"]})

    return Model(init, (Objective("a", loss_a), Objective("b", loss_b, turns_of_b)), sample=None)


def batches(count, size=8, dims=3):
    rng = np.random.default_rng(0)
    return [
        {"x": rng.normal(size=(size, dims)).astype(np.float32), "y": rng.normal(size=size).astype(np.float32)}
        for _ in range(count)
    ]


def run(model, tx, count, *, ema_decay=None, start=None, first=0, data=None):
    data = batches(count + first)[first:] if data is None else data
    txs = tx if isinstance(tx, dict) else {"net": tx}
    current = (
        state.create(model, txs, jax.random.key(3), data[0], ema=ema_decay is not None) if start is None else start
    )
    train_step = jax.jit(step.make_train_step(model, txs, seed=5, ema_decay=ema_decay))
    history = []
    for batch in data:
        current, metrics = train_step(current, batch)
        history.append((current, metrics))
    return history


def test_one_step_is_gradient_descent_written_out():
    model, data = noisy_regression(), batches(1)
    before = state.create(model, {"net": optax.sgd(0.1)}, jax.random.key(3), data[0])
    ((after, metrics),) = run(model, optax.sgd(0.1), 1)
    w, b = np.asarray(before.params["net"]["w"], np.float64), float(before.params["net"]["b"])
    key = jax.random.fold_in(step.step_key(5, jnp.int32(0)), 0)
    x = data[0]["x"] + 0.1 * np.asarray(jax.random.normal(key, data[0]["x"].shape))
    error = x @ w + b - data[0]["y"]
    grad_w, grad_b = 2 * x.T @ error / 8, 2 * error.mean()
    np.testing.assert_allclose(after.params["net"]["w"], w - 0.1 * grad_w, rtol=1e-5)
    np.testing.assert_allclose(after.params["net"]["b"], b - 0.1 * grad_b, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], np.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(np.sum(grad_w**2) + grad_b**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["max_error"], np.abs(error).max(), rtol=1e-5)
    assert int(after.step) == 1
    assert int(after.model_state["count"]) == 1


def test_players_are_updated_in_order_and_see_earlier_updates():
    txs = {"a": optax.sgd(0.1), "b": optax.sgd(0.2)}
    ((after, metrics),) = run(two_players(), txs, 1)
    a = 0.7 - 0.1 * (2 * (0.7 + 0.3) + 0.1)
    b = -0.3 - 0.2 * (a + 2 * -0.3)
    np.testing.assert_allclose(after.params["a"], a, rtol=1e-6)
    np.testing.assert_allclose(after.params["b"], b, rtol=1e-6)
    np.testing.assert_allclose(metrics["b/seen"], a, rtol=1e-6)
    assert set(metrics) == {"a/loss", "a/grad_norm", "a/seen", "b/loss", "b/grad_norm", "b/seen"}


def test_a_player_of_every_third_step_is_held_between_and_still_reports_its_loss():
    txs = {"a": optax.sgd(0.01), "b": optax.sgd(0.2)}
    history = run(two_players(every(3)), txs, 6)
    values = [np.float32(-0.3)] + [np.asarray(current.params["b"]) for current, _ in history]
    moved = [bool(old != new) for old, new in itertools.pairwise(values)]
    assert moved == [False, False, True, False, False, True]
    for current, metrics in history[3:5]:
        a, b = float(current.params["a"]), float(current.params["b"])
        np.testing.assert_allclose(metrics["b/loss"], b * a + b**2, rtol=1e-5)
        assert float(metrics["b/grad_norm"]) == 0.0
    assert float(history[5][1]["b/grad_norm"]) > 0.0


def test_players_of_two_stages_are_held_outside_of_them_with_their_averages():
    model = two_players()
    first, second = model.objectives
    model = model._replace(objectives=(first._replace(turns=steps(0, 2)), second._replace(turns=steps(2))))
    history = run(model, {"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, 4, ema_decay=0.5)
    for player, start, moves in (("a", 0.7, [True, True, False, False]), ("b", -0.3, [False, False, True, True])):
        for get in (lambda current: current.params, lambda current: current.ema_params):
            values = [np.float32(start)] + [np.asarray(get(current)[player]) for current, _ in history]
            assert [bool(old != new) for old, new in itertools.pairwise(values)] == moves, player
    for index, (_, metrics) in enumerate(history):
        for player, active in (("a", index < 2), ("b", index >= 2)):
            own = {name: float(value) for name, value in metrics.items() if name.startswith(f"{player}/")}
            assert own.pop(f"{player}/{TAKES_PART}") == active
            assert all(value != 0.0 for value in own.values()) if active else not any(own.values())
    a, b = float(history[1][0].params["a"]), -0.3
    np.testing.assert_allclose(history[2][1]["b/loss"], b * a + b**2, rtol=1e-5)


@pytest.mark.parametrize("compile", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
def test_the_loss_of_a_player_is_not_computed_outside_of_its_stage(compile):
    model, computed = two_players(), []
    first, second = model.objectives

    def counted(params, model_state, key, batch):
        jax.debug.callback(computed.append, model_state)
        return second.loss(params, model_state, key, batch)

    stages = (first._replace(turns=steps(0, 2)), second._replace(loss=counted, turns=steps(2)))
    model, txs = model._replace(objectives=stages), {"a": optax.sgd(0.1), "b": optax.sgd(0.2)}
    current = state.create(model, txs, jax.random.key(3), batches(1)[0])
    taken = compile(step.make_train_step(model, txs, seed=5))
    for index, batch in enumerate(batches(4)):
        current, metrics = taken(current, batch)
        jax.block_until_ready(metrics)
        jax.effects_barrier()
        assert len(computed) == max(0, index - 1)
    assert {name for name in metrics if name.startswith("b/")} == {"b/loss", "b/grad_norm", "b/seen", f"b/{TAKES_PART}"}


def test_the_average_of_constant_parameters_is_the_constant():
    for current, _ in run(noisy_regression(), optax.sgd(0.0), 3, ema_decay=0.99):
        np.testing.assert_allclose(current.ema_params["net"]["w"], current.params["net"]["w"], rtol=1e-6)


def test_average_follows_its_written_out_recursion():
    history = run(noisy_regression(), optax.sgd(0.1), 12, ema_decay=0.6)
    first = state.create(noisy_regression(), {"net": optax.sgd(0.1)}, jax.random.key(3), batches(1)[0])
    expected = np.asarray(first.params["net"]["w"], np.float64)
    for t, (current, _) in enumerate(history):
        decay = min(0.6, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(current.params["net"]["w"], np.float64)
        np.testing.assert_allclose(current.ema_params["net"]["w"], expected, rtol=1e-5)


def test_accumulated_steps_make_one_update_of_the_mean_gradient():
    schedule = optimizers.constant_schedule(0.1)
    model, data = noisy_regression(), batches(4)
    history = run(model, optimizers.adam(schedule, accumulate_steps=4), 4, ema_decay=0.5, data=data)
    start = state.create(model, {"net": optax.sgd(0.1)}, jax.random.key(3), data[0])
    for current, _ in history[:3]:
        np.testing.assert_array_equal(current.params["net"]["w"], start.params["net"]["w"])
        np.testing.assert_array_equal(current.ema_params["net"]["w"], start.params["net"]["w"])

    def mean_loss(params):
        losses = [
            model.objectives[0].loss(
                params, start.model_state, jax.random.fold_in(step.step_key(5, jnp.int32(t)), 0), data[t]
            )[0]
            for t in range(4)
        ]
        return sum(losses) / 4

    tx = optimizers.adam(schedule)
    updates, _ = tx.update(jax.grad(mean_loss)(start.params)["net"], tx.init(start.params["net"]), start.params["net"])
    expected = optax.apply_updates(start.params["net"], updates)
    np.testing.assert_allclose(history[3][0].params["net"]["w"], expected["w"], rtol=1e-4)
    decay = 1 / 10  # of the first update
    average = decay * start.params["net"]["w"] + (1 - decay) * expected["w"]
    np.testing.assert_allclose(history[3][0].ema_params["net"]["w"], average, rtol=1e-4)


@pytest.mark.parametrize(
    "tx",
    [
        optimizers.accumulate(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)), 3),
        optimizers.Accumulated(optax.chain(optax.apply_every(3), optax.sgd(0.1)), 3),
        optimizers.Accumulated(optax.masked(optimizers.accumulate(optax.sgd(0.1), 3), {"w": True, "b": True}), 3),
    ],
    ids=["chain", "apply_every", "masked"],
)
def test_the_average_changes_with_the_updates_of_an_accumulating_optimizer(tx):
    start = state.create(noisy_regression(), {"net": tx}, jax.random.key(3), batches(1)[0]).params["net"]["w"]
    averages, params = [start], []
    for current, _ in run(noisy_regression(), tx, 6, ema_decay=0.5):
        params.append(current.params["net"]["w"])
        averages.append(current.ema_params["net"]["w"])
    assert [bool(np.any(after != before)) for before, after in itertools.pairwise(averages)] == [False, False, True] * 2
    for update, t in enumerate((2, 5)):
        decay = min(0.5, (1 + update) / (10 + update))
        np.testing.assert_allclose(averages[t + 1], decay * averages[t] + (1 - decay) * params[t], rtol=1e-6)


@pytest.mark.parametrize(
    ("turns", "accumulated", "expected_updates"),
    [(steps(50), 1, 20), (steps(50), 2, 10), (every(3), 1, 23), (every(3), 2, 11), (None, 2, 35)],
)
def test_the_average_of_a_player_warms_up_with_its_own_updates(turns, accumulated, expected_updates):
    model = two_players(turns)
    txs = {"a": optax.sgd(0.001), "b": optimizers.accumulate(optax.sgd(0.01), accumulated)}
    start, num_updates = -0.3, 0
    expected, before = start, np.float32(start)
    for current, _ in run(model, txs, 70, ema_decay=0.999):
        value = np.asarray(current.params["b"])
        if value != before:
            weight = min(0.999, (1 + num_updates) / (10 + num_updates))
            expected = weight * expected + (1 - weight) * float(value)
            num_updates, before = num_updates + 1, value
        np.testing.assert_allclose(current.ema_params["b"], expected, rtol=1e-5)
    assert num_updates == expected_updates


def test_ten_updates_of_a_late_player_leave_little_of_its_initial_parameters():
    def model_of(initial):
        base = two_players(steps(50))
        return base._replace(init=lambda key, batch: ({"a": jnp.asarray(0.7), "b": jnp.asarray(initial)}, {}))

    txs = {"a": optax.sgd(0.0), "b": optax.sgd(0.5)}  # one step puts b = -a / 2, wherever it began
    ends = [run(model_of(at), txs, 60, ema_decay=0.999)[-1][0].ema_params["b"] for at in (-0.3, 0.7)]
    share = float(ends[1] - ends[0])
    # The product of (1 + n) / (10 + n) over n = 0 ... 9; by the run's steps it would be 0.22.
    np.testing.assert_allclose(share, np.prod([(1 + n) / (10 + n) for n in range(10)]), rtol=0.05, atol=1e-6)


@pytest.mark.parametrize(
    "tx",
    [
        optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation(),
        optax.chain(optax.clip_by_global_norm(1.0), optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation()),
        optax.chain(optax.apply_every(3), optax.sgd(0.1)),
    ],
    ids=["MultiSteps", "chain", "apply_every"],
)
def test_an_average_needs_to_know_of_accumulation(tx):
    with pytest.raises(ValueError, match=r"make it with training.optimizers.accumulate"):
        run(noisy_regression(), tx, 1, ema_decay=0.5)
    assert len(run(noisy_regression(), tx, 1)) == 1


def test_the_average_changes_at_every_step_if_only_a_part_accumulates():
    labels = {"w": "slow", "b": "fast"}
    tx = optax.partition({"slow": optimizers.accumulate(optax.sgd(0.1), 3), "fast": optax.sgd(0.1)}, labels)
    averages = [current.ema_params["net"]["b"] for current, _ in run(noisy_regression(), tx, 4, ema_decay=0.5)]
    assert len(set(map(float, averages))) == 4


@pytest.mark.parametrize(("turns", "updates"), [(every(2), [5, 11]), (steps(2), [4, 7, 10]), (steps(0, 7), [2, 5])])
def test_the_average_changes_at_the_last_accumulated_turn_of_a_player(turns, updates):
    model = two_players(turns)
    txs = {"a": optax.sgd(0.1), "b": optimizers.accumulate(optax.sgd(0.1), 3)}
    history = run(model, txs, 12, ema_decay=0.5)
    for get in (lambda current: current.params, lambda current: current.ema_params):
        values = [np.float32(-0.3)] + [np.asarray(get(current)["b"]) for current, _ in history]
        moved = [at for at, (old, new) in enumerate(itertools.pairwise(values)) if old != new]
        assert moved == updates


@pytest.mark.parametrize(
    ("turns", "active"), [(None, range(9)), (every(1), range(9)), (every(3), [2, 5, 8]), (steps(4), range(4, 9))]
)
def test_turns_count_the_updates_before_a_step(turns, active):
    objective = Objective("a", None, turns)
    for at in range(9):
        assert turns is None or bool(turns.is_active(at)) == (at in active)
        for step_number in (at, jnp.int32(at)):
            assert int(objective.updates_before(step_number)) == sum(other < at for other in active)


def test_a_run_cut_in_two_is_bit_for_bit_the_whole_run():
    model, tx = noisy_regression(), optax.adam(0.05)
    whole = run(model, tx, 6, ema_decay=0.9)[-1][0]
    half = run(model, tx, 3, ema_decay=0.9)[-1][0]
    rest = run(model, tx, 3, ema_decay=0.9, start=half, first=3)[-1][0]
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(rest), strict=True):
        np.testing.assert_array_equal(left, right)


def test_keys_differ_by_seed_step_and_device():
    def key_data(seed, at):
        return tuple(np.asarray(jax.random.key_data(step.step_key(seed, jnp.int32(at)))))

    devices = jax.vmap(lambda _: jax.random.key_data(step.step_key(0, jnp.int32(0), "i")), axis_name="i")(jnp.zeros(3))
    keys = {key_data(seed, at) for seed in range(3) for at in range(3)} | {tuple(np.asarray(row)) for row in devices}
    assert len(keys) == 9 + 2  # device 0 draws what a single device draws


def test_many_steps_in_one_call_equal_single_steps():
    model, tx, data = noisy_regression(), optax.adam(0.05), batches(4)
    one_by_one = run(model, tx, 4, data=data)
    train_step = step.make_train_step(model, {"net": tx}, seed=5)
    start = state.create(model, {"net": tx}, jax.random.key(3), data[0])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *data)
    after, metrics = jax.jit(step.many_steps(train_step))(start, stacked)
    np.testing.assert_allclose(after.params["net"]["w"], one_by_one[-1][0].params["net"]["w"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], [float(m["loss"]) for _, m in one_by_one], rtol=1e-5)


def test_players_without_an_optimizer_are_refused():
    with pytest.raises(ValueError, match="players differ"):
        state.create(two_players(), {"a": optax.sgd(0.1)}, jax.random.key(0), batches(1)[0])


def test_no_two_leaves_of_a_fresh_state_share_a_buffer():
    fresh = state.create(noisy_regression(), {"net": optax.adam(0.1)}, jax.random.key(0), batches(1)[0], ema=True)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(fresh)]
    assert len(pointers) == len(set(pointers))


def noisy_log_prob(params, model_state, key, x):
    noise = jax.random.normal(key, (x.shape[0],))
    return Likelihood(
        params["scale"] * jnp.sum(x, axis=1) + noise, kind="lower_bound", measure="continuous", settings=(("K", 3),)
    )


def test_evaluation_noise_depends_on_the_example_and_not_on_the_batch_size():
    x = batches(1, size=12)[0]["x"]
    eval_step = jax.jit(step.make_eval_step(noisy_log_prob, seed=1))

    def evaluate(size):
        parts = [eval_step({"scale": 2.0}, {}, index, x[index * size :][:size]) for index in range(12 // size)]
        assert {(part.kind, part.settings) for part in parts} == {("lower_bound", (("K", 3),))}
        return np.concatenate([part.log_prob for part in parts])

    whole = evaluate(12)
    assert whole.shape == (12,)
    np.testing.assert_allclose(evaluate(4), whole, rtol=1e-6)
    np.testing.assert_allclose(evaluate(3), whole, rtol=1e-6)
    noise = whole - 2.0 * x.sum(axis=1)
    assert len(np.unique(noise.round(4))) == 12
    other_seed = jax.jit(step.make_eval_step(noisy_log_prob, seed=2))({"scale": 2.0}, {}, 0, x).log_prob
    assert np.all(np.abs(other_seed - whole) > 1e-6)


def test_evaluation_shares_no_key_with_training():
    def key_as_log_prob(params, model_state, key, x):
        return Likelihood(jax.random.key_data(key)[None], kind="exact", measure="binary")

    @jax.jit
    def training():
        """The keys of 50 steps, of 4 devices in each and of 2 players on each: a loss may fold numbers into any."""
        fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        at_step = fold(jax.random.key(0), jnp.arange(50))
        on_device = jax.vmap(fold, in_axes=(0, None))(at_step, jnp.arange(4)).reshape(-1)
        of_player = jax.vmap(fold, in_axes=(0, None))(on_device, jnp.arange(2)).reshape(-1)
        return jax.random.key_data(jnp.concatenate([at_step, on_device, of_player]))

    data = jax.jit(step.make_eval_step(key_as_log_prob, seed=0))({}, {}, 0, jnp.zeros((50, 2))).log_prob
    evaluated, trained = (set(map(tuple, np.asarray(keys).tolist())) for keys in (data, training()))
    assert len(evaluated) == 50
    assert not evaluated & trained
    assert tuple(jax.random.key_data(step.step_key(0, jnp.int32(7))).tolist()) in trained
