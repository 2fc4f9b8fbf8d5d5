"""How long a sample of latent diffusion takes, compared with a sample of pixel diffusion in as many steps.

    python -m benchmarks.latent_sampling             # about two minutes, on an otherwise idle machine

Both models are those of `experiments.latent_diffusion` and of a U-Net of `experiments.ddpm`'s size, on digits, with
parameters of zero, because a sampler takes the same time with any. A unit of work draws 64 samples at once.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from benchmarks import command, comparison, timing

if TYPE_CHECKING:
    from gm_jax.data.sources import Spec
    from gm_jax.types import Model

NUM_SAMPLES = 64
LATENT, PIXEL = "latent diffusion", "pixel diffusion"


@dataclasses.dataclass(frozen=True)
class Args(command.Args):
    """How long to measure, and how many steps the samplers take."""

    sampling_steps: int = 100
    """Steps of both samplers."""


def make_run(name: str, sampling_steps: int) -> timing.Run:
    """Returns run(count), which draws NUM_SAMPLES samples `count` times with LATENT or PIXEL diffusion."""
    from experiments import latent_diffusion
    from gm_jax import recipes
    from gm_jax.config.saved import updated
    from gm_jax.data import sources
    from gm_jax.recipes import configs
    from gm_jax.recipes.diffusion import diffusion_model

    spec, _ = sources.load("digits")
    config = updated(latent_diffusion.CONFIG, {"sampler": {"steps": sampling_steps}})
    if name == LATENT:
        model = recipes.build(config, spec).model
    else:
        model = diffusion_model(config, configs.UNetConfig(), spec).model
    return draws(model, spec)


def draws(model: "Model", spec: "Spec") -> timing.Run:
    """Returns run(count), which draws NUM_SAMPLES samples of a model `count` times, with parameters of zero."""
    import jax
    import jax.numpy as jnp

    from gm_jax.runner.run import abstract_batch

    shapes = jax.eval_shape(model.init, jax.random.key(0), abstract_batch(spec, 1))
    params, model_state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    sample = jax.jit(model.sample, static_argnums=3)

    def run(count: int) -> None:
        drawn = None
        for _ in range(count):
            drawn = sample(params, model_state, jax.random.key(0), NUM_SAMPLES)
        jax.block_until_ready(drawn)

    return run


def measure(args: Args) -> dict[str, Any]:
    """Times both samplers in turns."""
    ours, theirs = ({name: timing.Case(make_run, name, args.sampling_steps)} for name in (LATENT, PIXEL))
    title = f"a sample in {args.sampling_steps} steps"
    return {"comparison": comparison.compare(title, ours, theirs, args, units=NUM_SAMPLES)}


def report(results: dict[str, Any]) -> str:
    """Returns the comparison as a Markdown table."""
    return comparison.table([results["comparison"]])


if __name__ == "__main__":
    command.main(__spec__.name, Args, measure, report, against="jax")
