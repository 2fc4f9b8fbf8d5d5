"""A classifier that is an energy-based model (JEM; Grathwohl et al., ICLR 2020, arXiv:1912.03263).

    log p(y | h) = log softmax f(h)[y]                                                               (1)
    p(h) = exp(-E(h)) / Z,    E(h) = -logsumexp_y f(h)[y] + |h|^2 / (2 s^2)                          (2)
    p(h | y) proportional to exp(f(h)[y] - |h|^2 / (2 s^2))                                          (3)

One network with C outputs gives all three: a constant added to all outputs changes (2) and not (1). Training
minimises -log p(h, y) = -log p(h) - log p(y | h): the first term by the contrastive gradient of `models.energy`, from
Langevin chains of (2), and the second by the cross-entropy. |h|^2 / (2 s^2), which the paper does not have, keeps Z
finite, and cancels in (1).

Samples of a class are Langevin chains of (3) from noise.
"""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp

from gm_jax.errors import NO_LABELS, UserError, refuse_options
from gm_jax.losses import likelihoods
from gm_jax.models.energy import EnergyBasedModel
from gm_jax.ops import checks
from gm_jax.types import Array, Batch, Key, LossOutput, Model, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class JointEnergyModel:
    """A classifier, and the energy-based model of its inputs.

    Attributes:
        energy: the model (2). Its network has C outputs, and its `to_energy` is `losses.energy.energy_from_logits`.
        num_classes: C.
        class_weight: weight of the cross-entropy; 1 for the log of the joint probability.
    """

    energy: EnergyBasedModel
    num_classes: int
    class_weight: float = 1.0

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        of_energy = self.energy.model
        return of_energy._replace(init=self.init, objectives=(Objective("energy", self.loss),), sample=self.sample)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the energy, and checks that its network has an output for each class."""
        params, state = self.energy.init(key, batch)
        logits = jax.eval_shape(lambda x: self.logits(params, state, self.energy.space.prepare(key, x)), batch["x"][:1])
        checks.check_outputs("the network of the energy", logits, (1, self.num_classes))
        return params, state

    def loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the surrogate of -log p(h), plus the cross-entropy of the labels."""
        if "label" not in batch:
            raise UserError(NO_LABELS)
        energy_key, data_key = jax.random.split(key)
        loss, (state, metrics) = self.energy.loss(params, model_state, energy_key, batch)
        logits = self.logits(params, model_state, self.energy.space.prepare(data_key, batch["x"]))
        nll = jnp.mean(likelihoods.categorical_nll(batch["label"][:, None], logits[:, None]))
        accuracy = jnp.mean(jnp.argmax(logits, axis=1) == batch["label"])
        return loss + self.class_weight * nll, (state, {**metrics, "class_nll": nll, "accuracy": accuracy})

    def logits(self, params: Params, model_state: ModelState, h: Array) -> Array:
        """Computes f(h) [B, C] of scaled data."""
        return self.energy.outputs(params, model_state, h)

    def class_log_probs(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Array:
        """Computes (1) [B, C] of data x [B, ...]; the key dequantises x."""
        h = self.energy.space.prepare(key, x)
        return cast(Array, jax.nn.log_softmax(self.logits(params, model_state, h), axis=1))

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
        """Draws [n, ...] as the data set ships it: chains of (2) from noise, or of (3) for labels [n]."""
        refuse_options(temperature=temperature)
        if label is None:
            return self.energy.sample(params, model_state, key, n)

        def energy_of_class(h: Array) -> Array:
            logits = self.logits(params, model_state, h)
            return self.energy.base_energy(h) - jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]

        noise_key, chain_key = jax.random.split(key)
        steps, start = self.energy.chains.sampling_steps, self.energy.noise(noise_key, n)
        return self.energy.space.to_data(self.energy.chains.run(chain_key, start, energy_of_class, num_steps=steps))
