"""How fast a DCGAN trains: gm_jax compared with the same networks in PyTorch.

    pip install -e '.[benchmarks]'          # PyTorch
    python -m benchmarks.gan_training       # about five minutes on an idle machine

The DCGAN has 28 x 28 x 1 images, 64 and 128 channels, batch normalisation, 32 latents and batch size 128. A step
updates both players: the discriminator on data and on generated examples in two calls, the generator by the
non-saturating loss, each with Adam at 1e-3 and b1 = 0.5, float32, on a new batch of uint8 images from host memory.
gm_jax runs what an experiment runs: the two objectives of the model in `make_train_step`, one step per call, compiled
by `parallel.jit`, fed by `data.pipeline`. PyTorch runs `torch_gan`, eager, in two ways. The first draws new latents for
the generator's loss, as gm_jax does. The second reuses the examples of the discriminator's update, as PyTorch's
tutorial does, and saves a pass of the generator. Before anything is timed, both sides must have the same number of
parameters, losses and gradients.

The row "gm_jax" uses the XLA flags of experiments (`gm_jax.runner.xla_flags`), and the goal applies to it: by default
jaxlib 0.10.2 runs a convolution in one thread on a CPU. The next row shows the speed without these flags.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import command, comparison, gan_case, timing, train_step
from benchmarks.gan_case import LATENT_DIM, SHAPE, WIDTHS

B1 = 0.5
TOLERANCE = 1e-4
BATCH = 128
THEIRS, TUTORIAL = "PyTorch", "PyTorch, the tutorial's loop"


class Args(command.FlaggedArgs):
    """Time the training of a DCGAN in gm_jax and in PyTorch."""


def evaluate() -> tuple[dict, tuple, dict[str, float], dict]:
    """Returns our parameters, (data in [-1, 1], latents of each player), losses, and gradients in PyTorch's layout."""
    import jax

    from gm_jax.types import Objective

    record, params, x, key = gan_case.model(), gan_case.random_params(), gan_case.data()[:16], jax.random.key(2)
    _, state = jax.jit(record.init)(key, {"x": x})
    values, grads = {}, {}
    for objective in record.objectives:

        def loss(player: Any, objective: Objective = objective) -> jax.Array:
            return objective.loss({**params, objective.wrt: player}, state, key, {"x": x})[0]

        value, grads[objective.wrt] = jax.jit(jax.value_and_grad(loss))(params[objective.wrt])
        values[objective.wrt] = float(value)
    # The latents that the objectives draw with this key.
    latents = [np.asarray(jax.random.normal(k, (len(x), LATENT_DIM))) for k in (jax.random.split(key)[0], key)]
    inputs = ((x / np.float32(127.5) - np.float32(1.0)), *latents)
    return params, inputs, values, gan_case.arrays(jax.device_get(grads), SHAPE[0])


def check_parity() -> tuple[dict[str, Any], dict[str, Any]]:
    """Checks that both programs compute the same.

    Returns:
        Our parameters; the number of parameters per player, and the relative differences of PyTorch's losses and
        gradients from ours (for gradients, that of the worst array).

    Raises:
        RuntimeError: they differ by more than TOLERANCE, or in their number of parameters.
    """
    from benchmarks import torch_gan

    params, inputs, losses, grads = timing.in_own_process(evaluate)
    their_losses, their_grads = timing.in_own_process(torch_gan.losses_and_grads, params, *inputs)
    counts, worst = {}, 0.0
    for player, own in grads.items():
        ours, theirs = sum(a.size for a in _leaves(params[player])), sum(a.size for a in their_grads[player])
        if ours != theirs:
            raise RuntimeError(f"the {player}s differ: {ours} and {theirs} parameters")
        counts[player] = ours
        largest = max(np.linalg.norm(a) for a in own)
        for one, other in zip(own, their_grads[player], strict=True):
            worst = max(worst, float(np.linalg.norm(other - one) / max(np.linalg.norm(one), 1e-3 * largest)))
    of_losses = max(abs(their_losses[player] - losses[player]) / abs(losses[player]) for player in losses)
    if not max(of_losses, worst) <= TOLERANCE:
        raise RuntimeError(f"losses differ by {of_losses}, gradients by {worst}: at most {TOLERANCE} is allowed")
    return params, {"parameters": counts, "losses": of_losses, "gradients": worst}


def training(params: dict[str, Any]) -> train_step.Training:
    """Describes the training from given parameters."""
    return train_step.Training(gan_case.model(), {"x": gan_case.data()}, BATCH, params=params, b1=B1)


def _leaves(tree: Any) -> list[np.ndarray]:
    return [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, Mapping) else [tree]


def measure(args: Args) -> dict[str, Any]:
    """Checks parity, then measures compile time and all cases in turns."""
    from benchmarks import torch_gan

    params, parity = check_parity()
    flags = comparison.flags_of_ours(args.experiment_flags)
    compiling = train_step.compiling(training, (params,), flags)
    ours = train_step.cases(training, (params,), flags)
    settings = (params, gan_case.data(), BATCH, 1, train_step.LEARNING_RATE, B1)
    theirs = {
        name: timing.Case(torch_gan.make_steps, *settings, redraw)
        for name, redraw in ((THEIRS, True), (TUTORIAL, False))
    }
    title = f"DCGAN {SHAPE[0]}x{SHAPE[1]}, {WIDTHS} channels, batch {BATCH}"
    step = comparison.compare(title, ours, theirs, args, at_least=1.0)
    return {"parity": parity, "compile_seconds": compiling, "step": step}


def report(results: dict[str, Any]) -> str:
    """Formats the results as Markdown."""
    compiling = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in results["compile_seconds"].items())
    parity = results["parity"]
    players = ", ".join(f"{player} {count:,}" for player, count in parity["parameters"].items())
    return "\n\n".join(
        [
            "A step of both players, float32; medians of clean rounds (range):",
            comparison.table([results["step"]]),
            f"Compiling our step, once: {compiling}.",
            f"Parameters on both sides: {players}. Losses differ by at most {parity['losses']:.0e}, the gradient of an "
            f"array by at most {parity['gradients']:.0e}.",
        ]
    )


if __name__ == "__main__":
    command.main("benchmarks.gan_training", Args, measure, report)
