"""One update of every player, written once, per device.

`make_train_step` knows objectives and optimisers, and neither a family nor where it runs: with `axis_name` it
averages gradients, metrics and what has changed of the model state over that axis, and `parallel.py` binds the axis.

Randomness is a function of where you are,

    key = fold_in(fold_in(fold_in(key(seed), step), device), player),

so there is nothing to save and a resumed run draws what the uninterrupted one would have drawn.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from gm_jax.training.state import TrainState
from gm_jax.types import (
    Array,
    Batch,
    Key,
    Likelihood,
    LogProbFn,
    Metrics,
    Model,
    ModelState,
    Objective,
    Params,
    PyTree,
)

# Folded into the seed first, it keeps the keys of evaluation apart from those of training's steps, which are counted
# from 0 and never get so far.
_EVALUATION = 0xFFFFFFFE

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def step_key(seed: int, step: Array, axis_name: str | None = None) -> Key:
    """The random key of one step on one device; without an axis, the key of device 0."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.random.fold_in(key, 0 if axis_name is None else jax.lax.axis_index(axis_name))


def make_train_step(
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    seed: int,
    ema_decay: float | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """The step (state, batch) -> (state, metrics) of one device.

    Players move in the order of `model.objectives`; each sees those before it already moved. Metrics are scalars:
    what the losses report, and each player's `loss` and `grad_norm` (before clipping; 0 at a step at which the player
    rests); with several players their names begin with `player/`.

    Args:
        model: the family; `state.create` made the state from the same one.
        optimizers: one per player.
        seed: the run's seed.
        ema_decay: decay of the parameters' average, None for no average. It is warmed up as
            min(decay, (1 + step) / (10 + step)), so that the average forgets the initial parameters.
        axis_name: the mapped axis over which to average, if any.

    Returns:
        A pure function; the batch is this device's part and every leaf of it is [B, ...].
    """
    if ema_decay is not None and not 0.0 <= ema_decay < 1.0:
        raise ValueError(f"ema_decay must lie in [0, 1), got {ema_decay}")

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = step_key(seed, state.step, axis_name)
        params, opt_state, model_state, ema_params = state.params, state.opt_state, state.model_state, state.ema_params
        all_metrics: Metrics = {}
        for index, objective in enumerate(model.objectives):
            player = objective.wrt
            moved = _update(
                objective,
                optimizers[player],
                params,
                (params[player], opt_state[player], model_state),
                jax.random.fold_in(key, index),
                batch,
                step=state.step,
                axis_name=axis_name,
            )
            (new_params, new_opt_state, model_state), metrics = moved
            params = {**params, player: new_params}
            opt_state = {**opt_state, player: new_opt_state}
            if ema_decay is not None:
                moves = _has_moved(new_opt_state, state.params[player], new_params)
                fresh = jnp.logical_and(_is_up(objective, state.step), moves)
                ema = _average(ema_params[player], new_params, state.step, ema_decay)
                ema = jax.tree.map(lambda new, old, fresh=fresh: jnp.where(fresh, new, old), ema, ema_params[player])
                ema_params = {**ema_params, player: ema}
            prefix = f"{player}/" if len(model.objectives) > 1 else ""
            all_metrics |= {prefix + name: value for name, value in metrics.items()}
        return TrainState(state.step + 1, params, ema_params, opt_state, model_state), all_metrics

    return train_step


def make_eval_step(log_prob: LogProbFn, *, seed: int) -> Callable[[Params, ModelState, Array, Array], Likelihood]:
    """The step (params, model_state, index, x) -> Likelihood with [B] nats, one value an example.

    Each example has a random key of its own, which follows its place in the split: what is measured depends neither
    on the size of the batches nor on the number of devices, and shares no noise with training.

    Args:
        log_prob: `Model.log_prob`, or another function of its signature.
        seed: seed of the evaluation's own randomness.

    Returns:
        A pure function; `index` is the batch's number, all batches before it being of this one's size. Nothing is
        reduced: the caller masks padding and sums in float64 on the host.
    """

    def eval_step(params: Params, model_state: ModelState, index: Array, x: Array) -> Likelihood:
        batch_size = x.shape[0]
        key = jax.random.fold_in(jax.random.key(seed), _EVALUATION)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index * batch_size + jnp.arange(batch_size))

        def one(key: Key, x: Array) -> Likelihood:
            return log_prob(params, model_state, key, x[None])

        return jax.tree.map(lambda leaf: leaf[:, 0], jax.vmap(one)(keys, x))

    return eval_step


def many_steps(step: TrainStep) -> TrainStep:
    """Several steps in one call: (state, batches [S, B, ...]) -> (state, metrics [S])."""

    def steps(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        if jax.tree.leaves(batches)[0].shape[0] == 1:
            # A loop of one is no loop: convolutions' weight gradients inside a loop are many times slower on CPU.
            state, metrics = step(state, jax.tree.map(lambda leaf: leaf[0], batches))
            return state, jax.tree.map(lambda leaf: leaf[None], metrics)
        return jax.lax.scan(step, state, batches)

    return steps


def _update(objective: Objective, optimizer, params, mine, key, batch, *, step, axis_name):
    """One player's move: (its params, its optimiser state, model_state), metrics."""

    def loss_fn(player_params: PyTree):
        return objective.loss({**params, objective.wrt: player_params}, mine[2], key, batch)

    def move(mine):
        player_params, opt_state, model_state = mine
        (loss, (new_model_state, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(player_params)
        loss, metrics, grads = _pmean((loss, metrics, grads), axis_name)
        model_state = _pmean_of_changed(model_state, new_model_state, axis_name)
        updates, opt_state = optimizer.update(grads, opt_state, player_params)
        metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        return (optax.apply_updates(player_params, updates), opt_state, model_state), metrics

    def rest(mine):
        # The player waits: its loss is still reported, its gradient is not computed.
        loss, (_, metrics) = loss_fn(mine[0])
        loss, metrics = _pmean((loss, metrics), axis_name)
        return mine, {**metrics, "loss": loss, "grad_norm": jnp.zeros_like(loss)}

    if objective.every == 1 and objective.since == 0 and objective.until is None:
        return move(mine)
    return jax.lax.cond(_is_up(objective, step), move, rest, mine)


def _is_up(objective: Objective, step: Array) -> Array:
    """Whether the player moves at this step."""
    up = jnp.logical_and((step + 1) % objective.every == 0, step >= objective.since)
    return up if objective.until is None else jnp.logical_and(up, step < objective.until)


def _pmean(tree: PyTree, axis_name: str | None) -> PyTree:
    """The mean over the mapped axis; counters, which agree everywhere, are kept whole by a maximum."""
    if axis_name is None:
        return tree

    def mean(leaf: Array) -> Array:
        floating = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jax.lax.pmean(leaf, axis_name) if floating else jax.lax.pmax(leaf, axis_name)

    return jax.tree.map(mean, tree)


def _pmean_of_changed(old: PyTree, new: PyTree, axis_name: str | None) -> PyTree:
    """The mean over the mapped axis of the leaves that are not the very ones of `old`.

    Those are equal on all devices, and their mean would be a message for nothing, and off in the last bit where the
    number of devices is no power of two: what is fixed, such as a reference batch, would not stay as it is.
    """
    return jax.tree.map(lambda before, after: after if after is before else _pmean(after, axis_name), old, new)


def _has_moved(opt_state: PyTree, old: PyTree, new: PyTree) -> Array:
    """Whether this step may age the average: gradient accumulation leaves the parameters alone on most.

    Wherever in the optimiser it accumulates, and over how many steps: what counts is whether a parameter has changed.
    Without any, the parameters need not be compared.
    """

    def accumulates(node: PyTree) -> bool:
        return isinstance(node, (optax.MultiStepsState, optax.ApplyEvery))

    if not any(map(accumulates, jax.tree.leaves(opt_state, is_leaf=accumulates))):
        return jnp.asarray(True)
    changed = jax.tree.map(lambda before, after: jnp.any(before != after), old, new)
    return jnp.any(jnp.stack(jax.tree.leaves(changed)))


def _average(ema: PyTree, params: PyTree, step: Array, decay: float) -> PyTree:
    weight = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: (weight * old + (1.0 - weight) * new).astype(old.dtype), ema, params)
