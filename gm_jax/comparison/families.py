"""The table of the families that `tools.compare` measures: one row per family."""

from typing import Any

import jax
import numpy as np

from gm_jax.comparison.measure import Family
from gm_jax.data.sources import Spec
from gm_jax.evaluation import enumeration
from gm_jax.types import Params


def table() -> tuple[Family, ...]:
    """Returns one row per family, with networks small enough for a few seconds of training on two CPU cores."""
    dense, conv = {"train": {"batch_size": 100}}, {"train": {"batch_size": 64, "steps_per_call": 1}}
    plane = {"train": {"batch_size": 256}}
    vae = {"importance_samples": 100, "hidden": (200, 200), **dense}
    small_vae = {**vae, "hidden": (64, 64), "latent_dim": 2}
    latents = {"images": {**vae, "latent_dim": 16}, "points": {**small_vae, **plane}, "small_world": small_vae}
    nice = {"hidden": (128, 128), **dense}
    glow = {"steps": 4, "features": 32, **conv}
    spline = {"bins": 8, "train": {"batch_size": 64, "steps_per_call": 5}}
    adversarial = {
        "images": {"network": "mlp", "train": {"batch_size": 64}},
        "points": {},
        "small_world": {"network": "mlp"},
    }
    # Few diffusion steps, so that the bound is a sum over all of them; a random subset would be noisy.
    ddpm = {"features": (16, 32), "diffusion_steps": 100, "sampling_steps": 50, **conv}
    tiny = {**ddpm, "features": (16,), "attention": (), "diffusion_steps": 50, "sampling_steps": 25}
    # The first stage has a fixed number of steps; the second stage uses the remaining time.
    latent = {
        **ddpm,
        "autoencoder": {"steps": 500, "latent_dim": 16},
        "hidden": 128,
        "train": {"batch_size": 64, "steps": 10**6},
    }
    latent_points = {**latent, "autoencoder": {"steps": 500, "latent_dim": 2}}
    return (
        Family("VAE", "experiments.vae", latents, log_prob_of_states=vae_log_prob_of_states),
        Family("IWAE", "experiments.iwae", latents, log_prob_of_states=vae_log_prob_of_states),
        Family("GAN", "experiments.gan", {**adversarial, "images": {**adversarial["images"], "spectral_norm": True}}),
        Family("improved GAN", "experiments.improved_gan", adversarial),
        Family("WGAN-GP", "experiments.wgan_gp", adversarial),
        Family("FVSBN", "experiments.fvsbn", {"images": dense, "small_world": dense}),
        Family("NADE", "experiments.nade", {"images": {"hidden": 128}, "small_world": {"hidden": 64}}),
        Family("MADE", "experiments.made", {"images": {"hidden": (256,)}, "small_world": {"hidden": (128,)}}),
        Family("PixelCNN", "experiments.pixelcnn", {"images": conv, "small_world": conv}),
        Family("PixelRNN", "experiments.pixelrnn", {"images": conv, "small_world": {**conv, "layers": 1}}),
        Family("WaveNet", "experiments.wavenet", {"images": conv, "small_world": {**conv, "dilations": (1, 2, 4, 8)}}),
        Family("NICE", "experiments.nice", {"images": nice, "points": {**nice, **plane}, "small_world": nice}),
        Family("RealNVP", "experiments.realnvp", {"images": conv, "points": plane, "small_world": {"network": "mlp"}}),
        Family("Glow", "experiments.glow", {"images": glow, "small_world": glow}),
        Family("spline flow", "experiments.spline_flow", {"images": spline, "points": plane, "small_world": spline}),
        Family(
            "DDPM",
            "experiments.ddpm",
            {"images": ddpm, "points": {**ddpm, "blocks": 3, **plane}, "small_world": tiny},
            average=enumeration.averaged_bound,
        ),
        Family(
            "latent diffusion",
            "experiments.latent_diffusion",
            {"images": latent, "points": latent_points, "small_world": latent},
            average=enumeration.averaged_bound,
        ),
    )


def vae_log_prob_of_states(config: Any, spec: Spec, params: Params) -> np.ndarray:
    """Computes a VAE's exact log-probabilities of the small world's states by quadrature over its latent plane."""
    from experiments import vae

    _, decoder = vae.networks(config, spec, 1)
    logits = jax.jit(lambda z: decoder.apply({"params": params["vae"]["decoder"]}, z))
    return enumeration.latent_log_prob(logits, num_bits=16)
