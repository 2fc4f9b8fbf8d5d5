"""Grids of falling times t_1 > ... > t_N at which a sampler of a Gaussian path calls the network.

Notation as in `ops.gaussian_path`: the range of a path is [t_min, t_max], snr = a^2 / s^2, and sigma = s / a is the
standard deviation of the noise relative to the signal; n = 0 ... N - 1.

    uniform:          equal steps in t, both ends included                                               (1)
    trailing:         equal steps in t from t_max, t_min not included: it is one step after t_N          (2)
    uniform_log_snr:  equal steps in log snr, both ends included                                         (3)
    karras:           sigma_n = (sigma_max^(1/r) + n / (N - 1) (sigma_min^(1/r) - sigma_max^(1/r)))^r    (4)

(3) and (4) depend on the signal-to-noise ratio alone, so they are the same grid on every path; they need a path that
has both signal and noise at both ends. A larger r in (4) puts more times near the data.

Source: (2) Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024, arXiv:2305.08891; (3)
Lu et al., "DPM-Solver", NeurIPS 2022, arXiv:2206.00927, section 3.3; (4) Karras et al., "Elucidating the Design Space
of Diffusion-Based Generative Models", NeurIPS 2022, arXiv:2206.00364, eq. 5.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import log_snr
from gm_jax.types import Array


def uniform(path: GaussianPath, num_times: int) -> Array:
    """Makes the grid (1): [N] times, N at least 2."""
    _check(num_times, least=2)
    first, last = path.range
    return jnp.asarray(np.linspace(last, first, num_times), float)


def trailing(path: GaussianPath, num_times: int) -> Array:
    """Makes the grid (2): [N] times, N at least 1."""
    _check(num_times, least=1)
    first, last = path.range
    return jnp.asarray(np.linspace(last, first, num_times + 1)[:-1], float)


def uniform_log_snr(path: GaussianPath, num_times: int) -> Array:
    """Makes the grid (3).

    Args:
        path: with a finite log snr at both ends.
        num_times: N, at least 2.
    Returns:
        [N] times.
    Raises:
        ValueError: N is too small, or log snr is infinite at an end of the range.
    """
    _check(num_times, least=2)
    first, last = _log_snr_at_the_ends(path)
    return _times_at(path, np.linspace(last, first, num_times))


def karras(path: GaussianPath, num_times: int, *, rho: float = 7.0) -> Array:
    """Makes the grid (4) of EDM.

    Args:
        path: with a finite log snr at both ends.
        num_times: N, at least 2. EDM's "18 steps" are 18 times and 35 evaluations by `ode.heun` and `ode.denoise`.
        rho: r.
    Returns:
        [N] times.
    Raises:
        ValueError: N is too small, or log snr is infinite at an end of the range.
    """
    _check(num_times, least=2)
    least, most = (np.exp(-0.5 * value) for value in _log_snr_at_the_ends(path))
    sigma = np.linspace(most ** (1 / rho), least ** (1 / rho), num_times) ** rho
    return _times_at(path, -2.0 * np.log(sigma))


def _check(num_times: int, *, least: int) -> None:
    if num_times < least:
        raise ValueError(f"a grid of this kind has at least {least} times: got {num_times}.")


def _log_snr_at_the_ends(path: GaussianPath) -> tuple[float, float]:
    """Log snr at t_min and at t_max, numbers also while jax traces."""
    with jax.ensure_compile_time_eval():
        ends = jnp.asarray(path.range, float)
        first, last = np.asarray(log_snr(path.signal(ends), path.noise(ends)), np.float64)
    if not np.isfinite([first, last]).all():
        raise ValueError(f"log snr is {first:g} and {last:g} at the ends of the path: narrow its range {path.range}.")
    return first, last


def _times_at(path: GaussianPath, log_snrs: np.ndarray) -> Array:
    """The times at rising `log_snrs`; the ends are the path's own."""
    with jax.ensure_compile_time_eval():
        times = np.array(path.time_at_log_snr(jnp.asarray(log_snrs, float)))
    times[0], times[-1] = path.range[1], path.range[0]
    return jnp.asarray(times)
