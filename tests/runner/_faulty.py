"""Runs a command of experiments.vae, or of another experiment, with a fault at a given step.

[EXPERIMENT=<name>] FAULT=<what>@<step> python _faulty.py ARGUMENTS

    tick         SIGKILL after the call that ends at the step
    log          SIGKILL when half of the step's line of metrics is written
    validated    SIGKILL between the step's validation and its save
    saved        SIGKILL when the step's save returns
    half-saved   SIGKILL when all of the step's save is written but not yet renamed into place
    term, int    SIGTERM, SIGINT after the call that ends at the step
    hup          SIGHUP twice, as a terminal sends it that is closed
    twice        SIGTERM, then SIGTERM again

If the variable is empty there is no fault.
"""

import importlib
import os
import signal
import sys
import threading

from gm_jax import runner
from gm_jax.runner.recorder import RunRecorder
from gm_jax.training import metrics
from gm_jax.training.checkpoint import Checkpointer


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def after(owner: type, name: str, step: int, act) -> None:
    """Replaces a method (self, step, ...): after a call with that step, `act` is called."""
    method = getattr(owner, name)

    def wrapped(self, at: int, *args, **kwargs):
        result = method(self, at, *args, **kwargs)
        if at == step:
            act()
        return result

    setattr(owner, name, wrapped)


def tear(step: int) -> None:
    """Makes `MetricsLog.write` die in the middle of a line."""
    write = metrics.MetricsLog.write

    def torn(self, at: int, *args):
        if at == step:
            self._file.write(f'{{"step": {at}, "split": "tra')
            self._file.flush()
            send(signal.SIGKILL)
        return write(self, at, *args)

    metrics.MetricsLog.write = torn


def hold(step: int) -> None:
    """Makes the save of a step hang before the rename that completes it, and die there."""
    rename, reached = os.rename, threading.Event()

    def held(source, target, **kwargs):
        if os.path.basename(target) == str(step):
            reached.set()
            threading.Event().wait()
        rename(source, target, **kwargs)

    os.rename = held
    after(Checkpointer, "save", step, lambda: (reached.wait(60), send(signal.SIGKILL)))


def inject(fault: str) -> None:
    what, _, number = fault.partition("@")
    step = int(number)
    if what == "log":
        tear(step)
    elif what == "half-saved":
        hold(step)
    elif what == "validated":
        after(RunRecorder, "record_validation", step, lambda: send(signal.SIGKILL))
    elif what == "saved":
        after(Checkpointer, "save", step, lambda: send(signal.SIGKILL))
    else:
        numbers = {
            "tick": [signal.SIGKILL],
            "term": [signal.SIGTERM],
            "int": [signal.SIGINT],
            "hup": [signal.SIGHUP, signal.SIGHUP],
            "twice": [signal.SIGTERM, signal.SIGTERM],
        }
        after(RunRecorder, "tick", step, lambda: send(*numbers[what]))


if __name__ == "__main__":
    if os.environ.get("FAULT"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also if the tests were started under nohup
        inject(os.environ["FAULT"])
    experiment = importlib.import_module(f"experiments.{os.environ.get('EXPERIMENT', 'vae')}")
    runner.main(experiment.CONFIG, sys.argv[1:], module=experiment)
