"""An energy-based model trained without chains: an energy and a generator as two players (Kim & Bengio 2016).

    V(E, q) = E_data[E(h)] - E_q[E(h~)] + H(q) = NLL(E) - KL(q || p),    p = exp(-E) / Z             (1)

The generator maximises V, which brings q to p; the energy minimises it. q is a flow here, so that H(q) is exact
up to a mean over samples. `losses.energy` has the entropies of VERA and of MEG, for generators without a density.

The game is unstable, because V <= NLL: the generator bounds the quantity that the energy minimises from below, which is
the wrong side. Wherever q is poor, the energy can lower V without the NLL falling, and V shows nothing of it. So the
generator takes several updates for each of the energy, and a penalty keeps the energy flat at the data:

    penalty = lambda E_data |dE(h)/dh|^2                                                             (2)

The same inequality bounds log p of every example from above, as exactly as a mean over samples of q allows:

    log Z >= E_q[-E] + H(q),    so    log p(h) <= -E(h) - (E_q[-E] + H(q))                           (3)

The bound flatters the model, and more so the poorer q is: never choose a checkpoint by it. `EnergyBasedModel.calibrate`
computes log Z by another way. For levels, (3) is a bound on the density of the data with noise, not on their
probability.

Samples are those of the generator.

Source: Kim & Bengio, arXiv:1606.03439; Kumar et al., "Maximum Entropy Generators for Energy-Based Models", 2019,
arXiv:1901.08508, for (2); Grathwohl et al., "No MCMC for me", ICLR 2021, arXiv:2010.04230, for (1).
"""

import dataclasses

import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import energy as losses
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.models.energy_chains import divergence_alarm
from gm_jax.models.flow import Flow
from gm_jax.ops.levels import space_setting
from gm_jax.ops.reductions import sum_except_batch
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
    Prepared,
    Replicated,
    every,
)

ENERGY, GENERATOR = "energy", "generator"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MinimaxEnergyModel:
    """An energy and a flow that play (1).

    Attributes:
        energy: E, its space, and how its log Z is computed; it has no persistent chains.
        generator: q, a flow of h: its own dequantisation is not used.
        energy_every: updates of the generator per update of the energy.
        slope_penalty: lambda of (2).
        num_samples: of q, for (3).
    """

    energy: EnergyBasedModel
    generator: Flow
    energy_every: int = 1
    slope_penalty: float = 0.0
    num_samples: int = 10_000

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        objectives = (
            Objective(GENERATOR, self.generator_loss),
            Objective(ENERGY, self.energy_loss, every(self.energy_every)),
        )
        sync = {"network": Replicated(), "log_z": Fixed(), GENERATOR: Fixed(), "bound": Fixed()}
        return Model(self.init, objectives, self.sample, self.log_prob, sync)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the generator on the whole batch, and the energy."""
        data_key, energy_key, generator_key = jax.random.split(key, 3)
        h = self.energy.space.prepare(data_key, batch["x"])
        generator, generator_state = self.generator.init(generator_key, {"x": h})
        params, state = self.energy.init(energy_key, batch)
        bound = {"value": jnp.float32(0.0), "is_known": jnp.bool_(False)}
        state = {**state, GENERATOR: generator_state, "bound": bound}
        return {ENERGY: params[ENERGY], GENERATOR: generator["flow"]}, state

    def generator_loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes E_q[E] - H(q), with the gradient through the samples."""
        h, log_q = self.generate(params, model_state, key, batch["x"].shape[0])
        energy, entropy = jnp.mean(self.energy.energy(params, model_state, h)), -jnp.mean(log_q)
        return energy - entropy, (model_state, {"entropy": entropy})

    def energy_loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the part of V that depends on the energy, and the penalty (2)."""
        data_key, generator_key = jax.random.split(key)
        h = self.energy.space.prepare(data_key, batch["x"])
        drawn, log_q = jax.lax.stop_gradient(self.generate(params, model_state, generator_key, h.shape[0]))
        energy, _, network_state = self.energy.energy_in_training(params, model_state, jnp.concatenate([h, drawn]))
        data_energy, model_energy = jnp.split(energy, 2)
        loss = losses.contrastive_loss(data_energy, model_energy)
        metrics = {
            "data_energy": jnp.mean(data_energy),
            "value": losses.minimax_energy_value(data_energy, model_energy, -jnp.mean(log_q)),
            "energy_gap": divergence_alarm(data_energy, model_energy),
        }
        if self.slope_penalty:
            slope = jax.grad(lambda h: jnp.sum(self.energy.energy(params, model_state, h)))(h)
            metrics["slope_penalty"] = self.slope_penalty * jnp.mean(sum_except_batch(jnp.square(slope)))
            loss = loss + metrics["slope_penalty"]
        return loss, ({**model_state, "network": network_state}, metrics)

    def generate(self, params: Params, model_state: ModelState, key: Key, n: int) -> tuple[Array, Array]:
        """Draws h [n, ...] of the generator, and their log q [n]."""
        return self.generator.sample_with_log_density({"flow": params[GENERATOR]}, model_state[GENERATOR], key, n)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Bounds the log-density of the scaled data from above, by (3), with the samples of `calibrate`."""
        space, shape, bound = self.energy.space, self.energy.shape, model_state["bound"]
        energy = self.energy.energy(params, model_state, space.prepare(key, x))
        log_prob = jnp.where(bound["is_known"], -energy - bound["value"], jnp.nan)
        how = (("by", "entropy of the generator"), ("samples", self.num_samples))
        settings = (*how, *space_setting(space.side or "[-1,1]", shape))
        return Likelihood(log_prob, "upper_bound", "continuous", settings)

    def calibrate(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Prepared:
        """Returns the state with the bound (3) on log Z and with log Z, and notes on both; x as for the energy."""
        bound_key, key = jax.random.split(key)
        h, log_q = self.generate(params, model_state, bound_key, self.num_samples)
        terms = -self.energy.energy(params, model_state, h) - log_q
        value = jnp.mean(terms)
        error = jnp.std(terms) / jnp.sqrt(jnp.asarray(self.num_samples, terms.dtype))
        notes = {"log_z_bound_of_generator": value, "log_z_bound_of_generator_standard_error": error}
        state, found = self.energy.calibrate(params, model_state, key, x)
        bound = {"value": value, "is_known": jnp.bool_(True)}
        return {**state, "bound": bound}, {**found, **notes}

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
        """Draws [n, ...] of the generator as the data set ships them."""
        refuse_options(label=label, temperature=temperature)
        return self.energy.space.to_data(self.generate(params, model_state, key, n)[0])
