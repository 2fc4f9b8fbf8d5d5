"""How fast a DCGAN trains: gm_jax against the same networks in PyTorch.

    pip install -e '.[benchmarks]'          # PyTorch
    python -m benchmarks.gan_training       # some five minutes, on a machine that does nothing else

The DCGAN of 28 x 28 x 1 images, 64 and 128 channels, batch-normalised, 32 latents, batch 128. A step moves both
players: the discriminator on data and on generated examples in two calls, the generator by the non-saturating loss,
each with an Adam at 1e-3 and b1 = 0.5, float32, on a new batch of uint8 images from host memory. Ours is what
experiments run: the model's two objectives in `make_train_step`, one step a call, compiled by `parallel.jit`, fed by
`data.pipeline`. Theirs is `torch_gan`, eager. Ours draws new latents for the generator's loss, and so does the first of
theirs. The second, as PyTorch's tutorial does, takes the examples again that the discriminator has just learned from: a
pass of the generator less. Before anything is timed both must have as many parameters, the same losses and the same
gradients.

XLA's flags decide much where there are convolutions: jaxlib 0.10.2 gives a convolution one thread on a CPU by default.
So experiments run with another choice there (`gm_jax.runner.cpu_flags`), and so does the row "gm_jax", of which the
goal is; one more row shows what code of one's own gets without it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import command, comparison, timing, train_step

B1 = 0.5
TOLERANCE = 1e-4
SHAPE, WIDTHS, LATENT_DIM, BATCH = (28, 28, 1), (64, 128), 32, 128
THEIRS, TUTORIAL = "PyTorch", "PyTorch, the tutorial's loop"


class Args(command.FlaggedArgs):
    """Time the training of a DCGAN in gm_jax and in PyTorch."""


def data() -> np.ndarray:
    """Images [N, 28, 28, 1] uint8."""
    return np.random.default_rng(0).integers(0, 256, (5_000, *SHAPE), np.uint8)


def model():
    """The model that experiments/gan.py builds of this size."""
    from gm_jax.models import adversarial_objectives, gan
    from gm_jax.networks import dcgan

    return gan.GAN(
        generator=dcgan.DCGANGenerator(SHAPE, WIDTHS[::-1]),
        discriminator=dcgan.DCGANDiscriminator(WIDTHS),
        losses=adversarial_objectives.non_saturating(),
        scaling=gan.images(levels=256),
        latent_dim=LATENT_DIM,
    ).model


def random_params() -> dict[str, Any]:
    """Parameters of both players, none of them zero."""
    import jax

    rng = np.random.default_rng(1)
    shapes, _ = jax.eval_shape(model().init, jax.random.key(0), {"x": data()[:2]})

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:  # vectors are scales and biases: about 1
        return (0.05 * rng.normal(size=leaf.shape) + (len(leaf.shape) == 1)).astype(np.float32)

    return jax.tree.map(draw, shapes)


def arrays(params: Mapping[str, Any], side: int) -> dict[str, list[np.ndarray]]:
    """Parameters of both players as PyTorch has them, in its order: transposed, taps reversed, never scaled.

    It is linear, so that it turns gradients into gradients, too.
    """
    generator, discriminator = (params[player] for player in ("generator", "discriminator"))
    stages = sum(name.startswith("Conv_") for name in discriminator)
    smallest = (side // 2**stages,) * 2

    def norm(player: Mapping[str, Any], index: int) -> list[np.ndarray]:
        inner = player[f"BatchNorm_{index}"]["BatchNorm_0"]
        return [inner["scale"], inner["bias"]]

    # Maps are flattened with their channels last here, first there.
    kernel = generator["Dense_0"]["kernel"]
    made = [kernel.reshape(len(kernel), *smallest, -1).transpose(3, 1, 2, 0).reshape(-1, len(kernel))]
    for i in range(stages):
        layer = generator[f"FractionallyStridedConv_{i}"]
        made += [*norm(generator, i), layer["kernel"][::-1, ::-1].transpose(2, 3, 0, 1)]
    made.append(layer["bias"])

    judged = [discriminator["Conv_0"]["kernel"].transpose(3, 2, 0, 1), discriminator["Conv_0"]["bias"]]
    for i in range(1, stages):
        judged += [discriminator[f"Conv_{i}"]["kernel"].transpose(3, 2, 0, 1), *norm(discriminator, i - 1)]
    last = discriminator["Dense_0"]
    judged += [last["kernel"].reshape(*smallest, -1, 1).transpose(3, 2, 0, 1).reshape(1, -1), last["bias"]]
    return {"generator": made, "discriminator": judged}


def evaluate() -> tuple[dict, tuple, dict[str, float], dict]:
    """Our parameters, (data in [-1, 1], each player's latents), losses, and gradients as PyTorch has them."""
    import jax

    record, params, x, key = model(), random_params(), data()[:16], jax.random.key(2)
    _, state = jax.jit(record.init)(key, {"x": x})
    values, grads = {}, {}
    for objective in record.objectives:

        def loss(mine: Any, objective=objective) -> jax.Array:
            return objective.loss({**params, objective.wrt: mine}, state, key, {"x": x})[0]

        value, grads[objective.wrt] = jax.jit(jax.value_and_grad(loss))(params[objective.wrt])
        values[objective.wrt] = float(value)
    # What the objectives draw of this key.
    latents = [np.asarray(jax.random.normal(k, (len(x), LATENT_DIM))) for k in (jax.random.split(key)[0], key)]
    inputs = ((x / np.float32(127.5) - np.float32(1.0)), *latents)
    return params, inputs, values, arrays(jax.device_get(grads), SHAPE[0])


def check_parity() -> tuple[dict[str, Any], dict[str, Any]]:
    """Refuse to time two programs that compute different things.

    Returns:
        Our parameters; how many each player has on both sides, and how far PyTorch's losses and gradients are from
        ours, relative to ours; of the gradients, the worst array's.

    Raises:
        RuntimeError: they differ by more than TOLERANCE, or in number.
    """
    from benchmarks import torch_gan

    params, inputs, losses, grads = timing.in_own_process(evaluate)
    their_losses, their_grads = timing.in_own_process(torch_gan.losses_and_grads, params, *inputs)
    counts, worst = {}, 0.0
    for player, mine in grads.items():
        ours, theirs = sum(a.size for a in _leaves(params[player])), sum(a.size for a in their_grads[player])
        if ours != theirs:
            raise RuntimeError(f"not the same {player}: {ours} and {theirs} parameters")
        counts[player] = ours
        largest = max(np.linalg.norm(a) for a in mine)
        for one, other in zip(mine, their_grads[player], strict=True):
            worst = max(worst, float(np.linalg.norm(other - one) / max(np.linalg.norm(one), 1e-3 * largest)))
    of_losses = max(abs(their_losses[player] - losses[player]) / abs(losses[player]) for player in losses)
    if not max(of_losses, worst) <= TOLERANCE:
        raise RuntimeError(f"not the same: losses differ by {of_losses}, gradients by {worst}; {TOLERANCE} allowed")
    return params, {"parameters": counts, "losses": of_losses, "gradients": worst}


def training(params: dict[str, Any]) -> train_step.Training:
    """What is trained, from given parameters."""
    return train_step.Training(model(), {"x": data()}, BATCH, params=params, b1=B1)


def _leaves(tree: Any) -> list[np.ndarray]:
    return [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, Mapping) else [tree]


def measure(args: Args) -> dict[str, Any]:
    """Parity, compile time, and all cases timed in turns."""
    from benchmarks import torch_gan

    params, parity = check_parity()
    flags = comparison.flags_of_ours(args.experiment_flags)
    compiling = train_step.compiling(training, (params,), flags)
    ours = train_step.cases(training, (params,), flags)
    settings = (params, data(), BATCH, 1, train_step.LEARNING_RATE, B1)
    theirs = {
        name: timing.Case(torch_gan.make_steps, *settings, anew) for name, anew in ((THEIRS, True), (TUTORIAL, False))
    }
    title = f"DCGAN {SHAPE[0]}x{SHAPE[1]}, {WIDTHS} channels, batch {BATCH}"
    step = comparison.compare(title, ours, theirs, args, at_least=1.0)
    return {"parity": parity, "compile_seconds": compiling, "step": step}


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    compiling = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in results["compile_seconds"].items())
    parity = results["parity"]
    players = ", ".join(f"{player} {count:,}" for player, count in parity["parameters"].items())
    return "\n\n".join(
        [
            "A step of both players, float32; medians of clean rounds (range):",
            comparison.table([results["step"]]),
            f"Compiling our step, once: {compiling}.",
            f"Parameters on both sides: {players}. Losses differ by {parity['losses']:.0e}, an array's gradient by "
            f"{parity['gradients']:.0e} at most.",
        ]
    )


if __name__ == "__main__":
    command.main("benchmarks.gan_training", Args, measure, report)
