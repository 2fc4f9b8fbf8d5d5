"""What a command shows while it works: a header, and bars on a terminal or plain lines elsewhere."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import jax
from tqdm import tqdm

from gm_jax.runner.run import Run

WIDTH = 100  # columns of what is printed, at most


class Progress(Protocol):
    """Shows that the next part of some work begins."""

    def __call__(self, name: str) -> None:
        """Is called before each part with its name."""
        ...


def header(run: Run, *, step: int) -> str:
    """Returns what is trained, on what and where, as four lines.

    Args:
        run: with data.
        step: from which training starts.
    """
    sizes = ", ".join(f"{len(arrays['x']):,} {split}" for split, arrays in run.loaded.items())
    shape = "x".join(map(str, run.spec.shape))
    levels = f", {run.spec.levels} levels" if run.spec.levels else ", points"
    devices, steps = jax.devices(), run.config.train.steps
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    where = f"{len(devices)} x {devices[0].device_kind}{processes}, jax {jax.__version__}, {run.config.train.parallel}"
    batch = run.config.train.batch_size
    return "\n".join(
        [
            f"data        {run.spec.name}: {sizes} examples of {shape}{levels}",
            f"parameters  {_parameters(run)}",
            f"device      {where}",
            f"training    {steps:,} steps of {batch:,} examples{f', from step {step:,}' if step else ''}, in "
            f"{run.folder.root}",
        ]
    )


def _parameters(run: Run) -> str:
    """Returns the number of parameters, and that of each player if there are several."""
    numbers = {
        player: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
        for player, params in run.abstract_state().params.items()
    }
    parts = ", ".join(f"{player} {number:,}" for player, number in numbers.items())
    return f"{sum(numbers.values()):,}" + (f" ({parts})" if len(numbers) > 1 else "")


def bar(total: int, *, initial: int = 0, unit: str, leave: bool = True) -> tqdm:
    """Returns a bar with a rate and the time that is left; it is disabled where there is no terminal."""
    return tqdm(total=total, initial=initial, unit=unit, disable=None, dynamic_ncols=True, leave=leave)


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """Shows the progress of some work: a bar on a terminal, which vanishes at the end; elsewhere one line.

    Args:
        what: the work, e.g. "evaluating".
        total: how many parts it has.
    """
    with bar(total, unit="part", leave=False) as shown:
        if shown.disable:
            print(f"{what} ...")
            sys.stdout.flush()

        def before(name: str) -> None:
            shown.set_description_str(f"{what}: {name}")
            shown.update(min(1, total - shown.n))

        yield before


def duration(seconds: float) -> str:
    """Returns seconds as 0:42, 12:05 or 3:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
