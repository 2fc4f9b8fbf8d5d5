"""Denoising diffusion (Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239); samples also by DDIM (Song et al., 2021).

    python -m experiments.ddpm                                               # digits, about two minutes
    python -m experiments.ddpm --data.name mnist --data.dir ../shared/tfds --features 32 64 64 --blocks 2
    python -m experiments.ddpm --data.name toy:two_moons                     # points: a perceptron
Measured: test NLL <= 2.24 bits/dim (99.3 nats, lower bound on log p, all 999 denoising terms) on the 180 test digits of
17 levels, by the first command; and <= 3.61 nats on toy:two_moons with --blocks 3. Two CPU cores beside other work.
"""

import dataclasses
from typing import Annotated, Literal

from experiments import diffusions
from gm_jax import runner


@dataclasses.dataclass(frozen=True)
class Config:
    """A U-Net for images, a perceptron for anything else."""

    data: runner.DataConfig = runner.DataConfig()
    train: runner.TrainConfig = runner.TrainConfig(steps=2_000, batch_size=64, checkpoint_every=500, ema_decay=0.995)
    optimizer: runner.OptimizerConfig = runner.OptimizerConfig(
        learning_rate=1e-3, schedule="cosine", warmup_steps=100, clip_norm=1.0
    )
    diffusion_steps: runner.Count = 1_000
    """T."""
    schedule: Literal["linear", "cosine"] = "linear"
    """Of the noise."""
    beta_min: runner.Rate | None = None
    """Of the linear schedule, T beta_1. By default 0.1, as in the paper, or what makes the first noise a quarter of a
    level wide, if that is more, but at most 1."""
    prediction: Literal["noise", "data", "velocity"] = "noise"
    """What the network predicts: eps, x_0 or v."""
    variance: Literal["transition", "posterior"] = "posterior"
    """Of the reverse process: that of q(x_t | x_s), beta_t, or that of q(x_s | x_t, x_0)."""
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    """How samples are drawn."""
    sampling_steps: runner.Count = 100
    """How many of the T times samples visit; all of them in the paper."""
    bound_terms: Annotated[runner.CountOrZero, runner.Measuring] = 0
    """How many of the bound's T - 1 denoising terms the evaluation draws, for each example anew; 0 for all of them."""
    validation_terms: runner.Count = 20
    """The same while training."""
    features: runner.Widths = (32, 64)
    """U-Net: channels of each level; each but the last halves the sides."""
    blocks: runner.Count = 1
    """U-Net: residual blocks of each level. Perceptron: residual blocks."""
    attention: tuple[int, ...] = (1,)
    """U-Net: levels with self-attention, counted from 0; the middle always has it."""
    head_dim: runner.Count | None = None
    """U-Net: channels of a head of attention; by default there is one head, as in the paper."""
    dropout: runner.RateOrZero = 0.0
    """Rate, in training."""
    hidden: runner.Count = 128
    """Perceptron: width."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network's computation; parameters and losses stay float32."""


def build(config: Config, spec) -> runner.Experiment:
    """A diffusion model without labels."""
    return experiment(config, spec)


def experiment(config: Config, spec, *, num_classes: int | None = None, **settings) -> runner.Experiment:
    """What the experiments of diffusion in data space share."""
    from gm_jax.models import diffusion_chains

    model = diffusions.model(config, spec, num_classes=num_classes, num_terms=config.bound_terms, **settings)
    validated = diffusions.model(config, spec, num_classes=num_classes, num_terms=config.validation_terms, **settings)
    return runner.Experiment(
        model.model,
        optimizers={"diffusion": runner.make_optimizer(config.optimizer, config.train)},
        validation=validated.model.log_prob,
        pictures=diffusion_chains.grids(model),
    )


if __name__ == "__main__":
    runner.main(Config, build)
