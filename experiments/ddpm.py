"""Denoising diffusion (Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239); samples also by DDIM (Song et al., 2021).

    python -m experiments.ddpm                                               # digits, about two minutes
    python -m experiments.ddpm --data.name mnist --data.dir ../shared/tfds --features 32 64 64 --blocks 2
    python -m experiments.ddpm --data.name toy:two_moons                     # points: a perceptron
Measured: test NLL <= 2.17 bits/dim (96.4 nats, lower bound on log p, all 999 denoising terms) on the 180 test digits of
17 levels, by the first command, 3 to 5 minutes; and <= 2.67 nats on toy:two_moons with --blocks 3 (its entropy is
2.394). Two CPU cores beside other work.
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
    """T, how many steps lead from the data to noise."""
    schedule: Literal["linear", "cosine"] = "linear"
    """Of the noise: linear is DDPM's, cosine (Nichol & Dhariwal 2021) leaves more signal in the middle."""
    beta_min: runner.Rate | None = None
    """Of the linear schedule, T beta_1, less than 20. By default 0.1, as in the paper, or what makes the first noise a
    quarter of a level wide, if that is more, but at most 1: of the 17 levels of the digits 0.98."""
    prediction: Literal["noise", "data", "velocity"] = "noise"
    """What the network predicts: eps, x_0 or v."""
    variance: Annotated[Literal["transition", "posterior"], runner.Measuring] = "transition"
    """Of the reverse process whose bound is measured: that of q(x_t | x_s), beta_t, best for data that are spread out,
    or that of q(x_s | x_t, x_0), best for data at a point."""
    sampler: Annotated[Literal["ancestral", "ddim"], runner.Sampling] = "ancestral"
    """How samples are drawn: by DDPM's random steps, or by DDIM's."""
    sampling_steps: Annotated[runner.Count, runner.Sampling] = 100
    """How many of the T times samples visit; all of them in the paper."""
    sampling_variance: Annotated[Literal["transition", "posterior"], runner.Sampling] = "posterior"
    """The same as --variance, of ancestral steps; with fewer steps than T the smaller one, posterior, is better."""
    eta: Annotated[runner.RateOrZero, runner.Sampling] = 0.0
    """How much noise steps of ddim draw: from 0, none, to 1, as much as the posterior has."""
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
    from gm_jax.plotting import diffusion as plotting

    model = diffusions.model(config, spec, num_classes=num_classes, num_terms=config.bound_terms, **settings)
    validated = dataclasses.replace(model, num_bound_terms=config.validation_terms)
    return runner.Experiment(
        model.model,
        optimizers={"diffusion": runner.make_optimizer(config.optimizer, config.train)},
        validation=validated.log_prob,
        pictures=plotting.grids(model),
        settings={"variance": config.variance},
    )


if __name__ == "__main__":
    runner.main(Config, build)
