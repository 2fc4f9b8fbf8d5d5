"""Solvers of the probability-flow ODE of a Gaussian path, from noise to data without new noise.

Notation as in `ops.gaussian_path`: (x_0, eps) is a model's prediction from x_t, u = a' x_0 + s' eps its velocity, and

    dx / dt = u(x, t) = f x - g^2 / 2 score(x, t)                                                        (1)

has the marginals of the path. Each solver visits falling times t_1 > ... > t_N and returns x at t_N:

    Euler:     x_s = x_t + (s - t) u(x_t, t)                                      order 1, N - 1 evaluations    (2)
    Heun:      the same with the mean of u at both ends of the step               order 2, 2 (N - 1)            (3)
    churn:     before each step of (3), noise lifts x from sigma to sigma (1 + gamma), sigma = s / a            (4)
    adaptive:  Dormand-Prince of order 5 with steps chosen for a tolerance                                      (5)

`denoise` ends at the data, with one evaluation more: it returns the predicted x_0. `dpm_solver` has the solver for few
steps, `sde` the samplers with new noise, `time_grids` the times. A model takes part as `predict_fn`:

    def predict_fn(x_t, t):
        return predictions.prediction_from_eps(x_t, network(x_t, t), path.signal(t), path.noise(t))

    x_0 = ode.denoise(predict_fn, ode.heun(predict_fn, path, x_T, times), times[-1])

Source: Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021,
arXiv:2011.13456, for (1); Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS
2022, arXiv:2206.00364, for (3) and (4).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gm_jax.ops import adaptive_ode
from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import Prediction, per_example
from gm_jax.types import Array, Key

PredictFn = Callable[[Array, Array], Prediction]  # (x_t [B, ...], t [B] floating) -> prediction of data and noise
FlowFn = Callable[[Array, Array], Array]  # (x [B, ...], t, a scalar or [B]) -> u [B, ...]


def flow_fn(predict_fn: PredictFn, path: GaussianPath) -> FlowFn:
    """Makes the right-hand side (1) of a model's ODE."""

    def u(x: Array, t: Array) -> Array:
        return path.velocity(*predict_at(predict_fn, x, t), t)

    return u


def predict_at(predict_fn: PredictFn, x: Array, t: Array) -> Prediction:
    """Calls a model at one time for all examples, a scalar, or at times [B]."""
    return predict_fn(x, jnp.full(x.shape[:1], t, x.dtype))


def denoise(predict_fn: PredictFn, x: Array, t: Array) -> Array:
    """Returns the x_0 that is predicted from x at the scalar time t: the step from t to the data, of order 1."""
    return predict_at(predict_fn, x, t).x_0.astype(x.dtype)


def euler(predict_fn: PredictFn, path: GaussianPath, x: Array, times: Array) -> Array:
    """Takes the steps (2).

    Args:
        predict_fn: the model.
        path: its path.
        x: [B, ...] at times[0]: noise of standard deviation s.
        times: [N] falling.
    Returns:
        [B, ...] x at times[-1], after N - 1 evaluations.
    """
    u = flow_fn(predict_fn, path)

    def step(x: Array, ends: tuple[Array, Array]) -> tuple[Array, None]:
        t, s = ends
        return (x + (s - t) * u(x, t)).astype(x.dtype), None

    return jax.lax.scan(step, x, steps_of(times, x))[0]


def heun(predict_fn: PredictFn, path: GaussianPath, x: Array, times: Array) -> Array:
    """Takes the steps (3); arguments as for `euler`, with 2 (N - 1) evaluations."""
    u = flow_fn(predict_fn, path)
    return jax.lax.scan(lambda x, ends: (heun_step(u, x, *ends), None), x, steps_of(times, x))[0]


def heun_with_churn(
    key: Key,
    predict_fn: PredictFn,
    path: GaussianPath,
    x: Array,
    times: Array,
    *,
    churn: float,
    churn_range: tuple[float, float] = (0.0, float("inf")),
    noise_scale: float = 1.0,
) -> Array:
    """Takes the steps (3), each after a step (4) back to more noise.

    gamma = min(churn / N, sqrt(2) - 1), and the path's last time is the most noise that is ever reached.

    Args:
        key: the step i draws with `fold_in(key, i)`.
        predict_fn: the model.
        path: its path.
        x: [B, ...] at times[0].
        times: [N] falling.
        churn: S_churn; 0 is `heun`.
        churn_range: S_min and S_max, the sigma between which noise is added.
        noise_scale: S_noise, the standard deviation of the added noise relative to the true one.
    Returns:
        [B, ...] x at times[-1], after 2 (N - 1) evaluations.
    Raises:
        ValueError: `churn` is below 0.
    Source: Karras et al., NeurIPS 2022, arXiv:2206.00364, algorithm 2.
    """
    if churn < 0.0:
        raise ValueError(f"churn must be at least 0: got {churn}.")
    if churn == 0.0:
        return heun(predict_fn, path, x, times)
    u, gamma = flow_fn(predict_fn, path), min(churn / len(times), 2**0.5 - 1.0)

    def sigma_at(t: Array) -> Array:
        return path.noise(t) / path.signal(t)

    def step(x: Array, at: tuple[Array, tuple[Array, Array]]) -> tuple[Array, None]:
        i, (t, s) = at
        sigma = sigma_at(t)
        here = (sigma >= churn_range[0]) & (sigma <= churn_range[1])
        lifted = path.time_at_log_snr(-2.0 * jnp.log(sigma * (1.0 + gamma)))
        lifted = jnp.where(here, jnp.maximum(lifted, t), t)
        added = noise_scale * jnp.sqrt(jnp.maximum(sigma_at(lifted) ** 2 - sigma**2, 0.0))
        z = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        x = path.signal(lifted) * (x / path.signal(t) + added * z)
        return heun_step(u, x, lifted, s), None

    ends = steps_of(times, x)
    return jax.lax.scan(step, x, (jnp.arange(len(times) - 1), ends))[0]


def adaptive(
    predict_fn: PredictFn, path: GaussianPath, x: Array, times: Array, *, rtol: float = 1e-5, atol: float = 1e-5
) -> Array:
    """Solves (1) with steps (5) that are chosen for all of x together.

    Map the function over examples with `jax.vmap`, each a batch of 1, so that none depends on its neighbours.

    Args:
        predict_fn: the model.
        path: its path.
        x: [B, ...] at times[0].
        times: [N], of which only the first and the last count.
        rtol: tolerance of the error of a step, relative to x.
        atol: tolerance of the error of a step, absolute.
    Returns:
        [B, ...] x at times[-1]; the number of evaluations is not known.
    Raises:
        ValueError: a tolerance is not above 0.
    """
    times = jnp.asarray(times, x.dtype)
    field = flow_fn(predict_fn, path)
    return adaptive_ode.solve(field, x, start=times[0], end=times[-1], rtol=rtol, atol=atol)


def steps_of(times: Array, x: Array) -> tuple[Array, Array]:
    """Pairs each time with the next one, in the dtype of x: two arrays [N - 1]."""
    times = jnp.asarray(times, x.dtype)
    return times[:-1], times[1:]


def heun_step(u: FlowFn, x: Array, t: Array, s: Array) -> Array:
    """Takes one step (3) from x [B, ...] at t to s, scalars or [B]."""
    length = per_example(s - t, x)
    slope = u(x, t)
    slope_there = u((x + length * slope).astype(x.dtype), s)
    return (x + 0.5 * length * (slope + slope_there)).astype(x.dtype)
