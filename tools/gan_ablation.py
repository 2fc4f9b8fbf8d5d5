"""Plain GAN against each of the five techniques of Salimans et al. (2016): a run for each and each seed, one table.

    python -m tools.gan_ablation                                # the eight Gaussians, 8 minutes
    python -m tools.gan_ablation --data.name digits --features digits-cnn --steps 3000
    python -m tools.gan_ablation --data.name digits --features digits-cnn --network mlp
Measured: the README's three tables; of digits in some 18 and 15 minutes on two CPU cores.
It is no experiment of its own: every run is one of `experiments.improved_gan`, by the switches that its row names. Runs
that are done are read, one that was stopped goes on. A cell is the median over the seeds and, in brackets, the range:
how far seeds lie apart is how stable a game is.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Literal

from experiments import improved_gan
from gm_jax import runner

_STRENGTHS = improved_gan.Config()
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
    """What is compared."""

    data: runner.DataConfig = runner.DataConfig(name="toy:eight_gaussians")
    steps: runner.Count = 6_000
    """Of each run."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Runs of each row."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which rows."""
    network: Literal["conv", "mlp"] | None = None
    """conv for images, mlp for points or images as vectors; by default what the data are."""
    features: Literal["digits-cnn", "mnist-cnn"] | None = None
    """Of images, measure the samples too, by this extractor: the columns of the verb `evaluate`."""
    workdir: Path = Path("runs/gan_techniques")
    """Each run has a folder in there."""


def flags(config: Config, row: str, seed: int) -> tuple[str, ...]:
    """Of `experiments.improved_gan`."""
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
    """Train, go on or read: what `results.json` says, by name and unit."""
    workdir, *others = flags(config, row, seed)
    _improved_gan(workdir, *others)
    if config.features is not None:
        _improved_gan("evaluate", workdir, f"--features={config.features}")
    folder = Path(workdir.removeprefix("--workdir="))
    records = json.loads((folder / "results.json").read_text())
    return {f"{record['name']}, {record['unit']}": record["value"] for record in records}


def _improved_gan(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "experiments.improved_gan", *arguments], check=True, stdout=sys.stderr)


def table(measured: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: row -> the results of its seeds."""
    names = list(next(iter(measured.values()))[0])

    def cell(values: list[float]) -> str:
        median, *ends = (f"{value:.4g}" for value in (statistics.median(values), min(values), max(values)))
        return median if len(values) == 1 else f"{median} ({ends[0]} to {ends[1]})"

    lines = [["techniques", *names], ["---"] * (1 + len(names))]
    lines += [[row, *(cell([each[name] for each in seeds]) for name in names)] for row, seeds in measured.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(config: Config) -> None:
    """Run what is missing, print the table; after each row, so far, to stderr."""
    measured = {}
    for row in config.rows:
        measured[row] = [results(config, row, seed) for seed in config.seeds]
        print(table(measured), file=sys.stderr, flush=True)
    print(table(measured))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config, prog="python -m tools.gan_ablation", description=Config.__doc__))
