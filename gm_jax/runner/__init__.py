"""The edge of gm_jax: from a command line to a run's folder. Everything else is pure.

An experiment module declares a `Config` and a pure `build(config, spec) -> Experiment` and ends with

    if __name__ == "__main__":
        runner.main(Config, build)

config.py      the parts of a configuration that every experiment shares; saving, reading and comparing
experiment.py  what `build` returns
cli.py         verbs, flags, exit codes
cpu_flags.py   how XLA compiles for a CPU
cluster.py     several processes: how they find each other, compare, and part
peers.py       their signs of life, and who is named when one fails
folder.py      what lies where in a run's folder
train.py  evaluate.py  sample.py  plan.py    the verbs
pictures.py    arrays to PNG
densities.py   densities in the plane to PNG
speed.py       time per sample, beside other models
sample_quality.py   samples held against data by their features
timed.py       training for a time
comparison.py  one family trained for a time and measured as every other
page.py        all of them on one page

This package imports nothing heavy until a verb runs, so that --help answers at once.
"""

from gm_jax.runner.cli import main, program
from gm_jax.runner.config import (
    Count,
    CountOrZero,
    DataConfig,
    Decay,
    Measuring,
    OptimizerConfig,
    Rate,
    RateOrZero,
    Sampling,
    TrainConfig,
    Widths,
    make_optimizer,
)
from gm_jax.runner.experiment import Experiment, Plane, Statistic

__all__ = [
    "Count",
    "CountOrZero",
    "DataConfig",
    "Decay",
    "Experiment",
    "Measuring",
    "OptimizerConfig",
    "Plane",
    "Rate",
    "RateOrZero",
    "Sampling",
    "Statistic",
    "TrainConfig",
    "Widths",
    "main",
    "make_optimizer",
    "program",
]
