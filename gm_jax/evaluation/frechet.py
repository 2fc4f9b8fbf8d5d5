"""Frechet distance between the features of two sets, from moments gathered batch by batch.

Notation: f [D] are the features of one of n examples; m is their mean, Q = sum (f - m)(f - m)^T their scatter and
S = Q / (n - 1) their covariance; subscripts r and g stand for real and generated.

    d^2 = |m_r - m_g|^2 + Tr S_r + Tr S_g - 2 Tr (S_r^1/2 S_g S_r^1/2)^1/2                        (1)
    Tr (S_r^1/2 S_g S_r^1/2)^1/2 = sum of the singular values of S_r^1/2 S_g^1/2                  (2)
    n = n_a + n_b,   m = m_a + (n_b / n) d,   Q = Q_a + Q_b + (n_a n_b / n) d d^T,   d = m_b - m_a    (3)

(1) is the squared 2-Wasserstein distance between two normals. With the 2,048 features of Inception it is the FID
(`evaluation.fid`); with other features it is a different number, so every result names its extractor. Every result also
gives the numbers of samples, because the distance between two samples of the same distribution is not zero and falls
with their number.

The moments are float64, because in float32 an ill-conditioned covariance changes the distance by per cents. (2) takes
no square root of an eigenvalue that is only a rounding error e: if the covariances have rank less than D, the surplus
singular values in (2) are about e, but the roots of the product's surplus eigenvalues would be about sqrt(e).

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
    """Count, mean and scatter of the features seen so far, in float64; jax or numpy arrays.

    Attributes:
        count: scalar n.
        mean: [D].
        scatter: [D, D] Q, the sum of outer products about the mean.
    """

    count: np.ndarray | Array
    mean: np.ndarray | Array
    scatter: np.ndarray | Array


def no_moments(dim: int) -> Moments:
    """Returns the moments of an empty set, with which a stream begins."""
    return Moments(np.zeros(()), np.zeros(dim), np.zeros((dim, dim)))


def batch_moments(features: np.ndarray | Array, mask: np.ndarray | Array, *, axis_name: str | None = None) -> Moments:
    """Computes the moments of one batch; with `axis_name`, of the parts on all devices together.

    Args:
        features: [B, D] floats.
        mask: [B] bool; False marks padding, whose features may have any finite values.
        axis_name: mapped axis to sum over. Leave it out under `jit`, also if the batch is sharded.
    Returns:
        Moments in jax's default float precision; `add_batch` sets it to 64 bits.
    Raises:
        AssertionError: the shapes are not [B, D] and [B].
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
    """Merges the moments of two sets, eq. (3)."""
    count = a.count + b.count
    share = b.count / jnp.maximum(count, 1.0)
    difference = b.mean - a.mean
    # jnp.outer accepts numpy arrays too; only its annotation does not.
    scatter = a.scatter + b.scatter + a.count * share * jnp.outer(difference, difference)  # pyright: ignore[reportArgumentType]
    return Moments(count, a.mean + share * difference, scatter)


@jax.jit
def _add_batch(moments: Moments, features: np.ndarray | Array, mask: np.ndarray | Array) -> Moments:
    return merge(moments, batch_moments(features, mask))


def add_batch(moments: Moments, features: np.ndarray | Array, mask: np.ndarray | Array | None = None) -> Moments:
    """Adds one batch to a stream, always in 64 bits; compiled once for each shape of batch.

    Args:
        moments: moments so far; start with `no_moments`.
        features: [B, D] floats.
        mask: [B] bool; False marks the padding of an incomplete last batch. None counts every row.
    """
    mask = np.ones(len(features), bool) if mask is None else mask
    with jax.enable_x64(True):
        return _add_batch(moments, features, mask)


def frechet_distance(real: Moments, generated: Moments) -> float:
    """Computes the squared Frechet distance of two sets from their moments, eq. (1), in float64 on the host.

    Args:
        real: moments of the real examples.
        generated: moments of the generated examples; the distance is symmetric.
    Returns:
        d^2, at least 0: smaller is better.
    Raises:
        UserError: a set has fewer than two examples, or a feature that is not finite.
        ValueError: the sets have different numbers of features.
        TypeError: an argument is not moments.
    Warns:
        UserWarning: a set has no more examples than features, so its covariance is singular.
    """
    if not (isinstance(real, Moments) and isinstance(generated, Moments)):
        raise TypeError(
            "frechet_distance takes moments of features: add_batch(no_moments(dim), features). For two arrays of "
            "images use sample_metrics.compare(extractor, real, generated)."
        )
    if real.mean.shape != generated.mean.shape:
        raise ValueError(f"the features differ: {real.mean.shape[0]} and {generated.mean.shape[0]} dimensions")
    dim, counts = real.mean.shape[0], (int(real.count), int(generated.count))
    (mean_r, root_r, trace_r), (mean_g, root_g, trace_g) = (
        _normal(moments, name) for moments, name in ((real, "real"), (generated, "generated"))
    )
    if min(counts) <= dim:
        warnings.warn(
            f"{counts[0]} real and {counts[1]} generated examples are too few for {dim} features: a covariance is "
            f"singular, and the Frechet distance mostly reflects the sample size; use more than {dim} of both.",
            stacklevel=2,
        )
    overlap = np.linalg.svd(root_r.T @ root_g, compute_uv=False).sum()
    distance = np.sum(np.square(mean_r - mean_g)) + trace_r + trace_g - 2.0 * overlap
    return max(0.0, float(distance))


def _normal(moments: Moments, name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns the mean [D], a root F [D, R] of the covariance S = F F^T, and the trace of S."""
    count, mean, scatter = (np.asarray(leaf, np.float64) for leaf in moments)
    if count < 2:
        raise UserError(f"a Frechet distance needs at least two {name} examples, got {int(count)}.")
    if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
        raise UserError(f"some features of the {name} examples are infinite or NaN: check the images.")
    covariance = scatter / (count - 1.0)
    eigenvalues, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    kept = eigenvalues > 0.0
    return mean, vectors[:, kept] * np.sqrt(eigenvalues[kept])[None], float(np.trace(covariance))
