"""How fast a diffusion model trains and samples: gm_jax compared with Hugging Face diffusers on PyTorch.

    pip install -e '.[benchmarks]'              # PyTorch, diffusers
    python -m benchmarks.diffusion_training     # about a quarter of an hour on an idle machine

The U-Net of DDPM has 28 x 28 x 1 images, channels (32, 64, 64), one block per level, self-attention with 8 channels per
head on the second level and in the middle, and batch size 64. A step is noise, forward, backward and Adam at 1e-3,
float32, on a new batch of uint8 images from host memory. gm_jax runs what an experiment runs: the model's objective in
`make_train_step`, compiled by `parallel.jit`, fed by `data.pipeline`. diffusers runs `torch_diffusion`, eager:
`UNet2DModel`, `DDPMScheduler`, `mse_loss`, `torch.optim.Adam`. Sampling draws 64 images by DDIM in 50 steps, in
diffusers by `DDIMScheduler`. Before anything is timed, both networks must give the same outputs and gradients for
random parameters, none of them zero.

The row "gm_jax" uses the XLA flags of experiments (`gm_jax.runner.xla_flags`), and the goals apply to it: by default
jaxlib 0.10.2 runs a convolution in one thread on a CPU. The next row shows the speed without these flags.
"""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import command, comparison, timing, train_step

if TYPE_CHECKING:
    from gm_jax.models.diffusion import Diffusion

TOLERANCE = 1e-4
SHAPE, BATCH, NUM_STEPS, VISITED = (28, 28, 1), 64, 1_000, 50


class Args(command.FlaggedArgs):
    """Time the training and the sampling of a diffusion model in gm_jax and in diffusers."""


def data() -> np.ndarray:
    """Makes random images [N, 28, 28, 1] uint8."""
    return np.random.default_rng(0).integers(0, 256, (2_000, *SHAPE), np.uint8)


def model() -> "Diffusion":
    """Builds DDPM with the U-Net of diffusers (eight channels per head) and the DDIM sampler."""
    from gm_jax.models import diffusion, diffusion_space
    from gm_jax.networks.unet import UNet
    from gm_jax.ops import diffusion_process
    from gm_jax.samplers.ddim import ddim

    schedule = diffusion_process.linear_schedule(NUM_STEPS)
    return diffusion.Diffusion(
        network=UNet((32, 64, 64), attention=(1,), head_dim=8),
        space=diffusion_space.pixels(levels=256),
        schedule=schedule,
        shape=SHAPE,
        parameterization=diffusion.noise_prediction(),
        sampler=ddim(schedule, VISITED),
        variance_fn=diffusion_process.posterior_variance,
    )


def random_params() -> dict[str, Any]:
    """Draws parameters of the network, none of them zero, without compiling anything."""
    import jax

    rng = np.random.default_rng(1)

    def draw(leaf: Any) -> np.ndarray:
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 25.0
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    shapes, _ = jax.eval_shape(model().model.init, jax.random.key(0), {"x": data()[:1]})
    return jax.tree.map(draw, shapes["diffusion"])


def evaluate() -> tuple[dict, tuple, np.ndarray, dict]:
    """Returns our parameters, (x_t, t, eps), the outputs, and the gradients of their mean squared error to eps."""
    import jax
    import jax.numpy as jnp

    from gm_jax.networks.unet import UNet

    network, params, rng = UNet((32, 64, 64), attention=(1,), head_dim=8), random_params(), np.random.default_rng(2)
    x_t, eps = (rng.normal(size=(8, *SHAPE)).astype(np.float32) for _ in range(2))
    t = np.asarray([1, 2, 10, 50, 200, 500, 900, 1000], np.int32)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        outputs = network.apply({"params": params}, x_t, t)
        return jnp.mean(jnp.square(outputs - eps)), outputs

    grads, outputs = jax.jit(jax.grad(loss, has_aux=True))(params)
    flat = {tuple(key.key for key in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(grads)}
    return params, (x_t, t, eps), np.asarray(outputs), flat


def check_parity() -> tuple[dict[str, Any], dict[str, float]]:
    """Checks that both networks compute the same.

    Returns:
        Our parameters, and the relative differences of diffusers' outputs and gradients from ours (for gradients, that
        of the worst array).

    Raises:
        RuntimeError: they differ by more than TOLERANCE.
    """
    from benchmarks import torch_diffusion

    params, inputs, outputs, grads = timing.in_own_process(evaluate)
    their_outputs, their_grads = timing.in_own_process(torch_diffusion.outputs_and_grads, params, *inputs)
    if set(grads) != set(their_grads):
        raise RuntimeError(f"arrays without a counterpart: {sorted(set(grads) ^ set(their_grads))}")
    largest = max(float(np.linalg.norm(own)) for own in grads.values())
    worst = max(
        float(np.linalg.norm(their_grads[path] - own) / max(np.linalg.norm(own), 1e-3 * largest))
        for path, own in grads.items()
    )
    of_outputs = float(np.linalg.norm(their_outputs - outputs) / np.linalg.norm(outputs))
    differences = {"outputs": of_outputs, "gradients": worst}
    if not max(differences.values()) <= TOLERANCE:
        raise RuntimeError(f"the networks differ: relative differences {differences}, at most {TOLERANCE} is allowed")
    return params, differences


def training(params: dict[str, Any]) -> train_step.Training:
    """Describes the training from given parameters."""
    return train_step.Training(model().model, {"x": data()}, BATCH, params={"diffusion": params})


def make_samples(params: dict[str, Any], xla_flags: str) -> timing.Run:
    """Makes the sampler; a unit of work is BATCH images, uint8."""
    timing.add_xla_flags(xla_flags)
    import jax

    sample = jax.jit(model().model.sample, static_argnums=3)
    keys = itertools.count()

    def run(calls: int) -> None:
        for seed in itertools.islice(keys, calls):
            jax.block_until_ready(sample({"diffusion": params}, {}, jax.random.key(seed), BATCH))

    return run


def measure(args: Args) -> dict[str, Any]:
    """Checks parity, then measures compile time, training and sampling."""
    from benchmarks import torch_diffusion

    params, differences = check_parity()
    flags = comparison.flags_of_ours(args.experiment_flags)
    compiling = train_step.compiling(training, (params,), flags)
    steps = train_step.cases(training, (params,), flags)
    settings = (params, data(), NUM_STEPS, BATCH, train_step.LEARNING_RATE)
    theirs = {"diffusers": timing.Case(torch_diffusion.make_steps, *settings)}
    tables = [comparison.compare(f"a train step of {BATCH}", steps, theirs, args, at_least=0.85)]
    samplers = {name: timing.Case(make_samples, params, flag) for name, flag in flags.items()}
    side, _, channels = SHAPE
    settings = (params, side, channels, NUM_STEPS, VISITED, BATCH)
    theirs = {"diffusers": timing.Case(torch_diffusion.make_samples, *settings)}
    title = f"{BATCH} samples in {VISITED} steps"
    tables.append(comparison.compare(title, samplers, theirs, args, at_least=1.0))
    return {"parity": differences, "compile_seconds": compiling, "tables": tables}


def report(results: dict[str, Any]) -> str:
    """Formats the results as Markdown."""
    compiling = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in results["compile_seconds"].items())
    parity = "Same parameters and data: outputs differ by {outputs:.0e}, gradients by at most {gradients:.0e}."
    return "\n\n".join(
        [
            "U-Net (32, 64, 64), 28 x 28 x 1, float32; medians of clean rounds (range):",
            comparison.table(results["tables"]),
            f"Compiling our step, once: {compiling}.",
            parity.format(**results["parity"]),
        ]
    )


if __name__ == "__main__":
    command.main("benchmarks.diffusion_training", Args, measure, report, against="diffusers")
