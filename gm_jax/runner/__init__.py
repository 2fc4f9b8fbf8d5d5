"""The edge of gm_jax: from a command line to a run's folder. Everything else is pure.

An experiment module declares a configuration, which names its recipe, and ends with

    if __name__ == "__main__":
        runner.main(CONFIG)

cli.py       verbs and flags; errors.py has the exit codes
train.py  evaluate.py  sample.py  plan.py    the verbs, each with its flags; they import nothing heavy until they run
run.py       a run put together, from a configuration or from its folder
trained_run.py       a run in Python: parameters, samples, log-probabilities (`open_run`)
training_call.py     the whole loop as a call from Python (`train`)
arguments.py         checks of what a caller in Python gives to a run
family_functions.py  what a family adds to a run in Python: encode, decode, trajectory ...
folder.py    what is stored where in a run's folder
resume.py    whether a folder's run can be resumed with a configuration
session.py   training, from the first check to the final evaluation
recorder.py  what a run shows and writes while it trains
conclusion.py        results of a finished run, shown again at once
terminal.py  header, bars, plain lines
events.py    TensorBoard's events
trackers.py  TensorBoard, Weights & Biases or MLflow
measure.py   the numbers of a run
samples.py   samples of a run
image_edits.py       pictures that a run draws near a given one
sample_quality.py    samples compared with data by their features
draw.py      the pictures of a run
animate.py   the GIFs of a run
help_lines.py  the help of flags in one line each, from the docstrings of configurations
flag_suggestions.py    what to type instead of a flag that does not exist
flag_values.py         what a flag takes instead of a value that it cannot take
xla_flags.py    the flags of XLA for this device
hardware.py     what the last bits of a run depend on
compiled_programs.py   where jax keeps compiled programs between commands

In Python:

    run = gm_jax.train(family, data=x, workdir="runs/mine")
    run = gm_jax.open_run("runs/vae")
    x = run.sample(16, seed=0)
"""

import importlib
from typing import TYPE_CHECKING, Any

from gm_jax.runner.cli import main, program

if TYPE_CHECKING:
    from gm_jax.runner.trained_run import TrainedRun, open_run

__all__ = ["TrainedRun", "main", "open_run", "program"]


def __getattr__(name: str) -> Any:
    """Imports what needs jax on its first use."""
    if name in ("TrainedRun", "open_run"):
        return getattr(importlib.import_module("gm_jax.runner.trained_run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
