"""What a network predicts on a Gaussian path, and how training draws its times.

Notation as in `ops.gaussian_path`. A `Parameterization` gives the network's output its meaning and the squared error
that trains it:

    noise:           |eps - output|^2                          denoising score matching with weight s^2      (1)
    data:            |x_0 - output|^2                                                                        (2)
    velocity:        |u - output|^2                            flow matching                                 (3)
    preconditioned:  |F - output|^2                            EDM: (sigma^2 + c^2) / (sigma c)^2 |x_0 - x0_hat|^2   (4)

They differ in the weight that they give to the times, as does the density of the times. (1) with times that are uniform
in log snr is the variational bound, so it trains for likelihood (Kingma et al., "Variational Diffusion Models", NeurIPS
2021, arXiv:2107.00630).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.losses.diffusion import noise_prediction_loss, x0_prediction_loss
from gm_jax.losses.flow_matching import conditional_flow_matching_loss
from gm_jax.losses.score_matching import preconditioned_denoising_loss
from gm_jax.ops import predictions
from gm_jax.ops.gaussian_path import GaussianPath
from gm_jax.ops.predictions import Prediction
from gm_jax.types import Array, Key

LevelFn = Callable[[GaussianPath, Array], Array]  # (path, times [B]) -> what a network sees of them [B]
TimesFn = Callable[[GaussianPath, Array], Array]  # (path, uniform numbers in [0, 1) [B]) -> times [B]


class Parameterization(NamedTuple):
    """The meaning of the network's output.

    Attributes:
        predict: (path, x_t, output, t [B]) -> Prediction.
        loss: (path, x_0, eps, output, t [B]) -> [B], summed over the event.
    """

    predict: Callable[[GaussianPath, Array, Array, Array], Prediction]
    loss: Callable[[GaussianPath, Array, Array, Array, Array], Array]


def noise_prediction() -> Parameterization:
    """Makes (1): the output is eps, minus s times the score."""
    return Parameterization(
        lambda path, x_t, output, t: predictions.prediction_from_eps(x_t, output, path.signal(t), path.noise(t)),
        lambda path, x_0, eps, output, t: noise_prediction_loss(eps, output),
    )


def data_prediction() -> Parameterization:
    """Makes (2): the output is x_0."""
    return Parameterization(
        lambda path, x_t, output, t: predictions.prediction_from_x0(x_t, output, path.signal(t), path.noise(t)),
        lambda path, x_0, eps, output, t: x0_prediction_loss(x_0, output),
    )


def velocity_prediction() -> Parameterization:
    """Makes (3): the output is the velocity u of the path."""
    return Parameterization(
        lambda path, x_t, output, t: path.prediction_from_velocity(x_t, output, t),
        lambda path, x_0, eps, output, t: conditional_flow_matching_loss(path.velocity(x_0, eps, t), output),
    )


def preconditioned_prediction(*, sigma_data: float) -> Parameterization:
    """Makes (4): the output is F, what is left of x_0 after the best linear prediction, scaled to variance 1."""

    def predict(path: GaussianPath, x_t: Array, output: Array, t: Array) -> Prediction:
        factors = path.signal(t), path.noise(t)
        return predictions.prediction_from_preconditioned(x_t, output, *factors, sigma_data=sigma_data)

    def loss(path: GaussianPath, x_0: Array, eps: Array, output: Array, t: Array) -> Array:
        a_t, s_t = path.signal(t), path.noise(t)
        x0_hat = predict(path, predictions.diffuse(x_0, eps, a_t, s_t), output, t).x_0
        return preconditioned_denoising_loss(x_0, x0_hat, a_t, s_t, sigma_data=sigma_data)

    return Parameterization(predict, loss)


def spread(key: Key, n: int) -> Array:
    """Draws n numbers [n] in [0, 1), each uniform, and together one in each n-th: a mean over them varies less."""
    return (jnp.arange(n) + jax.random.uniform(key)) / n


def uniform_times(path: GaussianPath, uniform: Array) -> Array:
    """Draws times that are uniform over the path's range."""
    first, last = path.range
    return first + (last - first) * uniform


def log_snr_times(path: GaussianPath, uniform: Array) -> Array:
    """Draws times at which log snr is uniform; it must be finite at both ends of the range."""
    first, last = (log_snr_at(path, jnp.asarray(end, uniform.dtype)) for end in path.range)
    return path.time_at_log_snr(first + (last - first) * uniform)


def log_normal_times(path: GaussianPath, uniform: Array, *, mean: float, std: float) -> Array:
    """Draws times at which log sigma = log s / a is normal, as EDM does (mean -1.2, std 1.2), within the range."""
    log_sigma = mean + std * jax.scipy.special.ndtri(jnp.clip(uniform, 1e-6, 1.0 - 1e-6))
    return path.time_at_log_snr(-2.0 * log_sigma)


def log_snr_at(path: GaussianPath, t: Array) -> Array:
    """Returns log a^2 / s^2 [...] at times t [...]."""
    return predictions.log_snr(path.signal(t), path.noise(t))


def log_noise_level(path: GaussianPath, t: Array) -> Array:
    """Returns 25 log(s / a) [B], from which networks embed their times; it is the same for a level on every path."""
    return 25.0 * jnp.clip(-0.5 * log_snr_at(path, t), -10.0, 10.0)


def uniform_level(path: GaussianPath, t: Array) -> Array:
    """Returns 10 times the share of the path that lies before t [B]: its derivative in t is small everywhere."""
    first, last = path.range
    return 10.0 * (t - first) / (last - first)
