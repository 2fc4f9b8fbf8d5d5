"""What the output of a diffusion model's network says of x_t: its noise, its data, or its velocity.

The three determine one another, through the pair (x_0, eps) of `ops.diffusion_process`; what differs is how a squared
error of the output weighs the times (eq. 4 of `losses.diffusion`).
"""

from collections.abc import Callable
from typing import NamedTuple

from gm_jax.losses import diffusion as losses
from gm_jax.ops import diffusion_process
from gm_jax.ops.diffusion_process import Prediction
from gm_jax.types import Array


class Parameterization(NamedTuple):
    """What the network's output says of x_t.

    Attributes:
        predict: (x_t, output, log abar_t) -> Prediction.
        loss: (x_0, eps, output, log abar_t) -> [B], summed over the event.
    """

    predict: Callable[[Array, Array, Array], Prediction]
    loss: Callable[[Array, Array, Array, Array], Array]


def noise() -> Parameterization:
    """The output is eps: DDPM."""
    return Parameterization(
        diffusion_process.prediction_from_eps,
        lambda x_0, eps, output, log_alpha_bar_t: losses.noise_prediction_loss(eps, output),
    )


def data() -> Parameterization:
    """The output is x_0."""
    return Parameterization(
        diffusion_process.prediction_from_x0,
        lambda x_0, eps, output, log_alpha_bar_t: losses.x0_prediction_loss(x_0, output),
    )


def velocity() -> Parameterization:
    """The output is v = a_t eps - sigma_t x_0 (Salimans & Ho, ICLR 2022, arXiv:2202.00512)."""
    return Parameterization(diffusion_process.prediction_from_v, losses.v_prediction_loss)
