"""How fast autoregressive models train: gm_jax's step against the same network in PyTorch.

    pip install -e '.[benchmarks]'                    # PyTorch
    python -m benchmarks.autoregressive_training      # some ten minutes, on a machine that does nothing else
    python -m benchmarks.autoregressive_training --only nade

A step is forward, backward and Adam at 1e-3, float32, on binary 28 x 28 images that come from host memory, a new batch
each step. Ours is what an experiment runs: the model's own objective in `make_train_step`, compiled by `parallel.jit`,
STEPS_PER_CALL steps a call, fed by `data.pipeline`; it also computes the metrics that a run logs, such as the
gradient's norm. PyTorch's is `torch_autoregressive`, eager. Both start from the same parameters, and before anything
is timed they must give the same loss and gradients.

XLA's flags decide much where there are convolutions: jaxlib 0.10.2 gives a convolution one thread on a CPU by default.
So experiments run with another choice there (`gm_jax.runner.cpu_flags`), and so does the row "gm_jax", of which the
goals are; one more row shows what code of one's own gets without it.

NADE in PyTorch comes twice: as it is usually written, W[i] in a loop, where each index costs the backward pass a
gradient of the whole matrix; and with the rows taken apart beforehand, which few do. The goal is against the first.
"""

import dataclasses
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from benchmarks import timing, torch_parity, vae_training
from benchmarks.torch_parity import Pair
from gm_jax.errors import UserError
from gm_jax.runner import cpu_flags

Rounds = Sequence[Mapping[str, timing.Sample]]

LEARNING_RATE = 1e-3
STEPS_PER_CALL = 10
OURS = "gm_jax"  # as experiments run it


class Work(NamedTuple):
    """What is trained, and what is wanted of it.

    Attributes:
        title: the network, in words.
        pair: the network.
        batch_size: examples a step.
        at_least: the goal, PyTorch's time over ours.
        convolutional: XLA's flags matter.
        others: name -> the same network, written otherwise in PyTorch; no goal is against it.
    """

    title: str
    pair: Pair
    batch_size: int
    at_least: float
    convolutional: bool = False
    others: tuple[tuple[str, Pair], ...] = ()

    @property
    def peers(self) -> dict[str, Pair]:
        """Name -> PyTorch's network."""
        return {"PyTorch": self.pair, **dict(self.others)}

    def __str__(self) -> str:
        return f"{self.title}, batch {self.batch_size}"


ROWS_APART = torch_parity.NADE._replace(sizes={**torch_parity.NADE.sizes, "unbound": True})
WORKS = {
    "made": Work("MADE 784-500", torch_parity.MADE, 100, 1.3),
    "made_256": Work("MADE 784-500", torch_parity.MADE, 256, 1.3),
    "nade": Work("NADE 500", torch_parity.NADE, 100, 3.5, others=(("PyTorch, rows apart", ROWS_APART),)),
    "gated_pixelcnn": Work("gated PixelCNN, 8 x 64", torch_parity.GATED_PIXELCNN, 16, 1.1, convolutional=True),
}
Name = Literal["made", "made_256", "nade", "gated_pixelcnn"]


@dataclasses.dataclass(frozen=True)
class Args:
    """Time the training of autoregressive models in gm_jax and in PyTorch."""

    only: tuple[Name, ...] = ()
    """What to time; all by default."""
    rounds: int = 9
    """Clean rounds wanted of each comparison; at most twice as many are run."""
    seconds: float = 1.0
    """Length of one sample, where a unit of work is not longer."""
    experiment_flags: str = cpu_flags.FLAG
    """Added to XLA_FLAGS, as experiments do; networks with convolutions are timed without, too. Empty for a jaxlib that
    does not know them, for XLA would end the process."""
    json: Path | None = None
    """Where to write the results and every sample."""


def make_steps(work: Work, xla_flags: str) -> timing.Run:
    """Our compiled step on new host batches; a unit of work is one call."""
    timing.add_xla_flags(xla_flags)
    import jax

    from gm_jax.data import pipeline
    from gm_jax.models import autoregressive
    from gm_jax.training import optimizers, parallel, state, step

    network, output = torch_parity.network(work.pair), torch_parity.output(work.pair)
    model = autoregressive.autoregressive(network, output, shape=work.pair.shape).model
    adam = {"autoregressive": optimizers.adam(optimizers.constant_schedule(LEARNING_RATE))}
    strategy = parallel.jit()
    split = {"x": vae_training.images(vae_training.PAPER)}
    initial = state.create(model, adam, jax.random.key(0), pipeline.train_batch(split, work.batch_size, 0, 0))
    initial = initial._replace(params={"autoregressive": torch_parity.parameters(work.pair)})
    train = strategy.compile(step.make_train_step(model, adam, seed=0))
    train_state, first_steps = strategy.place(initial), itertools.count(0, STEPS_PER_CALL)

    def run(calls: int) -> None:
        nonlocal train_state
        for first_step in itertools.islice(first_steps, calls):
            batches = pipeline.train_batches(split, work.batch_size, 0, first_step, STEPS_PER_CALL)
            train_state, _ = train(train_state, strategy.place_batches(batches))
        jax.block_until_ready(train_state)

    return run


def against_torch(work: Work, args: Args) -> dict[str, Any]:
    """The step of both, timed: rows of the table, one for each of our flags and each of PyTorch's networks."""
    from benchmarks import torch_autoregressive

    parity = [torch_parity.check(pair, 4, with_grads=True) for pair in work.peers.values()]
    arrays = timing.in_own_process(torch_parity.initial_arrays, work.pair)
    images = vae_training.images(vae_training.PAPER).reshape(-1, work.pair.num_dims)
    ours = {OURS: timing.Case(make_steps, work, args.experiment_flags)}
    if work.convolutional and args.experiment_flags:
        ours[f"{OURS}, jaxlib's default flags"] = timing.Case(make_steps, work, "")
    peers = {}
    for name, pair in work.peers.items():
        theirs = (pair.name, dict(pair.sizes), arrays, images, work.batch_size, STEPS_PER_CALL, LEARNING_RATE)
        peers[name] = timing.Case(torch_autoregressive.make_steps, *theirs)
    rounds = timing.alternate({**ours, **peers}, rounds=args.rounds, seconds=args.seconds, title=str(work))
    return {"parity": parity, **rows_of(work, tuple(ours), rounds)}


def rows_of(work: Work, ours: Sequence[str], rounds: Rounds) -> dict[str, Any]:
    """What the samples of a network say, of each of ours and each of PyTorch's."""
    peers = tuple(work.peers)
    medians = {name: timing.median_seconds(rounds, name) for name in (*ours, *peers)}
    per_step = {name: seconds and seconds / STEPS_PER_CALL for name, seconds in medians.items()}
    ratios = {(our, peer): timing.ratio(rounds, over=peer, under=our) for our in ours for peer in peers}
    return {
        "network": work.title,
        "batch_size": work.batch_size,
        "seconds_per_step": per_step,
        "ratios": [{"under": our, "over": peer, **ratio._asdict()} for (our, peer), ratio in ratios.items()],
        "cells": [
            [
                work.title,
                str(work.batch_size),
                our,
                timing.number(per_step[our] and 1e3 * per_step[our], ".4g"),
                peer,
                timing.number(per_step[peer] and 1e3 * per_step[peer], ".4g"),
                str(ratio),
                timing.verdict(ratio, at_least=work.at_least) if (our, peer) == (OURS, "PyTorch") else "-",
                ratio.cleanliness,
            ]
            for (our, peer), ratio in ratios.items()
        ],
        "rounds": rounds,
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    header = ["network", "batch", "ours", "ms/step", "against", "ms/step", "times", "goal", "clean"]
    checked = [differences for row in results["training"] for differences in row["parity"]]
    worst = {name: max(differences[name] for differences in checked) for name in ("loss", "gradients")}
    parity = "Same parameters and data: a loss differs by {loss:.0e}, a gradient by {gradients:.0e} at most."
    return "\n\n".join(
        [
            f"Forward, backward and Adam, float32, {STEPS_PER_CALL} steps a call; medians of clean rounds (range):",
            timing.table(header, [cells for row in results["training"] for cells in row["cells"]]),
            f"{OURS}: with XLA_FLAGS={results['experiment_flags']}, as experiments run.",
            parity.format(**worst),
            f"{results['machine']}; {', '.join(' '.join(item) for item in results['versions'].items())}.",
        ]
    )


def main(args: Args) -> None:
    """Check that both sides agree, time them, print the table.

    Raises:
        UserError: PyTorch is missing, or the machine cannot tell clean samples.
    """
    timing.check_machine()
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch, to compare with, is not installed: pip install -e '.[benchmarks]'")
    chosen = args.only or tuple(WORKS)
    results = {
        "machine": timing.machine(),
        "versions": timing.versions("jax", "jaxlib", "flax", "optax", "numpy", "torch"),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "experiment_flags": args.experiment_flags,
        "training": [against_torch(work, args) for name, work in WORKS.items() if name in chosen],
    }
    print(report(results))
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, prog="python -m benchmarks.autoregressive_training", description=Args.__doc__))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
