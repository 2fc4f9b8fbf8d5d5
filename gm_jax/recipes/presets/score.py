"""Presets of score-based models."""

from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs.diffusion import UNetConfig
from gm_jax.recipes.configs.score import PathSamplerConfig, ScoreConfig
from gm_jax.recipes.presets.preset import Preset

# 200 million images in batches of 512; the rate rises over the first 10 million.
_EDM = ScoreConfig(
    preset="edm/cifar10",
    data=DataConfig(name="cifar10"),
    train=TrainConfig(
        steps=390_625, batch_size=512, checkpoint_every=2_500, log_every=500, ema_halflife=500_000.0, ema_warmup="ramp"
    ),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=19_531),
    network=UNetConfig(
        features=(256, 256, 256),
        blocks=4,
        attention=(1,),
        groups=32,
        dropout=0.13,
        stem=128,
        resample="block",
        rescale=True,
    ),
    path="edm",
    prediction="preconditioned",
    times="log_normal",
    sigma_data=0.5,
    augment=0.12,
    sampler=PathSamplerConfig(method="heun", steps=18, grid="karras"),
)

PRESETS = (
    Preset(
        config=_EDM,
        shape=(32, 32, 3),
        title="EDM without labels on CIFAR-10",
        source="Karras et al., NeurIPS 2022, arXiv:2206.00364; code NVlabs/edm, train.py --arch=ddpmpp",
        published="FID 1.97 (35 network evaluations)",
        parameters=55_732_355,
        count="55,733,891 in the source. Its 6 attention blocks have biases of the keys, 256 numbers each, which the "
        "softmax cancels.",
        not_as_published=(
            "Kernels start as those of Flax; in the source Xavier uniform. Layers that start near zero start at zero.",
            "The normalisations add 1e-5 to the variance; the source 1e-6.",
        ),
    ),
)
