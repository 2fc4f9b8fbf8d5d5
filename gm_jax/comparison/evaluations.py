"""How many evaluations of the network one sample takes, one after the other: the NFE of the literature."""

import math
from typing import Any

from gm_jax.data.sources import Spec


def one(config: Any, spec: Spec) -> int:
    """Returns 1: one pass from a latent to a sample."""
    return 1


def each_dimension(config: Any, spec: Spec) -> int:
    """Returns the number of dimensions, which are drawn one after the other."""
    return math.prod(spec.shape)


def each_step(config: Any, spec: Spec) -> int:
    """Returns the steps of a sampler, with two evaluations at all but the last of Heun's."""
    sampler = config.sampler
    return 2 * sampler.steps - 1 if sampler.method == "heun" else sampler.steps


def each_step_and_a_decoder(config: Any, spec: Spec) -> int:
    """Returns the steps of a sampler of latents, and one for the decoder."""
    return each_step(config, spec) + 1


def sampling_steps(config: Any, spec: Spec) -> int:
    """Returns the steps of a model that has its own number of them."""
    return config.sampling_steps


def diffusion_steps(config: Any, spec: Spec) -> int:
    """Returns the steps of a diffusion whose sampler visits all of them."""
    return config.diffusion_steps


def sampling_steps_or_dimensions(config: Any, spec: Spec) -> int:
    """Returns the steps of a model that has its own number of them, or 0 for one step a dimension."""
    return config.sampling_steps or each_dimension(config, spec)


def chain_steps(config: Any, spec: Spec) -> int:
    """Returns the Langevin steps from noise to a sample."""
    return config.chains.sampling_steps


def sweeps(config: Any, spec: Spec) -> int:
    """Returns the sweeps of Gibbs sampling to a sample."""
    return config.sampling_sweeps
