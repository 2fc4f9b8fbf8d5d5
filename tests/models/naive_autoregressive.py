"""The oracle of autoregressive sampling, for dense networks and for those in raster order."""

import dataclasses

import jax
import jax.numpy as jnp

from gm_jax.models.autoregressive import Autoregressive
from gm_jax.samplers import autoregressive as samplers


class NaiveAutoregressive(Autoregressive):
    """Generates the same samples by a pass through the whole network at each position."""

    def generate(self, params, key, n, label, k, *, prefix=None, temperature=None):
        order = jnp.asarray(self.network.orders)[k]
        inverse = jnp.argsort(order)
        outputs = lambda x: self.network.outputs(params["autoregressive"], x[:, inverse], label, k)[:, order]  # noqa: E731
        settings = {"prefix": prefix, "temperature": 1.0 if temperature is None else temperature}
        return samplers.sample_naive(outputs, self.likelihood.draw, key, n, self.num_dims, **settings)[:, inverse]


def naive(model):
    """Returns the same model with the naive sampler."""
    return NaiveAutoregressive(**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)})


def log_prob(model, params, x):
    """Returns the model's log-probabilities [B] of x."""
    return jax.jit(model.model.log_prob)(params, {}, jax.random.key(0), x).log_prob
