"""What a decoder's outputs mean: the likelihood p(x|z) of data, as a record of pure functions.

Data come and samples go as the data set ships them (uint8 levels, or float32 points); the way there and back is the
observation model's, and so is every constant that makes its nll a true -log p in nats.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.losses import vae as losses
from gm_jax.ops.levels import measure
from gm_jax.types import Array, Key

# Learned scales stay above these, through a softplus so that their gradient never vanishes: a dimension that is
# constant in the data would otherwise draw the density to infinity, or the scale to underflow.
MIN_LOG_VAR = -10.0  # of points; an image's standard deviation stays above one level
MIN_LOG_SCALE = -7.0  # as in PixelCNN++


class ObservationModel(NamedTuple):
    """A decoder's likelihood p(x|z), as functions of the decoder's outputs [B, ..., C * P].

    Attributes:
        prepare: (key, raw [B, ...]) -> x [B, ...], what the likelihood is defined on.
        encoder_input: x [B, ...] -> floats [B, ...] on the scale that the encoder sees.
        nll: (x [B, ...], outputs) -> -log p(x|z), [B] nats.
        mean: outputs -> float32 [B, ...] on the data set's scale, e.g. 0 ... 255.
        sample: (key, outputs) -> [B, ...] as the data set ships it.
        outputs_per_dim: P; the decoder gives P blocks of C channels.
        measure: what log p(x) is a density over: "binary", "<n> levels" or "continuous".
    """

    prepare: Callable[[Key, Array], Array]
    encoder_input: Callable[[Array], Array]
    nll: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    sample: Callable[[Key, Array], Array]
    outputs_per_dim: int
    measure: str


def bernoulli(binarize: Callable[[Key, Array], Array], *, levels: int) -> ObservationModel:
    """Independent Bernoulli pixels; the outputs are logits.

    Args:
        binarize: (key, raw) -> float32 in {0, 1}: one of `ops.binarization`, with its noise drawn from the key.
        levels: levels of the raw data; samples are 0 or levels - 1.
    """
    white = levels - 1
    return ObservationModel(
        prepare=binarize,
        encoder_input=lambda x: x,
        nll=losses.bernoulli_nll,
        mean=lambda logits: white * jax.nn.sigmoid(logits),
        sample=lambda key, logits: white * jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(jnp.uint8),
        outputs_per_dim=1,
        measure="binary",
    )


def normal(*, levels: int | None, log_var: float | None = None) -> ObservationModel:
    """Independent normals; the outputs are means and, where the variance is learned, log-variances.

    Images are modelled as x = raw / (levels - 1) in [0, 1], and the nll counts the log-determinant of that scaling: it
    is a density of the raw data, in level units. It is continuous, yet evaluated on the lattice of levels. While the
    standard deviation is at least one level, as a learned one is, the density sums over the lattice to 1 within 1e-8
    for each dimension; with a smaller fixed variance it can pass for more likelihood than there is. Samples of images
    are rounded to the nearest level.

    Args:
        levels: levels of the raw data; None for points, which are modelled as they are.
        log_var: fixed log-variance of x; None learns one for each dimension.
    """
    white = 1.0 if levels is None else float(levels - 1)
    min_log_var = MIN_LOG_VAR if levels is None else -2.0 * math.log(white)
    if levels is not None and log_var is not None and log_var < min_log_var:
        raise UserError(
            f"a normal narrower than one of {levels} levels can sum to more than 1 over them: "
            f"its log-variance must be at least {min_log_var:.3f}, got {log_var}."
        )

    def moments(outputs: Array) -> tuple[Array, Array]:
        if log_var is not None:
            return outputs, jnp.full_like(outputs, log_var)
        mean, free_log_var = jnp.split(outputs, 2, axis=-1)
        return mean, _bounded_below(free_log_var, min_log_var)

    def nll(x: Array, outputs: Array) -> Array:
        return losses.normal_nll(x, *moments(outputs)) + math.prod(x.shape[1:]) * math.log(white)

    def mean(outputs: Array) -> Array:
        x = white * moments(outputs)[0]
        return x if levels is None else jnp.clip(x, 0.0, white)

    def sample(key: Key, outputs: Array) -> Array:
        mean, log_variance = moments(outputs)
        x = white * (mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype))
        return x if levels is None else _nearest_level(x, levels)

    return ObservationModel(
        prepare=lambda key, raw: raw if levels is None else raw.astype(jnp.float32) / white,
        encoder_input=lambda x: x if levels is None else 2.0 * x - 1.0,
        nll=nll,
        mean=mean,
        sample=sample,
        outputs_per_dim=1 if log_var is not None else 2,
        measure="continuous",
    )


def discretized_logistic(*, levels: int) -> ObservationModel:
    """Independent logistics integrated over each level's bin: a true probability of integers.

    The outputs are, for each pixel, a location on the scale where the levels span [-1, 1] and a log-scale, which stays
    above MIN_LOG_SCALE.

    Args:
        levels: levels of the raw data, 0 ... levels - 1.
    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016,
        arXiv:1606.04934.
    """

    def location_and_log_scale(outputs: Array) -> tuple[Array, Array]:
        location, free_log_scale = jnp.split(outputs, 2, axis=-1)
        return location, _bounded_below(free_log_scale, MIN_LOG_SCALE)

    def mean(outputs: Array) -> Array:
        location, log_scale = location_and_log_scale(outputs)
        lower_edges = (2.0 * jnp.arange(1, levels, dtype=location.dtype) - 1.0) / (levels - 1) - 1.0

        def add_tail(total: Array, edge: Array) -> tuple[Array, None]:
            return total + jax.nn.sigmoid((location - edge) * jnp.exp(-log_scale)), None

        # E[x] = sum over l >= 1 of P(x >= l); one level at a time, for all of them at once are 255 copies of a batch.
        return jax.lax.scan(add_tail, jnp.zeros_like(location), lower_edges)[0]

    def sample(key: Key, outputs: Array) -> Array:
        location, log_scale = location_and_log_scale(outputs)
        x = location + jnp.exp(log_scale) * jax.random.logistic(key, location.shape, location.dtype)
        return _nearest_level(0.5 * (x + 1.0) * (levels - 1), levels)

    return ObservationModel(
        prepare=lambda key, raw: raw,
        encoder_input=lambda x: 2.0 * x.astype(jnp.float32) / (levels - 1) - 1.0,
        nll=lambda x, outputs: losses.discretized_logistic_nll(x, *location_and_log_scale(outputs), levels=levels),
        mean=mean,
        sample=sample,
        outputs_per_dim=2,
        measure=measure(levels),
    )


def _bounded_below(x: Array, minimum: float) -> Array:
    return minimum + jax.nn.softplus(x - minimum)


def _nearest_level(x: Array, levels: int) -> Array:
    return jnp.clip(jnp.round(x), 0, levels - 1).astype(jnp.uint8)
