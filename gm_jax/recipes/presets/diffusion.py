"""Presets of diffusion models."""

import dataclasses

from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs.diffusion import DDPMConfig, SamplerConfig, UNetConfig
from gm_jax.recipes.presets.preset import Preset

_CIFAR10 = DDPMConfig(
    preset="ddpm/cifar10",
    data=DataConfig(name="cifar10", flip=True),
    train=TrainConfig(
        steps=800_000, batch_size=128, checkpoint_every=10_000, ema_decay=0.9999, ema_warmup="none", log_every=500
    ),
    optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=5_000, clip_norm=1.0),
    diffusion_steps=1_000,
    beta_min=0.1,
    variance="transition",
    sampler=SamplerConfig(steps=1_000, variance="transition"),
    network=UNetConfig(features=(128, 256, 256, 256), blocks=2, attention=(1,), groups=32, dropout=0.1),
)

_MNIST = dataclasses.replace(
    _CIFAR10,
    preset="ddpm/mnist",
    data=DataConfig(name="mnist"),
    train=dataclasses.replace(_CIFAR10.train, steps=117_000, checkpoint_every=2_500),
    network=UNetConfig(features=(64, 128, 128), blocks=2, attention=(1,), groups=32),
)

PRESETS = (
    Preset(
        config=_CIFAR10,
        shape=(32, 32, 3),
        title="DDPM on CIFAR-10",
        source="Ho, Jain & Abbeel, NeurIPS 2020, arXiv:2006.11239, appendix B; code hojonathanho/diffusion, "
        "scripts/run_cifar.py",
        published="FID 3.17 (train split, EMA); at most 3.75 bits/dim",
        parameters=35_744_771,
        count="35.7 million in the paper. The 6 attention blocks of its code have biases of the keys, 256 numbers "
        "each, which the softmax cancels: 35,746,307 with these.",
        not_as_published=(
            "Padding before halving is on all four sides; the source pads right and below.",
            "Frequencies of the time's embedding are 10000^(-2i/D); the source divides by D/2 - 1.",
        ),
    ),
    Preset(
        config=_MNIST,
        shape=(28, 28, 1),
        title="DDPM on MNIST",
        source="ours: the CIFAR-10 preset's network at half the width with a level less, for about 300 epochs",
        published="",
        parameters=6_469_121,
        count="Nothing was published of this network.",
        not_as_published=(),
    ),
)
