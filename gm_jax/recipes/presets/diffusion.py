"""Presets of diffusion models: DDPM, and DiT of latents."""

import dataclasses

from gm_jax.config import DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs.diffusion import ConditionalDDPMConfig, DDPMConfig, DiTConfig, SamplerConfig, UNetConfig
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


def _dit(name: str, features: int, layers: int, heads: int, *, steps: int = 400_000) -> ConditionalDDPMConfig:
    return ConditionalDDPMConfig(
        preset=f"ddpm_conditional/{name}",
        data=DataConfig(name="imagenet256_latents"),
        train=TrainConfig(
            steps=steps, batch_size=256, checkpoint_every=10_000, ema_decay=0.9999, ema_warmup="none", log_every=500
        ),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        diffusion_steps=1_000,
        beta_min=0.1,
        variance="transition",
        sampler=SamplerConfig(steps=250, variance="transition"),
        network=DiTConfig(features=features, layers=layers, heads=heads, patch=2),
        learned_variance=True,
        bound_weight=1.4427e-3,
        guidance=0.5,
    )


_WITHOUT_GUIDANCE = "FID {} after 400,000 steps, without guidance"
_DIT_SIZES = (
    (_dit("dit_s_2", 384, 12, 6), "S/2", _WITHOUT_GUIDANCE.format("68.40"), 32_860_448, 32_963_360),
    (_dit("dit_b_2", 768, 12, 12), "B/2", _WITHOUT_GUIDANCE.format(43.47), 130_306_592, 130_512_416),
    (_dit("dit_l_2", 1024, 24, 16), "L/2", _WITHOUT_GUIDANCE.format(23.33), 457_816_096, 458_102_816),
    (
        _dit("dit_xl_2", 1152, 28, 16, steps=7_000_000),
        "XL/2",
        "FID 2.27 with guidance of 0.5 (1.5 in the source), 9.62 without, after 7 million steps",
        674_802_464,
        675_129_632,
    ),
)
_DITS = tuple(
    Preset(
        config=config,
        shape=(32, 32, 4),
        title=f"DiT-{size} on latents of ImageNet at 256 x 256",
        source="Peebles & Xie, ICCV 2023, arXiv:2212.09748, section 4; code facebookresearch/DiT",
        published=published,
        parameters=parameters,
        count=f"{in_source:,} in the source's code: also a table of positions, which is not trained, and biases of the "
        "keys, which the softmax cancels.",
        not_as_published=(
            "The latents are your own: --data.name npz:PATH of an array [N, 32, 32, 4], and their labels.",
            "Images are not mirrored: encode the mirrored ones too.",
            "Guidance acts on all channels; the source's code guides the first three.",
            "Vectors of classes start at 0; the source draws them with a standard deviation of 0.02.",
        ),
    )
    for config, size, published, parameters, in_source in _DIT_SIZES
)

PRESETS = (
    *_DITS,
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
