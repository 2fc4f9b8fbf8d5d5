"""Presets of latent diffusion: LDM-8."""

from gm_jax.config import AdamConfig, DataConfig, OptimizerConfig, TrainConfig
from gm_jax.recipes.configs.diffusion import SamplerConfig, UNetConfig
from gm_jax.recipes.configs.latent_diffusion import LatentDiffusionConfig, SpatialAutoencoderConfig
from gm_jax.recipes.presets.preset import Preset

# The autoencoder of the source was trained for 246,803 steps, the diffusion model for 500,000.
_LDM_8 = LatentDiffusionConfig(
    preset="latent_diffusion/ldm_8",
    data=DataConfig(name="lsun/church_outdoor", size=256, flip=True),
    train=TrainConfig(steps=746_803, batch_size=96, checkpoint_every=10_000, ema_decay=0.9999, log_every=500),
    optimizer=OptimizerConfig(learning_rate=5e-5, warmup_steps=10_000, weight_decay=0.01),
    diffusion_steps=1_000,
    schedule="quadratic",
    beta_min=1.5,
    beta_max=15.5,
    prediction="noise",
    bound_terms=20,
    validation_terms=5,
    elbo_samples=1,
    sampler=SamplerConfig(method="ddim", steps=200),
    autoencoder=SpatialAutoencoderConfig(
        steps=246_803,
        optimizer=AdamConfig(learning_rate=4.32e-4, schedule="constant", b1=0.5, b2=0.9),
        patch=1,
        features=(128, 256, 512, 512),
        blocks=2,
        channels=4,
        groups=32,
        attention=True,
        log_var=-4.0,
        beta=1e-6,
        remat=True,
        dtype="bfloat16",
    ),
    network=UNetConfig(
        features=(192, 384, 384, 768, 768),
        blocks=2,
        attention=(0, 1, 2, 3),
        head_dim=24,
        groups=32,
        resample="adm",
        scale_shift=True,
        remat=True,
        dtype="bfloat16",
    ),
)

PRESETS = (
    Preset(
        config=_LDM_8,
        shape=(256, 256, 3),
        title="LDM-8 on LSUN-Churches at 256 x 256",
        source="Rombach et al., CVPR 2022, arXiv:2112.10752, table 12; code CompVis/latent-diffusion, "
        "lsun_churches-ldm-kl-8.yaml and autoencoder_kl_32x32x4.yaml",
        published="FID 4.02 (200 DDIM steps in the paper, 400 on the code's page of checkpoints)",
        parameters=378_610_347,
        count="83,652,839 of the autoencoder and 294,957,508 of the diffusion model. In the source's code 83,653,863 "
        "and 294,966,916 (294 million in the paper): its 2 and 21 attentions have biases of the keys, 1,024 and "
        "9,408 numbers, which the softmax cancels.",
        not_as_published=(
            "The autoencoder minimises the squared error of a normal of log-variance -4, whose gradient is that of "
            "the absolute error in the source at an error of 9 levels. There it also minimises LPIPS and, from step "
            "50,001 on, the loss of a patch discriminator, which are not here.",
            "The autoencoder is trained on the same images, in the same run and in batches of 96; in the source on "
            "other images, in batches of 12, two of which make an update. The rate is 4.5e-6 for each image of an "
            "update in both.",
            "The diffusion model minimises the squared error of the noise; the source the absolute error.",
            "Each attention of the diffusion model has heads of 24 channels: 8 of them at 32 x 32, as in the source, "
            "which has 8 at every level.",
            "Latents are scaled by their standard deviation over the autoencoder's last steps, at its full rate; in "
            "the source over the first batch of the second stage.",
            "The average of the weights is of both networks; in the source of the diffusion model.",
            "Both networks compute in bfloat16 and compute their blocks again in the backward pass.",
            "In the autoencoder the normalisations add 1e-5 to the variance and the last convolution of each block "
            "starts at zero; in the source 1e-6, and kernels of PyTorch's default.",
            "Images are resized by Lanczos' filter, and a tenth of them is the test split; in the source bicubic, "
            "and a split of its own.",
        ),
    ),
)
