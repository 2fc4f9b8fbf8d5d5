"""The discrete diffusion process of DDPM: its schedules, and the conditionals of one time given another.

Notation: x_0 data, eps standard normal noise, T steps, t a time, s < t an earlier one: t - 1 or any other. abar_t
("alpha bar") is the share of signal in the variance of x_t; a_t = sqrt(abar_t) and sigma_t = sqrt(1 - abar_t) are the
two factors of a Gaussian path (`gaussian_path`).

    marginal:     q(x_t | x_0) = N(a_t x_0, sigma_t^2),             x_t = a_t x_0 + sigma_t eps             (1)
    transition:   q(x_t | x_s) = N(a_t / a_s x_s, beta_ts),         beta_ts = 1 - abar_t / abar_s           (2)
    posterior:    q(x_s | x_t, x_0) = N(mu_ts, beta~_ts),           beta~_ts = sigma_s^2 / sigma_t^2 beta_ts,
                  mu_ts = (a_s beta_ts x_0 + a_t / a_s sigma_s^2 x_t) / sigma_t^2                           (3)
    linear:       beta_t = (b_min + (b_max - b_min) (t - 1) / (T - 1)) / T                                  (4)
    cosine:       abar_t = f(t) / f(0),   f(t) = cos^2(pi/2 (t / T + o) / (1 + o)),   beta_t <= 0.999       (5)
    quadratic:    beta_t = (sqrt(b_min) + (sqrt(b_max) - sqrt(b_min)) (t - 1) / (T - 1))^2 / T              (6)

Time counts from 1, as in the papers: t = 1 ... T, and t = 0 is the data. A schedule has T + 1 entries, and entry 0 is
abar_0 = 1; so the step before t = 1 needs no special case, and 0 is the time after the last one visited. With
s = t - 1, beta_ts and beta~_ts are the papers' beta_t and beta~_t; for skipped steps they are the effective ones.

Schedules store log abar_t, because 1 - abar_t cannot be recovered accurately from abar_t in float32 when it is small:
at T = 1000 the logarithm gives 1 - abar_t within 2e-7 of its value and beta_t within 4e-5, abar_t only within 5e-4 and
7e-4. The conditionals (2) and (3) therefore take log abar; conversions of predictions (`predictions`) take a_t and
sigma_t.

    x_t = predictions.diffuse(x_0, eps, schedule.signal(t), schedule.noise(t))
    mean = posterior_mean(x_0, x_t, schedule.at(s), schedule.at(t))

Source: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239.
"""

from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import per_example
from gm_jax.types import Array


class Schedule(NamedTuple):
    """A variance-preserving Gaussian path on the grid of times 0 ... T.

    Attributes:
        log_alpha_bar: [T + 1] log abar_t for t = 0 ... T; 0 at t = 0, and falling.
    """

    log_alpha_bar: Array | np.ndarray

    @property
    def num_steps(self) -> int:
        """T."""
        return self.log_alpha_bar.shape[0] - 1

    def at(self, t: Array | np.ndarray | int) -> Array:
        """Looks up log abar_t.

        Args:
            t: [...] integer times in 0 ... T.
        Returns:
            [...] log abar_t; NaN for any other time.
        Raises:
            AssertionError: `t` is not an integer.
        """
        t = jnp.asarray(t)
        chex.assert_type(t, int)
        # A negative index would count from the end: t = -1 must not pass for T.
        log_alpha_bar = jnp.asarray(self.log_alpha_bar)[jnp.clip(t, 0, self.num_steps)]
        return jnp.where((t >= 0) & (t <= self.num_steps), log_alpha_bar, jnp.nan)

    def signal(self, t: Array | np.ndarray | int) -> Array:
        """Returns a_t [...] at integer times `t` [...], as `gaussian_path.GaussianPath.signal` does."""
        return signal_and_noise(self.at(t))[0]

    def noise(self, t: Array | np.ndarray | int) -> Array:
        """Returns sigma_t [...] at integer times `t` [...], as `gaussian_path.GaussianPath.noise` does."""
        return signal_and_noise(self.at(t))[1]

    def path(self) -> GaussianPath:
        """Returns the continuous path through the grid, over [1, T]: log abar_t is linear between neighbouring times.

        At integer times it is the schedule itself, so continuous samplers and likelihoods take a discrete model.
        """
        # A schedule on the host stays there, so that grids of times are numbers also while jax traces.
        grid = self.log_alpha_bar

        def log_alpha_bar(t: Array) -> Array:
            return jnp.interp(t, np.arange(grid.shape[0], dtype=grid.dtype), grid)

        return GaussianPath(
            signal=lambda t: jnp.exp(0.5 * log_alpha_bar(t)),
            noise=lambda t: jnp.sqrt(-jnp.expm1(log_alpha_bar(t))),
            range=(1.0, float(self.num_steps)),
        )


def schedule_from_betas(betas: np.ndarray, *, dtype: np.dtype | type = np.float32) -> Schedule:
    """Makes the schedule whose steps add noise of the given variances.

    Args:
        betas: [T] beta_1 ... beta_T of (2), each in (0, 1).
        dtype: of the schedule; it is computed in float64.
    Returns:
        A schedule of T steps, on the host: making it touches no device.
    Raises:
        ValueError: `betas` is not a non-empty vector of numbers in (0, 1).
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or betas.size == 0 or not np.all((betas > 0.0) & (betas < 1.0)):
        raise ValueError("betas must be a vector of at least one number, each above 0 and below 1.")
    return Schedule(np.concatenate([[0.0], np.cumsum(np.log1p(-betas))]).astype(dtype))


def linear_schedule(
    num_steps: int, *, beta_min: float = 0.1, beta_max: float = 20.0, dtype: np.dtype | type = np.float32
) -> Schedule:
    """Makes the schedule whose variances grow linearly, eq. (4): `gaussian_path.variance_preserving` in T steps.

    The defaults are 1e-4 ... 0.02 at T = 1000, as in the paper, and the same process in fewer or more steps. With the
    paper's variances unscaled, T = 100 would leave 60 % of the signal's amplitude at t = T.

    Args:
        num_steps: T.
        beta_min: b_min = T beta_1.
        beta_max: b_max = T beta_T, less than T.
        dtype: of the schedule; it is computed in float64.
    Returns:
        A schedule of T steps.
    Raises:
        ValueError: a beta is outside of (0, 1): T is too small for `beta_max`.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, section 4; as a process in T steps of 1 / T: Song et al.,
        "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, arXiv:2011.13456.
    """
    _check_betas(num_steps, beta_min, beta_max)
    return schedule_from_betas(np.linspace(beta_min, beta_max, num_steps) / num_steps, dtype=dtype)


def quadratic_schedule(
    num_steps: int, *, beta_min: float = 0.1, beta_max: float = 20.0, dtype: np.dtype | type = np.float32
) -> Schedule:
    """Makes the schedule whose sqrt(beta_t) grows linearly, eq. (6), which other libraries call scaled linear.

    Between the same ends it adds less noise than the linear schedule.

    Args:
        num_steps: T.
        beta_min: b_min = T beta_1.
        beta_max: b_max = T beta_T, less than T.
        dtype: of the schedule; it is computed in float64.
    Returns:
        A schedule of T steps.
    Raises:
        ValueError: a beta is outside of (0, 1): T is too small for `beta_max`.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, code hojonathanho/diffusion, "quad"; Rombach et al.,
        "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022, arXiv:2112.10752, code
        CompVis/latent-diffusion, `make_beta_schedule`, where it is "linear".
    """
    _check_betas(num_steps, beta_min, beta_max)
    roots = np.linspace(np.sqrt(beta_min), np.sqrt(beta_max), num_steps)
    return schedule_from_betas(np.square(roots) / num_steps, dtype=dtype)


def cosine_schedule(
    num_steps: int, *, offset: float = 0.008, max_beta: float = 0.999, dtype: np.dtype | type = np.float32
) -> Schedule:
    """Makes the schedule whose signal falls like a squared cosine, eq. (5): `gaussian_path.cosine` in T steps.

    Args:
        num_steps: T.
        offset: o, above 0; it keeps the first steps from being too small.
        max_beta: the largest beta_t; it keeps abar_T above 0.
        dtype: of the schedule; it is computed in float64.
    Returns:
        A schedule of T steps.
    Raises:
        ValueError: `num_steps` is smaller than 1, or `offset` or `max_beta` leave a beta outside of (0, 1).
    Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, arXiv:2102.09672.
    """
    if num_steps < 1:
        raise ValueError(f"a schedule needs at least one step: got {num_steps}.")
    angle = 0.5 * np.pi * (np.arange(num_steps + 1) / num_steps + offset) / (1.0 + offset)
    f = np.square(np.cos(angle))
    return schedule_from_betas(np.minimum(1.0 - f[1:] / f[:-1], max_beta), dtype=dtype)


def signal_and_noise(log_alpha_bar_t: Array) -> tuple[Array, Array]:
    """Computes the factors a_t and sigma_t of eq. (1).

    Args:
        log_alpha_bar_t: [...] log abar_t, at most 0; -infinity leaves no signal.
    Returns:
        a_t [...] and sigma_t [...]; their squares sum to 1.
    Raises:
        AssertionError: the argument is not floating.
    """
    chex.assert_type(log_alpha_bar_t, float)
    return jnp.exp(0.5 * log_alpha_bar_t), jnp.sqrt(-jnp.expm1(log_alpha_bar_t))


def transition_mean(x_s: Array, log_alpha_bar_s: Array, log_alpha_bar_t: Array) -> Array:
    """Computes the mean of q(x_t | x_s) for s < t, eq. (2).

    Args:
        x_s: [B, ...] the earlier, less noisy data.
        log_alpha_bar_s: [B], or a scalar for all.
        log_alpha_bar_t: [B], or a scalar for all.
    Returns:
        [B, ...] mean.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    """
    chex.assert_type(x_s, float)
    return per_example(jnp.exp(0.5 * _log_ratio(log_alpha_bar_s, log_alpha_bar_t)), x_s) * x_s


def transition_variance(log_alpha_bar_s: Array, log_alpha_bar_t: Array) -> Array:
    """Computes the variance beta_ts of q(x_t | x_s) for s < t, eq. (2).

    As the variance of p(x_s | x_t) it is the larger of the two usual choices, optimal if the data are N(0, 1).

    Args:
        log_alpha_bar_s: [...] at the earlier time; not -infinity.
        log_alpha_bar_t: [...] at the later time, the same shape.
    Returns:
        [...] beta_ts, in (0, 1].
    Raises:
        AssertionError: shapes differ or an argument is not floating.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, section 3.2.
    """
    return -jnp.expm1(_log_ratio(log_alpha_bar_s, log_alpha_bar_t))


def posterior_mean(x_0: Array, x_t: Array, log_alpha_bar_s: Array, log_alpha_bar_t: Array) -> Array:
    """Computes the mean mu_ts of q(x_s | x_t, x_0) for s < t, eq. (3); x_0 itself if s = 0.

    Args:
        x_0: [B, ...] data, or a model's prediction of them.
        x_t: [B, ...] the later, noisier data.
        log_alpha_bar_s: [B], or a scalar for all.
        log_alpha_bar_t: [B], or a scalar for all; t at least 1.
    Returns:
        [B, ...] mean.
    Raises:
        AssertionError: shapes do not fit or an array is not floating.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, eqs. 6-7.
    """
    chex.assert_equal_shape([x_0, x_t])
    chex.assert_type([x_0, x_t], float)
    log_ratio = _log_ratio(log_alpha_bar_s, log_alpha_bar_t)
    # The signs of the three expm1 cancel: each is minus a variance.
    weight_of_x_0 = jnp.exp(0.5 * log_alpha_bar_s) * jnp.expm1(log_ratio) / jnp.expm1(log_alpha_bar_t)
    weight_of_x_t = jnp.exp(0.5 * log_ratio) * jnp.expm1(log_alpha_bar_s) / jnp.expm1(log_alpha_bar_t)
    return per_example(weight_of_x_0, x_0) * x_0 + per_example(weight_of_x_t, x_t) * x_t


def posterior_variance(log_alpha_bar_s: Array, log_alpha_bar_t: Array) -> Array:
    """Computes the variance beta~_ts of q(x_s | x_t, x_0) for s < t, eq. (3).

    As the variance of p(x_s | x_t) it is the smaller of the two usual choices, optimal if the data are a single point.
    At s = 0 it is 0 and its logarithm -infinity: the last step draws no noise, and a decoder p(x_0 | x_1) needs a
    variance of its own.

    Args:
        log_alpha_bar_s: [...] at the earlier time; not -infinity.
        log_alpha_bar_t: [...] at the later time, at least 1, the same shape.
    Returns:
        [...] beta~_ts, less than beta_ts.
    Raises:
        AssertionError: shapes differ or an argument is not floating.
    Source: Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, eqs. 6-7 and section 3.2.
    """
    beta = transition_variance(log_alpha_bar_s, log_alpha_bar_t)
    return beta * (jnp.expm1(log_alpha_bar_s) / jnp.expm1(log_alpha_bar_t))


def interpolated_log_variance(share: Array, log_alpha_bar_s: Array, log_alpha_bar_t: Array) -> Array:
    """Computes v log beta_ts + (1 - v) log beta~_ts, the log-variance that improved DDPM learns through v.

    Args:
        share: v [B, ...]: 1 for `transition_variance`, 0 for `posterior_variance`.
        log_alpha_bar_s: [B], or a scalar for all; below 0, because beta~ is 0 at s = 0.
        log_alpha_bar_t: the same shape, at the later time.
    Returns:
        [B, ...] log var_ts.
    Raises:
        AssertionError: shapes do not fit or an argument is not floating.
    Source: Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models", ICML 2021, arXiv:2102.09672, eq. 15.
    """
    log_beta = jnp.log(transition_variance(log_alpha_bar_s, log_alpha_bar_t))
    log_posterior = jnp.log(posterior_variance(log_alpha_bar_s, log_alpha_bar_t))
    return per_example(log_posterior, share) + share * per_example(log_beta - log_posterior, share)


def _log_ratio(log_alpha_bar_s: Array, log_alpha_bar_t: Array) -> Array:
    chex.assert_equal_shape([log_alpha_bar_s, log_alpha_bar_t])
    chex.assert_type([log_alpha_bar_s, log_alpha_bar_t], float)
    return log_alpha_bar_t - log_alpha_bar_s


def _check_betas(num_steps: int, beta_min: float, beta_max: float) -> None:
    if max(beta_min, beta_max) >= num_steps or min(beta_min, beta_max) <= 0:
        raise ValueError(f"beta_min {beta_min} and beta_max {beta_max} must be above 0 and below {num_steps} steps.")
