"""The configurations of all recipes: data only, no jax, so that `--help` answers at once.

vae.py             VAE and IWAE
autoregressive.py  FVSBN, NADE and MADE; PixelCNN, PixelCNN++, PixelRNN, WaveNet and transformers
masked.py          masked diffusion
d3pm.py            discrete diffusion by transition matrices
flow.py            NICE, RealNVP, Glow, spline flows, MAF and IAF
gan.py             GAN, improved GAN and WGAN-GP
diffusion.py       DDPM, with and without labels
latent_diffusion.py  latent diffusion, and its two kinds of autoencoders
text_to_image.py   latent diffusion of captioned images
vq_vae.py          VQ-VAE
score.py           score-based models in continuous time
preset.py          the field that names a preset
one_step.py        MeanFlow and consistency models
own_model.py       a model that was made in Python
rbm.py             restricted Boltzmann machines
energy.py          deep energy-based models, JEM, minimax training

Each names, as `recipe`, the function that builds its experiment.
"""

from gm_jax.config import ExperimentConfig
from gm_jax.recipes.configs.autoregressive import (
    FVSBNConfig,
    MADEConfig,
    NADEConfig,
    PixelCNNConfig,
    PixelCNNPlusPlusConfig,
    PixelRNNConfig,
    TransformerConfig,
    WaveNetConfig,
)
from gm_jax.recipes.configs.d3pm import D3PMConfig
from gm_jax.recipes.configs.diffusion import (
    ConditionalDDPMConfig,
    DDPMConfig,
    DiTConfig,
    MLPConfig,
    SamplerConfig,
    UNetConfig,
)
from gm_jax.recipes.configs.energy import ChainsConfig, EBMConfig, JEMConfig, MinimaxEBMConfig
from gm_jax.recipes.configs.flow import (
    AutoregressiveFlowConfig,
    GlowConfig,
    NICEConfig,
    RealNVPConfig,
    SplineFlowConfig,
)
from gm_jax.recipes.configs.gan import GANConfig, ImprovedGANConfig, WGANGPConfig
from gm_jax.recipes.configs.latent_diffusion import (
    AutoencoderConfig,
    LatentDiffusionConfig,
    SpatialAutoencoderConfig,
)
from gm_jax.recipes.configs.masked import MaskedDiffusionConfig
from gm_jax.recipes.configs.one_step import ConsistencyConfig, MeanFlowConfig
from gm_jax.recipes.configs.own_model import OwnModelConfig
from gm_jax.recipes.configs.rbm import RBMConfig
from gm_jax.recipes.configs.score import ODELikelihoodConfig, PathSamplerConfig, ScoreConfig
from gm_jax.recipes.configs.text_to_image import TextEncoderConfig, TextToImageConfig
from gm_jax.recipes.configs.vae import IWAEConfig, VAEConfig
from gm_jax.recipes.configs.vq_vae import (
    CodeAutoencoderConfig,
    CodebookConfig,
    CodePriorConfig,
    FSQConfig,
    VQVAEConfig,
)

RECIPES: dict[str, type[ExperimentConfig]] = {
    config.recipe: config
    for config in (
        *(VAEConfig, IWAEConfig, VQVAEConfig),
        *(FVSBNConfig, NADEConfig, MADEConfig),
        *(PixelCNNConfig, PixelCNNPlusPlusConfig, PixelRNNConfig, WaveNetConfig, TransformerConfig),
        *(MaskedDiffusionConfig, D3PMConfig),
        *(NICEConfig, RealNVPConfig, GlowConfig, SplineFlowConfig, AutoregressiveFlowConfig),
        *(GANConfig, ImprovedGANConfig, WGANGPConfig),
        *(DDPMConfig, ConditionalDDPMConfig, LatentDiffusionConfig, TextToImageConfig, OwnModelConfig),
        *(RBMConfig, EBMConfig, JEMConfig, MinimaxEBMConfig),
        *(ScoreConfig, MeanFlowConfig, ConsistencyConfig),
    )
}

__all__ = [
    "RECIPES",
    "AutoencoderConfig",
    "ChainsConfig",
    "CodeAutoencoderConfig",
    "CodePriorConfig",
    "CodebookConfig",
    "ConditionalDDPMConfig",
    "ConsistencyConfig",
    "D3PMConfig",
    "DDPMConfig",
    "DiTConfig",
    "EBMConfig",
    "FSQConfig",
    "FVSBNConfig",
    "GANConfig",
    "GlowConfig",
    "IWAEConfig",
    "ImprovedGANConfig",
    "JEMConfig",
    "LatentDiffusionConfig",
    "MADEConfig",
    "MLPConfig",
    "MaskedDiffusionConfig",
    "MeanFlowConfig",
    "MinimaxEBMConfig",
    "NADEConfig",
    "NICEConfig",
    "ODELikelihoodConfig",
    "OwnModelConfig",
    "PathSamplerConfig",
    "PixelCNNConfig",
    "PixelCNNPlusPlusConfig",
    "PixelRNNConfig",
    "RBMConfig",
    "RealNVPConfig",
    "SamplerConfig",
    "ScoreConfig",
    "SpatialAutoencoderConfig",
    "SplineFlowConfig",
    "TextEncoderConfig",
    "TextToImageConfig",
    "TransformerConfig",
    "UNetConfig",
    "VAEConfig",
    "VQVAEConfig",
    "WGANGPConfig",
    "WaveNetConfig",
]
