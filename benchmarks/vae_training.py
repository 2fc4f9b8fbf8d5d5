"""How fast a VAE trains: gm_jax's step compared with the same model in PyTorch, and the cost of the loop around it.

    pip install -e '.[benchmarks]'            # PyTorch
    python -m benchmarks.vae_training         # about five minutes on an idle machine

The model is 784-500-500-50 and back, tanh, with a Bernoulli decoder, the ELBO with one sample, and Adam at 1e-3,
float32. Both sides start from the same parameters and take a new batch of binary uint8 images from host memory in each
step. gm_jax runs what an experiment runs: batches of `data.pipeline`, `make_train_step` compiled by `parallel.jit`,
STEPS_PER_CALL steps per call; it also computes the metrics that a run logs, such as the norm of the gradient. PyTorch
runs `torch_vae`. Before anything is timed, both must give the same loss and gradients for the same parameters, data and
noise.

The loop is `training.loop.fit` with everything that a run does at each step and at each line of its log, on new batches
from the host. It is compared with the bare compiled step, called repeatedly on one batch that is already on the device.
"""

import contextlib
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import command, timing, train_step

if TYPE_CHECKING:
    from gm_jax.types import Array, Key, Model

NUM_EXAMPLES = 50_000
STEPS_PER_CALL = 10
LOG_EVERY = 100
TOLERANCE = 1e-4


class Size(NamedTuple):
    """The widths of a model for square images."""

    side: int
    hidden: tuple[int, ...]
    latent_dim: int

    def __str__(self) -> str:
        return "VAE " + "-".join(map(str, (self.side**2, *self.hidden, self.latent_dim)))


PAPER = Size(28, (500, 500), 50)
TINY = Size(4, (16, 16), 2)  # a step is almost pure overhead


class Work(NamedTuple):
    """A model, and the work of one call of its compiled step."""

    size: Size
    batch_size: int
    steps: int

    def __str__(self) -> str:
        return f"{self.size}, batch {self.batch_size}, {self.steps} steps per call"


@dataclasses.dataclass(frozen=True)
class Args(command.Args):
    """Time VAE training in gm_jax and in PyTorch, and the loop around gm_jax's step."""

    compile: bool = False
    """Also time torch.compile with PyTorch's fused Adam; needs a C++ compiler."""


def images(size: Size) -> np.ndarray:
    """Makes binary images [N, H, W, 1] uint8 of ten hidden causes, so that there is something to learn."""
    rng = np.random.default_rng(0)
    causes = rng.standard_normal((NUM_EXAMPLES, 10), np.float32)
    pixels = causes @ rng.standard_normal((10, size.side**2), np.float32) > 2.0
    return pixels.astype(np.uint8).reshape(-1, size.side, size.side, 1)


def model(size: Size, objective: Callable) -> "Model":
    """Builds the VAE that experiments/vae.py builds at this size."""
    from gm_jax.models import decoder_likelihoods, vae
    from gm_jax.networks import mlp
    from gm_jax.ops import binarization

    return vae.VAE(
        encoder=mlp.MLPEncoder(size.hidden, size.latent_dim, dtype="float32"),
        decoder=mlp.MLPDecoder(size.hidden[::-1], (size.side, size.side, 1), dtype="float32"),
        likelihood=decoder_likelihoods.bernoulli(lambda key, x: binarization.static(x), levels=2),
        latent_dim=size.latent_dim,
        objective=objective,
    ).model


def training(work: Work) -> train_step.Training:
    """Describes the training from the model's own initial parameters."""
    from gm_jax.models import vae

    return train_step.Training(
        model(work.size, vae.elbo_objective()), {"x": images(work.size)}, work.batch_size, work.steps
    )


def make_bare_step(work: Work) -> timing.Run:
    """Makes the compiled step alone, on one batch; a unit of work is one call."""
    import jax

    state, train, batches = train_step.ready(training(work))
    batch = jax.block_until_ready(batches(0))

    def run(calls: int) -> None:
        nonlocal state
        for _ in range(calls):
            state, _ = train(state, batch)
        jax.block_until_ready(state)

    return run


def make_fit(work: Work) -> timing.Run:
    """Makes the loop with the effects of a run between two validations; a unit of work is one call of its step.

    Every sample opens and closes its files, about 20 ms that count against the loop: use samples of at least a second.
    """
    import jax
    import tensorboardX
    from tqdm import tqdm

    from gm_jax.training import loop, metrics

    state, train, batches = train_step.ready(training(work))

    def run(calls: int) -> None:
        nonlocal state
        first_step = int(state.step)
        last_step = first_step + calls * work.steps
        schedule = loop.Schedule(last_step, work.steps, LOG_EVERY, checkpoint_every=last_step)
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            log = stack.enter_context(contextlib.closing(metrics.MetricsLog(folder / "metrics.jsonl")))
            events = stack.enter_context(contextlib.closing(tensorboardX.SummaryWriter(str(folder))))
            shown = stack.enter_context((folder / "progress").open("w"))
            bar = stack.enter_context(tqdm(total=last_step, initial=first_step, unit="step", file=shown))

            def write(step: int, values: dict[str, float]) -> None:
                log.write(step, "train", values)
                for name, value in values.items():
                    events.add_scalar(f"train/{name}", value, step)
                bar.set_postfix_str(f"loss {values['loss']:.4g}")

            effects = loop.Effects(
                log=write,
                validate=lambda step, state: None,
                save=lambda step, state, validation: None,
                tick=lambda step: bar.update(step - bar.n),
            )
            state = jax.block_until_ready(loop.fit(state, train, batches, schedule, effects))

    return run


class Evaluation(NamedTuple):
    """One evaluation of our loss, with everything that another implementation needs to repeat it.

    Attributes:
        layers: (kernel [in, out], bias [out]) of the encoder, then of the decoder.
        x: binary images [B, D], float32.
        eps: the noise [B, Z] that was drawn.
        loss: the loss, a mean over the batch.
        grads: gradients of the loss, in the layout of `layers`.
    """

    layers: list[tuple[np.ndarray, np.ndarray]]
    x: np.ndarray
    eps: np.ndarray
    loss: float
    grads: list[tuple[np.ndarray, np.ndarray]]


def evaluate(size: Size, batch_size: int) -> Evaluation:
    """Evaluates the objective that is trained: its loss, its gradients, and the noise that it drew."""
    import jax
    import jax.numpy as jnp

    from gm_jax.models import vae

    elbo = vae.elbo_objective()

    def elbo_with_noise(
        key: "Key", mean: "Array", log_var: "Array", nll_fn: Callable
    ) -> tuple["Array", Mapping[str, "Array"]]:
        drawn = []
        loss, _ = elbo(key, mean, log_var, lambda z: (drawn.append(z), nll_fn(z))[1])
        return loss, {"eps": (drawn[0][0] - mean) * jnp.exp(-0.5 * log_var)}

    def layers(networks: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
        mlps = (networks[name]["MLP_0"] for name in ("encoder", "decoder"))
        dense = [mlp[f"Dense_{index}"] for mlp in mlps for index in range(len(mlp))]
        return [(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in dense]

    vae_model = model(size, elbo_with_noise)
    x = images(size)[:batch_size]
    params, model_state = vae_model.init(jax.random.key(0), {"x": x})
    loss_and_grads = jax.jit(jax.value_and_grad(vae_model.objectives[0].loss, has_aux=True))
    (loss, (_, metrics)), grads = loss_and_grads(params, model_state, jax.random.key(1), {"x": x})
    flat_x = x.reshape(batch_size, -1).astype(np.float32)
    return Evaluation(layers(params["vae"]), flat_x, np.asarray(metrics["eps"]), float(loss), layers(grads["vae"]))


def check_parity(ours: Evaluation) -> dict[str, float]:
    """Checks that both programs compute the same.

    Returns:
        Relative differences of PyTorch's loss and gradients from ours (for gradients, that of the worst array).

    Raises:
        RuntimeError: they differ by more than TOLERANCE.
    """
    from benchmarks import torch_vae

    loss, grads = timing.in_own_process(torch_vae.loss_and_grads, ours.layers, ours.x, ours.eps)
    pairs = zip(itertools.chain(*grads), itertools.chain(*ours.grads), strict=True)
    worst = max(float(np.linalg.norm(theirs - own) / np.linalg.norm(own)) for theirs, own in pairs)
    differences = {"loss": abs(loss - ours.loss) / abs(ours.loss), "gradients": worst}
    if not max(differences.values()) <= TOLERANCE:
        raise RuntimeError(f"the models differ: relative differences {differences}, at most {TOLERANCE} is allowed")
    return differences


def against_torch(work: Work, layers: list, args: Args, *, at_least: float) -> dict[str, Any]:
    """Times the step of both sides: one row of the first table."""
    from benchmarks import torch_vae

    flat = images(work.size).reshape(NUM_EXAMPLES, -1)
    cases = {"gm_jax": timing.Case(train_step.make_run, training, (work,))}
    for peer, compiled in {"PyTorch eager": False, "torch.compile": True}.items():
        if args.compile or not compiled:
            theirs = (layers, flat, work.batch_size, work.steps, train_step.LEARNING_RATE, compiled)
            cases[peer] = timing.Case(torch_vae.make_steps, *theirs)
    rounds = timing.alternate(cases, rounds=args.rounds, seconds=args.seconds, title=str(work))
    ratios = {peer: timing.ratio(rounds, over=peer, under="gm_jax") for peer in cases if peer != "gm_jax"}
    medians = {name: timing.median_seconds(rounds, name) for name in cases}
    examples = work.steps * work.batch_size
    return {
        "batch_size": work.batch_size,
        "examples_per_second": {name: seconds and examples / seconds for name, seconds in medians.items()},
        "ratios": {peer: ratio._asdict() for peer, ratio in ratios.items()},
        "cells": [
            str(work.batch_size),
            *(timing.number(seconds and examples / seconds, ",.0f") for seconds in medians.values()),
            *map(str, ratios.values()),
            timing.verdict(ratios["PyTorch eager"], at_least=at_least),
            ", ".join(ratio.cleanliness for ratio in ratios.values()),
        ],
        "rounds": rounds,
    }


def against_bare_step(work: Work, args: Args, *, at_most: float | None = None) -> dict[str, Any]:
    """Times the loop and the bare step: one row of the second table."""
    cases = {"bare": timing.Case(make_bare_step, work), "fit": timing.Case(make_fit, work)}
    rounds = timing.alternate(cases, rounds=args.rounds, seconds=args.seconds, title=f"loop of {work}")
    ratio = timing.ratio(rounds, over="fit", under="bare")
    medians = {name: timing.median_seconds(rounds, name) for name in cases}
    return {
        **work._asdict(),
        "seconds_per_step": {name: seconds and seconds / work.steps for name, seconds in medians.items()},
        "ratio": ratio._asdict(),
        "cells": [
            str(work.size),
            str(work.batch_size),
            str(work.steps),
            *(timing.number(seconds and 1e6 * seconds / work.steps, ",.1f") for seconds in medians.values()),
            str(ratio),
            "-" if at_most is None else timing.verdict(ratio, at_most=at_most),
            ratio.cleanliness,
        ],
        "rounds": rounds,
    }


def measure(args: Args) -> dict[str, Any]:
    """Checks parity, then measures the step of both sides and the loop around ours."""
    ours = timing.in_own_process(evaluate, PAPER, 256)
    return {
        "parity": check_parity(ours),
        "training": [
            against_torch(Work(PAPER, 256, STEPS_PER_CALL), ours.layers, args, at_least=1.3),
            against_torch(Work(PAPER, 32, STEPS_PER_CALL), ours.layers, args, at_least=1.7),
        ],
        "loop": [
            against_bare_step(Work(PAPER, 256, STEPS_PER_CALL), args, at_most=1.1),
            against_bare_step(Work(PAPER, 32, STEPS_PER_CALL), args, at_most=1.1),
            *(against_bare_step(Work(TINY, 32, steps), args) for steps in (1, 10, 100)),
        ],
    }


def report(results: dict[str, Any]) -> str:
    """Formats the results as Markdown."""
    peers = list(results["training"][0]["ratios"])
    speeds = [f"{name}, examples/s" for name in ("gm_jax", *peers)]
    ahead = [f"times {peer}" for peer in peers]
    times = ["bare step, us/step", "fit, us/step", "fit / bare"]
    parity = "Same parameters, data and noise: the loss differs by {loss:.0e}, gradients by at most {gradients:.0e}."
    return "\n\n".join(
        [
            f"{PAPER}, Bernoulli, Adam, float32, {STEPS_PER_CALL} steps per call; medians of clean rounds (range):",
            timing.table(["batch", *speeds, *ahead, "goal", "clean"], [row["cells"] for row in results["training"]]),
            "The loop of `fit` compared with the bare compiled step:",
            timing.table(
                ["model", "batch", "steps per call", *times, "goal", "clean"], [row["cells"] for row in results["loop"]]
            ),
            parity.format(**results["parity"]),
        ]
    )


if __name__ == "__main__":
    command.main("benchmarks.vae_training", Args, measure, report)
