"""Presets of generative adversarial networks."""

from gm_jax.config import AdamConfig, DataConfig, TrainConfig
from gm_jax.recipes.configs.gan import GANConfig, WGANGPConfig
from gm_jax.recipes.presets.preset import Preset

_ADAM = AdamConfig(learning_rate=2e-4, schedule="linear", b1=0.0, b2=0.9)

# Steps count those of the discriminator: five for each of the generator's.
_SNGAN = GANConfig(
    preset="gan/sngan-cifar10",
    data=DataConfig(name="cifar10"),
    train=TrainConfig(steps=250_000, batch_size=64, checkpoint_every=5_000, log_every=500),
    generator=_ADAM,
    discriminator=_ADAM,
    network="resnet",
    features=256,
    discriminator_features=128,
    latent_dim=128,
    game="hinge",
    spectral_norm=True,
    discriminator_steps=5,
)

_WGAN_GP = WGANGPConfig(
    preset="wgan_gp/cifar10",
    data=DataConfig(name="cifar10"),
    train=TrainConfig(steps=500_000, batch_size=64, checkpoint_every=5_000, log_every=500),
    generator=_ADAM,
    discriminator=_ADAM,
    network="resnet",
    features=128,
    latent_dim=128,
    penalty=10.0,
    critic_steps=5,
)

_BATCH = "The generator's batches have 64 examples; the source's have 128."

PRESETS = (
    Preset(
        config=_SNGAN,
        shape=(32, 32, 3),
        title="SNGAN with residual networks on CIFAR-10",
        source="Miyato et al., ICLR 2018, arXiv:1802.05957, table 4; code pfnet-research/sngan_projection, "
        "configs/sn_cifar10_unconditional.yml",
        published="FID 21.7 (5,000 samples); Inception Score 8.22",
        parameters=5_330_564,
        count="4,276,739 of the generator, as in the source; 1,053,825 of the discriminator, whose last layer has a "
        "bias here and none in the source.",
        not_as_published=(_BATCH,),
    ),
    Preset(
        config=_WGAN_GP,
        shape=(32, 32, 3),
        title="WGAN-GP with residual networks on CIFAR-10",
        source="Gulrajani et al., NeurIPS 2017, arXiv:1704.00028; code igul222/improved_wgan_training, "
        "gan_cifar_resnet.py without labels",
        published="Inception Score 7.86",
        parameters=2_258_307,
        count="1,204,483 of the generator, as in the source; 1,053,824 of the critic, whose last layer has a bias in "
        "the source, which cancels.",
        not_as_published=(_BATCH, "The source adds uniform noise of one level to the data."),
    ),
)
