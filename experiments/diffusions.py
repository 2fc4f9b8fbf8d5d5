"""A configuration's schedule, network and model: what diffusion experiments share. It is no experiment of its own."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gm_jax.errors import UserError

if TYPE_CHECKING:
    import flax.linen as nn

    from gm_jax.models.diffusion import Diffusion
    from gm_jax.ops.diffusion_process import Schedule
    from gm_jax.samplers.diffusion import Sampler

_BETA_MAX = 20.0  # T beta_T of the linear schedule, as in the paper


def model(config, spec, *, num_classes: int | None, num_terms: int, **settings) -> "Diffusion":
    """The model of data as they are that a configuration describes.

    Args:
        config: of `ddpm`.
        spec: of the data.
        num_classes: None for a model without labels.
        num_terms: of the bound's denoising terms; 0 for all.
        **settings: of labels, for `models.diffusion.Diffusion`.
    """
    from gm_jax.models import diffusion, diffusion_space
    from gm_jax.ops import diffusion_process

    if config.sampling_steps > config.diffusion_steps:
        raise UserError(
            f"--sampling-steps {config.sampling_steps} are more than the {config.diffusion_steps} there are."
        )
    schedule = noise_schedule(config, spec.levels)
    variances = {
        "transition": diffusion_process.transition_variance,
        "posterior": diffusion_process.posterior_variance,
    }
    parameterizations = {
        "noise": diffusion.noise_prediction,
        "data": diffusion.data_prediction,
        "velocity": diffusion.velocity_prediction,
    }
    return diffusion.Diffusion(
        network=network(config, spec.shape, num_classes),
        space=diffusion_space.points() if spec.levels is None else diffusion_space.pixels(levels=spec.levels),
        schedule=schedule,
        shape=spec.shape,
        parameterization=parameterizations[config.prediction](),
        sampler=_sampler(config, schedule, variances[config.sampling_variance]),
        variance_fn=variances[config.variance],
        num_bound_terms=num_terms or None,
        num_classes=num_classes,
        **settings,
    )


def _sampler(config, schedule: "Schedule", variance_fn: "Callable") -> "Sampler":
    from gm_jax.samplers import diffusion

    if config.sampler == "ancestral":
        if config.eta:
            raise UserError(f"--eta {config.eta} is for --sampler ddim.")
        return diffusion.ancestral(schedule, config.sampling_steps, variance_fn=variance_fn)
    if config.eta > 1.0:
        raise UserError(f"--eta {config.eta} must be from 0 to 1.")
    return diffusion.ddim(schedule, config.sampling_steps, eta=config.eta)


def noise_schedule(config, levels: int | None) -> "Schedule":
    """The schedule that a configuration describes, for data of so many levels over [-1, 1]."""
    from gm_jax.ops import diffusion_process

    if config.schedule == "cosine":
        if config.beta_min is not None:
            raise UserError(f"--beta-min {config.beta_min} is for --schedule linear.")
        if config.diffusion_steps < 2:
            raise UserError(f"--diffusion-steps {config.diffusion_steps}: noise that comes in steps needs at least 2.")
        return diffusion_process.cosine_schedule(config.diffusion_steps)
    if config.diffusion_steps <= _BETA_MAX:
        raise UserError(
            f"--diffusion-steps {config.diffusion_steps}: the linear schedule needs more than {_BETA_MAX:g} steps.\n"
            "With fewer: --schedule cosine."
        )
    quarter = 0.0 if levels is None else 0.5 / (levels - 1)
    beta_min = config.beta_min or min(max(0.1, config.diffusion_steps * quarter**2), 1.0)
    if beta_min >= _BETA_MAX:
        raise UserError(f"--beta-min {beta_min:g} must be less than {_BETA_MAX:g}, where the schedule ends.")
    return diffusion_process.linear_schedule(config.diffusion_steps, beta_min=beta_min, beta_max=_BETA_MAX)


def network(config, shape: tuple[int, ...], num_classes: int | None) -> "nn.Module":
    """A U-Net of images, a perceptron of anything else; with labels it knows one more, of none."""
    from gm_jax.networks import diffusion_mlp, unet

    labels = None if num_classes is None else num_classes + 1
    settings = {"num_classes": labels, "dropout": config.dropout, "dtype": config.dtype}
    if len(shape) != 3:
        return diffusion_mlp.DiffusionMLP(config.hidden, config.blocks, **settings)
    if any(not 0 <= level < len(config.features) for level in config.attention):
        levels = f"{len(config.features)} levels of --features are numbered from 0"
        raise UserError(f"--attention {' '.join(map(str, config.attention))}: the {levels}.")
    return unet.UNet(config.features, config.blocks, config.attention, head_dim=config.head_dim, **settings)
