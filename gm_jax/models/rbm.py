"""The restricted Boltzmann machine (Smolensky 1986; Hinton 2002): the whole algorithm, top to bottom.

Binary visible units v (the data) and hidden units h, with an energy E(v, h) = -a.v - b.h - v.W h. With h summed out,

    p(v) = exp(-F(v)) / Z,    d/dtheta -log p(v) = dF(v)/dtheta - E_{v~ ~ p} dF(v~)/dtheta           (1)

The expectation in (1) is estimated from chains of k sweeps of block Gibbs sampling. They start at the data of the batch
(contrastive divergence, CD-k: Hinton, Neural Computation 14, 2002), or where they ended at the last step (persistent
contrastive divergence, PCD-k: Tieleman, ICML 2008). CD-k is biased; PCD's bias vanishes with the learning rate.

`rbm_partition` computes log Z: an exact sum if one side has at most 20 units, else an estimate with a bracket.
"""

import dataclasses
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import energy as losses
from gm_jax.models import rbm_partition
from gm_jax.models.energy_chains import divergence_alarm
from gm_jax.networks.rbm import RBM
from gm_jax.ops import checks
from gm_jax.samplers import annealing, gibbs
from gm_jax.types import (
    Array,
    Batch,
    Fixed,
    Key,
    Likelihood,
    LikelihoodKind,
    LossOutput,
    Model,
    ModelState,
    Objective,
    Params,
    Prepared,
    Rows,
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RestrictedBoltzmannMachine:
    """An RBM of binary data.

    Attributes:
        network: the parameters; its V is the number of dimensions of an example.
        binarize: (key, raw [B, ...]) -> 0 or 1, one of `ops.binarization` with its noise drawn from the key.
        levels: number of levels of the raw data; samples are 0 or levels - 1.
        shape: shape of one example.
        num_sweeps: k, sweeps of a chain in each training step.
        num_chains: persistent chains (PCD); None to start each step at the data (CD).
        sampling_sweeps: sweeps to a sample, the first half of them along the path of `rbm_partition`.
        partition: how log Z is estimated if both sides have more than 20 units; None for no `log_prob` then.
        raise_temperatures: temperatures of `annealed_log_prob`.
    """

    network: RBM
    binarize: Callable[[Key, Array], Array]
    levels: int
    shape: tuple[int, ...]
    num_sweeps: int = 1
    num_chains: int | None = None
    sampling_sweeps: int = 1_000
    partition: rbm_partition.AnnealedPartition | None = None
    raise_temperatures: int = 1_000

    @property
    def is_exact(self) -> bool:
        """Whether log Z is an exact sum."""
        return rbm_partition.is_exact(self.network)

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        log_prob = self.log_prob if self.is_exact or self.partition else None
        sync = {"chains": Rows(per_step=self.num_chains), "log_z": Fixed()}
        return Model(self.init, (Objective("rbm", self.loss),), self.sample, log_prob, sync)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the visible biases with the log-odds of the batch, and the chains with draws from them."""
        prepare_key, params_key, chain_key = jax.random.split(key, 3)
        checks.check_example(self.shape, batch["x"])
        v = self.prepare(prepare_key, batch["x"])
        params = dict(self.network.init(params_key, v[:1])["params"])
        params["visible_bias"] = _log_odds(v, extra=1.0)
        state: ModelState = {}
        if self.num_chains is not None:
            logits = jnp.broadcast_to(params["visible_bias"], (self.num_chains, v.shape[1]))
            state["chains"] = {"rows": gibbs.draw_units(chain_key, logits), "count": jnp.int32(0)}
        if not self.is_exact and self.partition is not None:
            unknown = dict.fromkeys(("log_z", "low", "high"), jnp.float32(0.0))
            state["log_z"] = {**unknown, "is_known": jnp.bool_(False)}
        return {"rbm": params}, state

    def loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the surrogate whose gradient is (1), from chains of k sweeps."""
        prepare_key, chain_key = jax.random.split(key)
        v = self.prepare(prepare_key, batch["x"])
        start = v if self.num_chains is None else model_state["chains"]["rows"]
        chains = self.sweep(jax.lax.stop_gradient(params), chain_key, start, num_sweeps=self.num_sweeps)
        data_energy, model_energy = self.free_energy(params, v), self.free_energy(params, chains)
        metrics = {"data_energy": jnp.mean(data_energy), "model_energy": jnp.mean(model_energy)}
        metrics["energy_gap"] = divergence_alarm(data_energy, model_energy)
        if self.num_chains is not None:
            moved = {"rows": chains, "count": model_state["chains"]["count"] + 1}
            model_state = {**model_state, "chains": moved}
        return losses.contrastive_loss(data_energy, model_energy), (model_state, metrics)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes -F(x) - log Z: exactly, or with the estimate of `calibrate`; NaN before it."""
        if not self.is_exact:
            return self.log_prob_annealed(params, model_state, key, x)
        energy, known = self.free_energy(params, self.prepare(key, x)), model_state.get("exact_log_z")
        log_z = rbm_partition.exact_log_z(self.network, params["rbm"]) if known is None else known
        return Likelihood(-energy - log_z, "exact", "binary")

    def log_prob_annealed(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes -F(x) minus the estimate of log Z by `calibrate`; NaN before it."""
        return self._with_end("log_z", "estimate", params, model_state, key, x)

    def log_prob_above(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes -F(x) minus the low end of the bracket of log Z: an upper bound of log p(x) in expectation."""
        return self._with_end("low", "upper_bound", params, model_state, key, x)

    def log_prob_below(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes -F(x) minus the high end of the bracket of log Z: a lower bound, as good as the chains' starts."""
        return self._with_end("high", "lower_bound", params, model_state, key, x)

    def annealed_log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes a stochastic lower bound on log p(x) of the annealed model (RAISE), which needs no log Z."""
        prepare_key, chain_key = jax.random.split(key)
        path = rbm_partition.path(self.network, params["rbm"], params["rbm"]["visible_bias"])
        betas = annealing.spaced_betas(self.raise_temperatures)
        v = self.prepare(prepare_key, x)
        bound = annealing.annealed_log_prob(
            chain_key, v, betas, log_density_fn=path.log_density_fn, kernel_fn=path.kernel_fn, log_z_0=path.log_z_0
        )
        settings = (("of", "annealed model"), ("temperatures", self.raise_temperatures))
        return Likelihood(bound, "lower_bound", "binary", settings)

    def sample(
        self,
        params: Params,
        model_state: ModelState,
        key: Key,
        n: int,
        *,
        label: Array | None = None,
        temperature: float | Array | None = None,
    ) -> Array:
        """Draws [n, ...] as the data set ships it: independent chains, annealed from independent units."""
        refuse_options(label=label, temperature=temperature)
        return self.to_data(self.chains(params, key, n, keep_every=self.sampling_sweeps)[-1])

    def sample_mean(self, params: Params, model_state: ModelState, key: Key, n: int) -> Array:
        """Means of v given hidden units drawn from the samples of `sample` with the same key: float32 [n, ...]."""
        return self.mean(params, key, self.chains(params, key, n, keep_every=self.sampling_sweeps)[-1])

    def mean(self, params: Params, key: Key, v: Array) -> Array:
        """Means of visible units given hidden units drawn from v [B, V]: float32 [B, ...] on the data's scale."""
        h = gibbs.draw_units(jax.random.fold_in(key, 1), self._apply(params, v)[1])
        mean = jax.nn.sigmoid(self._apply(params, h, "from_hidden")[1])
        return (self.levels - 1) * mean.reshape(-1, *self.shape)

    def chains(self, params: Params, key: Key, n: int, *, keep_every: int) -> Array:
        """Runs the chains of `sample`, and keeps the state of every keep_every sweeps: [sweeps / keep_every, n, V]."""
        start_key, key = jax.random.split(key)
        base = params["rbm"]["visible_bias"]
        kernel_fn = rbm_partition.path(self.network, params["rbm"], base).kernel_fn
        v = gibbs.draw_units(start_key, jnp.broadcast_to(base, (n, base.shape[0])))
        # At least one sweep at 1, where the path ends.
        betas = jnp.minimum(2.0 * jnp.arange(1, self.sampling_sweeps + 1) / self.sampling_sweeps, 1.0)

        def sweep(v: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
            return kernel_fn(jax.random.fold_in(key, at[0]), v, at[1]), None

        def keep(v: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            v, _ = jax.lax.scan(sweep, v, at)
            return v, v

        num_kept = self.sampling_sweeps // keep_every
        first = self.sampling_sweeps - num_kept * keep_every  # sweeps before those that are kept
        places = (jnp.arange(self.sampling_sweeps), betas)
        v, _ = jax.lax.scan(sweep, v, jax.tree.map(lambda leaf: leaf[:first], places))
        rest = jax.tree.map(lambda leaf: leaf[first:].reshape(num_kept, keep_every), places)
        return jax.lax.scan(keep, v, rest)[1]

    def calibrate(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Prepared:
        """Returns the state with log Z and its bracket, and notes on them; x [N, ...] gives rates and starts."""
        exact = {}
        if self.is_exact:
            value = rbm_partition.exact_log_z(self.network, params["rbm"])
            exact, model_state = {"log_z": value}, {**model_state, "exact_log_z": value}
        if self.partition is None:
            return model_state, exact
        prepare_key, chain_key, key = jax.random.split(key, 3)
        v = self.prepare(prepare_key, x)
        base = _log_odds(v, extra=0.05 * v.shape[0])
        ends = jnp.resize(v, (self.partition.num_runs, v.shape[1]))
        ends = self.sweep(params, chain_key, ends, num_sweeps=self.partition.num_sweeps)
        found = self.partition.estimate(key, self.network, params["rbm"], base, ends)._asdict()
        log_z = {**{name: found[name] for name in ("log_z", "low", "high")}, "is_known": jnp.bool_(True)}
        not_converged = ~found.pop("converged")
        names = {"log_z": "log_z_annealed" if exact else "log_z"}
        notes = {names.get(name, f"log_z_{name}"): value for name, value in found.items()}
        return {**model_state, "log_z": log_z}, {**exact, **notes, "not_converged": not_converged}

    def free_energy(self, params: Params, v: Array) -> Array:
        """Computes F(v) [B], nats, of v [B, V] of 0 and 1."""
        return losses.rbm_free_energy(*self._apply(params, v))

    def sweep(self, params: Params, key: Key, v: Array, *, num_sweeps: int) -> Array:
        """Takes block Gibbs sweeps from v [B, V]."""
        hidden, visible = (lambda u, side=side: self._apply(params, u, side)[1] for side in ("__call__", "from_hidden"))
        return gibbs.block_gibbs(key, v, hidden, visible, num_sweeps=num_sweeps)

    def prepare(self, key: Key, x: Array) -> Array:
        """Converts data [B, ...] to units [B, V] float32 of 0 and 1."""
        v = self.binarize(key, x).reshape(x.shape[0], -1).astype(jnp.float32)
        checks.check_example((self.network.num_visible,), v)
        return v

    def to_data(self, v: Array) -> Array:
        """Converts units [B, V] to data [B, ...]."""
        return ((self.levels - 1) * v).astype(jnp.uint8).reshape(-1, *self.shape)

    def _with_end(
        self, end: str, kind: LikelihoodKind, params: Params, model_state: ModelState, key: Key, x: Array
    ) -> Likelihood:
        how = cast(rbm_partition.AnnealedPartition, self.partition)
        by = {"log_z": "annealed chains", "low": "annealed chains", "high": f"reversed chains from {how.starts}"}
        settings = (("temperatures", how.num_temperatures), ("runs", how.num_runs), ("by", by[end]))
        energy, log_z = self.free_energy(params, self.prepare(key, x)), model_state["log_z"]
        return Likelihood(jnp.where(log_z["is_known"], -energy - log_z[end], jnp.nan), kind, "binary", settings)

    def _apply(self, params: Params, units: Array, side: str = "__call__") -> tuple[Array, Array]:
        return rbm_partition.apply(self.network, params["rbm"], units, side)


def _log_odds(v: Array, *, extra: float) -> Array:
    """Computes the log-odds [V] that a unit of v [B, V] is 1, with `extra` examples of each value added."""
    ones = jnp.sum(v, axis=0)
    return jnp.log(ones + extra) - jnp.log(v.shape[0] - ones + extra)
