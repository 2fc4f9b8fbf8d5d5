"""Diffusion transformers and their text encoders from configurations."""

from gm_jax.data.sources import Spec
from gm_jax.errors import UserError
from gm_jax.networks import dit, text_encoder
from gm_jax.recipes.configs.diffusion import DiTConfig
from gm_jax.recipes.configs.text_to_image import TextEncoderConfig


def make_dit(
    config: DiTConfig, *, reads: text_encoder.TextEncoder | None = None, num_classes: int | None = None
) -> dit.DiT:
    """Returns the diffusion transformer of a text encoder, of labels (with one class more, "no label"), or of neither.

    Raises:
        UserError: the heads do not divide the width.
    """
    _check_heads("network", config.features, config.heads)
    labels = None if num_classes is None else num_classes + 1
    settings = {"num_classes": labels, "text": reads, "dtype": config.dtype, "remat": config.remat}
    return dit.DiT(config.features, config.layers, config.heads, config.patch, **settings)


def make_text_encoder(config: TextEncoderConfig, spec: Spec, *, features: int) -> text_encoder.TextEncoder:
    """Returns the network that reads the captions of data, to a context of so many features.

    Raises:
        UserError: the heads do not divide the width.
    """
    _check_heads("text", config.features, config.heads)
    event_shape, words = (spec.tokens or 0,), spec.vocabulary or 0
    settings = (config.features, config.heads, config.layers)
    return text_encoder.TextEncoder(event_shape, words, features, *settings, sums=config.summary == "sum")


def _check_heads(section: str, features: int, heads: int) -> None:
    if features % heads:
        raise UserError(f"--{section}.heads {heads} do not divide --{section}.features {features}: choose a divisor.")
