"""Log-densities, log-masses and divergences, elementwise.

Notation: x data, m mean, v = exp(log_var) variance, l logits, s = exp(log_scale), L levels, sigma the logistic
function. Everything is in nats. Every function works elementwise on arrays of one shape; the caller chooses the event
axes and sums over them (`reductions.sum_except_batch`). Shapes must be equal: [B] and [B, 1] would broadcast to [B, B]
and train on nonsense.

    normal:               log N(x; m, v) = -1/2 (log 2 pi + log v + (x - m)^2 / v)                         (1)
    Bernoulli:            log p(x) = x l - log(1 + exp l),    x in {0, 1}                                  (2)
    categorical:          log p(x) = l_x - log sum_c exp l_c                                               (3)
    discretised logistic: log p(x) = log [sigma(a) - sigma(b)],
                          a = (e_{x+1} - m) / s,  b = (e_x - m) / s,  e_x = (2x - 1) / (L - 1) - 1,
                          except e_0 = -infinity and e_L = infinity                                        (4)
    its mixture:          log p(x) = log sum_i softmax(l)_i p(x; m_i, s_i)                                 (5)
    normal KL:            KL(N_q || N_p) = 1/2 (log v_p - log v_q + v_q / v_p + (m_q - m_p)^2 / v_p - 1)   (6)
    to the standard:      KL(N_q || N(0, 1)) = 1/2 (v_q + m_q^2 - log v_q - 1)                             (7)
    standard logistic:    log p(x) = -log(1 + exp x) - log(1 + exp(-x)),  the density of (4) at m = 0, s = 1   (8)
    discretised normal:   log p(x) = log [Phi(a) - Phi(b)],  Phi the normal distribution function, a and b as in (4)
                          with s^2 = v                                                                     (9)
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops import checks
from gm_jax.types import Array

_LOG_2PI = math.log(2.0 * math.pi)


def normal_log_prob(x: Array, mean: Array, log_var: Array) -> Array:
    """Log-density of a normal, eq. (1), constant included.

    Args:
        x: [...] points.
        mean: [...] m, the shape of `x`.
        log_var: [...] log v, the shape of `x`: the log of the variance, not of the standard deviation.
    Returns:
        [...] log-density, nats, not summed; larger is better.
    """
    chex.assert_equal_shape([x, mean, log_var])
    chex.assert_type([x, mean, log_var], float)
    # Divide before squaring: (x - m)^2 underflows long before ((x - m) / sqrt v)^2.
    standardized = (x - mean) * jnp.exp(-0.5 * log_var)
    return -0.5 * (_LOG_2PI + log_var + jnp.square(standardized))


def standard_normal_log_prob(x: Array) -> Array:
    """Log-density of N(0, 1), eq. (1) at m = 0 and v = 1.

    Args:
        x: [...] points.
    Returns:
        [...] log-density, nats, not summed; larger is better.
    """
    chex.assert_type(x, float)
    return -0.5 * (_LOG_2PI + jnp.square(x))


def standard_logistic_log_prob(x: Array) -> Array:
    """Log-density of the standard logistic, eq. (8).

    Args:
        x: [...] points.
    Returns:
        [...] log-density, nats, not summed; larger is better.
    """
    chex.assert_type(x, float)
    return jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x)


def bernoulli_log_prob(x: Array, logits: Array) -> Array:
    """Log-mass of a Bernoulli, eq. (2).

    It is a likelihood only for x in {0, 1}; in between, the same expression is a cross-entropy. Binarize images first
    (`ops.binarization`), or use a likelihood that fits their levels.

    Args:
        x: [...] values 0. or 1., floating.
        logits: [...] log-odds of x = 1, the shape of `x`.
    Returns:
        [...] log-mass, nats, not summed; larger is better.
    """
    chex.assert_equal_shape([x, logits])
    chex.assert_type([x, logits], float)
    # From logits, never from probabilities: in float32 log(1 - sigmoid(l)) is log(0) from l = 17 on, and
    # log(-expm1(log_sigmoid(l))) fails from l = 88 on, with a NaN gradient.
    return x * logits - jax.nn.softplus(logits)


def categorical_log_prob(x: Array, logits: Array) -> Array:
    """Log-mass of a categorical, eq. (3).

    Args:
        x: [...] integer classes 0..L-1; any other class gives NaN.
        logits: [..., L] unnormalised log-probabilities; the classes are the last axis.
    Returns:
        [...] log-mass, nats, not summed; larger is better.
    """
    chex.assert_type([x, logits], [int, float])
    chex.assert_shape(logits, (*x.shape, None))
    chosen = jnp.take_along_axis(logits, x[..., None].astype(jnp.int32), axis=-1)[..., 0]
    # A negative index counts from the end: the label -1 of padding must not select the last class.
    return jnp.where(x >= 0, chosen - jax.nn.logsumexp(logits, axis=-1), jnp.nan)


def discretized_logistic_log_prob(x: Array, mean: Array, log_scale: Array, *, levels: int) -> Array:
    """Log-mass of a logistic in the bin of an integer level, eq. (4).

    Levels 0..L-1 are equally spaced on [-1, 1], the scale of `mean` and `log_scale`. The first and the last bin extend
    to infinity, so the masses of the L levels sum to 1.

    Args:
        x: [...] integer levels 0..L-1; any other level gives NaN.
        mean: [...] m, the shape of `x`, on the scale where the levels span [-1, 1].
        log_scale: [...] log s, the shape of `x`, on the same scale. In float32 value and gradient are finite for
            log_scale within +-80, without a clamp.
        levels: L, at least 2: 256 for 8-bit images.
    Returns:
        [...] log-mass, nats, not summed; larger is better.
    Raises:
        ValueError: `levels` is smaller than 2.
    Source: Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", NeurIPS 2016,
        arXiv:1606.04934; with the open end bins of Salimans, Karpathy, Chen & Kingma, "PixelCNN++", ICLR 2017,
        arXiv:1701.05517, eq. 2.
    """
    chex.assert_equal_shape([x, mean, log_scale])
    chex.assert_type([x, mean, log_scale], [int, float, float])
    checks.check_levels(levels)
    level = x.astype(mean.dtype)
    steps = levels - 1
    # The numerators are integers, exact in float32, so a level's upper edge and its neighbour's lower edge have the
    # same bits, and no mass is lost between them at any scale.
    upper = (2.0 * level + 1.0 - steps) / steps
    lower = (2.0 * level - 1.0 - steps) / steps
    inverse_scale = jnp.exp(-log_scale)
    # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)): a product cancels nothing in the tails, so PixelCNN++'s
    # special case for tiny masses (density times width) is not needed.
    log_below_upper = jax.nn.log_sigmoid((upper - mean) * inverse_scale)
    log_above_lower = jax.nn.log_sigmoid((mean - lower) * inverse_scale)
    log_width = jnp.log(-jnp.expm1(-2.0 / steps * inverse_scale))
    # An open end has no factor. Every branch is finite, so `where` passes no NaN to the gradient.
    has_lower, has_upper = level > 0, level < steps
    zero = jnp.zeros_like(mean)
    log_prob = (
        jnp.where(has_upper, log_below_upper, zero)
        + jnp.where(has_lower, log_above_lower, zero)
        + jnp.where(has_lower & has_upper, log_width, zero)
    )
    return jnp.where((level >= 0) & (level <= steps), log_prob, jnp.nan)


def discretized_normal_log_prob(x: Array, mean: Array, log_var: Array, *, levels: int) -> Array:
    """Log-mass of a normal in the bin of an integer level, eq. (9).

    Levels, bins and open ends are the same as in `discretized_logistic_log_prob`.

    Args:
        x: [...] integer levels 0..L-1; any other level gives NaN.
        mean: [...] m, the shape of `x`, on the scale where the levels span [-1, 1].
        log_var: [...] log v, the shape of `x`, on the same scale. In float32 value and gradient are finite and accurate
            for standard deviations from 1e-8 to 1e8, at any distance of the mean from the bin.
        levels: L, at least 2: 256 for 8-bit images.
    Returns:
        [...] log-mass, nats, not summed; larger is better.
    Raises:
        ValueError: `levels` is smaller than 2.
    Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, eq. 13.
    """
    chex.assert_equal_shape([x, mean, log_var])
    chex.assert_type([x, mean, log_var], [int, float, float])
    checks.check_levels(levels)
    level, steps = x.astype(mean.dtype), levels - 1
    has_lower, has_upper = level > 0, level < steps
    inverse_std = jnp.exp(-0.5 * log_var)
    upper = ((2.0 * level + 1.0 - steps) / steps - mean) * inverse_std
    lower = ((2.0 * level - 1.0 - steps) / steps - mean) * inverse_std
    # Mean within the bin: both parts of the mass, above and below the mean, are positive, so nothing cancels.
    below_upper = jnp.where(has_upper, jax.lax.erf(upper * math.sqrt(0.5)), 1.0)
    above_lower = jnp.where(has_lower, jax.lax.erf(-lower * math.sqrt(0.5)), 1.0)
    # Mean outside, at a distance `near` from the nearer edge: a difference of Phi would cancel, so the density is
    # integrated.
    near = jnp.where(has_lower & (~has_upper | (lower > 0)), lower, -upper)
    is_outside = near > 0
    width = jnp.where(has_lower & has_upper, 2.0 / steps * inverse_std, jnp.inf)
    log_outside = _log_normal_tail(jnp.where(is_outside, near, 1.0), jnp.where(is_outside, width, 1.0))
    log_inside = jnp.log(jnp.where(is_outside, 1.0, 0.5 * (below_upper + above_lower)))
    log_prob = jnp.where(is_outside, log_outside, log_inside)
    return jnp.where((level >= 0) & (level <= steps), log_prob, jnp.nan)


def discretized_logistic_mixture_log_prob(
    x: Array, logit_weights: Array, means: Array, log_scales: Array, *, levels: int
) -> Array:
    """Log-mass of an integer level under a mixture of logistics, eq. (5); one channel.

    Args:
        x: [...] integer levels 0..L-1; any other level gives NaN.
        logit_weights: [..., M] unnormalised log-weights of the M components.
        means: [..., M] m_i, on the scale where the levels span [-1, 1].
        log_scales: [..., M] log s_i, on the same scale.
        levels: L, at least 2.
    Returns:
        [...] log-mass, nats, not summed; larger is better.
    Raises:
        ValueError: `levels` is smaller than 2.
    Source: Salimans, Karpathy, Chen & Kingma, "PixelCNN++", ICLR 2017, arXiv:1701.05517, eqs. 1-2.
    """
    chex.assert_equal_shape([logit_weights, means, log_scales])
    chex.assert_type([logit_weights, means, log_scales], float)
    chex.assert_shape(means, (*x.shape, None))
    component_x = jnp.broadcast_to(x[..., None], means.shape)
    component_log_prob = discretized_logistic_log_prob(component_x, means, log_scales, levels=levels)
    return jax.nn.logsumexp(jax.nn.log_softmax(logit_weights, axis=-1) + component_log_prob, axis=-1)


def normal_kl(mean_q: Array, log_var_q: Array, mean_p: Array, log_var_p: Array) -> Array:
    """KL divergence from one normal to another, KL(q || p), eq. (6).

    Args:
        mean_q: [...] m_q.
        log_var_q: [...] log v_q.
        mean_p: [...] m_p.
        log_var_p: [...] log v_p.
    Returns:
        [...] KL, nats, not summed; at least 0, and 0 if q = p.
    """
    chex.assert_equal_shape([mean_q, log_var_q, mean_p, log_var_p])
    chex.assert_type([mean_q, log_var_q, mean_p, log_var_p], float)
    log_ratio = log_var_q - log_var_p
    standardized = (mean_q - mean_p) * jnp.exp(-0.5 * log_var_p)
    # expm1, because exp(log_ratio) - 1 loses digits near q = p and the KL would become negative.
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + jnp.square(standardized))


def normal_kl_to_standard(mean: Array, log_var: Array) -> Array:
    """KL divergence from a normal to N(0, 1), eq. (7).

    Args:
        mean: [...] m_q.
        log_var: [...] log v_q, the shape of `mean`.
    Returns:
        [...] KL, nats, not summed; at least 0, and 0 at mean 0 and variance 1.
    """
    chex.assert_equal_shape([mean, log_var])
    chex.assert_type([mean, log_var], float)
    return 0.5 * (jnp.expm1(log_var) - log_var + jnp.square(mean))


def _log_normal_tail(start: Array, width: Array) -> Array:
    """Log-mass of N(0, 1) between `start` >= 0 and `start` + `width`; the width may be infinite.

    The density relative to its value at `start`, exp(-start y - y^2 / 2), is smooth and decreasing. It is truncated at
    exp(-40) and integrated by Gauss-Legendre; 20 nodes give 1e-13 at any start and width.
    """
    cut = 40.0
    reach = 2.0 * cut / (start + jnp.sqrt(jnp.square(start) + 2.0 * cut))
    length = jnp.minimum(width, reach)
    nodes, weights = np.polynomial.legendre.leggauss(20)
    # One node after the other, which XLA fuses: 30 times faster on CPU than an axis of 20 nodes.
    integral = sum(
        float(weight) * jnp.exp(-length * node * (start + 0.5 * length * node))
        for node, weight in zip((0.5 + 0.5 * nodes).tolist(), (0.5 * weights).tolist(), strict=True)
    )
    return -0.5 * (_LOG_2PI + jnp.square(start)) + jnp.log(length) + jnp.log(integral)
