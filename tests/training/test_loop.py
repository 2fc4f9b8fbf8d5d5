"""Runs the loop on a `train` of plain Python: which effects it has, in which order, and at which step."""

import math
import os
import random
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gm_jax import signals
from gm_jax.training import loop, metrics, optimizers, parallel, state, step
from gm_jax.types import Model, Objective


class World:
    """Fakes of all arguments of `fit`, and the list of all that it did: (what, step, detail)."""

    def __init__(self, schedule, *, start=0, nan_at=None, finished_from=math.inf, interrupted_from=math.inf):
        self.schedule, self.start, self.nan_at = schedule, start, nan_at
        self.finished_from, self.interrupted_from = finished_from, interrupted_from
        self.events, self.at = [], start

    def train(self, current, batches):
        assert list(batches["x"]) == list(range(self.at, self.at + self.schedule.steps_per_call))
        assert int(current.step) == self.at
        self.at += self.schedule.steps_per_call
        self.events.append(("train", self.at))
        numbers = np.arange(int(current.step) + 1, self.at + 1)
        losses = np.where(numbers == self.nan_at, np.nan, 1.0 / numbers).astype(np.float32)
        return fake_state(self.at), {"accuracy": numbers.astype(np.float32), "loss": losses}

    def fit(self):
        def batches(first):
            return {"x": np.arange(first, first + self.schedule.steps_per_call)}

        effects = loop.Effects(
            log=lambda at, values: self.events.append(("log", at, values)),
            validate=lambda at, current: self.validate(at, current),
            save=lambda at, current, validation: self.events.append(("save", at, (int(current.step), validation))),
            finished=lambda: self.ask("finished") or self.at >= self.finished_from,
            interrupted=lambda: self.at >= self.interrupted_from,
            tick=lambda at: self.events.append(("tick", at)),
        )
        return loop.fit(fake_state(self.start), self.train, batches, self.schedule, effects)

    def validate(self, at, current):
        self.events.append(("validate", at, int(current.step)))
        return -100.0 + at

    def ask(self, question):
        self.events.append((question, self.at))

    def steps(self, what):
        return [event[1] for event in self.events if event[0] == what]

    def lasting(self):
        """Returns what outlives the process: the log, the validations and the validated checkpoints."""
        kept = [event for event in self.events if event[0] in ("log", "validate", "save")]
        return [event for event in kept if not (event[0] == "save" and event[2][1] is None)]


def fake_state(at):
    return state.TrainState(np.int32(at), {}, None, {}, {})


def schedules(count):
    """Yields random schedules as a user may choose them, awkward ones included."""
    draw = random.Random(0)
    for _ in range(count):
        unit = draw.choice([1, 1, 2, 5, 12])
        num_steps, log_every, checkpoint_every = (unit * draw.randint(1, 30) for _ in range(3))
        yield dict(
            num_steps=num_steps,
            steps_per_call=draw.choice([1, 2, 3, 7, 10, 64]),
            log_every=log_every,
            checkpoint_every=checkpoint_every,
        )


@pytest.mark.parametrize(
    ("num_steps", "steps_per_call", "log_every", "checkpoint_every", "expected"),
    [
        (1000, 10, 50, 500, 10),
        (1000, 10, 50, 300, 10),
        (1000, 12, 50, 500, 10),  # 12 does not divide 50; 10 is the largest that does
        (1000, 49, 50, 500, 25),
        (1000, 64, 50, 500, 50),
        (997, 10, 50, 500, 1),  # a prime number of steps
        (6, 10, 50, 500, 2),  # the whole run is shorter than the rest of the schedule
        (1, 10, 1, 1, 1),
    ],
)
def test_steps_per_call_is_lowered_to_the_largest_that_fits(
    num_steps, steps_per_call, log_every, checkpoint_every, expected
):
    made = loop.make_schedule(
        num_steps=num_steps, steps_per_call=steps_per_call, log_every=log_every, checkpoint_every=checkpoint_every
    )
    assert made == (num_steps, expected, log_every, checkpoint_every)


def test_every_effect_happens_exactly_at_its_steps():
    for asked in schedules(300):
        world = World(loop.make_schedule(**asked))
        last = world.fit()
        num_steps, log_every, checkpoint_every = (asked[k] for k in ("num_steps", "log_every", "checkpoint_every"))
        saves = [at for at in range(1, num_steps + 1) if at % checkpoint_every == 0 or at == num_steps]
        assert int(last.step) == num_steps, asked
        assert world.steps("log") == list(range(log_every, num_steps + 1, log_every)), asked
        assert world.steps("validate") == world.steps("save") == saves, asked
        assert world.steps("train") == world.steps("tick"), asked
        assert world.schedule.steps_per_call <= asked["steps_per_call"]


def test_the_last_state_is_validated_and_saved_without_a_due_checkpoint():
    world = World(loop.make_schedule(num_steps=10, steps_per_call=1, log_every=5, checkpoint_every=4))
    world.fit()
    assert [event for event in world.events if event[0] == "save"] == [
        ("save", 4, (4, -96.0)),
        ("save", 8, (8, -92.0)),
        ("save", 10, (10, -90.0)),
    ]


def test_each_checkpoint_comes_after_its_validation_and_every_line_up_to_it():
    world = World(loop.Schedule(num_steps=12, steps_per_call=2, log_every=2, checkpoint_every=4))
    world.fit()
    for at in (4, 8, 12):
        after = [what for what, when, *_ in world.events if when == at and what in ("log", "validate", "save")]
        assert after == ["log", "validate", "save"]
        save = next(index for index, event in enumerate(world.events) if event[:2] == ("save", at))
        assert [event[1] for event in world.events[:save] if event[0] == "log"] == list(range(2, at + 1, 2))


def test_a_line_holds_the_mean_over_the_steps_of_its_call():
    world = World(loop.Schedule(num_steps=6, steps_per_call=3, log_every=3, checkpoint_every=6))
    world.fit()
    (first, second) = [event[2] for event in world.events if event[0] == "log"]
    np.testing.assert_allclose(first["loss"], (1 + 1 / 2 + 1 / 3) / 3, rtol=1e-6)
    np.testing.assert_allclose(second["loss"], (1 / 4 + 1 / 5 + 1 / 6) / 3, rtol=1e-6)
    assert (first["accuracy"], second["accuracy"]) == (2.0, 5.0)


@pytest.mark.parametrize("checkpoint_every", [3, 30])
def test_only_a_few_calls_run_ahead_of_the_host(checkpoint_every):
    fetched, ahead = [], []

    class Pending:
        """A metric on a device: it is fetched when somebody asks for its numbers."""

        def __init__(self, at):
            self.at = at

        def __array__(self, dtype=None, copy=None):
            fetched.append(self.at)
            return np.ones(1, np.float32)

    def train(current, batches):
        at = int(current.step) + 1
        assert fetched == list(range(1, len(fetched) + 1))
        ahead.append(at - 1 - len(fetched))
        return fake_state(at), {"loss": Pending(at)}

    def save(at, current, validation):
        assert fetched == list(range(1, at + 1)), "saved before every metric was looked at"

    schedule = loop.Schedule(num_steps=30, steps_per_call=1, log_every=7, checkpoint_every=checkpoint_every)
    effects = loop.Effects(log=lambda *_: None, validate=lambda *_: None, save=save)
    loop.fit(fake_state(0), train, lambda first: {}, schedule, effects)
    assert max(ahead) == loop.RUN_AHEAD < 8
    assert fetched == list(range(1, 31))


@pytest.mark.parametrize("steps_per_call", [1, 2, 4])
def test_a_nan_loss_stops_the_run_and_nothing_is_saved_after_it(steps_per_call):
    schedule = loop.Schedule(num_steps=16, steps_per_call=steps_per_call, log_every=4, checkpoint_every=4)
    for nan_at in range(1, 17):
        world = World(schedule, nan_at=nan_at)
        with pytest.raises(metrics.NonFiniteError, match=f"loss became nan at step {nan_at}$") as caught:
            world.fit()
        assert (caught.value.step, caught.value.name) == (nan_at, "loss")
        before = [at for at in (4, 8, 12, 16) if at < nan_at]
        assert world.steps("save") == world.steps("validate") == world.steps("log") == before


def test_a_nan_loss_is_seen_without_a_due_line_in_an_interrupted_run():
    schedule = loop.Schedule(num_steps=100, steps_per_call=1, log_every=50, checkpoint_every=100)
    world = World(schedule, nan_at=7, interrupted_from=7)
    with pytest.raises(metrics.NonFiniteError, match="at step 7"):
        world.fit()
    assert world.steps("save") == []


def test_an_interrupted_run_is_saved_once_and_resumes_to_the_same_effects():
    schedule = loop.make_schedule(num_steps=20, steps_per_call=2, log_every=4, checkpoint_every=6)
    whole = World(schedule)
    whole.fit()
    for stop in range(1, 20):
        first = World(schedule, interrupted_from=stop)
        left = first.fit()
        reached = stop + stop % 2  # calls are two steps long
        assert int(left.step) == reached
        saved = [event for event in first.events if event[0] == "save" and event[1] == reached]
        validation = -100.0 + reached if reached % 6 == 0 or reached == 20 else None
        assert saved == [("save", reached, (reached, validation))]
        rest = World(schedule, start=reached)
        assert int(rest.fit().step) == 20
        assert first.lasting() + rest.lasting() == whole.lasting(), stop


def test_a_run_interrupted_before_its_first_step_does_nothing():
    world = World(loop.Schedule(10, 1, 1, 5), interrupted_from=0)
    assert int(world.fit().step) == 0
    assert world.lasting() == []
    assert world.steps("train") == []


def test_a_run_that_is_finished_at_the_start_takes_no_step():
    world = World(loop.Schedule(10, 1, 1, 5), start=5, finished_from=5)
    assert int(world.fit().step) == 5
    assert world.events == [("finished", 5)]


def test_a_run_at_its_end_takes_no_step():
    for start in (10, 12):
        world = World(loop.Schedule(10, 1, 1, 5), start=start)
        assert int(world.fit().step) == start
        assert world.lasting() == []
        assert world.steps("train") == []


def test_early_stopping_is_asked_at_the_start_and_after_each_checkpoint():
    world = World(loop.Schedule(num_steps=100, steps_per_call=1, log_every=10, checkpoint_every=5), finished_from=12)
    assert int(world.fit().step) == 15
    assert world.steps("finished") == [0, 5, 10, 15]
    assert world.steps("save") == [5, 10, 15]


def test_a_first_step_between_two_calls_is_refused():
    world = World(loop.Schedule(num_steps=12, steps_per_call=4, log_every=4, checkpoint_every=4), start=6)
    with pytest.raises(ValueError, match="cannot resume from step 6 in calls of 4 steps"):
        world.fit()
    assert world.events == []


def test_a_resumed_compiled_run_is_bit_for_bit_the_whole_run():
    # The states are donated: the loop must not use one after the call that takes it.
    def init(key, batch):
        return {"net": jax.random.normal(key, (3,))}, {}

    def loss(params, model_state, key, batch):
        noise = jax.random.normal(key, batch["x"].shape)
        return jnp.mean((batch["x"] + noise - params["net"][None]) ** 2), (model_state, {})

    model, schedule = Model(init, (Objective("net", loss),), sample=None), loop.Schedule(12, 2, 4, 4)
    data = np.random.default_rng(0).normal(size=(12, 4, 3)).astype(np.float32)
    txs = {"net": optimizers.adam(optimizers.constant_schedule(0.1))}
    strategy = parallel.jit(jax.devices()[:1])
    train = strategy.compile(step.make_train_step(model, txs, seed=1, ema_decay=0.9))
    fresh = jax.device_get(state.create(model, txs, jax.random.key(0), {"x": data[0]}, ema=True))

    def fit(start, interrupted_from=math.inf):
        saved, lines, reached = {}, [], []
        effects = loop.Effects(
            log=lambda at, values: lines.append((at, values)),
            validate=lambda at, current: None,
            save=lambda at, current, validation: saved.update({at: jax.tree.map(np.array, current)}),
            interrupted=lambda: bool(reached) and reached[-1] >= interrupted_from,
            tick=reached.append,
        )
        place = strategy.place_batches
        loop.fit(strategy.place(start), train, lambda at: place({"x": data[at : at + 2]}), schedule, effects)
        return saved, lines

    saved, lines = fit(fresh)
    half, first_lines = fit(fresh, interrupted_from=6)
    assert list(saved) == [4, 8, 12]
    assert list(half) == [4, 6]
    rest, rest_lines = fit(half[6])
    assert first_lines + rest_lines == lines
    assert len(lines) == 3
    for left, right in zip(jax.tree.leaves(saved[12]), jax.tree.leaves(rest[12]), strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.array_equal(saved[12].params["net"], saved[4].params["net"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_makes_the_run_save_and_stop(number, hangups_count):
    world = World(loop.Schedule(num_steps=20, steps_per_call=1, log_every=5, checkpoint_every=10))
    with signals.deferred():
        effects = loop.Effects(
            log=lambda *_: None,
            validate=world.validate,
            save=lambda at, current, validation: world.events.append(("save", at, validation)),
            interrupted=signals.requested,
            tick=lambda at: os.kill(os.getpid(), number) if at == 7 else None,
        )
        last = loop.fit(fake_state(0), world.train, lambda at: {"x": [at]}, world.schedule, effects)
        assert signals.requested()
    assert int(last.step) == 7
    assert [event for event in world.events if event[0] == "save"] == [("save", 7, None)]


@pytest.mark.parametrize("axis_name", [None, "batch"])
def test_votes_in_the_batch_return_as_a_mean_and_do_not_change_the_step(axis_name):
    def plain(current, batch):
        assert batch.keys() == {"x"}
        return current + 1, {"loss": jnp.float32(2.0)}

    voting = loop.counting_votes(plain, axis_name=axis_name)
    if axis_name is not None:
        voting = jax.vmap(voting, in_axes=(None, 0), out_axes=None, axis_name=axis_name)
    shape = (3,) if axis_name is None else (3, 1)
    for votes in ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0]):
        batch = {"x": jnp.ones(shape), loop.VOTES: jnp.array(votes).reshape(shape)}
        current, values = voting(4, batch)
        assert (int(current), float(values["loss"])) == (5, 2.0)
        assert float(values[loop.VOTES]) == pytest.approx(sum(votes) / 3)


@pytest.mark.parametrize("taken", [{}, {metrics.TAKES_PART: np.zeros(2)}], ids=["every step", "a player at rest"])
def test_a_vote_stops_the_run_at_the_call_that_counts_it(taken):
    schedule = loop.Schedule(num_steps=20, steps_per_call=2, log_every=2, checkpoint_every=20)
    world = World(schedule)
    train = world.train

    def voted(current, batches):
        current, values = train(current, batches)
        return current, values | taken | {loop.VOTES: np.full(2, 0.25 if world.at == 4 else 0.0)}

    world.train = voted
    world.fit()
    assert world.at == 4 + 2 * loop.RUN_AHEAD
    assert [event for event in world.events if event[0] == "save"] == [("save", world.at, (world.at, None))]
    logged = set() if taken else {"accuracy", "loss"}
    assert all(event[2].keys() == logged for event in world.events if event[0] == "log")
