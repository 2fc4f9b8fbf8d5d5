"""Generative adversarial networks: a generator and a discriminator, each with its own loss, for any two networks.

    z ~ N(0, I),  x~ = G(z),    discriminator: min_D E L_D(l(h), l(x~)) + penalties,    generator: min_G E L_G(l(x~))

h = prepare(x) are the data as real numbers. The networks keep the contract of `networks.gan_mlp`. The pair (L_D, L_G)
is an `AdversarialLosses`. Of the five techniques of Salimans et al. (2016, arXiv:1606.03498), two are fields of `GAN`:

    feature_matching         L_G is the distance between the mean features of data and of generated examples
    historical_averaging     lambda |theta - mean of the past theta|^2 is added to both players' losses

Label smoothing belongs to the losses; minibatch discrimination and virtual batch normalisation to the networks.

The discriminator is updated first. Data and generated examples pass through it in two calls, so that layers which
depend on the batch see one kind at a time. Each player keeps only its own changes to `model_state`: a batch that one
player generates to play against the other does not change the other's running statistics.

Metrics: each player's whole loss, each penalty with its weight, and D_real and D_fake, the discriminator's mean
outputs: probabilities, or scores if the losses take scores. D_real - D_fake estimates the Wasserstein distance.

`model_state` holds the networks' collections by player, the means of historical averaging, and the kernels' bandwidth.
The model has no density: `log_prob` is an estimate by kernels on its samples, in the unit of `DataScaling`, with a
bandwidth that `calibrate` chooses on held-out data.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import gan as gan_losses
from gm_jax.models.adversarial_objectives import AdversarialLosses, PenaltyFn
from gm_jax.ops import checks
from gm_jax.ops import levels as levels_lib
from gm_jax.types import (
    Array,
    Batch,
    Fixed,
    Key,
    Likelihood,
    LossOutput,
    Mean,
    Metrics,
    Model,
    ModelState,
    Objective,
    Params,
    Prepared,
    Replicated,
    every,
)

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class DataScaling(NamedTuple):
    """The conversion of data to real numbers and back.

    Attributes:
        prepare: x -> h, what the discriminator sees and the generator makes.
        to_data: h -> x, as the data set ships it.
        to_unit: h [B, ...] -> [B, D], in the unit of the estimated density.
    """

    prepare: Callable[[Array], Array]
    to_data: Callable[[Array], Array]
    to_unit: Callable[[Array], Array]


def points() -> DataScaling:
    """Returns the scaling of real data, which leaves them unchanged."""
    return DataScaling(lambda x: x, lambda h: h, lambda h: h.reshape(h.shape[0], -1))


def images(*, levels: int) -> DataScaling:
    """Returns the scaling of integer levels to [-1, 1]; densities are of images in [0, 1]^D, as in the literature."""
    return DataScaling(
        prepare=lambda x: levels_lib.to_symmetric(x, levels=levels),
        to_data=lambda h: levels_lib.from_symmetric(h, levels=levels),
        to_unit=lambda h: levels_lib.symmetric_to_unit(h.reshape(h.shape[0], -1)),
    )


class Kernels(NamedTuple):
    """A density estimated from samples.

    Attributes:
        likelihood: (points [N, D], centres [M, D], bandwidth) -> Likelihood of [N] nats.
        choose_bandwidth: (points [N, D], centres [M, D]) -> a record, such as `kde.Bandwidth`, of the scalars
            `bandwidth` and `bracketed`, which is False if a better bandwidth may lie outside of the grid.
        num_centres: M, samples of the model; the same at every call.
    """

    likelihood: Callable[[Array, Array, Array], Likelihood]
    choose_bandwidth: Callable[[Array, Array], Any]
    num_centres: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GAN:
    """A generative adversarial network of any two networks that keep the contract.

    Attributes:
        generator: (z [B, Z], *, train) -> x~ [B, ...].
        discriminator: ([B, ...], *, train) -> (logits [B], features [B, F]).
        losses: the two players' losses of the logits.
        scaling: the conversion of data to real numbers and back.
        latent_dim: Z.
        penalties: terms of the discriminator's loss, by name. They see the discriminator in evaluation mode, where an
            example's score depends on that example alone; with batch norm it differs from the one that is trained.
        feature_matching: the generator matches mean features instead of lowering its own loss. With batch norm, which
            normalises data and generated examples separately, little of each channel's mean and scale is matched.
        historical_averaging: lambda; 0 for none.
        generator_every: steps of the discriminator per step of the generator.
        kernels: for `log_prob`; None for a model without.
        axis_name: the mapped axis over which feature matching also averages; only inside such a map.
    """

    generator: nn.Module
    discriminator: nn.Module
    losses: AdversarialLosses
    scaling: DataScaling
    latent_dim: int
    penalties: Mapping[str, PenaltyFn] = dataclasses.field(default_factory=dict)
    feature_matching: bool = False
    historical_averaging: float = 0.0
    generator_every: int = 1
    kernels: Kernels | None = None
    axis_name: str | None = None

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and samplers see; it has a `log_prob` if there are kernels."""
        objectives = (
            Objective(DISCRIMINATOR, self.discriminator_loss),
            Objective(GENERATOR, self.generator_loss, every(self.generator_every)),
        )
        collections = {"batch_stats": Mean(), "spectral_norm": Replicated(), "reference_batch": Fixed()}
        sync = {GENERATOR: collections, DISCRIMINATOR: collections, "history": Replicated(), "bandwidth": Fixed()}
        return Model(self.init, objectives, self.sample, None if self.kernels is None else self.log_prob, sync)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises both networks on a whole batch, the reference of a virtual batch norm; checks their outputs."""
        z_key, generator_key, discriminator_key = jax.random.split(key, 3)
        h = self.scaling.prepare(batch["x"])
        fake, of_generator = self.generator.init_with_output(generator_key, self._latents(z_key, len(h)), train=True)
        outputs, of_discriminator = self.discriminator.init_with_output(discriminator_key, h, train=True)
        checks.check_outputs("the generator", fake, h.shape)
        checks.check_outputs("the discriminator", outputs, h.shape[:1], (len(h), "F"))
        state: dict[str, Any] = {GENERATOR: dict(of_generator), DISCRIMINATOR: dict(of_discriminator)}
        params = {player: state[player].pop("params") for player in state}
        if self.historical_averaging:
            zeros = jax.tree.map(jnp.zeros_like, params)
            state["history"] = {player: {"mean": zeros[player], "count": jnp.int32(0)} for player in params}
        if self.kernels is not None:
            state["bandwidth"] = jnp.ones(())
        return params, state

    def discriminator_loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the discriminator's loss, penalties included."""
        z_key, penalty_key = jax.random.split(key)
        real = self.scaling.prepare(batch["x"])
        fake, _ = self._apply(GENERATOR, params, model_state, self._latents(z_key, real.shape[0]))
        (real_logits, _), state = self._apply(DISCRIMINATOR, params, model_state, real)
        (fake_logits, _), state = self._apply(DISCRIMINATOR, params, state, fake)
        loss = jnp.mean(self.losses.discriminator(real_logits, fake_logits))
        outputs = {"D_real": self.losses.to_output(real_logits), "D_fake": self.losses.to_output(fake_logits)}
        metrics = {name: jnp.mean(output) for name, output in outputs.items()}

        def score_fn(x: Array) -> Array:
            variables = {"params": params[DISCRIMINATOR], **state[DISCRIMINATOR]}
            return self.discriminator.apply(variables, x, train=False)[0]

        for index, (name, penalty) in enumerate(self.penalties.items()):
            metrics[name] = jnp.mean(penalty(jax.random.fold_in(penalty_key, index), score_fn, real, fake))
            loss = loss + metrics[name]
        return self._add_history(DISCRIMINATOR, loss, metrics, params, state)

    def generator_loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the generator's loss, by its logits or by feature matching."""
        fake, state = self._apply(GENERATOR, params, model_state, self._latents(key, batch["x"].shape[0]))
        (fake_logits, fake_features), _ = self._apply(DISCRIMINATOR, params, state, fake)
        metrics = {"D_fake": jnp.mean(self.losses.to_output(fake_logits))}
        if self.feature_matching:
            (_, real_features), _ = self._apply(DISCRIMINATOR, params, state, self.scaling.prepare(batch["x"]))
            loss = gan_losses.feature_matching_loss(real_features, fake_features, axis_name=self.axis_name)
        else:
            loss = jnp.mean(self.losses.generator(fake_logits))
        return self._add_history(GENERATOR, loss, metrics, params, state)

    def generate(self, params: Params, model_state: ModelState, z: Array) -> Array:
        """Maps latents z [B, Z] to examples [B, ...], as the data set ships them."""
        return self.scaling.to_data(self._generate(params, model_state, z))

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
        """Draws n examples in data space; the model has neither labels nor a temperature."""
        refuse_options(label=label, temperature=temperature)
        return self.generate(params, model_state, self._latents(key, n))

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Estimates log p(x) by kernels on the model's samples; ignores the key."""
        kernels, centres = self._kernels_and_centres(params, model_state)
        return kernels.likelihood(self.scaling.to_unit(self.scaling.prepare(x)), centres, model_state["bandwidth"])

    def calibrate(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Prepared:
        """Returns the state with the bandwidth that fits held-out x best, and notes on it; ignores the key."""
        kernels, centres = self._kernels_and_centres(params, model_state)
        chosen = kernels.choose_bandwidth(self.scaling.to_unit(self.scaling.prepare(x)), centres)
        notes = {"bandwidth": chosen.bandwidth, "bandwidth_at_edge_of_grid": ~chosen.bracketed}
        return {**model_state, "bandwidth": chosen.bandwidth}, notes

    def _latents(self, key: Key, n: int) -> Array:
        return jax.random.normal(key, (n, self.latent_dim))

    def _apply(self, player: str, params: Params, state: ModelState, x: Array) -> tuple[Any, ModelState]:
        """Applies a player's network in training mode and returns its outputs and the new state."""
        variables = {"params": params[player], **state[player]}
        outputs, carried = getattr(self, player).apply(variables, x, train=True, mutable=list(state[player]))
        return outputs, {**state, player: dict(carried)}

    def _generate(self, params: Params, state: ModelState, z: Array) -> Array:
        return cast(Array, self.generator.apply({"params": params[GENERATOR], **state[GENERATOR]}, z, train=False))

    def _kernels_and_centres(self, params: Params, state: ModelState) -> tuple[Kernels, Array]:
        if self.kernels is None:
            raise ValueError("this GAN has no density: give it kernels")
        latents = self._latents(jax.random.key(0), self.kernels.num_centres)
        return self.kernels, self.scaling.to_unit(self._generate(params, state, latents))

    def _add_history(self, player: str, loss: Array, metrics: Metrics, params: Params, state: ModelState) -> LossOutput:
        """Adds the penalty of historical averaging, after the mean has taken in the current parameters."""
        if not self.historical_averaging:
            return loss, (state, metrics)
        past, theta = state["history"][player], jax.lax.stop_gradient(params[player])
        mean = gan_losses.update_historical_mean(past["mean"], theta, past["count"])
        penalty = self.historical_averaging * gan_losses.historical_averaging_penalty(params[player], mean)
        history = {**state["history"], player: {"mean": mean, "count": past["count"] + 1}}
        return loss + penalty, ({**state, "history": history}, {**metrics, "historical_averaging": penalty})
