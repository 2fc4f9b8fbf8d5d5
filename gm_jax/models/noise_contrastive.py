"""Noise-contrastive estimation (Gutmann & Hyvarinen, JMLR 13, 2012): an energy and its log Z, learned without chains.

    log p(h) = -E(h) + c,    E(h) = f(h) + |h|^2 / (2 s^2)                                           (1)

A classifier tells data from samples of a noise density q, by the log-ratio log p - log q (`losses.energy`, eq. 8). Its
best E and c are those of the data's density, so that c tends to -log Z. Nothing forces (1) to integrate to 1 before
that: the learned log-density is an estimate, and a bound of neither side. `EnergyBasedModel.calibrate` computes log Z
by another way.

q must have mass wherever the data have, and be close to them: a classifier that is never wrong teaches nothing. Here q
is a flow of exact density, a second player that maximises the likelihood of the data (Gao et al., "Flow Contrastive
Estimation of Energy-Based Models", CVPR 2020, arXiv:1912.00589, without its adversarial term). An `AffineFlow` makes q
a normal density. q may move while E learns, because the best (1) does not depend on it.

Samples are Langevin chains that start at samples of q.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import energy as losses
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.flow import Flow
from gm_jax.ops.levels import space_setting
from gm_jax.ops.reductions import log_mean_exp
from gm_jax.types import (
    Array,
    Batch,
    Fixed,
    Key,
    Likelihood,
    LossOutput,
    Model,
    ModelState,
    Objective,
    Params,
    Replicated,
)

ENERGY, NOISE = "energy", "noise"
_FIRST_DRAWS = 1_000  # samples of q for the first value of c


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NoiseContrastiveModel:
    """An energy-based model that is trained against a flow's samples.

    Attributes:
        energy: E, its space, and the chains that sample it; it has no persistent chains.
        noise: q, a flow of h: its own dequantisation is not used.
        noise_ratio: nu, samples of q for each example of the data.
    """

    energy: EnergyBasedModel
    noise: Flow
    noise_ratio: int = 1

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        objectives = (Objective(NOISE, self.noise_loss), Objective(ENERGY, self.loss))
        sync = {"network": Replicated(), "log_z": Fixed(), NOISE: Fixed()}
        return Model(self.init, objectives, self.sample, self.log_prob, sync)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises q on the whole batch, and c with an estimate of -log Z by samples of q."""
        data_key, energy_key, noise_key, draw_key = jax.random.split(key, 4)
        h = self.energy.space.prepare(data_key, batch["x"])
        noise, noise_state = self.noise.init(noise_key, {"x": h})
        params, state = self.energy.init(energy_key, batch)
        draws, log_q = self.noise.sample_with_log_density(noise, noise_state, draw_key, _FIRST_DRAWS)
        log_z = log_mean_exp(-self.energy.energy(params, state, draws) - log_q, axis=0)
        # Among the energy's parameters, so that one player trains both; the network does not read it.
        energy = {**params[ENERGY], "log_normalizer": -log_z}
        return {ENERGY: energy, NOISE: noise["flow"]}, {**state, NOISE: noise_state}

    def noise_loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the mean -log q of the data, nats."""
        h = self.energy.space.prepare(key, batch["x"])
        nll = -jnp.mean(self._log_noise(params, model_state, h))
        return nll, (model_state, {"nll": nll})

    def loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the logistic loss of the log-ratio; q has no gradient."""
        data_key, noise_key = jax.random.split(key)
        h = self.energy.space.prepare(data_key, batch["x"])
        count = self.noise_ratio * h.shape[0]
        draws, log_q = jax.lax.stop_gradient(self.draw_noise(params, model_state, noise_key, count))
        log_q = jnp.concatenate([jax.lax.stop_gradient(self._log_noise(params, model_state, h)), log_q])
        both = jnp.concatenate([h, draws])
        energy, _, network_state = self.energy.energy_in_training(params, model_state, both)
        log_ratio = -energy + params[ENERGY]["log_normalizer"] - log_q
        of_data, of_noise = jnp.split(log_ratio, [h.shape[0]])
        loss = losses.noise_contrastive_loss(of_data, of_noise, noise_ratio=self.noise_ratio)
        offset = jnp.log(jnp.asarray(self.noise_ratio, log_ratio.dtype))
        right = jnp.mean(of_data > offset) + jnp.mean(of_noise < offset)
        metrics = {"accuracy": 0.5 * right, "log_normalizer": params[ENERGY]["log_normalizer"]}
        return loss, ({**model_state, "network": network_state}, metrics)

    def log_density(self, params: Params, model_state: ModelState, h: Array) -> Array:
        """Computes (1) [B] of scaled data, nats."""
        return params[ENERGY]["log_normalizer"] - self.energy.energy(params, model_state, h)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Estimates log p(x), in the measure of the data, with the learned c."""
        space, shape = self.energy.space, self.energy.shape
        log_prob = self.log_density(params, model_state, space.prepare(key, x)) + space.log_det(shape)
        settings = (("normalizer", "learned"), *space_setting(space.side, shape))
        return Likelihood(log_prob, "estimate", space.measure, settings)

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
        """Draws [n, ...] as the data set ships it: Langevin chains from samples of q."""
        refuse_options(label=label, temperature=temperature)
        noise_key, chain_key = jax.random.split(key)
        start, _ = self.draw_noise(params, model_state, noise_key, n)
        steps = self.energy.chains.sampling_steps
        chains = self.energy.run_chains(params, model_state, chain_key, start, num_steps=steps)
        return self.energy.space.to_data(chains)

    def draw_noise(self, params: Params, model_state: ModelState, key: Key, n: int) -> tuple[Array, Array]:
        """Draws h [n, ...] of q, and their log q [n]."""
        return self.noise.sample_with_log_density({"flow": params[NOISE]}, model_state[NOISE], key, n)

    def _log_noise(self, params: Params, model_state: ModelState, h: Array) -> Array:
        return self.noise.log_density({"flow": params[NOISE]}, model_state[NOISE], h)
