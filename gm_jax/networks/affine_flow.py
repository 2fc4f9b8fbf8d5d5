"""An affine flow: with a normal prior, a normal density of any mean and covariance.

    x = m + L z,    z = L^-1 (x - m),    log |det dz/dx| = -sum_i log L_ii                            (1)

L is lower triangular, with exp(s_i) on its diagonal. `init` takes m and L from the moments of its batch.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.types import Array, Key

_SHRINKAGE = 0.1  # share of the variances that is added to a covariance, because a batch may have few examples
_SMALLEST = 1e-6  # variance of a dimension in which all examples of the batch are equal


class AffineFlow(nn.Module):
    """The map (1): x [B, *event_shape] <-> z [B, D].

    Attributes:
        event_shape: shape of one example.
    """

    event_shape: tuple[int, ...]

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Maps x to (z, log_det [B])."""
        flat = x.reshape(x.shape[0], -1)
        mean, root = self._parameters(flat)
        z = jax.scipy.linalg.solve_triangular(root, (flat - mean[None]).T, lower=True).T
        return z, jnp.full(x.shape[0], -jnp.sum(jnp.log(jnp.diag(root))))

    def inverse(self, z: Array) -> tuple[Array, Array]:
        """Maps z to (x, log_det [B] of the inverse)."""
        mean, root = self._parameters(z)
        x = mean[None] + z @ root.T
        return x.reshape(-1, *self.event_shape), jnp.full(z.shape[0], jnp.sum(jnp.log(jnp.diag(root))))

    @nn.compact
    def _parameters(self, batch: Array) -> tuple[Array, Array]:
        """Returns m [D] and L [D, D]."""
        dim = math.prod(self.event_shape)

        def first_root(key: Key) -> Array:
            covariance = jnp.cov(batch.T, bias=True).reshape(dim, dim)
            variance = jnp.diag(covariance) + _SMALLEST
            return jnp.linalg.cholesky(covariance + jnp.diag(_SHRINKAGE * variance))

        mean = self.param("mean", lambda key: jnp.mean(batch, axis=0))
        log_diagonal = self.param("log_diagonal", lambda key: jnp.log(jnp.diag(first_root(key))))
        below = self.param("below", lambda key: jnp.tril(first_root(key), -1)[jnp.tril_indices(dim, -1)])
        root = jnp.zeros((dim, dim), batch.dtype).at[jnp.tril_indices(dim, -1)].set(below)
        return mean, root + jnp.diag(jnp.exp(log_diagonal))
