"""D3PM: diffusion of discrete levels by transition matrices.

    q(x_t | x_0) = Qbar_t[x_0, x_t] for each dimension, x_T ~ p(x_T)                                      (1)
    p(x_(t-1) | x_t) ~ Q_t[., x_t] sum_k p~(x_0 = k | x_t) Qbar_(t-1)[k, .]                               (2)
    -log p(x_0) <= KL(q(x_T | x_0) || p(x_T)) + sum_t E_q KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t))   (3)
    loss         = T (a term of (3), at a time of each example, + lambda E_q[-log p~(x_0 | x_t)])         (4)

The network predicts logits of x_0 from x_t and t; the level that x_t is gets one more, as in the source's code.

Source: Austin, Johnson, Ho, Tarlow & van den Berg, "Structured Denoising Diffusion Models in Discrete State-Spaces",
NeurIPS 2021, arXiv:2107.03006.
"""

import dataclasses
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import refuse_options
from gm_jax.losses import discrete_diffusion as losses
from gm_jax.ops import checks, transitions
from gm_jax.ops.levels import measure, to_symmetric
from gm_jax.ops.transitions import Transitions
from gm_jax.samplers import discrete as samplers
from gm_jax.types import Array, Batch, Key, Likelihood, LossOutput, Model, ModelState, Objective, Params


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class D3PM:
    """A discrete diffusion model with any network of a noisy image and a time.

    Attributes:
        network: (x_t [B, ..., C] on [-1, 1], t [B] int32, train=...) -> [B, ..., L C], a block of C for each level.
        transitions: of K >= L states; those after the levels, such as a mask, are never data.
        levels: L.
        shape: of one example.
        cross_entropy: lambda of (4).
        bound_terms: times that `log_prob` sums over, spread evenly and drawn; None for all T.
    """

    network: nn.Module
    transitions: Transitions
    levels: int
    shape: tuple[int, ...]
    cross_entropy: float = 0.0
    bound_terms: int | None = None

    @property
    def model(self) -> Model:
        """The record that the train step, evaluation and sampling use."""
        return Model(self.init, (Objective("d3pm", self.loss),), self.sample, self.log_prob)

    @property
    def num_dims(self) -> int:
        """D."""
        return math.prod(self.shape)

    def init(self, key: Key, batch: Batch) -> tuple[Params, ModelState]:
        """Initialises the network, and checks the shape of its outputs."""
        checks.check_example(self.shape, batch["x"])
        output, variables = self.network.init_with_output(key, jnp.zeros((1, *self.shape)), jnp.ones(1, jnp.int32))
        checks.check_outputs("the network", output, (1, *self.shape[:-1], self.levels * self.shape[-1]))
        return {"d3pm": variables["params"]}, {}

    def loss(self, params: Params, model_state: ModelState, key: Key, batch: Batch) -> LossOutput:
        """Computes the mean of (4), with dropout if the network has it; "bound" is without the prior's term."""
        x_0, num_steps = self._flat(batch["x"]), self.transitions.num_steps
        time_key, noise_key, dropout_key = jax.random.split(key, 3)
        t = jax.random.randint(time_key, x_0.shape[:1], 1, num_steps + 1)
        x_t = transitions.diffuse(noise_key, self.transitions, x_0, t)
        logits = self.logits(params, x_t, t, dropout_key=dropout_key)
        kl = self._denoising_kl(x_0, x_t, t, logits)
        value = jnp.mean(losses.hybrid_loss(kl, x_0, logits, num_steps=num_steps, weight=self.cross_entropy))
        return value, (model_state, {"bound": num_steps * jnp.mean(kl)})

    def log_prob(self, params: Params, model_state: ModelState, key: Key, x: Array) -> Likelihood:
        """Estimates the bound -(3), with one x_t of each example at each time."""
        x_0, num_steps = self._flat(x), self.transitions.num_steps
        time_key, noise_key = jax.random.split(key)

        def at(time: Array) -> Array:
            t = jnp.broadcast_to(time, x_0.shape[:1])
            x_t = transitions.diffuse(jax.random.fold_in(noise_key, time), self.transitions, x_0, t)
            return self._denoising_kl(x_0, x_t, t, self.logits(params, x_t, t))

        terms = self.bound_terms or num_steps
        places = (jnp.arange(terms) + jax.random.uniform(time_key)) * (num_steps / terms)
        times = 1 + (places.astype(jnp.int32) if self.bound_terms else jnp.arange(num_steps))
        last = self.transitions.log_cumulative[num_steps][x_0]
        prior = losses.categorical_kl(last, jnp.broadcast_to(self.transitions.log_stationary, last.shape))
        bound = losses.discrete_variational_bound(
            prior, jax.lax.map(at, jnp.minimum(times, num_steps)), num_steps=num_steps
        )
        settings = (("T", num_steps), ("bound_terms", terms))
        return Likelihood(bound, "lower_bound", measure(self.levels), settings)

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
        """Draws [n, ...] uint8 levels, with T passes of the network."""
        refuse_options(label=label, temperature=temperature)
        predict = lambda x_t, t: self.logits(params, x_t, t)  # noqa: E731
        x_0 = samplers.ancestral(predict, self.transitions, key, n, self.num_dims)
        return jnp.minimum(x_0, self.levels - 1).astype(jnp.uint8).reshape(n, *self.shape)

    def logits(self, params: Params, x_t: Array, t: Array, *, dropout_key: Key | None = None) -> Array:
        """Computes the logits [B, D, L] of p~(x_0 | x_t) from states [B, D] and times [B]."""
        image = to_symmetric(x_t.reshape(-1, *self.shape), levels=self.levels, dtype=jnp.result_type(float))
        training = {} if dropout_key is None else {"train": True, "rngs": {"dropout": dropout_key}}
        output = cast(Array, self.network.apply({"params": params["d3pm"]}, image, t, **training))
        output = output.astype(jnp.promote_types(output.dtype, jnp.float32))
        blocks = output.reshape(*image.shape[:-1], self.levels, self.shape[-1])
        logits = jnp.swapaxes(blocks, -1, -2).reshape(*x_t.shape, self.levels)
        return logits + jax.nn.one_hot(x_t, self.levels, dtype=logits.dtype)

    def _denoising_kl(self, x_0: Array, x_t: Array, t: Array, logits: Array) -> Array:
        return losses.categorical_kl(
            transitions.posterior_log_prob(self.transitions, x_0, x_t, t),
            transitions.reverse_log_prob(self.transitions, logits, x_t, t),
        )

    def _flat(self, raw: Array) -> Array:
        return raw.astype(jnp.int32).reshape(raw.shape[0], self.num_dims)
