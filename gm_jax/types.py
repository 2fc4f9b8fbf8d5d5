"""The records that every room shares: `Objective`, `Model`, `Likelihood`, and the names of the arrays in them.

A family of models is a record of pure functions, as an optax optimiser is. Nothing here holds state.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array  # a typed key, as `jax.random.key` makes it
PyTree = Any
Device = Any  # jax.Device, which is a variable to type checkers
Params = dict[str, PyTree]  # keyed by player: {"vae": ...}, {"generator": ..., "discriminator": ...}
ModelState = dict[str, PyTree]  # what a network carries in addition to parameters; often empty
Batch = Mapping[str, Array]  # "x" [B, ...]; "label" [B] int32, "tokens" [B, L] int32 if the data have them
Metrics = dict[str, Array]  # scalars
Prepared: TypeAlias = tuple[ModelState, dict[str, Array]]  # a state to evaluate with, and what was found: scalars

LikelihoodKind = Literal["exact", "lower_bound", "upper_bound", "estimate"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Values of log p(x), with their kind and the base measure.

    The kind, the measure and the settings are static: they pass through `jit` and `vmap` unchanged.

    Attributes:
        log_prob: [B] nats; larger is better.
        kind: "exact", "lower_bound", "upper_bound" (such as an energy-based model's whose
            log Z is bounded from below, as annealed importance sampling does in expectation) or "estimate".
        measure: the base measure of the probability: "binary", "<n> levels" or "continuous" (a density).
        settings: what else the number needs to be understood, as (name, value) pairs, e.g. (("K", 500),). A density
            states its space, whose unit is its unit: (("space", "[0,16]^64"),), see `ops.levels.space_setting`.
        probe_error: [B] nats, the standard error of each log_prob that comes from probes of a divergence; None without
            probes, or with one.
    """

    log_prob: Array
    kind: LikelihoodKind = dataclasses.field(metadata={"static": True})
    measure: str = dataclasses.field(metadata={"static": True})
    settings: tuple[tuple[str, Any], ...] = dataclasses.field(default=(), metadata={"static": True})
    probe_error: Array | None = None


# What a loss returns: the scalar to minimise, the new model state, and scalars to report.
LossOutput: TypeAlias = tuple[Array, tuple[ModelState, Metrics]]


class InitFn(Protocol):
    """(key, batch) -> (params, model_state); the batch gives shapes and, for some families, statistics."""

    def __call__(self, key: Key, batch: Batch) -> tuple[Params, ModelState]: ...


class LossFn(Protocol):
    """(params, model_state, key, batch) -> (scalar, (model_state, metrics)); the scalar is minimised."""

    def __call__(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput: ...


class SampleFn(Protocol):
    """(params, model_state, key, n, *, label, temperature) -> [n, ...] in data space.

    A model without labels, or without a temperature, raises a UserError if one is given: `errors.refuse_options`.
    """

    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        key: Key,
        n: int,
        *,
        label: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array: ...


class LogProbFn(Protocol):
    """(params, model_state, key, x) -> Likelihood of [B] nats; x as the data set ships it."""

    def __call__(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood: ...


class Turns(NamedTuple):
    """At which steps a player is updated; `every` and `steps` make one.

    Attributes:
        is_active: step -> whether the player is updated at this step.
        count: step -> how many updates it has had before this step.
        is_stage: whether the player takes no part at other steps: its loss is not computed either.
    """

    is_active: Callable[[int | Array], bool | Array]
    count: Callable[[int | Array], int | Array]
    is_stage: bool = False


def every(n: int) -> Turns | None:
    """Updates a player at the last of every n steps; for n = 1 this is None, as for a player without turns."""
    return None if n == 1 else Turns(lambda step: (step + 1) % n == 0, lambda step: step // n)


def steps(first: int, end: int | None = None) -> Turns:
    """Makes a stage: a player takes part in steps first ... end - 1 alone; without an end, in all from `first` on."""

    def is_active(step: int | Array) -> bool | Array:
        return (step >= first) if end is None else (step >= first) & (step < end)

    return Turns(is_active, lambda step: jnp.clip(step, first, end) - first, is_stage=True)


class Objective(NamedTuple):
    """One player: the parameters that it trains and the loss that it minimises.

    Attributes:
        wrt: top-level key of params, e.g. "generator".
        loss: (params, model_state, key, batch) -> (scalar, (model_state, metrics)).
        turns: at which steps the player is updated; None for every step. By `every` it still reports its loss at the
            other steps, by `steps` it takes no part in them.
    """

    wrt: str
    loss: LossFn
    turns: Turns | None = None

    def updates_before(self, step: int | Array) -> int | Array:
        """Returns how many updates the player has had before a step."""
        return step if self.turns is None else self.turns.count(step)


@dataclasses.dataclass(frozen=True)
class Mean:
    """Model state that the step averages over devices, such as batch statistics.

    Integers, such as counts, must agree on all devices; they are not averaged.
    """


@dataclasses.dataclass(frozen=True)
class Replicated:
    """Model state that a loss computes alike on every device, as from parameters: nothing is sent.

    If it depends on a device's part of the batch, a mapped step keeps the value of one device.
    """


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Model state that training never changes, such as a reference batch; what a loss returns for it is dropped."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Model state of N rows, such as Markov chains or a replay buffer, of which each step refreshes one block.

    The collection is {"rows": pytree of [N, ...], "count": int32 scalar}. `init`, `sample` and `log_prob` see it whole.
    A loss sees only the rows of block `count % (N / per_step)`, and under a mapped step only this device's share of
    them, [per_step / devices, ...]. It returns these rows refreshed and count + 1, or both unchanged. The step gathers
    the shares, so that every device holds all N rows, bit for bit.

    Attributes:
        per_step: rows in a block, over all devices; None for one row per example of the batch.
        fixed: whether training never changes rows and count, which are then only shared out: nothing is gathered, and
            what a loss returns for them is dropped.
    """

    per_step: int | None = None
    fixed: bool = False


# How the devices of a mapped step keep a collection of model state. A mapping has one entry per part of a collection.
Sync: TypeAlias = "Mean | Replicated | Fixed | Rows | Mapping[str, Sync]"


class Model(NamedTuple):
    """A family as pure functions; they close over networks and hyper-parameters alone.

    Attributes:
        init: (key, batch) -> (params, model_state); params is a dict keyed by player.
        objectives: one for a VAE, an autoregressive model, a flow or a diffusion model; two for a GAN.
        sample: (params, model_state, key, n, *, label=None, temperature=None) -> [n, ...] in data space.
        log_prob: (params, model_state, key, x) -> Likelihood; None if the family has none.
        sync: how devices keep each top-level collection of model_state. Every collection needs an entry; an entry
            without a collection is ignored.
    """

    init: InitFn
    objectives: tuple[Objective, ...]
    sample: SampleFn
    log_prob: LogProbFn | None = None
    sync: Mapping[str, Sync] = MappingProxyType({})
