"""Predictions of the parts of x_t = a_t x_0 + s_t eps: x_0, eps, v and score, and how each gives the others.

Notation: x_0 data, eps standard normal noise; a_t scales the signal and s_t is the standard deviation of the noise at a
time t. Both come from a `gaussian_path.GaussianPath` or from a `diffusion_process.Schedule`.

    marginal:     q(x_t | x_0) = N(a_t x_0, s_t^2),      x_t = a_t x_0 + s_t eps                            (1)
    score:        grad log q(x_t | x_0) = -eps / s_t                                                        (2)
    v:            v = a_t eps - s_t x_0,                 if a_t^2 + s_t^2 = 1                               (3)
    SNR:          snr_t = a_t^2 / s_t^2                                                                     (4)
    EDM:          F = (s_t / c x_0 - a_t c eps) / w_t,   w_t^2 = a_t^2 c^2 + s_t^2, the variance of x_t     (5)

All conversions pass through one pivot, the pair (x_0, eps) of a `Prediction`, for which (1) holds: `prediction_from_*`
makes it from x_t and any one part; `score` and `v_target` read the others off it. The velocity u = dx_t / dt
needs the derivatives of a and s: `GaussianPath.velocity` and `GaussianPath.prediction_from_velocity`.

    x_t = diffuse(x_0, eps, a_t, s_t)
    prediction = prediction_from_eps(x_t, network(x_t, t), a_t, s_t)
    prediction.x_0, v_target(*prediction, a_t, s_t), score(prediction.eps, s_t)
"""

from typing import NamedTuple

import chex
import jax.numpy as jnp

from gm_jax.types import Array


class Prediction(NamedTuple):
    """A prediction of both parts of x_t = a_t x_0 + s_t eps.

    Attributes:
        x_0: [B, ...] the data.
        eps: [B, ...] the noise.
    """

    x_0: Array
    eps: Array


def diffuse(x_0: Array, eps: Array, a_t: Array, s_t: Array) -> Array:
    """Draws a sample of q(x_t | x_0), eq. (1).

    Args:
        x_0: [B, ...] data.
        eps: [B, ...] standard normal noise.
        a_t: [B], or a scalar for all.
        s_t: [B], or a scalar for all.
    Returns:
        [B, ...] x_t.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    """
    a_t, s_t = _checked(a_t, s_t, x_0, eps)
    return a_t * x_0 + s_t * eps


def prediction_from_x0(x_t: Array, x_0: Array, a_t: Array, s_t: Array) -> Prediction:
    """Makes the pair (x_0, eps) from x_0.

    Args:
        x_t: [B, ...] noisy data.
        x_0: [B, ...] the predicted data.
        a_t: [B], or a scalar for all.
        s_t: [B], or a scalar for all. Without noise (s_t = 0) eps is 0 if x_0 = x_t, and large but finite otherwise.
    Returns:
        The pair; eq. (1) holds.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    """
    a_t, s_t = _checked(a_t, s_t, x_t, x_0)
    return Prediction(x_0, (x_t - a_t * x_0) / _at_least_rounding(s_t))


def prediction_from_eps(x_t: Array, eps: Array, a_t: Array, s_t: Array) -> Prediction:
    """Makes the pair (x_0, eps) from eps.

    Args:
        x_t: [B, ...] noisy data.
        eps: [B, ...] the predicted noise.
        a_t: [B], or a scalar for all. Without signal (a_t = 0) eps does not determine x_0, which is then large but
            finite: at such a time predict v or x_0.
        s_t: [B], or a scalar for all.
    Returns:
        The pair; eq. (1) holds.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239, eq. 15.
    """
    a_t, s_t = _checked(a_t, s_t, x_t, eps)
    return Prediction((x_t - s_t * eps) / _at_least_rounding(a_t), eps)


def prediction_from_v(x_t: Array, v: Array, a_t: Array, s_t: Array) -> Prediction:
    """Makes the pair (x_0, eps) from v: a rotation, which never divides.

    Args:
        x_t: [B, ...] noisy data.
        v: [B, ...] the predicted v (3).
        a_t: [B], or a scalar for all.
        s_t: [B], or a scalar for all; a_t^2 + s_t^2 must be 1.
    Returns:
        The pair; eq. (1) holds.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Salimans & Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022,
        arXiv:2202.00512.
    """
    a_t, s_t = _checked(a_t, s_t, x_t, v)
    return Prediction(a_t * x_t - s_t * v, s_t * x_t + a_t * v)


def prediction_from_score(x_t: Array, score: Array, a_t: Array, s_t: Array) -> Prediction:
    """Makes the pair (x_0, eps) from the score.

    Args:
        x_t: [B, ...] noisy data.
        score: [B, ...] the predicted gradient of log q(x_t) in x_t.
        a_t: [B], or a scalar for all; as in `prediction_from_eps`.
        s_t: [B], or a scalar for all.
    Returns:
        The pair; eq. (1) holds.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    """
    _, factor = _checked(a_t, s_t, x_t, score)
    return prediction_from_eps(x_t, -factor * score, a_t, s_t)


def prediction_from_preconditioned(
    x_t: Array, output: Array, a_t: Array, s_t: Array, *, sigma_data: float | Array
) -> Prediction:
    """Makes the pair (x_0, eps) from F, eq. (5), the output of a network with the preconditioning of EDM.

    x_0 = c_skip x_t / a_t + c_out F at EDM's sigma = s_t / a_t, but it never divides by a_t or s_t. With c = 1 and
    a_t^2 + s_t^2 = 1, F is -v.

    Args:
        x_t: [B, ...] noisy data.
        output: F [B, ...].
        a_t: [B], or a scalar for all; 1 on EDM's own path.
        s_t: [B], or a scalar for all.
        sigma_data: c, the standard deviation of the data.
    Returns:
        The pair; eq. (1) holds. F = 0 is the best linear prediction for data of mean 0.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
        arXiv:2206.00364, eq. 7 and table 1.
    """
    a_t, s_t = _checked(a_t, s_t, x_t, output)
    variance = jnp.square(a_t * sigma_data) + jnp.square(s_t)
    scale = sigma_data / jnp.sqrt(variance)
    x_0 = a_t * sigma_data**2 / variance * x_t + s_t * scale * output
    return Prediction(x_0, s_t / variance * x_t - a_t * scale * output)


def preconditioned_target(x_0: Array, eps: Array, a_t: Array, s_t: Array, *, sigma_data: float | Array) -> Array:
    """Computes F, eq. (5): what a preconditioned network should output. It has variance 1 if the data have c^2.

    Args:
        x_0: [B, ...] data.
        eps: [B, ...] noise.
        a_t: [B], or a scalar for all.
        s_t: [B], or a scalar for all.
        sigma_data: c, the standard deviation of the data.
    Returns:
        [B, ...] F.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Karras et al., NeurIPS 2022, arXiv:2206.00364, eq. 8.
    """
    a_t, s_t = _checked(a_t, s_t, x_0, eps)
    variance = jnp.square(a_t * sigma_data) + jnp.square(s_t)
    return (s_t / sigma_data * x_0 - a_t * sigma_data * eps) / jnp.sqrt(variance)


def v_target(x_0: Array, eps: Array, a_t: Array, s_t: Array) -> Array:
    """Computes v, eq. (3): the derivative of x_t along the arc (a_t, s_t) = (cos phi, sin phi), in phi.

    Args:
        x_0: [B, ...] data.
        eps: [B, ...] noise.
        a_t: [B], or a scalar for all.
        s_t: [B], or a scalar for all.
    Returns:
        [B, ...] v.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Salimans & Ho, ICLR 2022, arXiv:2202.00512.
    """
    a_t, s_t = _checked(a_t, s_t, x_0, eps)
    return a_t * eps - s_t * x_0


def score(eps: Array, s_t: Array) -> Array:
    """Computes the score, eq. (2).

    Args:
        eps: [B, ...] noise.
        s_t: [B], or a scalar for all; without noise (s_t = 0) the score is large but finite.
    Returns:
        [B, ...] gradient of log q(x_t) in x_t.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    """
    chex.assert_type([eps, s_t], float)
    return -eps / _at_least_rounding(per_example(s_t, eps))


def log_snr(a_t: Array, s_t: Array) -> Array:
    """Computes the logarithm of the signal-to-noise ratio, eq. (4).

    Args:
        a_t: [...].
        s_t: [...].
    Returns:
        [...] log snr_t; infinite without noise, -infinity without signal.
    Raises:
        AssertionError: an argument is not floating.
    """
    chex.assert_type([a_t, s_t], float)
    return 2.0 * (jnp.log(a_t) - jnp.log(s_t))


def per_example(value: Array | float, x: Array) -> Array:
    """Shapes values of examples so that they multiply the examples.

    Args:
        value: [B], a scalar for all, or the shape of `x`.
        x: [B, ...].
    Returns:
        `value` with as many axes as `x`, or a scalar.
    Raises:
        AssertionError: `value` has another shape than these.
    """
    value = jnp.asarray(value)
    if value.ndim in (0, x.ndim):
        chex.assert_shape(value, x.shape[: value.ndim])
        return value
    chex.assert_shape(value, x.shape[:1])
    return value.reshape(*value.shape, *(1,) * (x.ndim - 1))


def _checked(a_t: Array, s_t: Array, *xs: Array) -> tuple[Array, Array]:
    """a_t and s_t, shaped for `xs`, which must be floating and of one shape."""
    chex.assert_equal_shape(xs)
    chex.assert_type([*xs, a_t, s_t], float)
    return per_example(a_t, xs[0]), per_example(s_t, xs[0])


def _at_least_rounding(factor: Array) -> Array:
    """The divisor `factor`, kept from 0: a part of x_t below its rounding cannot be recovered."""
    return jnp.maximum(factor, jnp.finfo(factor.dtype).eps)
