"""Kernel density estimation: log p(x) of a model that can only be sampled, from Gaussian kernels on its samples.

Notation: c_m is one of M samples, the centres; h is the bandwidth; D is the number of dimensions.

    log p(x) = log 1/M sum_m N(x; c_m, h^2 I)
             = log sum_m exp(-|x - c_m|^2 / (2 h^2)) - log M - D/2 log(2 pi h^2)                (1)

(1) is an estimate, not a bound. In many dimensions it is poor: its variance is large, and it ranks models by how well
kernels suit the data. The bandwidth is chosen on a validation split (`choose_bandwidth`), never on the test split, and
every result reports it. The result is a density in the unit of x, which the caller chooses; figures in the literature
are for images in [0, 1]^D. It is not a number of bits per dimension.

Memory: distances are computed chunk by chunk, so N points and M centres need O(N + M) memory, not O(N M).

Source: Parzen, "On Estimation of a Probability Density Function and Mode", 1962; for GANs Goodfellow et al., NeurIPS
    2014, arXiv:1406.2661.
"""

import math
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gm_jax.types import Array, Likelihood


class Bandwidth(NamedTuple):
    """A bandwidth chosen from a grid.

    Attributes:
        bandwidth: scalar; has the largest mean log-density on the validation split.
        mean_log_density: [H] nats, one for each bandwidth of the grid; larger is better.
        bracketed: scalar bool; False if the choice is the first or the last of the grid, so the grid was too narrow.
    """

    bandwidth: Array
    mean_log_density: Array
    bracketed: Array


@partial(jax.jit, static_argnames="chunk_size")
def log_density(points: Array, centres: Array, bandwidth: Array | float, *, chunk_size: int = 128) -> Array:
    """Computes the log-density of points under Gaussian kernels on the centres, eq. (1).

    Args:
        points: [N, D] floats.
        centres: [M, D] floats.
        bandwidth: h, scalar, positive.
        chunk_size: number of points, and of centres, compared at a time.
    Returns:
        [N] log-density, nats; larger is better.
    Raises:
        AssertionError: the arrays are not floating [N, D] and [M, D], or `bandwidth` is not a scalar.
    """
    chex.assert_rank([points, centres, bandwidth], [2, 2, 0])
    chex.assert_type([points, centres], float)
    chex.assert_equal_shape_suffix([points, centres], 1)
    num_centres, num_dims = centres.shape
    centre_chunks = _chunks(centres, chunk_size)
    is_centre = _chunks(jnp.ones((num_centres, 1), bool), chunk_size)[..., 0]

    def log_sum(points: Array) -> Array:
        """Maps [n, D] to [n]: the log of the sum over all centres."""

        def add(log_total: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
            centres, is_centre = chunk
            # |x|^2 - 2 x c + |c|^2 would lose digits to cancellation near a centre, where the density is decided.
            squared = jnp.sum(jnp.square(points[:, None] - centres[None]), axis=-1)
            log_kernels = jnp.where(is_centre[None], -0.5 * squared / bandwidth**2, -jnp.inf)
            return jnp.logaddexp(log_total, jax.nn.logsumexp(log_kernels, axis=1)), None

        nothing = jnp.full(points.shape[0], -jnp.inf, points.dtype)
        return jax.lax.scan(add, nothing, (centre_chunks, is_centre))[0]

    log_sums = jax.lax.map(log_sum, _chunks(points, chunk_size)).reshape(-1)[: points.shape[0]]
    log_norm = math.log(num_centres) + num_dims * (0.5 * math.log(2.0 * math.pi) + jnp.log(bandwidth))
    return log_sums - log_norm


def likelihood(points: Array, centres: Array, bandwidth: Array | float) -> Likelihood:
    """Computes (1) as a Likelihood with its kind, its measure and the number of centres.

    Args:
        points: [N, D] floats.
        centres: [M, D] floats, samples of the model.
        bandwidth: h, a scalar chosen on a validation split.
    Returns:
        Likelihood of [N] nats, kind "estimate", measure "continuous", settings (("centres", M),).
    """
    return Likelihood(
        log_density(points, centres, bandwidth), "estimate", "continuous", (("centres", centres.shape[0]),)
    )


@jax.jit
def choose_bandwidth(validation: Array, centres: Array, grid: Array) -> Bandwidth:
    """Chooses the bandwidth of a grid that gives the validation split the largest mean log-density.

    Args:
        validation: [N, D] floats, data used neither for training nor for the final result.
        centres: [M, D] floats, samples of the model.
        grid: [H] bandwidths, increasing, e.g. `jnp.geomspace(0.01, 1.0, 20)`.
    Returns:
        The chosen bandwidth and the log-density of every candidate.
    Raises:
        AssertionError: `grid` is not floating [H], or the other shapes do not match.
    """
    chex.assert_rank(grid, 1)
    chex.assert_type(grid, float)
    mean_log_density = jnp.mean(jax.vmap(log_density, in_axes=(None, None, 0))(validation, centres, grid), axis=1)
    best = jnp.argmax(mean_log_density)
    return Bandwidth(grid[best], mean_log_density, jnp.logical_and(best > 0, best < grid.shape[0] - 1))


def _chunks(x: Array, chunk_size: int) -> Array:
    """Reshapes [N, D] to [chunks, n, D], padded with zeros at the end."""
    size = min(chunk_size, x.shape[0])
    padded = jnp.pad(x, [(0, -x.shape[0] % size), (0, 0)])
    return padded.reshape(-1, size, x.shape[1])
