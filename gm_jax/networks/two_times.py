"""A network of one time made a network of two: it embeds a time t and the distance to an earlier time r.

Source: Geng et al., "Mean Flows for One-step Generative Modeling", NeurIPS 2025, arXiv:2505.13447, table 1c.
"""

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.types import Array


class TwoTimes(nn.Module):
    """Calls a network with the pair of times (t, t - r), [B, 2], for its embedding.

    Attributes:
        network: (x [B, ...], t [B, 2], label [B] or None, train=...) -> [B, ...], whose times go to a `TimeEmbedding`.
    """

    network: nn.Module

    def __call__(
        self, x: Array, t: Array, label: Array | None = None, *, earlier: Array | None = None, train: bool = False
    ) -> Array:
        """Maps x [B, ...], t [B], labels [B] and r = `earlier` [B] to [B, ...]; without `earlier`, r is t."""
        distance = jnp.zeros_like(t) if earlier is None else t - earlier
        return self.network(x, jnp.stack([t, distance], axis=-1), label, train=train)
