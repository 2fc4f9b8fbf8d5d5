"""The deep energy-based model (Du & Mordatch, NeurIPS 2019, arXiv:1903.08689): the whole algorithm, top to bottom.

    p(h) = exp(-E(h)) / Z,    E(h) = f(h) + |h|^2 / (2 s^2)                                          (1)

f is a network, and the second term a wide normal density, so that Z is finite (Nijkamp et al., AAAI 2020,
arXiv:1903.12370). h is the data scaled to real numbers, with noise that turns levels into densities. Training follows

    d/dtheta -log p(h) = dE(h)/dtheta - E_{h~ ~ p} dE(h~)/dtheta                                     (2)

with h~ from Langevin chains. They persist: a step moves one chain per example of the batch, round robin over all
chains, and a share of them starts again from noise. A short run starts all of them from noise at each step.

`calibrate` computes log Z, as `energy_partition` describes.
"""

import dataclasses
from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import energy as losses
from gm_jax.models.energy_chains import Chains, divergence_alarm
from gm_jax.models.energy_partition import Partition
from gm_jax.models.energy_space import EnergySpace
from gm_jax.ops import checks
from gm_jax.ops.levels import space_setting
from gm_jax.ops.reductions import sum_except_batch
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
    Replicated,
    Rows,
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EnergyBasedModel:
    """An energy-based model of any network.

    Attributes:
        network: (h [B, ...], *, train) -> outputs, f(h) [B] if there is no `to_energy`.
        space: the conversion of data to h and back.
        shape: shape of one example.
        chains: how samples are drawn.
        base_std: s of (1).
        penalty: weight of the squared energies in the loss.
        to_energy: outputs of the network -> f(h) [B]; None for outputs that are energies.
        partition: how log Z is estimated; None for no `log_prob`.
    """

    network: nn.Module
    space: EnergySpace
    shape: tuple[int, ...]
    chains: Chains
    base_std: float
    penalty: float = 0.0
    to_energy: Callable[[Array], Array] | None = None
    partition: Partition | None = None

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        log_prob = None if self.partition is None else self.log_prob
        sync = {"network": Replicated(), "chains": Rows(), "log_z": Fixed()}
        return Model(self.init, (Objective("energy", self.loss),), self.sample, log_prob, sync)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network, checks the shape of its outputs, and starts the chains with noise."""
        data_key, params_key, chain_key = jax.random.split(key, 3)
        h = self.space.prepare(data_key, batch["x"][:1])
        checks.check_example(self.shape, h)
        outputs, variables = self.network.init_with_output(params_key, h, train=True)
        checks.check_outputs("the network of the energy", outputs, (1,) if self.to_energy is None else (1, "C"))
        variables = dict(variables)
        params = {"energy": variables.pop("params")}
        state: ModelState = {"network": variables}
        if self.chains.num_persistent is not None:
            rows = self.noise(chain_key, self.chains.num_persistent)
            state["chains"] = {"rows": rows, "count": jnp.int32(0)}
        if self.partition is not None:
            state["log_z"] = {"value": jnp.float32(0.0), "high": jnp.float32(0.0), "is_known": jnp.bool_(False)}
        return params, state

    def loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the surrogate whose gradient is (2), from the chains that this step moves."""
        data_key, restart_key, noise_key, chain_key = jax.random.split(key, 4)
        h, frozen = self.space.prepare(data_key, batch["x"]), jax.lax.stop_gradient(params)
        start = self.noise(noise_key, h.shape[0])
        if self.chains.num_persistent is not None:
            restarts = jax.random.bernoulli(restart_key, self.chains.restart, (h.shape[0], *[1] * (h.ndim - 1)))
            start = jnp.where(restarts, start, model_state["chains"]["rows"])
        chains = self.run_chains(frozen, model_state, chain_key, start, num_steps=self.chains.num_steps)
        both = jnp.concatenate([h, chains])
        energy, f, network_state = self.energy_in_training(params, model_state, both)
        (data_energy, model_energy), (data_f, model_f) = jnp.split(energy, 2), jnp.split(f, 2)
        loss = losses.contrastive_loss(data_energy, model_energy)
        if self.penalty:
            # Of f alone: a penalty of E would push f to cancel the term that keeps Z finite.
            loss = loss + self.penalty * losses.energy_penalty(data_f, model_f)
        metrics = {"data_energy": jnp.mean(data_energy), "model_energy": jnp.mean(model_energy)}
        metrics["energy_gap"] = divergence_alarm(data_energy, model_energy)
        state = {**model_state, "network": network_state}
        if self.chains.num_persistent is not None:
            state["chains"] = {"rows": chains, "count": model_state["chains"]["count"] + 1}
        return loss, (state, metrics)

    def energy(self, params: Params, model_state: ModelState, h: Array) -> Array:
        """Computes E(h) [B] of (1), nats, of scaled data."""
        return self.base_energy(h) + self._network(params, model_state, h)[0]

    def base_energy(self, h: Array) -> Array:
        """Computes |h|^2 / (2 s^2) [B]."""
        return sum_except_batch(jnp.square(h)) / (2.0 * self.base_std**2)

    def outputs(self, params: Params, model_state: ModelState, h: Array) -> Array:
        """Computes the outputs of the network, [B] or [B, C], of scaled data."""
        return cast(Array, self.network.apply({"params": params["energy"], **model_state["network"]}, h, train=False))

    def energy_in_training(self, params: Params, model_state: ModelState, h: Array) -> tuple[Array, Array, ModelState]:
        """Computes E(h) [B], f(h) [B] and the state of the network, which training changes."""
        f, network_state = self._network(params, model_state, h, train=True)
        return f + self.base_energy(h), f, network_state

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Estimates log p(x), in the measure of the data, with the log Z of `calibrate`; NaN before it."""
        return self._likelihood("value", "estimate", params, model_state, key, x)

    def log_prob_above(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the log-density with the low end of the bracket of log Z: an upper bound in expectation.

        Of levels, it is the log-density of the data with their noise, and no bound of log p of the levels.
        """
        return self._likelihood("low", "upper_bound", params, model_state, key, x)

    def log_prob_below(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the same with the high end of the bracket of log Z: a lower bound, as good as the chains' starts."""
        return self._likelihood("high", "lower_bound", params, model_state, key, x)

    def log_density(self, params: Params, model_state: ModelState, h: Array, *, end: str = "value") -> Array:
        """Computes the log-density [B] of scaled data, nats, with the log Z of `calibrate`; NaN before it."""
        log_z = model_state["log_z"]
        value = log_z.get(end, jnp.nan)  # `init` has no low end, which would be saved with each checkpoint
        return jnp.where(log_z["is_known"], -self.energy(params, model_state, h) - value, jnp.nan)

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
        """Draws [n, ...] as the data set ships it: chains from noise, independent of those of training."""
        refuse_options(label=label, temperature=temperature)
        noise_key, chain_key = jax.random.split(key)
        start = self.noise(noise_key, n)
        steps = self.chains.sampling_steps
        return self.space.to_data(self.run_chains(params, model_state, chain_key, start, num_steps=steps))

    def run_chains(self, params: Params, model_state: ModelState, key: Key, h: Array, *, num_steps: int) -> Array:
        """Moves chains h [B, ...] by Langevin dynamics."""
        return self.chains.run(key, h, lambda h: self.energy(params, model_state, h), num_steps=num_steps)

    def noise(self, key: Key, n: int) -> Array:
        """Draws [n, ...] starts of chains, by the normal density of (1)."""
        return self.base_std * jax.random.normal(key, (n, *self.shape))

    def calibrate(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Prepared:
        """Returns the state with log Z and notes on it; x [N, ...] gives the starts of the reversed chains."""
        if self.partition is None:
            return model_state, {}
        key, noise_key = jax.random.split(key)
        h = self.space.prepare(noise_key, x)
        found = self.partition.estimate(
            key,
            lambda h: self.energy(params, model_state, h),
            h,
            samples=model_state["chains"]["rows"] if self.chains.num_persistent is not None else None,
        )
        value = found["log_z"]
        ends = {end: found.get(f"log_z_{end}", value) for end in ("low", "high")}
        return {**model_state, "log_z": {"value": value, **ends, "is_known": jnp.bool_(True)}}, found

    def _likelihood(
        self, end: str, kind: LikelihoodKind, params: Params, model_state: ModelState, key: Key, x: Array
    ) -> Likelihood:
        h = self.space.prepare(key, x)
        log_prob = self.log_density(params, model_state, h, end=end) + self.space.log_det(self.shape)
        partition = cast(Partition, self.partition)
        of_log_z = partition.settings(self.shape, is_reversed=end == "high")
        is_above = kind == "upper_bound"
        side, measure = (self.space.noisy_side, "continuous") if is_above else (self.space.side, self.space.measure)
        return Likelihood(log_prob, kind, measure, (*of_log_z, *space_setting(side, self.shape)))

    def _network(
        self, params: Params, model_state: ModelState, h: Array, *, train: bool = False
    ) -> tuple[Array, ModelState]:
        """Computes f(h) [B] and the state of the network, which training changes."""
        to_energy = self.to_energy or _unchanged
        if not train:
            return to_energy(self.outputs(params, model_state, h)), model_state["network"]
        variables = {"params": params["energy"], **model_state["network"]}
        outputs, state = self.network.apply(variables, h, train=True, mutable=list(model_state["network"]))
        return to_energy(outputs), dict(state)


def _unchanged(outputs: Array) -> Array:
    return outputs
