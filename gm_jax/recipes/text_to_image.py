"""The recipe of text to image: latent diffusion with latents that are an image and with captions."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gm_jax.data import captions, scenes
from gm_jax.data.sources import Spec
from gm_jax.errors import NO_CAPTIONS, UserError
from gm_jax.models import latent_diffusion
from gm_jax.networks.convolution import Conv
from gm_jax.networks.log_error import LogError
from gm_jax.plotting import text_to_image as plotting
from gm_jax.recipes.configs.diffusion import DiTConfig
from gm_jax.recipes.configs.text_to_image import TextToImageConfig
from gm_jax.recipes.diffusion import diffusion_model, make_network, two_stages
from gm_jax.recipes.dit import make_dit, make_text_encoder
from gm_jax.recipes.experiment import Experiment, LogProbEvaluation
from gm_jax.recipes.first_stage import make_first_stage
from gm_jax.recipes.obedience import obedience_evaluation

_OBEDIENCE_SAMPLES = 500
# Of the grid of prompts; each is of the grammar of `data.captions`.
PROMPTS = (
    "a red seven left of a small blue two",
    "a large green three at the top left",
    "a small yellow eight above a magenta zero on white",
    "a cyan five at the bottom right on black",
    "a blue one below a red four",
    "a large magenta nine right of a small green six",
)
# The words of one caption, changed one at a time.
_CHANGED = (
    "a large red seven at the top left on black",
    "a large green seven at the top left on black",
    "a large green two at the top left on black",
    "a small green two at the top left on black",
    "a small green two at the bottom right on black",
    "a small green two at the bottom right on white",
)


def build_text_to_image(config: TextToImageConfig, spec: Spec) -> Experiment:
    """Builds a spatial VAE and a diffusion model of its latents given captions, in two stages of one run.

    Raises:
        UserError: the data have no captions, or the fields contradict each other.
    """
    if spec.tokens is None or spec.vocabulary is None:
        raise UserError(f"{spec.name}: {NO_CAPTIONS}")
    if config.drop_caption == 0.0:
        raise UserError(
            "--drop-caption 0 leaves the model without captions untrained: use a number above 0, such as 0.05."
        )
    first = make_first_stage(config.autoencoder, spec, elbo_samples=config.elbo_samples)
    negative = captions.encode(config.negative_prompt) if config.negative_prompt else None
    prior = diffusion_model(
        config,
        _denoiser(config, spec, first.latents),
        first.latents,
        num_tokens=spec.tokens,
        drop_label=config.drop_caption,
        log_error=LogError(spec.vocabulary) if config.learned_weight else None,
        guidance=config.guidance,
        negative=negative,
    )
    experiment = two_stages(config, first.autoencoder, prior, spec)
    return experiment._replace(
        evaluations=_evaluations(experiment.family, spec),
        pictures=plotting.grids(experiment.family, _as_tokens(PROMPTS), _as_tokens(_CHANGED)),
        settings={**experiment.settings, "guidance": config.guidance},
    )


def _denoiser(config: TextToImageConfig, spec: Spec, latents: Spec) -> nn.Module:
    """Returns the network of the second stage, which reads the captions of data and has the shape of their latents."""
    network = config.network
    if isinstance(network, DiTConfig):
        return make_dit(network, reads=make_text_encoder(config.text, spec, features=network.features))
    text = make_text_encoder(config.text, spec, features=4 * (network.stem or network.features[0]))
    return make_network(network, latents, None).clone(text=text, conv=Conv)  # trained in turns


def _evaluations(family: latent_diffusion.LatentDiffusion, spec: Spec) -> tuple[Any, ...]:
    """Returns the bound of the autoencoder and, for captions that `evaluation.obedience` reads, their obedience."""
    bound = LogProbEvaluation("autoencoder_negative_elbo", family.autoencoder_elbo)
    is_read = spec.name in scenes.NAMES
    return (bound, *([obedience_evaluation(family, num_samples=_OBEDIENCE_SAMPLES)] if is_read else []))


def _as_tokens(prompts: tuple[str, ...]) -> plotting.Captions:
    tokens = [captions.encode(prompt) for prompt in prompts]
    return plotting.Captions(prompts, jnp.stack([jnp.asarray(caption) for caption in tokens]))
