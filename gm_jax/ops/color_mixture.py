"""The distribution of all colours of a pixel in PixelCNN++: one mixture whose components share their weights.

Notation: a pixel of C colours, x_c integer level of colour c, y_c the same level on [-1, 1], M components, w_m weights,
P(x; mu, s) the mass of a logistic in the bin of level x (`distributions`, eq. (4)).

    p(x_1 ... x_C) = sum_m w_m prod_c P(x_c; mu_cm, s_cm)                                             (1)
    mu_cm          = n_cm + sum_{d < c} k_cdm y_d                                                     (2)

The weights are those of whole pixels: an earlier colour tells which component it came from. So each colour, given the
earlier ones, has a mixture of its own, whose weights are a posterior, and the product of these C conditionals is (1):

    p(x_c | x_<c)  = sum_m w_cm P(x_c; mu_cm, s_cm),    w_cm ~ w_m prod_{d < c} P(x_d; mu_dm, s_dm)   (3)

Source: Salimans, Karpathy, Chen & Kingma, "PixelCNN++", ICLR 2017, arXiv:1701.05517, section 2.2 and eq. 3.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops.distributions import discretized_logistic_log_prob
from gm_jax.ops.levels import to_symmetric
from gm_jax.types import Array


class ColorMixture(NamedTuple):
    """The parameters of (1).

    Attributes:
        logit_weights: [..., M] log w_m, up to a constant.
        means: [..., C, M] n_cm, on the scale where the levels span [-1, 1].
        log_scales: [..., C, M] log s_cm, on the same scale.
        coefficients: [..., C (C - 1) / 2, M] k_cdm, in the order (c, d) = (2, 1), (3, 1), (3, 2), ...
    """

    logit_weights: Array
    means: Array
    log_scales: Array
    coefficients: Array


def parameters_per_pixel(*, channels: int, components: int) -> int:
    """Returns how many numbers (1) has: M (1 + 2 C + C (C - 1) / 2)."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def split_parameters(outputs: Array, *, channels: int) -> ColorMixture:
    """Splits the outputs of a network into the parameters of (1), with k = tanh of an output, as in the source.

    Args:
        outputs: [..., Q] with Q = `parameters_per_pixel`.
        channels: C.
    Raises:
        AssertionError: Q is not a multiple of the numbers of one component.
    """
    pairs = channels * (channels - 1) // 2
    of_one = parameters_per_pixel(channels=channels, components=1)
    if outputs.shape[-1] % of_one:
        raise AssertionError(
            f"A mixture of M components has {of_one} M parameters for {channels} channels; got {outputs.shape[-1]}."
        )
    rows = outputs.reshape(*outputs.shape[:-1], of_one, outputs.shape[-1] // of_one)
    means, log_scales, coefficients = jnp.split(rows[..., 1:, :], [channels, 2 * channels], axis=-2)
    chex.assert_axis_dimension(coefficients, -2, pairs)
    return ColorMixture(rows[..., 0, :], means, log_scales, jnp.tanh(coefficients))


def mixture_of_each_color(x: Array, mixture: ColorMixture, *, levels: int) -> tuple[Array, Array, Array]:
    """Computes the mixture (3) of each colour given the earlier colours of its pixel.

    Colour c of the results depends on x_d with d < c only.

    Args:
        x: [..., C] integer levels 0..L-1.
        mixture: the parameters of (1).
        levels: L, at least 2.
    Returns:
        logit_weights, means and log_scales, [..., C, M] each: the arguments of
        `distributions.discretized_logistic_mixture_log_prob`.
    Raises:
        ValueError: `levels` is smaller than 2.
    """
    channels, components = mixture.means.shape[-2:]
    pairs = channels * (channels - 1) // 2
    chex.assert_shape(x, (*mixture.logit_weights.shape[:-1], channels))
    chex.assert_equal_shape([mixture.means, mixture.log_scales])
    chex.assert_shape(mixture.coefficients, (*x.shape[:-1], pairs, components))
    y = to_symmetric(x, levels=levels, dtype=mixture.means.dtype)
    log_weights = jax.nn.log_softmax(mixture.logit_weights, axis=-1)
    means, weights, pair = [], [], 0
    for c in range(channels):
        mean = mixture.means[..., c, :]
        for d in range(c):
            mean = mean + mixture.coefficients[..., pair, :] * y[..., d, None]
            pair += 1
        means.append(mean)
        weights.append(log_weights)
        if c + 1 < channels:
            level = jnp.broadcast_to(x[..., c, None], mean.shape)
            log_scale = mixture.log_scales[..., c, :]
            log_weights = log_weights + discretized_logistic_log_prob(level, mean, log_scale, levels=levels)
    return jnp.stack(weights, axis=-2), jnp.stack(means, axis=-2), mixture.log_scales
