"""DPM-Solver++(2M): the probability-flow ODE in few steps, on every Gaussian path.

Notation as in `ops.gaussian_path`: (x_0, eps) is a model's prediction from x_t, s < t the next time, l = log a / s half
the log signal-to-noise ratio, h = l_s - l_t > 0 the step. In l the ODE is solved exactly but for the prediction D of
x_0, which is taken as constant over a step or as a line through this prediction and the one before:

    x_s = (s_s / s_t) x_t - a_s (e^-h - 1) D                                                             (1)
    first order:   D = x_0(t)                                                                            (2)
    second order:  D = x_0(t) + 1 / (2 r) (x_0(t) - x_0(t_before)),    r = h_before / h                  (3)

(1) with (2) is DDIM without noise. A ratio r that is upside down also converges with order 2 on equal steps, but it is
of order 1 where steps differ.

Source: Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022,
arXiv:2211.01095, algorithm 2.
"""

import jax
import jax.numpy as jnp

from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import Prediction, diffuse, log_snr
from gm_jax.samplers.ode import PredictFn, predict_at, steps_of
from gm_jax.types import Array


def dpm_solver_2m(predict_fn: PredictFn, path: GaussianPath, x: Array, times: Array) -> Array:
    """Takes a step (2) and then steps (3).

    Args:
        predict_fn: the model.
        path: its path.
        x: [B, ...] at times[0]: noise of standard deviation s.
        times: [N] falling, for example `time_grids.uniform_log_snr`.
    Returns:
        [B, ...] x at times[-1], after N - 1 evaluations; `ode.denoise` ends at the data.
    """
    t, s = steps_of(times, x)
    h = 0.5 * (log_snr(path.signal(s), path.noise(s)) - log_snr(path.signal(t), path.noise(t)))
    # 1 / (2 r); a step from no signal or to no noise is infinite, and is of the first order, as the first one is.
    slope = jnp.concatenate([jnp.zeros(1, h.dtype), 0.5 * h[1:] / h[:-1]])
    slope = jnp.where(jnp.isfinite(slope), slope, 0.0)

    def step(carry: tuple[Array, Array], at: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        (x, before), (t, s, slope) = carry, at
        prediction = predict_at(predict_fn, x, t)
        x = dpm_solver_step(prediction, before, slope, path, t, s)
        return (x.astype(before.dtype), prediction.x_0.astype(before.dtype)), None

    return jax.lax.scan(step, (x, jnp.zeros_like(x)), (t, s, slope))[0][0]


def dpm_solver_step(
    prediction: Prediction, before: Array, slope: Array, path: GaussianPath, t: Array, s: Array
) -> Array:
    """Takes one step (1) with (3).

    Args:
        prediction: the model's, from x_t.
        before: [B, ...] the x_0 that was predicted one step before.
        slope: 1 / (2 r), a scalar; 0 for the first order.
        path: of the model.
        t: scalar, the time of the prediction.
        s: scalar, the next time.
    Returns:
        [B, ...] x_s.
    """
    a_t, s_t = path.signal(t), path.noise(t)
    # Both parts of x_t = a_t x_0 + s_t eps move together: this is (1), and with slope 0 it is DDIM's step bit for bit.
    change = jnp.where(slope == 0.0, 0.0, slope * (prediction.x_0 - before))
    return diffuse(prediction.x_0 + change, prediction.eps - a_t / s_t * change, path.signal(s), path.noise(s))
