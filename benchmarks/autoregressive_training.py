"""How fast autoregressive models train: gm_jax's step compared with the same network in PyTorch.

    pip install -e '.[benchmarks]'                    # PyTorch
    python -m benchmarks.autoregressive_training      # about ten minutes on an idle machine
    python -m benchmarks.autoregressive_training --only nade

A step is forward, backward and Adam at 1e-3, float32, on a new batch of binary 28 x 28 images from host memory. gm_jax
runs what an experiment runs: the model's objective in `make_train_step`, compiled by `parallel.jit`, STEPS_PER_CALL
steps per call, fed by `data.pipeline`; it also computes the metrics that a run logs, such as the norm of the gradient.
PyTorch runs `torch_autoregressive`, eager. Both start from the same parameters, and before anything is timed they must
give the same loss and gradients.

The row "gm_jax" uses the XLA flags of experiments (`gm_jax.runner.xla_flags`), and the goals apply to it: by default
jaxlib 0.10.2 runs a convolution in one thread on a CPU. The next row shows the speed without these flags.

NADE runs in PyTorch in two ways: as usually written, with W[i] in a loop, where each index costs the backward pass a
gradient of the whole matrix; and with the matrix split into rows beforehand. The goal applies to the first.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

from benchmarks import command, comparison, timing, torch_parity, train_step, vae_training
from benchmarks.torch_parity import Pair

STEPS_PER_CALL = 10


class Work(NamedTuple):
    """A network to train, with its goal.

    Attributes:
        title: description of the network.
        pair: the network.
        batch_size: examples per step.
        at_least: the goal for PyTorch's time over ours.
        convolutional: whether XLA's flags matter.
        others: (name, the same network written differently in PyTorch); no goal applies.
    """

    title: str
    pair: Pair
    batch_size: int
    at_least: float
    convolutional: bool = False
    others: tuple[tuple[str, Pair], ...] = ()

    @property
    def peers(self) -> dict[str, Pair]:
        """Name -> network in PyTorch."""
        return {"PyTorch": self.pair, **dict(self.others)}

    def __str__(self) -> str:
        return f"{self.title}, batch {self.batch_size}"


SPLIT_ROWS = torch_parity.NADE._replace(sizes={**torch_parity.NADE.sizes, "unbound": True})
WORKS = {
    "made": Work("MADE 784-500", torch_parity.MADE, 100, 1.3),
    "made_256": Work("MADE 784-500", torch_parity.MADE, 256, 1.3),
    "nade": Work("NADE 500", torch_parity.NADE, 100, 3.5, others=(("PyTorch, split rows", SPLIT_ROWS),)),
    "gated_pixelcnn": Work("gated PixelCNN, 8 x 64", torch_parity.GATED_PIXELCNN, 16, 1.1, convolutional=True),
}
Name = Literal["made", "made_256", "nade", "gated_pixelcnn"]


@dataclasses.dataclass(frozen=True)
class Args(command.FlaggedArgs):
    """Time the training of autoregressive models in gm_jax and in PyTorch."""

    only: tuple[Name, ...] = ()
    """The networks to time. Default: all."""


def training(work: Work) -> train_step.Training:
    """Describes the training from random parameters."""
    from gm_jax.models import autoregressive

    network, output = torch_parity.network(work.pair), torch_parity.output(work.pair)
    return train_step.Training(
        autoregressive.Autoregressive(network=network, likelihood=output, shape=work.pair.shape).model,
        {"x": vae_training.images(vae_training.PAPER)},
        work.batch_size,
        STEPS_PER_CALL,
        params={"autoregressive": torch_parity.parameters(work.pair)},
    )


def against_torch(work: Work, args: Args) -> dict[str, Any]:
    """Times the step of both sides: a row for each choice of flags and each network in PyTorch."""
    from benchmarks import torch_autoregressive

    parity = [torch_parity.check(pair, 4, with_grads=True) for pair in work.peers.values()]
    arrays = timing.in_own_process(torch_parity.initial_arrays, work.pair)
    images = vae_training.images(vae_training.PAPER).reshape(-1, work.pair.num_dims)
    flags = comparison.flags_of_ours(args.experiment_flags, matter=work.convolutional)
    ours = train_step.cases(training, (work,), flags)
    settings = (images, work.batch_size, STEPS_PER_CALL, train_step.LEARNING_RATE)
    theirs = {
        name: timing.Case(torch_autoregressive.make_steps, pair.name, dict(pair.sizes), arrays, *settings)
        for name, pair in work.peers.items()
    }
    step = comparison.compare(str(work), ours, theirs, args, at_least=work.at_least, units=STEPS_PER_CALL)
    return {"parity": parity, **step}


def measure(args: Args) -> dict[str, Any]:
    """Measures the chosen networks one after the other."""
    chosen = args.only or tuple(WORKS)
    return {"training": [against_torch(work, args) for name, work in WORKS.items() if name in chosen]}


def report(results: dict[str, Any]) -> str:
    """Formats the results as Markdown."""
    checked = [differences for row in results["training"] for differences in row["parity"]]
    worst = {name: max(differences[name] for differences in checked) for name in ("loss", "gradients")}
    parity = "Same parameters and data: the loss differs by {loss:.0e}, gradients by at most {gradients:.0e}."
    return "\n\n".join(
        [
            f"Forward, backward and Adam, float32, {STEPS_PER_CALL} steps per call; medians of clean rounds (range):",
            comparison.table(results["training"]),
            parity.format(**worst),
        ]
    )


if __name__ == "__main__":
    command.main("benchmarks.autoregressive_training", Args, measure, report)
