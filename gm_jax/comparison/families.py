"""The table of the families that `tools.compare` measures: one row per family."""

import functools
from typing import Any

import jax
import numpy as np

from gm_jax.comparison import evaluations
from gm_jax.comparison.measure import Family, Taxonomy
from gm_jax.config import AdamConfig, ExperimentConfig, OptimizerConfig, SGDConfig, TrainConfig
from gm_jax.data.sources import Spec
from gm_jax.evaluation import enumeration
from gm_jax.recipes import configs
from gm_jax.recipes.vae import encoder_and_decoder
from gm_jax.types import Params

_ADAM = OptimizerConfig(learning_rate=1e-3, warmup_steps=100)
_CLIPPED, _FLOW_ADAM = (OptimizerConfig(learning_rate=1e-3, warmup_steps=100, clip_norm=norm) for norm in (1.0, 100.0))
_VAE = {"train": TrainConfig(steps_per_call=50, ema_decay=0.999), "optimizer": _ADAM}
_DENSE = {"train": TrainConfig(batch_size=100, steps_per_call=50, ema_decay=0.999), "optimizer": _ADAM}
_RASTER = {"train": TrainConfig(batch_size=50, steps_per_call=10, ema_decay=0.995), "optimizer": _ADAM}
_NICE = {"train": TrainConfig(batch_size=100, steps_per_call=10, ema_decay=0.995), "optimizer": _FLOW_ADAM}
_IMAGE_FLOW = {"train": TrainConfig(batch_size=64, steps_per_call=10, ema_decay=0.995), "optimizer": _FLOW_ADAM}
_SPLINE = {"train": TrainConfig(batch_size=256, steps_per_call=50, ema_decay=0.995), "optimizer": _FLOW_ADAM}
_GAN_TRAIN = TrainConfig(batch_size=128, ema_decay=0.995)
_GAN = {"train": _GAN_TRAIN, "generator": AdamConfig(b1=0.5), "discriminator": AdamConfig(b1=0.5)}
_WGAN = {"train": _GAN_TRAIN, "generator": AdamConfig(b1=0.0, b2=0.9), "discriminator": AdamConfig(b1=0.0, b2=0.9)}
_DDPM = {"train": TrainConfig(batch_size=64, ema_decay=0.995), "optimizer": _CLIPPED}
_LATENT = {"train": TrainConfig(batch_size=64, steps_per_call=20, ema_decay=0.999), "optimizer": _CLIPPED}
_RBM = {"train": TrainConfig(batch_size=100, steps_per_call=50), "optimizer": SGDConfig(learning_rate=0.05)}
_EBM = {"train": TrainConfig(batch_size=100, steps_per_call=10, ema_decay=0.995), "optimizer": _CLIPPED}
_MINIMAX = {
    "train": TrainConfig(batch_size=128, steps_per_call=10, ema_decay=0.995),
    "energy": AdamConfig(b1=0.5),
    "generator": AdamConfig(b1=0.5),
}
_ON_VECTORS, _ON_IMAGES = {"train": {"batch_size": 100}}, {"train": {"batch_size": 64, "steps_per_call": 1}}
_ON_POINTS = {"train": {"batch_size": 256}}


def table() -> tuple[Family, ...]:
    """Returns one row per family, with networks small enough for a few seconds of training on two CPU cores."""
    groups = (
        (_vaes(), Taxonomy("explicit", "lower bound", "one pass", "maximises a bound", "Gaussian, few")),
        (_gans(), Taxonomy("implicit", "none", "one pass", "two players", "Gaussian, few")),
        (_autoregressive_models(), Taxonomy("explicit", "exact", "pixel by pixel", "maximises log p", "none")),
        (_flows(), Taxonomy("explicit", "exact", "one pass", "maximises log p", "as many as the data")),
        (_diffusion_models(), Taxonomy("explicit", "lower bound", "step by step", "removes noise", "noisy data")),
        (_score_models(), Taxonomy("explicit", "exact", "step by step", "removes noise", "noisy data")),
        (_energy_models(), Taxonomy("explicit", "exact up to Z", "Markov chains", "contrasts with chains", "none")),
    )
    return tuple(row._replace(taxonomy=row.taxonomy or usual) for rows, usual in groups for row in rows)


def _vaes() -> tuple[Family, ...]:
    vae = {"importance_samples": 100, "hidden": (200, 200), **_ON_VECTORS}
    small = {**vae, "hidden": (64, 64), "latent_dim": 2}
    settings = {"images": {**vae, "latent_dim": 16}, "points": {**small, **_ON_POINTS}, "small_world": small}
    return (
        Family("VAE", configs.VAEConfig(**_VAE), settings, log_prob_of_states=vae_log_prob_of_states),
        Family("IWAE", configs.IWAEConfig(**_VAE), settings, log_prob_of_states=vae_log_prob_of_states),
    )


def _gans() -> tuple[Family, ...]:
    images = {"network": "mlp", "train": {"batch_size": 64}}
    settings = {"images": images, "points": {}, "small_world": {"network": "mlp"}}
    spectral = {**settings, "images": {**images, "spectral_norm": True}}
    return (
        Family("GAN", configs.GANConfig(**_GAN), spectral),
        Family("improved GAN", configs.ImprovedGANConfig(**_GAN), settings),
        Family("WGAN-GP", configs.WGANGPConfig(**_WGAN), settings),
    )


def _autoregressive_models() -> tuple[Family, ...]:
    conv = _ON_IMAGES
    narrow, shallow = {**conv, "features": 16}, {**conv, "layers": 2}

    def row(name: str, config: ExperimentConfig, images: Any, small_world: Any) -> Family:
        settings = {"images": images, "small_world": small_world}
        return Family(name, config, settings, evaluations=evaluations.each_dimension)

    return (
        row("FVSBN", configs.FVSBNConfig(**_DENSE), _ON_VECTORS, _ON_VECTORS),
        row("NADE", configs.NADEConfig(**_DENSE), {"hidden": 128}, {"hidden": 64}),
        row("MADE", configs.MADEConfig(**_DENSE), {"hidden": (256,)}, {"hidden": (128,)}),
        row("PixelCNN", configs.PixelCNNConfig(**_RASTER), conv, conv),
        row("PixelCNN++", configs.PixelCNNPlusPlusConfig(**_RASTER, output="bernoulli"), conv, narrow),
        row("PixelRNN", configs.PixelRNNConfig(**_RASTER), conv, {**conv, "layers": 1}),
        row("WaveNet", configs.WaveNetConfig(**_RASTER), conv, {**conv, "dilations": (1, 2, 4, 8)}),
        row("transformer", configs.TransformerConfig(**_RASTER), conv, shallow),
        Family(
            "masked diffusion",
            configs.MaskedDiffusionConfig(**_RASTER),
            {"images": shallow, "small_world": shallow},
            average=functools.partial(enumeration.averaged_bound, num_draws=1),
            taxonomy=Taxonomy("explicit", "lower bound", "pixel by pixel", "maximises a bound", "masked data"),
            evaluations=evaluations.sampling_steps_or_dimensions,
        ),
    )


def _flows() -> tuple[Family, ...]:
    nice = {"hidden": (128, 128), **_ON_VECTORS}
    nices = {"images": nice, "points": {**nice, **_ON_POINTS}, "small_world": nice}
    realnvps = {"images": _ON_IMAGES, "points": _ON_POINTS, "small_world": {"network": "mlp"}}
    glow = {"steps": 4, "features": 32, **_ON_IMAGES}
    short = {"train": {"batch_size": 64, "steps_per_call": 5}}
    spline = {"bins": 8, **short}
    splines = {"images": spline, "points": _ON_POINTS, "small_world": spline}
    # The inverse takes a step for each dimension, so that an epoch of images would take all of the time.
    mafs = {"images": short, "points": _ON_POINTS, "small_world": short}
    iafs = {"points": _ON_POINTS, "small_world": short}
    of_maf = Taxonomy("explicit", "exact", "dimension by dimension", "maximises log p", "as many as the data")
    return (
        Family("NICE", configs.NICEConfig(**_NICE), nices),
        Family("RealNVP", configs.RealNVPConfig(**_IMAGE_FLOW), realnvps),
        Family("Glow", configs.GlowConfig(**_IMAGE_FLOW), {"images": glow, "small_world": glow}),
        Family("spline flow", configs.SplineFlowConfig(**_SPLINE), splines),
        Family("MAF", configs.AutoregressiveFlowConfig(**_SPLINE), mafs, taxonomy=of_maf),
        Family("IAF", configs.AutoregressiveFlowConfig(**_SPLINE, inverted=True), iafs),
    )


def _diffusion_models() -> tuple[Family, ...]:
    # Few diffusion steps, so that the bound is a sum over all of them; a random subset would be noisy.
    process = {"diffusion_steps": 100, "sampler": {"steps": 50}, **_ON_IMAGES}
    short = {"diffusion_steps": 50, "sampler": {"steps": 25}, **_ON_IMAGES}
    ddpm = {
        "images": {**process, "network": configs.UNetConfig(features=(16, 32))},
        "points": {**process, "network": configs.MLPConfig(blocks=3), **_ON_POINTS},
        "small_world": {**short, "network": configs.UNetConfig(features=(16,), attention=())},
    }
    # The first stage has a fixed number of steps; the second stage uses the remaining time.
    images = {
        **process,
        "autoencoder": {"steps": 500, "latent_dim": 16},
        "network": {"hidden": 128},
        "train": {"batch_size": 64, "steps": 10**6},
    }
    points = {**images, "autoencoder": {"steps": 500, "latent_dim": 2}}
    latent = {"images": images, "points": points, "small_world": images}
    of_codes = Taxonomy("explicit", "lower bound", "step by step", "removes noise", "noisy codes of a VAE")
    return (
        Family(
            "DDPM",
            configs.DDPMConfig(**_DDPM),
            ddpm,
            average=enumeration.averaged_bound,
            evaluations=evaluations.each_step,
        ),
        Family(
            "D3PM",
            configs.D3PMConfig(**_DDPM, transitions="uniform"),
            {name: {k: v for k, v in ddpm[name].items() if k != "sampler"} for name in ("images", "small_world")},
            average=enumeration.averaged_bound,
            evaluations=evaluations.diffusion_steps,
        ),
        Family(
            "latent diffusion",
            configs.LatentDiffusionConfig(**_LATENT),
            latent,
            average=enumeration.averaged_bound,
            taxonomy=of_codes,
            evaluations=evaluations.each_step_and_a_decoder,
        ),
    )


def _score_models() -> tuple[Family, ...]:
    # All states of the small world would need as many ODEs.
    unet, perceptron = configs.UNetConfig(features=(16, 32)), configs.MLPConfig(blocks=3)
    rough = {"tolerance": 1e-3, "probes": 2, "bound_times": 50}
    images = {"network": unet, "likelihood": rough, **_ON_IMAGES}
    both = {"images": images, "points": {"network": perceptron, "likelihood": {"tolerance": 1e-3}, **_ON_POINTS}}
    # The second stage must begin within a few seconds.
    students = {
        "images": {"network": unet, "train": {"batch_size": 64, "steps": 60}, "optimizer": {"warmup_steps": 5}},
        "points": {"network": perceptron, "train": {"batch_size": 256, "steps": 4_000}},
    }
    one_step = Taxonomy("explicit", "exact, of its ODE", "one step", "removes noise", "noisy data")
    implicit = Taxonomy("implicit", "none", "one step", "learns from a diffusion model", "noisy data")

    def row(name: str, **settings: Any) -> Family:
        config = configs.ScoreConfig(**_DDPM, **settings)
        return Family(name, config, both, evaluations=evaluations.each_step)

    return (
        row(
            "score SDE",
            path="vp",
            times="log_snr",
            sampler=configs.PathSamplerConfig(method="dpmpp", steps=15, grid="log_snr"),
        ),
        row(
            "flow matching",
            path="linear",
            prediction="velocity",
            sampler=configs.PathSamplerConfig(method="euler", steps=20, grid="uniform"),
        ),
        row("EDM", path="edm", prediction="preconditioned", times="log_normal"),
        Family(
            "MeanFlow",
            configs.MeanFlowConfig(**_DDPM, own_direction=True),
            both,
            taxonomy=one_step,
            evaluations=evaluations.sampling_steps,
        ),
        Family(
            "consistency model",
            configs.ConsistencyConfig(**_DDPM),
            students,
            taxonomy=implicit,
            evaluations=evaluations.sampling_steps,
        ),
    )


def _energy_models() -> tuple[Family, ...]:
    images = {"hidden": 128, "temperatures": 1_000, "raise_temperatures": 0}
    chains = {"steps": 20, "sampling_steps": 200}
    ebm = {"network": "mlp", "hidden": (64, 64), "chains": chains, "temperatures": 100, "runs": 50, **_ON_VECTORS}
    game = {"network": "mlp", "hidden": (64, 64), "temperatures": 100, "runs": 50}
    ebms = {"images": ebm, "points": {"train": {"batch_size": 200}}, "small_world": ebm}
    of_rbm = Taxonomy("explicit", "exact up to Z", "Markov chains", "contrasts with chains", "binary, summed out")
    rbm = {"images": images, "small_world": {"hidden": 64}}
    return (
        Family("RBM", configs.RBMConfig(**_RBM), rbm, taxonomy=of_rbm, evaluations=evaluations.sweeps),
        Family("EBM", configs.EBMConfig(**_EBM), ebms, evaluations=evaluations.chain_steps),
        Family(
            "JEM",
            configs.JEMConfig(**_EBM),
            # Other data of the page have no labels.
            {"images": ebm},
            taxonomy=Taxonomy("explicit", "exact up to Z", "Markov chains", "classifies and contrasts", "none"),
            evaluations=evaluations.chain_steps,
        ),
        Family(
            "minimax EBM",
            configs.MinimaxEBMConfig(**_MINIMAX),
            {"images": game, "points": {"network": "mlp"}, "small_world": game},
            average=enumeration.averaged_bound,
            taxonomy=Taxonomy("explicit", "exact up to Z", "one pass of a flow", "two players", "as many as the data"),
        ),
    )


def vae_log_prob_of_states(config: ExperimentConfig, spec: Spec, params: Params) -> np.ndarray:
    """Computes a VAE's exact log-probabilities of the small world's states by quadrature over its latent plane."""
    if not isinstance(config, (configs.VAEConfig, configs.IWAEConfig)):
        raise TypeError(f"not a VAE: {type(config).__name__}")
    _, decoder = encoder_and_decoder(
        spec,
        1,
        network=config.network,
        hidden=config.hidden,
        latent_dim=config.latent_dim,
        activation=config.activation,
    )
    logits = jax.jit(lambda z: decoder.apply({"params": params["vae"]["decoder"]}, z))
    return enumeration.latent_log_prob(logits, num_bits=16)
