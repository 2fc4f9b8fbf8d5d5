"""The state that training carries from step to step: arrays only, no functions and no random key."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.errors import UserError
from gm_jax.training.metrics import NonFiniteError
from gm_jax.types import Array, Batch, Key, Model, ModelState, Params, PyTree


class TrainState(NamedTuple):
    """The state of a run at one step; together with the configuration it is all that a run needs to resume.

    It holds no random key, because randomness is a function of (seed, step, device), see `step.step_key`. No two leaves
    share a buffer, because the step donates them all.

    Attributes:
        step: int32 scalar, the number of steps taken.
        params: keyed by player.
        ema_params: exponential moving average of params; None if the run keeps none.
        opt_state: the optimiser's state, keyed by player.
        model_state: what the networks carry in addition to parameters.
    """

    step: Array
    params: Params
    ema_params: Params | None
    opt_state: dict[str, PyTree]
    model_state: ModelState

    @property
    def eval_params(self) -> Params:
        """The parameters to evaluate and sample with: the average, if the run keeps one."""
        return self.params if self.ema_params is None else self.ema_params


def create(
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
    key: Key,
    batch: Batch,
    *,
    ema: bool = False,
) -> TrainState:
    """Creates the state at step 0.

    Args:
        model: the family.
        optimizers: one per player, keyed as the objectives' `wrt`.
        key: random key of the initialisation.
        batch: a batch of training data; it gives shapes and, for some families, statistics.
        ema: whether to keep an average of the parameters.

    Raises:
        ValueError: the players of params, objectives and optimizers differ.
    """

    def init(key: Key, batch: Batch) -> TrainState:
        params, model_state = model.init(key, batch)
        players = sorted(objective.wrt for objective in model.objectives)
        if not players == sorted(params) == sorted(optimizers):
            raise ValueError(
                f"players differ: objectives {players}, params {sorted(params)}, optimizers {sorted(optimizers)}"
            )
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
            opt_state={player: optimizers[player].init(params[player]) for player in players},
            model_state=model_state,
        )

    # Outputs of jit can share a buffer if two leaves have one value, as the EMA does at first.
    return jax.tree.map(jnp.copy, jax.jit(init)(key, batch))


def check_size(state: TrainState, most_bytes: int) -> None:
    """Checks that a state fits into memory, before XLA is asked for it and ends the process.

    Args:
        state: shapes and dtypes, or arrays.
        most_bytes: bytes of memory.

    Raises:
        UserError: it does not fit.
    """
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    if num_bytes > most_bytes:
        raise UserError(
            f"the parameters, their average and the optimiser's state need {num_bytes / 2**30:.3g} GB of memory; this "
            f"machine has {most_bytes / 2**30:.3g} GB: use a narrower network, or one of fewer layers."
        )


def check_finite(step: int, state: TrainState, initial: Callable[[], TrainState] | None = None) -> None:
    """Checks that every number of a state is finite: from one that is not, every resume would end at the same step.

    An optimiser may hold infinity on purpose, as `optax.contrib.reduce_on_plateau` does until it has seen a value.

    Args:
        step: the step of the state, for the message.
        state: of this process; integers and booleans are skipped.
        initial: () -> the state at step 0, called if the optimiser's state holds infinity: a leaf may if it did then.

    Raises:
        NonFiniteError: a leaf holds NaN, or infinity that is not meant; the message names the first such leaf and its
            first such value.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    allowed: frozenset[str] | None = None
    for path, leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        # On the host: the save fetches the leaves anyway, and a compiled reduction over all of them takes a second.
        values = np.asarray(leaf)
        finite = np.isfinite(values)
        if finite.all():
            continue
        name = jax.tree_util.keystr(path).lstrip(".")
        if initial is not None and name.startswith("opt_state") and not np.isnan(values).any():
            allowed = _infinite_leaves(initial()) if allowed is None else allowed
            if name in allowed:
                continue
        raise NonFiniteError(step, name, float(values[~finite][0]))


def _infinite_leaves(state: TrainState) -> frozenset[str]:
    """Returns the paths of the leaves that hold infinity."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return frozenset(
        jax.tree_util.keystr(path).lstrip(".") for path, leaf in leaves if np.isinf(np.asarray(leaf)).any()
    )
