"""The configuration of restricted Boltzmann machines."""

import dataclasses
from typing import Annotated, ClassVar

import tyro

from gm_jax.config import Binarization, Count, CountFromTwo, DataConfig, Measuring, Sampling, SGDConfig, TrainConfig
from gm_jax.config.fields import Bound


@dataclasses.dataclass(frozen=True, kw_only=True)
class RBMConfig:
    """A restricted Boltzmann machine of binary images."""

    recipe: ClassVar[str] = "gm_jax.recipes.rbm:build_rbm"
    data: DataConfig = DataConfig()
    train: TrainConfig
    optimizer: SGDConfig
    binarization: Binarization | None = None
    """How pixels become binary: static (as in the data set), dynamic (resampled at each step) or threshold (at half).
    By default static if the data are binary, else dynamic."""
    hidden: Count = 500
    """Hidden units. With at most 20, or as few visible units, the likelihood is exact."""
    persistent: bool = True
    """Persistent contrastive divergence: chains go on from step to step; else each step starts them at the data."""
    chains: Count = 100
    """Persistent chains."""
    sweeps: Count = 1
    """Sweeps of Gibbs sampling in each training step, the k of CD-k and PCD-k."""
    sampling_sweeps: Annotated[Count, Sampling, tyro.conf.arg(help="Sweeps to a sample.")] = 1_000
    temperatures: Annotated[
        CountFromTwo,
        Measuring,
        tyro.conf.arg(help="Temperatures of annealed importance sampling, which estimates log Z."),
    ] = 2_000
    runs: Annotated[CountFromTwo, Measuring, tyro.conf.arg(help="Chains of annealed importance sampling.")] = 100
    validation_temperatures: CountFromTwo = 1_000
    """Temperatures for the validations of a training run. They compare checkpoints by the upper end of the bracket of
    -log p, because an estimate from few temperatures flatters the model."""
    raise_temperatures: Annotated[
        int,
        Bound("0, or at least 2", lambda n: n == 0 or n >= 2),
        Measuring,
        tyro.conf.arg(help="Temperatures of RAISE, a lower bound for each image of the annealed model; 0 for none."),
    ] = 500
