"""Gaussian paths from data to noise: x_t = a(t) x_0 + s(t) eps, and everything that follows from a and s.

Notation: x_0 data, eps standard normal noise, t a time; a = a(t) scales the signal, s = s(t) is the standard deviation
of the noise, a' and s' are their derivatives in t. Every method of generation that adds Gaussian noise has such a path:
DDPM, score-based SDEs, EDM, flow matching.

    marginal:     q(x_t | x_0) = N(a x_0, s^2),      x_t = a x_0 + s eps                                    (1)
    forward SDE:  dx = f(t) x dt + g(t) dW,          f = a' / a,    g^2 = (s^2)' - 2 f s^2                  (2)
    velocity:     u = a' x_0 + s' eps,               E[u | x_t] = f x_t - g^2 / 2 grad log q(x_t)           (3)

The paths differ in a and s alone; with B(t) = b_min t + (b_max - b_min) t^2 / 2 and w(t) = pi/2 (t + o) / (1 + o):

    variance_preserving        a = exp(-B / 2)             s = sqrt(1 - exp(-B))                            (4)
    sub_variance_preserving    a = exp(-B / 2)             s = 1 - exp(-B)                                  (5)
    variance_exploding         a = 1                       s = s_min (s_max / s_min)^t                      (6)
    cosine                     a = cos w(t) / cos w(0)     s = sqrt(1 - a^2)                                (7)
    edm                        a = 1                       s = t                                            (8)
    linear                     a = 1 - t                   s = s_min + (1 - s_min) t                        (9)
    trigonometric              a = cos t                   s = sin t                                        (10)

A `diffusion_process.Schedule` is a variance-preserving path on a grid of times: it has the same `signal` and `noise`.
Functions of the two factors at one time, conversions of predictions included, are in `predictions`.

    path = variance_preserving()
    a_t, s_t = path.signal(t), path.noise(t)
    x_t = predictions.diffuse(x_0, eps, a_t, s_t)
    pair = predictions.prediction_from_eps(x_t, network(x_t, t), a_t, s_t)
    pair.x_0, predictions.score(pair.eps, s_t), path.velocity(*pair, t)

Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021,
arXiv:2011.13456, for (2) and (4)-(6); the other paths name theirs.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from gm_jax.ops.predictions import Prediction, diffuse
from gm_jax.ops.predictions import log_snr as log_snr_at
from gm_jax.types import Array

_FIRST_TIME = 1e-5  # of paths whose s' is infinite at t = 0


class GaussianPath(NamedTuple):
    """The two functions of time in (1), and the SDE and the velocity that follow from them.

    Times are floating arrays [...] within the range. At a time without signal (t_max of `cosine`, `linear` and
    `trigonometric`) f is -infinity and g^2 is infinity; the velocity is finite there.

    Attributes:
        signal: elementwise t -> a(t), differentiable.
        noise: elementwise t -> s(t), differentiable.
        range: (t_min, t_max), the times from the least to the most noise.
    """

    signal: Callable[[Array], Array]
    noise: Callable[[Array], Array]
    range: tuple[float, float]

    def drift(self, t: Array) -> Array:
        """Computes f(t) = a' / a of the forward SDE (2), whose drift is f(t) x.

        Args:
            t: [...] times.
        Returns:
            [...] f, at most 0 on every path of this module.
        """
        a_t, slope = _value_and_slope(self.signal, t)
        return slope / a_t

    def squared_diffusion(self, t: Array) -> Array:
        """Computes g(t)^2 of the forward SDE (2).

        Args:
            t: [...] times.
        Returns:
            [...] g^2, at least 0.
        """
        variance, slope = _value_and_slope(lambda t: jnp.square(self.noise(t)), t)
        return slope - 2.0 * self.drift(t) * variance

    def log_snr_slope(self, t: Array) -> Array:
        """Computes d log snr / dt = -g^2 / s^2 [...] at times t [...]; snr = a^2 / s^2 falls along a path."""
        (a_t, a_slope), (s_t, s_slope) = _value_and_slope(self.signal, t), _value_and_slope(self.noise, t)
        return 2.0 * (a_slope / a_t - s_slope / s_t)

    def time_at_log_snr(self, log_snr: Array) -> Array:
        """Finds the times at which the path has given log signal-to-noise ratios, by bisection.

        Args:
            log_snr: [...] values of log a^2 / s^2.
        Returns:
            [...] times; the nearest end of the range for a value outside of it.
        """
        chex.assert_type(log_snr, float)
        first, last = (jnp.full_like(log_snr, end) for end in self.range)

        def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            too_early = log_snr_at(self.signal(middle), self.noise(middle)) > log_snr
            return jnp.where(too_early, middle, low), jnp.where(too_early, high, middle)

        # Enough halvings for all digits of a time that is smaller than the range by a factor of 2^16.
        low, high = jax.lax.fori_loop(0, 2 * jnp.finfo(log_snr.dtype).nmant + 16, halve, (first, last))
        return 0.5 * (low + high)

    def velocity(self, x_0: Array, eps: Array, t: Array) -> Array:
        """Computes the velocity u = dx_t / dt along a fixed pair of data and noise, eq. (3).

        Args:
            x_0: [B, ...] data.
            eps: [B, ...] noise.
            t: [B], or a scalar for all.
        Returns:
            [B, ...] u.
        Raises:
            AssertionError: shapes do not fit or an array is not floating.
        Source: Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023, arXiv:2210.02747.
        """
        (_, a_slope), (_, s_slope) = _value_and_slope(self.signal, t), _value_and_slope(self.noise, t)
        return diffuse(x_0, eps, a_slope, s_slope)

    def prediction_from_velocity(self, x_t: Array, u: Array, t: Array) -> Prediction:
        """Makes the pair (x_0, eps) from the velocity: solves (1) and (3) for the two.

        The determinant a s' - a' s is positive wherever the SNR falls.

        Args:
            x_t: [B, ...] noisy data.
            u: [B, ...] the predicted velocity (3).
            t: [B], or a scalar for all.
        Returns:
            The pair; eqs. (1) and (3) hold.
        Raises:
            AssertionError: shapes do not fit or an array is not floating.
        """
        (a_t, a_slope), (s_t, s_slope) = _value_and_slope(self.signal, t), _value_and_slope(self.noise, t)
        determinant = a_t * s_slope - a_slope * s_t
        x_0 = diffuse(x_t, u, s_slope / determinant, -s_t / determinant)
        return Prediction(x_0, diffuse(x_t, u, -a_slope / determinant, a_t / determinant))


def variance_preserving(*, beta_min: float = 0.1, beta_max: float = 20.0) -> GaussianPath:
    """Makes the VP path (4): DDPM in infinitely many steps; the noise rate beta(t) = B'(t) grows linearly.

    Args:
        beta_min: b_min, beta at t = 0.
        beta_max: b_max, beta at t = 1.
    Returns:
        A path over [1e-5, 1], with a^2 + s^2 = 1.
    Raises:
        ValueError: not 0 < beta_min <= beta_max.
    Source: Song et al., ICLR 2021, arXiv:2011.13456, eqs. 32-33.
    """
    integral = _linear_rate_integral(beta_min, beta_max)
    return GaussianPath(
        signal=lambda t: jnp.exp(-0.5 * integral(t)),
        noise=lambda t: jnp.sqrt(-jnp.expm1(-integral(t))),
        range=(_FIRST_TIME, 1.0),
    )


def sub_variance_preserving(*, beta_min: float = 0.1, beta_max: float = 20.0) -> GaussianPath:
    """Makes the sub-VP path (5): the signal of the VP path, with less noise at every time.

    Args:
        beta_min: b_min.
        beta_max: b_max.
    Returns:
        A path over [1e-5, 1].
    Raises:
        ValueError: not 0 < beta_min <= beta_max.
    Source: Song et al., ICLR 2021, arXiv:2011.13456, eqs. 27-29.
    """
    integral = _linear_rate_integral(beta_min, beta_max)
    return GaussianPath(
        signal=lambda t: jnp.exp(-0.5 * integral(t)),
        noise=lambda t: -jnp.expm1(-integral(t)),
        range=(_FIRST_TIME, 1.0),
    )


def variance_exploding(*, sigma_min: float = 0.01, sigma_max: float = 50.0) -> GaussianPath:
    """Makes the VE path (6): the signal stays, the noise grows geometrically.

    s(0) = sigma_min is not 0: the path starts from data that are already blurred.

    Args:
        sigma_min: s_min, above 0.
        sigma_max: s_max, above `sigma_min`; near the largest distance between two examples.
    Returns:
        A path over [1e-5, 1].
    Raises:
        ValueError: not 0 < sigma_min < sigma_max.
    Source: Song et al., ICLR 2021, arXiv:2011.13456, eqs. 30-31.
    """
    if not 0.0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min {sigma_min} must be above 0 and below sigma_max {sigma_max}.")
    log_ratio = math.log(sigma_max / sigma_min)
    return GaussianPath(
        signal=jnp.ones_like, noise=lambda t: sigma_min * jnp.exp(log_ratio * t), range=(_FIRST_TIME, 1.0)
    )


def cosine(*, offset: float = 0.008) -> GaussianPath:
    """Makes the variance-preserving path (7), whose signal falls like a cosine.

    Args:
        offset: o, above 0; it keeps the noise of the first times from being too small.
    Returns:
        A path over [1e-5, 1], with a^2 + s^2 = 1; no signal is left at t = 1.
    Raises:
        ValueError: `offset` is not above 0.
    Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, arXiv:2102.09672, eq. 17.
    """
    if offset <= 0.0:
        raise ValueError(f"offset must be above 0: got {offset}.")
    rate = 0.5 * math.pi / (1.0 + offset)
    cos_0 = math.cos(rate * offset)

    # Products of sines, each exact where it vanishes: 1 - a^2 would lose all digits of s at the first times.
    def noise(t: Array) -> Array:
        return jnp.sqrt(jnp.sin(rate * t) * jnp.sin(rate * (t + 2.0 * offset))) / cos_0

    return GaussianPath(signal=lambda t: jnp.sin(rate * (1.0 - t)) / cos_0, noise=noise, range=(_FIRST_TIME, 1.0))


def edm(*, sigma_min: float = 0.002, sigma_max: float = 80.0) -> GaussianPath:
    """Makes the path (8) of EDM: the time is the standard deviation of the noise.

    Args:
        sigma_min: t_min, above 0.
        sigma_max: t_max, above `sigma_min`.
    Returns:
        A path over [sigma_min, sigma_max].
    Raises:
        ValueError: not 0 < sigma_min < sigma_max.
    Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
        arXiv:2206.00364, table 1.
    """
    if not 0.0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min {sigma_min} must be above 0 and below sigma_max {sigma_max}.")
    return GaussianPath(signal=jnp.ones_like, noise=lambda t: 1.0 * t, range=(sigma_min, sigma_max))


def linear(*, sigma_min: float = 0.0) -> GaussianPath:
    """Makes the straight path (9) of flow matching and rectified flow; t = 0 is the data.

    Args:
        sigma_min: s_min, the noise left at t = 0, in [0, 1): 0 for rectified flow, small and positive for Lipman et al.
    Returns:
        A path over [0, 1]; no signal is left at t = 1.
    Raises:
        ValueError: `sigma_min` is not in [0, 1).
    Source: Lipman et al., ICLR 2023, arXiv:2210.02747, eq. 20, with t reversed; Liu, Gong & Liu, "Flow Straight and
        Fast", ICLR 2023, arXiv:2209.03003.
    """
    if not 0.0 <= sigma_min < 1.0:
        raise ValueError(f"sigma_min must be in [0, 1): got {sigma_min}.")
    return GaussianPath(signal=lambda t: 1.0 - t, noise=lambda t: sigma_min + (1.0 - sigma_min) * t, range=(0.0, 1.0))


def trigonometric() -> GaussianPath:
    """Makes the path (10), the arc from data to noise, whose velocity is v.

    Returns:
        A path over [0, pi / 2], with a^2 + s^2 = 1; no signal is left at t = pi / 2.
    Source: Albergo & Vanden-Eijnden, "Building Normalizing Flows with Stochastic Interpolants", ICLR 2023,
        arXiv:2209.15571; as v: Salimans & Ho, ICLR 2022, arXiv:2202.00512.
    """
    # As a sine, so that a float32 pi / 2, which lies beyond the true one, gives no negative signal.
    return GaussianPath(signal=lambda t: jnp.sin(0.5 * math.pi - t), noise=jnp.sin, range=(0.0, 0.5 * math.pi))


def _value_and_slope(function: Callable[[Array], Array], t: Array) -> tuple[Array, Array]:
    """A function of time and its derivative, elementwise."""
    chex.assert_type(t, float)
    t = jnp.asarray(t)
    return jax.jvp(function, (t,), (jnp.ones_like(t),))


def _linear_rate_integral(beta_min: float, beta_max: float) -> Callable[[Array], Array]:
    """B(t), the integral of a noise rate that grows linearly."""
    if not 0.0 < beta_min <= beta_max:
        raise ValueError(f"beta_min {beta_min} must be above 0 and at most beta_max {beta_max}.")
    return lambda t: (beta_min + 0.5 * (beta_max - beta_min) * t) * t
