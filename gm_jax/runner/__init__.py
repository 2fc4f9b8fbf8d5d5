"""The edge of gm_jax: from a command line to a run's folder. Everything else is pure.

An experiment module declares a configuration, which names its recipe, and ends with

    if __name__ == "__main__":
        runner.main(CONFIG)

cli.py       verbs and flags; errors.py has the exit codes
train.py  evaluate.py  sample.py  plan.py    the verbs, each with its flags; they import nothing heavy until they run
run.py       a run put together, from a configuration or from its folder (`open_run`)
folder.py    what is stored where in a run's folder
resume.py    whether a folder's run can be resumed with a configuration
session.py   training, from the first check to the final evaluation
recorder.py  what a run shows and writes while it trains
events.py    TensorBoard's events
measure.py   the numbers of a run
samples.py   samples of a run
sample_quality.py    samples compared with data by their features
draw.py      the pictures of a run
cpu_flags.py    how XLA compiles for a CPU

In Python:

    run = runner.open_run("runs/vae")
    state, step = run.restore("best")
    x = run.experiment.model.sample(state.eval_params, state.model_state, jax.random.key(0), 16)
"""

from typing import TYPE_CHECKING, Any

from gm_jax.runner.cli import main, program

if TYPE_CHECKING:
    from gm_jax.runner.run import open_run

__all__ = ["main", "open_run", "program"]


def __getattr__(name: str) -> Any:
    """Imports `open_run`, which needs jax, on its first use."""
    if name == "open_run":
        from gm_jax.runner.run import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
