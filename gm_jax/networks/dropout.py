"""Dropout of networks whose training and evaluation differ in nothing else.

Source: Srivastava, Hinton, Krizhevsky, Sutskever & Salakhutdinov, "Dropout: A Simple Way to Prevent Neural Networks
    from Overfitting", JMLR 15, 2014.
"""

import flax.linen as nn

from gm_jax.types import Array


class Dropout(nn.Module):
    """Dropout that is on exactly if `apply` gets a key named "dropout"; without one it returns its input.

    Attributes:
        rate: the probability with which a value becomes zero; the others are divided by 1 - rate.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps x [...] to the same shape."""
        return nn.Dropout(self.rate, deterministic=not self.has_rng("dropout"))(x)
