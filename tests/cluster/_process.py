"""Runs a command of experiments.vae as one of several processes, with virtual devices and an optional fault.

FAULT=<what>@<number> python _process.py ARGUMENTS

    kill@STEP      SIGKILL in the call after the step
    stop@STEP      SIGSTOP there
    sleep@STEP     the main thread stalls there; the process stays alive
    raise@STEP     a ValueError there
    term@STEP      SIGTERM there
    code           another version of the code
    measure        SIGTERM before the final evaluation
    draw           SIGTERM while the final pictures are drawn
    slow@SECONDS   drawing takes this long
"""

import os
import signal
import sys
import time
from collections.abc import Callable

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(  # of two flags for devices the last one counts
    (os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={os.environ.get('DEVICES', '2')}")
)

from experiments import vae
from gm_jax import runner
from gm_jax.cluster import processes
from gm_jax.data import pipeline
from gm_jax.runner import draw, measure


def inject(fault: str) -> None:
    what, _, number = fault.partition("@")
    if what == "code":
        versions = processes.code_versions
        processes.code_versions = lambda module: {**versions(module), "jax": "0.0.0"}
        return
    if what in ("measure", "draw"):
        before(what, lambda: os.kill(os.getpid(), signal.SIGTERM))
        return
    if what == "slow":
        before("draw", lambda: time.sleep(float(number)))
        return
    train_batches = pipeline.train_batches

    def faulty(split, batch_size, seed, first_step, *rest, **settings):
        if first_step == int(number):
            act(what)
        return train_batches(split, batch_size, seed, first_step, *rest, **settings)

    pipeline.train_batches = faulty


def before(name: str, act: Callable[[], None]) -> None:
    owner, attribute = {"measure": (measure, "measure_run"), "draw": (draw, "draw_pictures")}[name]
    function = getattr(owner, attribute)

    def wrapped(*args, **kwargs):
        act()
        return function(*args, **kwargs)

    setattr(owner, attribute, wrapped)


def act(what: str) -> None:
    if what == "raise":
        raise ValueError("the data are gone")
    if what == "sleep":
        time.sleep(1000)
    else:
        numbers = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
        os.kill(os.getpid(), numbers[what])


if __name__ == "__main__":
    if os.environ.get("FAULT"):
        inject(os.environ["FAULT"])
    runner.main(vae.CONFIG, sys.argv[1:], module=vae)
