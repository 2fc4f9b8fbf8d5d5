"""Both ends of log p(x), for data that the model drew itself (Grosse, Ghahramani & Adams 2015, arXiv:1511.02543).

A model draws a latent z ~ p(z), and then x ~ p(x|z). So z is an exact draw of p(z|x), which no real x comes with. With
further latents z_k ~ q(z|x) and their weights w(z) = p(x, z) / q(z|x),

    E log 1/K sum_(k=1)^K w(z_k)               <= log p(x)                                           (1)
    E log 1/K (w(z) + sum_(k=2)^K w(z_k))      >= log p(x)                                           (2)

(2) minus log p(x) is the KL divergence from the law of (z, z_2 ... z_K), in any order, to that of K draws of q; (1) is
the same with the two laws exchanged. Both tend to log p(x) as K grows.

The latent of a flow of levels is its dequantisation noise, and q is uniform: (1) is importance-weighted dequantisation
(Ho et al., "Flow++", ICML 2019, arXiv:1902.00275). An x with a value outside of all levels is not counted.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from gm_jax.losses.vae import importance_weighted_bound, reparameterize
from gm_jax.models.flow import Flow
from gm_jax.models.vae import VAE, log_importance_weights
from gm_jax.types import Array, Key, Likelihood, LikelihoodKind, ModelState, Params


class Ends(NamedTuple):
    """Both ends of log p(x) for n draws of a model.

    Attributes:
        x: [n, ...] the draws, as the data set ships them.
        is_counted: [n] bool, whether both ends of a draw are valid.
        low: (1), a lower bound.
        high: (2), an upper bound.
    """

    x: Array
    is_counted: Array
    low: Likelihood
    high: Likelihood


def has_ends(family: object) -> bool:
    """Returns whether `ends` can compute both ends for a family: a VAE or a flow whose draws keep their latent."""
    match family:
        case VAE(likelihood=likelihood):
            # Draws of levels under a density are rounded, so that their latent is not one of what is evaluated.
            return likelihood.side in (None, "R")
        case Flow(dequantization=dequantization):
            return dequantization.to_unit is not None
    return False


def ends(
    family: VAE | Flow, params: Params, model_state: ModelState, key: Key, n: int, *, num_samples: int = 100
) -> Ends:
    """Draws n examples and computes (1) and (2) with K = num_samples.

    Raises:
        ValueError: `has_ends` is false for the family.
    """
    if not has_ends(family):
        raise ValueError(f"{type(family).__name__} has no latent whose draw belongs to its x")
    if isinstance(family, VAE):
        measure = family.likelihood.measure
        x, is_counted, of_draw, others = _vae_weights(family, params, key, n, num_samples)
    else:
        measure = family.dequantization.measure
        x, is_counted, of_draw, others = _flow_weights(family, params, model_state, key, n, num_samples)

    def likelihood(log_w: Array, kind: LikelihoodKind, by: str) -> Likelihood:
        return Likelihood(importance_weighted_bound(log_w), kind, measure, (("by", by), ("K", num_samples)))

    low = likelihood(others, "lower_bound", "importance weights")
    with_draw = jnp.concatenate([of_draw[None], others[1:]])
    return Ends(x, is_counted, low, likelihood(with_draw, "upper_bound", "importance weights with the true latent"))


def _vae_weights(vae: VAE, params: Params, key: Key, n: int, num_samples: int) -> tuple[Array, Array, Array, Array]:
    """Returns x, whether it is counted, log w(z) [n] and log w(z_k) [K, n]."""
    z_key, x_key, key = jax.random.split(key, 3)
    z = jax.random.normal(z_key, (n, vae.latent_dim))
    x = vae.likelihood.sample(x_key, vae.decoder_outputs(params, z))
    key, mean, log_var, nll_fn = vae.posterior(params, key, x)

    def log_weight(key: Key) -> Array:
        other = reparameterize(mean, log_var, jax.random.normal(key, (1, *mean.shape), mean.dtype))
        return log_importance_weights(other, mean, log_var, nll_fn)[0]

    others = jax.lax.map(log_weight, jax.random.split(key, num_samples), batch_size=vae.chunk_size)
    return x, jnp.ones(n, bool), log_importance_weights(z[None], mean, log_var, nll_fn)[0], others


def _flow_weights(
    flow: Flow, params: Params, model_state: ModelState, key: Key, n: int, num_samples: int
) -> tuple[Array, Array, Array, Array]:
    """Returns x, whether it is counted, log w(z) [n] and log w(z_k) [K, n]."""
    draw_key, key = jax.random.split(key)
    h, log_density = flow.sample_with_log_density(params, model_state, draw_key, n)
    to_unit = cast(Callable[[Array], tuple[Array, Array]], flow.dequantization.to_unit)
    y, log_det = to_unit(h)
    x, is_counted = flow.dequantization.to_data(h), jnp.all((y >= 0.0) & (y < 1.0), axis=tuple(range(1, y.ndim)))

    def log_weight(key: Key) -> Array:
        return flow.log_prob(params, model_state, key, x).log_prob

    others = jax.lax.map(log_weight, jax.random.split(key, num_samples))
    return x, is_counted, log_density + log_det, others
