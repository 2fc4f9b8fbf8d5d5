"""The class-conditional generative adversarial network: the game of p(x|y).

Generator and discriminator see the label of the example; a generated example has the label of a real one. Losses,
penalties and turns are those of `gan`. A label is drawn for a sample without one; every class is equally probable, so
that the estimated density is of p(x) = 1/C sum_y p(x|y), with equally many centres of each class.

Source: Mirza & Osindero, "Conditional Generative Adversarial Nets", arXiv:1411.1784.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.models.gan import GAN
from gm_jax.models.given_label import given_label, label_of, label_or_random
from gm_jax.types import Array, Batch, Key, Likelihood, LossOutput, Model, ModelState, Objective, Params, Prepared


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ConditionalGAN:
    """A GAN whose networks also see a label.

    Attributes:
        gan: with a generator (z [B, Z], label [B], *, train) and a discriminator ([B, ...], label [B], *, train).
        num_classes: C; labels are 0 .. C - 1.
    """

    gan: GAN
    num_classes: int

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see; it has a `log_prob` if there are kernels."""
        model = self.gan.model
        losses = (self.discriminator_loss, self.generator_loss)
        objectives = tuple(
            Objective(objective.wrt, loss, objective.turns)
            for objective, loss in zip(model.objectives, losses, strict=True)
        )
        return Model(self.init, objectives, self.sample, model.log_prob and self.log_prob, model.sync)

    def given(self, label: Array) -> GAN:
        """Returns the GAN of p(x|y) for a batch of labels [B]."""
        networks = {name: given_label(getattr(self.gan, name), label) for name in ("generator", "discriminator")}
        return dataclasses.replace(self.gan, **networks)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises both networks on a whole batch, the reference of a virtual batch norm; checks their outputs."""
        return self.given(label_of(batch)).init(key, batch)

    def discriminator_loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the discriminator's loss, penalties included."""
        return self.given(label_of(batch)).discriminator_loss(params, model_state, key, batch)

    def generator_loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the generator's loss, by its logits or by feature matching."""
        return self.given(label_of(batch)).generator_loss(params, model_state, key, batch)

    def generate(self, params: Params, model_state: ModelState, z: Array, label: Array) -> Array:
        """Maps latents z [B, Z] and labels [B] to examples [B, ...], as the data set ships them."""
        return self.given(label).generate(params, model_state, z)

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
        """Draws n examples in data space, of labels that are given or drawn; the model has no temperature."""
        refuse_options(temperature=temperature)
        label_key, key = jax.random.split(key)
        label = label_or_random(label_key, n, label, self.num_classes)
        return self.given(label).sample(params, model_state, key, n)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Estimates log p(x) by kernels on the model's samples of all classes in turn; ignores the key."""
        return self._of_all_classes().log_prob(params, model_state, key, x)

    def calibrate(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Prepared:
        """Returns the state with the bandwidth that fits held-out x best, and notes on it; ignores the key."""
        return self._of_all_classes().calibrate(params, model_state, key, x)

    def _of_all_classes(self) -> GAN:
        """Returns the GAN whose centres have the labels 0, 1, ... C - 1, 0, 1 ..."""
        if self.gan.kernels is None:
            raise ValueError("this GAN has no density: give it kernels")
        return self.given(jnp.arange(self.gan.kernels.num_centres) % self.num_classes)
