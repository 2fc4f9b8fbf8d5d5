"""Dropout, whose mask is drawn once for a forward pass and its gradients.

XLA may compute random numbers again in each operation that reads them: those of a mask in the forward pass, and in both
gradients of the layer behind it. A barrier makes it store the mask, a byte for each number (`docs/performance.md`).
Where `remat` computes a block again, it draws the same mask again.

Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
    from Overfitting", JMLR 15, 2014.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.types import Array


class Dropout(nn.Module):
    """Dropout as that of Flax, with a stored mask.

    Attributes:
        rate: the probability with which a value becomes zero; the others are divided by 1 - rate.
        deterministic: whether it returns its input.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [...] to the same shape.

        Raises:
            flax.errors.InvalidRngError: `apply` gets no key named "dropout", and needs one.
        """
        if self.deterministic or self.rate == 0.0:
            return x
        if self.rate == 1.0:
            return jnp.zeros_like(x)
        keep = 1.0 - self.rate
        mask = jax.lax.optimization_barrier(jax.random.bernoulli(self.make_rng("dropout"), keep, x.shape))
        return jnp.where(mask, x / keep, jnp.zeros_like(x))


class KeyedDropout(nn.Module):
    """Dropout that is on exactly if `apply` gets a key named "dropout"; without one it returns its input.

    Attributes:
        rate: the probability with which a value becomes zero; the others are divided by 1 - rate.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [...] to the same shape."""
        return Dropout(self.rate, deterministic=not self.has_rng("dropout"))(x)
