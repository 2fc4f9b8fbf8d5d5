"""The class-conditional variational autoencoder: a VAE of p(x|y), and p(x) by summing over the classes.

Encoder q(z|x,y) and decoder p(x|z,y) see the label; the prior of z does not. Training maximises the VAE's objective of
log p(x|y). With equally probable classes,

    log p(x) = log 1/C sum_y p(x|y) >= E log 1/C sum_y exp L_K(x|y)                                     (1)

L_K is the importance-weighted bound (2) of `vae`. exp L_K(x|y) is an unbiased estimate of p(x|y), so the right side is
a lower bound by Jensen's inequality.

Source: Kingma, Rezende, Mohamed & Welling, "Semi-supervised Learning with Deep Generative Models", NeurIPS 2014,
    arXiv:1406.5298, with every label observed; Sohn, Lee & Yan, NeurIPS 2015.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.models.given_label import given_label, label_of, label_or_random
from gm_jax.models.vae import VAE
from gm_jax.ops import reductions
from gm_jax.types import Array, Batch, Key, Likelihood, Metrics, Model, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ConditionalVAE:
    """A VAE whose networks also see a label.

    Attributes:
        vae: with an encoder ([B, ...], label [B]) -> moments and a decoder (z [B, Z], label [B]) -> outputs.
        num_classes: C; labels are 0 .. C - 1.
    """

    vae: VAE
    num_classes: int

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        return Model(self.init, (Objective("vae", self.loss),), self.sample, self.log_prob)

    def given(self, label: Array) -> VAE:
        """Returns the VAE of p(x|y) for a batch of labels [B]."""
        networks = {name: given_label(getattr(self.vae, name), label) for name in ("encoder", "decoder")}
        return dataclasses.replace(self.vae, **networks)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises both networks, and checks that their outputs have the right shapes."""
        return self.given(label_of(batch)[:1]).init(key, batch)

    def loss(
        self, params: Params, model_state: ModelState, key: Key, batch: Batch
    ) -> tuple[Array, tuple[ModelState, Metrics]]:
        """Evaluates the objective of log p(x|y) on one batch."""
        return self.given(label_of(batch)).loss(params, model_state, key, batch)

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Computes the bound (1) on log p(x), with K importance samples for each class."""

        def given_class(y: Array) -> Likelihood:
            return self.log_prob_given(params, model_state, key, x, jnp.full(len(x), y))

        each = jax.lax.map(given_class, jnp.arange(self.num_classes))
        settings = (*each.settings, ("labels", self.num_classes))
        return dataclasses.replace(each, log_prob=reductions.log_mean_exp(each.log_prob, axis=0), settings=settings)

    def log_prob_given(self, params: Params, model_state: ModelState, key: Key, x: Array, label: Array) -> Likelihood:
        """Computes the importance-weighted bound on log p(x|y) for labels [B]."""
        return self.given(label).log_prob(params, model_state, key, x)

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
        """Draws a label unless one is given, z from the prior, then x from p(x|z,y): [n, ...]."""
        refuse_options(temperature=temperature)
        label_key, key = jax.random.split(key)
        label = label_or_random(label_key, n, label, self.num_classes)
        return self.given(label).sample(params, model_state, key, n)

    def sample_mean(self, params: Params, model_state: ModelState, key: Key, n: int) -> Array:
        """Means of the distributions p(x|z,y) that `sample` draws from with the same key: float32 [n, ...]."""
        label_key, key = jax.random.split(key)
        label = label_or_random(label_key, n, None, self.num_classes)
        return self.given(label).sample_mean(params, model_state, key, n)

    def encode(self, params: Params, key: Key, x: Array, label: Array) -> tuple[Array, Array]:
        """Computes the mean [B, Z] and the log-variance [B, Z] of q(z|x,y); the key prepares x."""
        return self.given(label).encode(params, key, x)

    def decode(self, params: Params, z: Array, label: Array) -> Array:
        """Computes the mean of p(x|z,y) for z [B, Z]: float32 [B, ...] on the data set's scale."""
        return self.given(label).decode(params, z)
