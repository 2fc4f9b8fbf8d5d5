"""Ablation of the five techniques of Salimans et al. (2016): a plain GAN, each technique alone, and all of them.

    python -m tools.gan_ablation                                # the eight Gaussians, 8 minutes on two CPU cores
    python -m tools.gan_ablation --data.name digits --features digits-cnn --steps 3000      # 18 minutes
    python -m tools.gan_ablation --data.name digits --features digits-cnn --network mlp     # 15 minutes

Each row and seed is a run of `experiments.improved_gan` with the techniques of the row switched on. Finished runs are
not repeated, and an interrupted run resumes. The table shows the median over the seeds and, in brackets, their range: a
small range means stable training.
"""

import dataclasses
import shlex
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments import improved_gan
from gm_jax import runner
from gm_jax.config import Count, DataConfig
from gm_jax.errors import UserError
from tools import children

if TYPE_CHECKING:
    from gm_jax.evaluation.results import Record

_STRENGTHS = improved_gan.CONFIG
SWITCHES = {
    "feature matching": ("--no-feature-matching", "--feature-matching"),
    "minibatch discrimination": ("--no-minibatch-discrimination", "--minibatch-discrimination"),
    "historical averaging": ("--historical-averaging=0", f"--historical-averaging={_STRENGTHS.historical_averaging}"),
    "one-sided label smoothing": ("--label-smoothing=0", f"--label-smoothing={_STRENGTHS.label_smoothing}"),
    "virtual batch norm": ("--no-virtual-batch-norm", "--virtual-batch-norm"),
}
ROWS = {
    "none": (),
    **{name: (name,) for name in SWITCHES},
    "all but feature matching": tuple(name for name in SWITCHES if name != "feature matching"),
    "all five": tuple(SWITCHES),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Trains a GAN with and without each technique of Salimans et al. (2016), and prints a table."""

    data: DataConfig = DataConfig(name="toy:eight_gaussians")
    steps: Count = 6_000
    """Training steps of each run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each row; one run per seed."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Rows of the table."""
    network: Literal["conv", "mlp"] | None = None
    """conv for images, mlp for points or flattened images; by default the one that suits the data."""
    features: Literal["digits-cnn", "mnist-cnn"] | None = None
    """For images: also measure the samples with this extractor, as the verb `evaluate` does."""
    workdir: Path = Path("runs/gan_techniques")
    """Folder that holds one folder per run."""


def flags(config: Config, row: str, seed: int) -> tuple[str, ...]:
    """Returns the flags of `experiments.improved_gan` for one run."""
    what = "-".join(filter(None, (config.data.name.replace(":", "-"), config.network)))
    folder = config.workdir / what / row.replace(" ", "-") / str(seed)
    chosen = {"data.dir": config.data.dir, "network": config.network}
    return (
        *(f"--workdir={folder}", f"--data.name={config.data.name}"),
        *(f"--{name}={value}" for name, value in chosen.items() if value is not None),
        *(f"--train.steps={config.steps}", f"--train.seed={seed}"),
        *(switch[name in ROWS[row]] for name, switch in SWITCHES.items()),
    )


def results(config: Config, row: str, seed: int) -> dict[str, float]:
    """Trains, resumes or reads a run; returns the values of its results.json by name, sign and unit."""
    workdir, *others = flags(config, row, seed)
    _improved_gan(workdir, *others)
    if config.features is not None:
        _improved_gan("evaluate", workdir, f"--features={config.features}")
    folder = Path(workdir.removeprefix("--workdir="))
    # Here, not above, so that --help need not import jax.
    from gm_jax.evaluation.results import read

    found = {f"{one.name}{_statement(one)}, {one.unit}": one.value for one in read(folder / "results.json")}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise UserError(f"{missing[0]} of {folder} is not finite: choose other --rows or --seeds.")
    return {name: value for name, value in found.items() if value is not None}


def _statement(record: "Record") -> str:
    """Returns the sign and the measure of a likelihood, e.g. " (~ continuous)"; "" for any other number."""
    from gm_jax.evaluation.results import SIGN_OF_NLL

    return f" ({SIGN_OF_NLL[record.kind]} {record.measure})" if record.unit in ("nats", "bits/dim") else ""


def _improved_gan(*arguments: str) -> None:
    command = [sys.executable, "-m", "experiments.improved_gan", *arguments]
    code = children.wait(children.start(command, stdout=sys.stderr))
    if code != 0:
        raise UserError(f"python -m {shlex.join(command[2:])} ended with code {code}: see its message above.")


def table(measured: dict[str, list[dict[str, float]]]) -> str:
    """Formats row -> results of each seed as a Markdown table of medians and ranges."""
    names = list(next(iter(measured.values()))[0])

    def cell(values: list[float]) -> str:
        median, *ends = (f"{value:.4g}" for value in (statistics.median(values), min(values), max(values)))
        return median if len(values) == 1 else f"{median} ({ends[0]} to {ends[1]})"

    lines = [["techniques", *names], ["---"] * (1 + len(names))]
    lines += [[row, *(cell([each[name] for each in seeds]) for name in names)] for row, seeds in measured.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ablate(config: Config) -> str:
    """Runs the missing runs and returns the table; prints the table so far to stderr after each row.

    Raises:
        UserError: a run has failed, or has a result that is not finite.
    """
    measured = {}
    for row in config.rows:
        measured[row] = [results(config, row, seed) for seed in config.seeds]
        print(table(measured), file=sys.stderr, flush=True)
    return table(measured)


if __name__ == "__main__":
    runner.program(Config, ablate)
