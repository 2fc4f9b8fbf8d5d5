"""Frechet distance between the features of two sets, from moments that are gathered batch by batch.

Notation: f [D] the features of an example, n examples; m their mean, Q = sum (f - m)(f - m)^T their scatter and
S = Q / (n - 1) their covariance; r and g for real and generated.

    d^2 = |m_r - m_g|^2 + Tr S_r + Tr S_g - 2 Tr (S_r^1/2 S_g S_r^1/2)^1/2                        (1)
    Tr (S_r^1/2 S_g S_r^1/2)^1/2 = sum of the singular values of S_r^1/2 S_g^1/2                  (2)
    n = n_a + n_b,   m = m_a + (n_b / n) d,   Q = Q_a + Q_b + (n_a n_b / n) d d^T,   d = m_b - m_a    (3)

(1) is the squared 2-Wasserstein distance of two normals. With the 2,048 features of Inception it is the FID; with other
features it is another number, which is why a result names its extractor, and its sample count too: the distance of two
samples of one distribution is not zero, and falls with the count.

The moments are float64: in float32 the distance is off by per cents where a covariance is ill-conditioned. By (2) no
root is taken of an eigenvalue that rounding has made of nothing: a product of two matrices of rank less than D has
singular values of the size of float64's rounding, where its eigenvalues' roots would be of the size of its root.

Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
    2017, arXiv:1706.08500; (3) Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances", 1979.
"""

import warnings
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError
from gm_jax.types import Array


class Moments(NamedTuple):
    """Count, mean and scatter of the features seen so far, float64; arrays of jax's or numpy's.

    Attributes:
        count: scalar n.
        mean: [D].
        scatter: [D, D] Q, the sum of outer products about the mean.
    """

    count: Array
    mean: Array
    scatter: Array


def no_moments(dim: int) -> Moments:
    """The moments of nothing: where a stream begins."""
    return Moments(np.zeros(()), np.zeros(dim), np.zeros((dim, dim)))


def batch_moments(features: Array, mask: Array, *, axis_name: str | None = None) -> Moments:
    """The moments of one batch; with an axis, of all its parts, the same everywhere.

    Args:
        features: [B, D] floats.
        mask: [B] bool, False for padding, whose features may be anything finite.
        axis_name: of a mapped axis to sum over, if any. Under `jit` over a sharded batch none is needed.
    Returns:
        Moments in the precision of jax's default float; `add_batch` makes that 64 bits.
    Raises:
        AssertionError: the shapes are not [B, D] and [B] (at trace time).
    """
    chex.assert_rank([features, mask], [2, 1])
    chex.assert_equal_shape_prefix([features, mask], 1)
    total = lambda x: x if axis_name is None else jax.lax.psum(x, axis_name)  # noqa: E731
    weights = mask.astype(jnp.result_type(float))[:, None]
    features = features.astype(weights.dtype)
    count = total(jnp.sum(weights))
    mean = total(jnp.sum(weights * features, axis=0)) / jnp.maximum(count, 1.0)
    centred = weights * (features - mean[None])
    return Moments(count, mean, total(centred.T @ centred))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of two sets together, eq. (3)."""
    count = a.count + b.count
    share = b.count / jnp.maximum(count, 1.0)
    difference = b.mean - a.mean
    scatter = a.scatter + b.scatter + a.count * share * jnp.outer(difference, difference)
    return Moments(count, a.mean + share * difference, scatter)


@jax.jit
def _add_batch(moments: Moments, features: Array, mask: Array) -> Moments:
    return merge(moments, batch_moments(features, mask))


def add_batch(moments: Moments, features: Array, mask: Array | None = None) -> Moments:
    """One more batch of a stream, compiled once for batches of one shape, in 64 bits whatever the caller's precision.

    Args:
        moments: so far, from `no_moments` at first.
        features: [B, D] floats.
        mask: [B] bool, False for the padding of a ragged last batch; None where every row counts.
    """
    mask = np.ones(len(features), bool) if mask is None else mask
    with jax.enable_x64(True):
        return _add_batch(moments, features, mask)


def frechet_distance(real: Moments, generated: Moments) -> float:
    """The squared Frechet distance of the normals that two sets' moments define, eq. (1), on the host in float64.

    Args:
        real: moments of the real examples.
        generated: of the generated ones; the distance is symmetric.
    Returns:
        d^2, at least 0: smaller is better.
    Raises:
        UserError: a set has fewer than two examples, or a feature that is not finite.
        ValueError: the features differ in number.
    Warns:
        UserWarning: a set has no more examples than there are features; its covariance is singular.
    """
    if real.mean.shape != generated.mean.shape:
        raise ValueError(f"features of {real.mean.shape[0]} and {generated.mean.shape[0]} dimensions are not the same")
    dim, counts = real.mean.shape[0], (int(real.count), int(generated.count))
    (mean_r, root_r, trace_r), (mean_g, root_g, trace_g) = (
        _normal(moments, name) for moments, name in ((real, "real"), (generated, "generated"))
    )
    if min(counts) <= dim:
        warnings.warn(
            f"{counts[0]} real and {counts[1]} generated examples are too few for {dim} features: a covariance is "
            f"singular, and the Frechet distance mostly that of a small sample; take more than {dim} of both.",
            stacklevel=2,
        )
    overlap = np.linalg.svd(root_r.T @ root_g, compute_uv=False).sum()
    distance = np.sum(np.square(mean_r - mean_g)) + trace_r + trace_g - 2.0 * overlap
    return max(0.0, float(distance))


def _normal(moments: Moments, name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean [D], a root F [D, R] of the covariance, S = F F^T, and the covariance's trace."""
    count, mean, scatter = (np.asarray(leaf, np.float64) for leaf in moments)
    if count < 2:
        raise UserError(f"a covariance needs at least two {name} examples, got {int(count)}.")
    if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
        raise UserError(f"the features of the {name} examples are not all finite.")
    covariance = scatter / (count - 1.0)
    eigenvalues, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    kept = eigenvalues > 0.0
    return mean, vectors[:, kept] * np.sqrt(eigenvalues[kept])[None], float(np.trace(covariance))
