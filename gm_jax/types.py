"""The records that every room shares: `Objective`, `Model`, `Likelihood`, and the names of the arrays in them.

A family of models is a record of pure functions, as an optax optimiser is. Nothing here holds state.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax

Array = jax.Array
Key = jax.Array  # a typed key, as `jax.random.key` makes it
PyTree = Any
Params = dict[str, PyTree]  # keyed by player: {"vae": ...}, {"generator": ..., "discriminator": ...}
ModelState = dict[str, PyTree]  # what a network carries besides parameters; empty for most
Batch = Mapping[str, Array]  # "x" [B, ...]; "label" [B] int32 where the data have labels
Metrics = dict[str, Array]  # scalars

LikelihoodKind = Literal["exact", "lower_bound", "upper_bound", "estimate"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A model's statement on log p(x), what kind of statement it is, and with respect to which measure.

    The kind, the measure and the settings are static: they pass through `jit` and `vmap` beside the array.

    Attributes:
        log_prob: [B] nats; larger is better.
        kind: "exact", "lower_bound", "upper_bound" (annealed importance sampling flatters) or "estimate".
        measure: the base measure of the probability: "binary", "<n> levels" or "continuous" (a density).
        settings: what else the number needs to be understood, as (name, value) pairs, e.g. (("K", 500),).
    """

    log_prob: Array
    kind: LikelihoodKind = dataclasses.field(metadata={"static": True})
    measure: str = dataclasses.field(metadata={"static": True})
    settings: tuple[tuple[str, Any], ...] = dataclasses.field(default=(), metadata={"static": True})


class InitFn(Protocol):
    """(key, batch) -> (params, model_state); the batch gives shapes and, for some families, statistics."""

    def __call__(self, key: Key, batch: Batch) -> tuple[Params, ModelState]: ...


class LossFn(Protocol):
    """(params, model_state, key, batch) -> (scalar, (model_state, metrics)); the scalar is minimised."""

    def __call__(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]: ...


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


class Objective(NamedTuple):
    """One player: the parameters that it trains and the loss that it minimises.

    Attributes:
        wrt: top-level key of params, e.g. "generator".
        loss: (params, model_state, key, batch) -> (scalar, (model_state, metrics)).
        every: the player is updated at the last of every so many steps, where (step + 1) % every == 0.
        since: the first step at which it may be.
        until: the step from which on it rests, as it is then; None for never.
    """

    wrt: str
    loss: LossFn
    every: int = 1
    since: int = 0
    until: int | None = None


class Model(NamedTuple):
    """A family as pure functions; they close over networks and hyper-parameters alone.

    Attributes:
        init: (key, batch) -> (params, model_state); params is a dict keyed by player.
        objectives: one for a VAE, an autoregressive model, a flow or a diffusion model; two for a GAN.
        sample: (params, model_state, key, n, *, label=None, temperature=None) -> [n, ...] in data space.
        log_prob: (params, model_state, key, x) -> Likelihood; None where the family has none.
    """

    init: InitFn
    objectives: tuple[Objective, ...]
    sample: SampleFn
    log_prob: LogProbFn | None = None
