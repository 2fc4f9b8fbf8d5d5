"""The likelihood p(x|z) that a decoder's outputs define, as a record of pure functions.

A `DecoderLikelihood` converts data from the form in which the data set ships them (uint8 levels, or float32 points),
and converts samples back to that form. It counts every constant that makes its nll a true -log p in nats.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.losses import vae as losses
from gm_jax.ops.levels import from_symmetric, measure, nearest_level, to_symmetric, to_unit, unit_to_symmetric
from gm_jax.types import Array, Key

# Learned scales stay above these bounds: a dimension that is constant in the data would otherwise drive the density to
# infinity, or the scale to underflow.
MIN_LOG_VAR = -10.0  # for points; for images the standard deviation stays above one level
MIN_LOG_SCALE = -7.0  # as in PixelCNN++


class DecoderLikelihood(NamedTuple):
    """A decoder's likelihood p(x|z), as functions of the decoder's outputs [B, ..., C * P].

    Attributes:
        prepare: (key, raw [B, ...]) -> x [B, ...], the variable that the likelihood is defined on.
        encoder_input: x [B, ...] -> floats [B, ...] on the scale that the encoder sees.
        nll: (x [B, ...], outputs) -> -log p(x|z), [B] nats.
        mean: outputs -> float32 [B, ...] on the data set's scale, e.g. 0 ... 255.
        sample: (key, outputs) -> [B, ...] as the data set ships it.
        outputs_per_dim: P; the decoder gives P blocks of C channels.
        measure: the base measure of p(x): "binary", "<n> levels" or "continuous".
        side: the range of one dimension in the space of a density, see `ops.levels.space_setting`; None for a
            probability.
    """

    prepare: Callable[[Key, Array], Array]
    encoder_input: Callable[[Array], Array]
    nll: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    sample: Callable[[Key, Array], Array]
    outputs_per_dim: int
    measure: str
    side: str | None = None


def bernoulli(binarize: Callable[[Key, Array], Array], *, levels: int) -> DecoderLikelihood:
    """Independent Bernoulli pixels; the outputs are logits.

    Args:
        binarize: (key, raw) -> float32 in {0, 1}: one of `ops.binarization`, with its noise drawn from the key.
        levels: number of levels of the raw data; samples are 0 or levels - 1.
    """
    highest = levels - 1
    return DecoderLikelihood(
        prepare=binarize,
        encoder_input=lambda x: x,
        nll=losses.bernoulli_nll,
        mean=lambda logits: highest * jax.nn.sigmoid(logits),
        sample=lambda key, logits: highest * jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.uint8),
        outputs_per_dim=1,
        measure="binary",
    )


def normal(*, levels: int | None, log_var: float | None = None) -> DecoderLikelihood:
    """Independent normals; the outputs are means and, if the variance is learned, log-variances.

    Images are modelled as x = raw / (levels - 1) in [0, 1]. The nll counts the log-determinant of this scaling, so it
    is a density of the raw data, in level units. The density is continuous, but is evaluated on the lattice of levels.
    If the standard deviation is at least one level, as a learned one always is, the density sums over the lattice to 1
    within 1e-8 per dimension. With a smaller fixed variance the sum could exceed 1. Samples of images are rounded to
    the nearest level.

    Args:
        levels: number of levels of the raw data; None for points, which are modelled unscaled.
        log_var: fixed log-variance of x; None learns one for each dimension.
    Raises:
        UserError: `log_var` makes the standard deviation smaller than one level.
    """
    highest = 1.0 if levels is None else float(levels - 1)
    min_log_var = MIN_LOG_VAR if levels is None else -2.0 * math.log(highest)
    if levels is not None and log_var is not None and log_var < min_log_var:
        raise UserError(
            f"with a log-variance of {log_var} the normal is narrower than one of {levels} levels, "
            f"and its density can sum to more than 1 over them: choose at least {min_log_var:.3f}."
        )

    def moments(outputs: Array) -> tuple[Array, Array]:
        if log_var is not None:
            return outputs, jnp.full_like(outputs, log_var)
        mean, free_log_var = jnp.split(outputs, 2, axis=-1)
        return mean, bounded_below(free_log_var, min_log_var)

    def nll(x: Array, outputs: Array) -> Array:
        return losses.normal_nll(x, *moments(outputs)) + math.prod(x.shape[1:]) * math.log(highest)

    def mean(outputs: Array) -> Array:
        x = highest * moments(outputs)[0]
        return x if levels is None else jnp.clip(x, 0.0, highest)

    def sample(key: Key, outputs: Array) -> Array:
        mean, log_variance = moments(outputs)
        x = highest * (mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype))
        return x if levels is None else nearest_level(x, levels=levels)

    return DecoderLikelihood(
        prepare=lambda key, raw: raw if levels is None else to_unit(raw, levels=levels),
        encoder_input=lambda x: x if levels is None else unit_to_symmetric(x),
        nll=nll,
        mean=mean,
        sample=sample,
        outputs_per_dim=1 if log_var is not None else 2,
        measure="continuous",
        side="R" if levels is None else f"[0,{levels - 1}]",
    )


def discretized_logistic(*, levels: int) -> DecoderLikelihood:
    """Independent logistics integrated over each level's bin: a true probability of integers.

    The outputs are, for each pixel, a location on the scale where the levels span [-1, 1] and a log-scale, which stays
    above MIN_LOG_SCALE.

    Args:
        levels: number of levels of the raw data, which are 0 ... levels - 1.
    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016,
        arXiv:1606.04934.
    """

    def location_and_log_scale(outputs: Array) -> tuple[Array, Array]:
        location, free_log_scale = jnp.split(outputs, 2, axis=-1)
        return location, bounded_below(free_log_scale, MIN_LOG_SCALE)

    def mean(outputs: Array) -> Array:
        location, log_scale = location_and_log_scale(outputs)
        # The edges keep the outputs' precision, which `to_symmetric` would not.
        lower_edges = (2.0 * jnp.arange(1, levels, dtype=location.dtype) - 1.0) / (levels - 1) - 1.0

        def add_tail(total: Array, edge: Array) -> tuple[Array, None]:
            return total + jax.nn.sigmoid((location - edge) * jnp.exp(-log_scale)), None

        # E[x] = sum over l >= 1 of P(x >= l), one level at a time, because all at once are 255 copies of the batch.
        return jax.lax.scan(add_tail, jnp.zeros_like(location), lower_edges)[0]

    def sample(key: Key, outputs: Array) -> Array:
        location, log_scale = location_and_log_scale(outputs)
        x = location + jnp.exp(log_scale) * jax.random.logistic(key, location.shape, location.dtype)
        return from_symmetric(x, levels=levels)

    return DecoderLikelihood(
        prepare=lambda key, raw: raw,
        encoder_input=lambda x: to_symmetric(x, levels=levels),
        nll=lambda x, outputs: losses.discretized_logistic_nll(x, *location_and_log_scale(outputs), levels=levels),
        mean=mean,
        sample=sample,
        outputs_per_dim=2,
        measure=measure(levels),
    )


def bounded_below(x: Array, minimum: float) -> Array:
    """Maps x smoothly to values above a minimum: minimum + softplus(x - minimum); the gradient never vanishes."""
    return minimum + jax.nn.softplus(x - minimum)
