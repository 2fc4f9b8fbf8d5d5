"""One update of every player, written once, per device.

`make_train_step` knows objectives and optimisers, but neither the family nor where the step runs. With `axis_name` it
averages gradients and metrics over that axis and keeps the model state by `Model.sync`; `parallel.py` binds the axis.

Randomness is a function of the seed and the place,

    key = fold_in(fold_in(fold_in(key(seed), step), device), player),

so that there is no key to save, and a resumed run draws what the uninterrupted run would have drawn.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from gm_jax.training import ema
from gm_jax.training import metrics as metrics_lib
from gm_jax.training import model_state as model_state_lib
from gm_jax.training import optimizers as optimizers_lib
from gm_jax.training.state import TrainState
from gm_jax.types import (
    Array,
    Batch,
    Key,
    LossOutput,
    Metrics,
    Model,
    ModelState,
    Objective,
    Params,
    PyTree,
    Sync,
    steps,
)

# Folded into the seed first, it separates the keys of evaluation from those of training's steps, which count from 0
# and never reach it.
_EVALUATION = 0xFFFFFFFE

T = TypeVar("T")
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class PlayerState(NamedTuple):
    """The state that the update of one player changes."""

    params: PyTree
    opt_state: PyTree
    model_state: ModelState


def step_key(seed: int, step: Array, axis_name: str | None = None) -> Key:
    """Returns the random key of one step on one device; without an axis, the key of device 0."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.random.fold_in(key, 0 if axis_name is None else jax.lax.axis_index(axis_name))


def make_train_step(
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    seed: int,
    ema_decay: float | ema.WeightFn | None = None,
    axis_name: str | None = None,
    spread: Callable[[PyTree], PyTree] | None = None,
) -> TrainStep:
    """Makes the step (state, batch) -> (state, metrics) of one device.

    Players are updated in the order of `model.objectives`; each sees the new parameters of those before it. Metrics are
    scalars: what the losses report, and each player's `loss` and `grad_norm` (before clipping; 0 without an update). If
    there are several players, names begin with `player/`. Of a player with a stage (`types.steps`), `takes_part` is 1;
    outside of the stage all its metrics are 0, and its loss is not computed.

    Args:
        model: the family; `state.create` made the state from the same one.
        optimizers: one per player; one that accumulates gradients comes from `optimizers.accumulate`.
        seed: the run's seed.
        ema_decay: weight of the parameters' average, see `ema`; a number stands for `ema.by_ratio`, None for none.
        axis_name: the mapped axis over which to average, if any.
        spread: divides rows of model state among devices, `Strategy.spread`; None to leave them.

    Returns:
        A pure function; every leaf of the batch is [B, ...], this device's part. Its trace raises a ValueError if
        `model.sync` misses a collection of the model state, or if an average cannot see accumulated gradients.
    """
    weight_fn = ema.by_ratio(ema_decay) if isinstance(ema_decay, (int, float)) else ema_decay

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        model_state_lib.check(state.model_state, model.sync)
        if weight_fn is not None and state.ema_params is None:
            raise ValueError("the state holds no average of the parameters: create it with ema=True")
        _, params, ema_params, opt_state, model_state = state
        all_metrics: Metrics = {}
        for index, objective in enumerate(model.objectives):
            player, optimizer = objective.wrt, optimizers[objective.wrt]
            player_state, metrics = _take_turn(
                objective,
                optimizer,
                model.sync,
                params,
                PlayerState(params[player], opt_state[player], model_state),
                jax.random.fold_in(step_key(seed, state.step, axis_name), index),
                batch,
                step=state.step,
                axis_name=axis_name,
                spread=spread,
            )
            new_params, new_opt_state, model_state = player_state
            params, opt_state = {**params, player: new_params}, {**opt_state, player: new_opt_state}
            if weight_fn is not None and ema_params is not None:
                average = _average(objective, optimizer, ema_params[player], player_state, state.step, weight_fn)
                ema_params = {**ema_params, player: average}
            prefix = f"{player}/" if len(model.objectives) > 1 else ""
            all_metrics |= {prefix + name: value for name, value in metrics.items()}
        return TrainState(state.step + 1, params, ema_params, opt_state, model_state), all_metrics

    return train_step


def make_eval_step(
    fn: Callable[[Params, ModelState, Key, Array], T], *, seed: int
) -> Callable[[Params, ModelState, Array, Array], T]:
    """Makes the step (params, model_state, index, x) -> what `fn` computes, such as a Likelihood of [B] nats.

    Each example has its own random key, which depends on its place in the split. The result therefore depends neither
    on the batch size nor on the number of devices, and shares no noise with training.

    Args:
        fn: `Model.log_prob`, or another function (params, model_state, key, x [B, ...]) -> arrays [B, ...].
        seed: seed of the evaluation's own randomness.

    Returns:
        A pure function; `index` is the number of the batch, and all batches before it have the same size. Nothing is
        reduced: the caller masks padding and sums in float64 on the host.
    """

    def eval_step(params: Params, model_state: ModelState, index: Array, x: Array) -> T:
        batch_size = x.shape[0]
        key = jax.random.fold_in(jax.random.key(seed), _EVALUATION)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index * batch_size + jnp.arange(batch_size))

        def one(key: Key, x: Array) -> T:
            return fn(params, model_state, key, x[None])

        return jax.tree.map(lambda leaf: leaf[:, 0], jax.vmap(one)(keys, x))

    return eval_step


def many_steps(step: TrainStep) -> TrainStep:
    """Takes several steps in one call: (state, batches [S, B, ...]) -> (state, metrics [S])."""

    def step_many(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        if jax.tree.leaves(batches)[0].shape[0] == 1:
            # No loop, because weight gradients of convolutions inside a loop are many times slower on CPU.
            state, metrics = step(state, jax.tree.map(lambda leaf: leaf[0], batches))
            return state, jax.tree.map(lambda leaf: leaf[None], metrics)
        return jax.lax.scan(step, state, batches)

    return step_many


def _take_turn(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    sync: Mapping[str, Sync],
    params: Params,
    player_state: PlayerState,
    key: Key,
    batch: Batch,
    *,
    step: Array,
    axis_name: str | None,
    spread: Callable[[PyTree], PyTree] | None,
) -> tuple[PlayerState, Metrics]:
    """Updates one player, or holds it at a step at which it is not updated."""
    batch_size = jax.tree.leaves(batch)[0].shape[0]

    def loss_fn(player_params: PyTree, model_state: ModelState) -> LossOutput:
        seen = model_state_lib.local_view(model_state, sync, batch_size=batch_size, axis_name=axis_name, spread=spread)
        return objective.loss({**params, objective.wrt: player_params}, seen, key, batch)

    def update(before: PlayerState) -> tuple[PlayerState, Metrics]:
        (loss, (new_model_state, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            before.params, before.model_state
        )
        loss, metrics, grads = model_state_lib.mean_over_devices((loss, metrics, grads), axis_name)
        model_state = model_state_lib.merge(
            before.model_state, new_model_state, sync, batch_size=batch_size, axis_name=axis_name
        )
        updates, opt_state = optimizer.update(grads, before.opt_state, before.params)
        metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        return PlayerState(optax.apply_updates(before.params, updates), opt_state, model_state), metrics

    def hold(before: PlayerState) -> tuple[PlayerState, Metrics]:
        # The loss is still reported; the gradient is not computed.
        loss, (_, metrics) = loss_fn(before.params, before.model_state)
        loss, metrics = model_state_lib.mean_over_devices((loss, metrics), axis_name)
        return before, {**metrics, "loss": loss, "grad_norm": jnp.zeros_like(loss)}

    if objective.turns is None:
        return update(player_state)
    if not objective.turns.is_stage:
        return jax.lax.cond(objective.turns.is_active(step), update, hold, player_state)

    def take_part(before: PlayerState) -> tuple[PlayerState, Metrics]:
        after, metrics = update(before)
        return after, {**metrics, metrics_lib.TAKES_PART: jnp.ones(())}

    def rest(before: PlayerState) -> tuple[PlayerState, Metrics]:
        shapes = jax.eval_shape(take_part, before)[1]
        return before, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return jax.lax.cond(objective.turns.is_active(step), take_part, rest, player_state)


def _average(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    average: PyTree,
    player_state: PlayerState,
    step: Array,
    weight_fn: ema.WeightFn,
) -> PyTree:
    """Returns the average of a player's parameters after a step: moved if the parameters were updated."""
    optimizers_lib.refuse_hidden_accumulation(optimizer, player_state.opt_state, player_state.params)
    weight = weight_fn(_updates_before(objective, optimizer, step))
    moved = ema.update(average, player_state.params, weight=weight)
    return _where(_has_updated(objective, optimizer, step), moved, average)


def _updates_before(objective: Objective, optimizer: optax.GradientTransformation, step: Array) -> Array:
    """Returns how often a player's parameters changed before a step: its turns, by how many make one update."""
    turns = jnp.asarray(objective.updates_before(step))
    accumulate_steps = optimizers_lib.accumulate_steps(optimizer)
    return turns if accumulate_steps == 1 else turns // accumulate_steps


def _has_updated(objective: Objective, optimizer: optax.GradientTransformation, step: Array) -> Array:
    """Returns whether this step changed a player's parameters: its turn, and the last of the accumulated ones."""
    # Traced also for a player of every step: XLA would fold a constant and round the average differently.
    turns = objective.turns or steps(0)
    accumulate_steps = optimizers_lib.accumulate_steps(optimizer)
    is_active = jnp.asarray(turns.is_active(step))
    if accumulate_steps == 1:
        return is_active
    return jnp.logical_and(is_active, (turns.count(step) + 1) % accumulate_steps == 0)


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), new, old)
