"""The Langevin chains of an energy, and the alarm that stops a run whose chains have diverged."""

import dataclasses

import jax.numpy as jnp

from gm_jax.samplers import langevin
from gm_jax.types import Array, Key

_ALARM = 1e4  # difference of mean energies, nats, above which the chains have diverged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chains:
    """The Langevin chains of training and sampling.

    Attributes:
        num_steps: steps of a chain in each training step.
        step_size: of `langevin.langevin`.
        temperature: of `langevin.langevin`; 1 samples the model.
        num_persistent: chains that persist, a multiple of the batch; None for short runs from noise.
        restart: share of the visited chains that start again from noise.
        clip_gradient: largest absolute value of an entry of the gradient; None for any.
        sampling_steps: steps of a chain from noise to a sample.
    """

    num_steps: int = 40
    step_size: float = 0.02
    temperature: float = 1.0
    num_persistent: int | None = 10_000
    restart: float = 0.05
    clip_gradient: float | None = None
    sampling_steps: int = 500

    def run(self, key: Key, h: Array, energy_fn: langevin.EnergyFn, *, num_steps: int) -> Array:
        """Moves chains h [B, ...] by Langevin dynamics of an energy."""
        return langevin.langevin(
            key,
            h,
            energy_fn,
            num_steps=num_steps,
            step_size=self.step_size,
            temperature=self.temperature,
            clip_gradient=self.clip_gradient,
        )


def divergence_alarm(data_energy: Array, model_energy: Array) -> Array:
    """Returns the difference of the mean energies, or NaN, which stops the run, if it is too large.

    The last checkpoint before it stays.
    """
    gap = jnp.mean(data_energy) - jnp.mean(model_energy)
    return jnp.where(jnp.abs(gap) < _ALARM, gap, jnp.nan)
