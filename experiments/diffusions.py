"""A configuration's schedule, network and model: what diffusion experiments share. It is no experiment of its own."""

import functools
from typing import TYPE_CHECKING

from gm_jax.errors import UserError

if TYPE_CHECKING:
    import flax.linen as nn

    from gm_jax.models.diffusion import Diffusion
    from gm_jax.ops.diffusion_process import Schedule


def model(config, spec, *, num_classes: int | None, num_terms: int, **settings) -> "Diffusion":
    """The model of data as they are that a configuration describes.

    Args:
        config: of `ddpm`.
        spec: of the data.
        num_classes: None for a model without labels.
        num_terms: of the bound's denoising terms; 0 for all.
        **settings: of labels, for `models.diffusion.diffusion`.
    """
    from gm_jax.models import diffusion, diffusion_space, parameterization
    from gm_jax.ops import diffusion_process

    if config.sampling_steps > config.diffusion_steps:
        raise UserError(
            f"--sampling-steps {config.sampling_steps} are more than the {config.diffusion_steps} there are."
        )
    schedule = noise_schedule(config, spec.levels)
    variance_fn = getattr(diffusion_process, f"{config.variance}_variance")
    ancestral = functools.partial(diffusion.ancestral, variance_fn=variance_fn)
    return diffusion.diffusion(
        network(config, spec.shape, num_classes),
        diffusion_space.points() if spec.levels is None else diffusion_space.pixels(levels=spec.levels),
        schedule,
        shape=spec.shape,
        parameterization=getattr(parameterization, config.prediction)(),
        sampler=(diffusion.ddim if config.sampler == "ddim" else ancestral)(schedule, config.sampling_steps),
        variance_fn=variance_fn,
        num_bound_terms=num_terms or None,
        num_classes=num_classes,
        **settings,
    )


def noise_schedule(config, levels: int | None) -> "Schedule":
    """The schedule that a configuration describes, for data of so many levels over [-1, 1]."""
    from gm_jax.ops import diffusion_process

    quarter = 0.0 if levels is None else 0.5 / (levels - 1)
    beta_min = config.beta_min or min(max(0.1, config.diffusion_steps * quarter**2), 1.0)
    try:
        if config.schedule == "cosine":
            return diffusion_process.cosine_schedule(config.diffusion_steps)
        return diffusion_process.linear_schedule(config.diffusion_steps, beta_min=beta_min)
    except ValueError as error:
        raise UserError(f"--diffusion-steps {config.diffusion_steps}: {error}") from None


def network(config, shape: tuple[int, ...], num_classes: int | None) -> "nn.Module":
    """A U-Net of images, a perceptron of anything else; with labels it knows one more, of none."""
    from gm_jax.networks import diffusion_mlp, unet

    labels = None if num_classes is None else num_classes + 1
    settings = {"num_classes": labels, "dropout": config.dropout, "dtype": config.dtype}
    if len(shape) != 3:
        return diffusion_mlp.DiffusionMLP(config.hidden, config.blocks, **settings)
    return unet.UNet(config.features, config.blocks, config.attention, head_dim=config.head_dim, **settings)
