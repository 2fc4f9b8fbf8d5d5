"""Kills a run and resumes it in a second process: are the bits those of the run that was left alone?

    python -m benchmarks.accelerator.resume worker MODEL FOLDER

Three processes a model: the first is killed after its checkpoint at HALF and a second one resumes it to WHOLE; a third
trains to WHOLE without a break. Two digests of the whole train state are compared: at HALF between the first and the
third process, which tells whether a new process computes the same bits at all, and at WHOLE after the resume.

On GPUs each process tunes its kernels again and may choose others, and some operations add in any order. So all of it
is done with jax's defaults, with nondeterministic operations excluded, and with these excluded and the results of the
first process's tuning loaded by the others. The persistent compilation cache is off here, because it would hand the
first process's program to the others.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HALF, WHOLE = 30, 60
EXCLUDE = "--xla_gpu_exclude_nondeterministic_ops=true"
DUMP, LOAD = "--xla_gpu_dump_autotune_results_to=", "--xla_gpu_load_autotune_results_from="
SETTINGS = ("defaults", "nondeterministic operations excluded", "excluded, tuning kept")


def _vae(tiny: bool) -> Any:
    from benchmarks import vae_training

    size = vae_training.TINY if tiny else vae_training.PAPER
    return vae_training.training(vae_training.Work(size, 8 if tiny else 256, 10))


def _dcgan(tiny: bool) -> Any:
    from benchmarks import gan_case, train_step

    return train_step.Training(gan_case.model(), {"x": gan_case.data()}, 8 if tiny else 128, 10, b1=0.5)


def _pixelcnn(tiny: bool) -> Any:
    from benchmarks import torch_parity, train_step, vae_training
    from benchmarks.accelerator import ours
    from gm_jax.models import autoregressive

    pair = ours.pair_of("GATED_PIXELCNN", tiny)
    network, likelihood = torch_parity.network(pair), torch_parity.output(pair)
    family = autoregressive.Autoregressive(network=network, likelihood=likelihood, shape=pair.shape)
    x = vae_training.images(vae_training.PAPER._replace(side=pair.shape[0]))
    return train_step.Training(family.model, {"x": x}, 8 if tiny else 64, 10)


def _unet(tiny: bool) -> Any:
    from benchmarks import diffusion_training, train_step

    return train_step.Training(
        diffusion_training.model().model, {"x": diffusion_training.data()}, 8 if tiny else 64, 10
    )


MODELS: Mapping[str, Callable[[bool], Any]] = {"vae": _vae, "dcgan": _dcgan, "pixelcnn": _pixelcnn, "unet": _unet}


def digest(state: Any) -> str:
    """Returns the SHA-256 of every array of a train state."""
    import jax

    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        found.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(jax.device_get(leaf)).tobytes())
    return found.hexdigest()[:16]


def work(model: str, folder: Path, *, tiny: bool) -> None:
    """Trains from the folder's latest checkpoint to WHOLE, saves at HALF, and prints a line of JSON at both."""
    from benchmarks import train_step
    from gm_jax.training.checkpoint import Checkpointer

    training = MODELS[model](tiny)
    state, step, batches = train_step.ready(training)
    with Checkpointer(folder) as checkpointer:
        restored = checkpointer.restore_latest(state)
        state = state if restored is None else restored.state
        while (reached := int(state.step)) < WHOLE:
            state, _ = step(state, batches(reached))
            if reached + training.steps == HALF:
                checkpointer.save(HALF, state)
                checkpointer.wait()
                print(json.dumps({"step": HALF, "digest": digest(state)}), flush=True)
        first = 0 if restored is None else restored.step
        print(json.dumps({"step": WHOLE, "digest": digest(state), "from": first}), flush=True)


def environment(setting: str, tuning: Path, *, first: bool) -> dict[str, str]:
    """Returns the environment of a process under a setting.

    Args:
        setting: one of SETTINGS.
        tuning: the file of the tuning's results.
        first: whether the process writes the file, else it reads it.
    """
    flags = [os.environ.get("XLA_FLAGS", "")]
    if setting != SETTINGS[0]:
        flags.append(EXCLUDE)
    if setting == SETTINGS[2]:
        flags.append(f"{DUMP if first else LOAD}{tuning}")
    return {
        **os.environ,
        "XLA_FLAGS": " ".join(flags).strip(),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def check(model: str, setting: str, folder: Path, *, tiny: bool, deadline: float) -> dict[str, Any]:
    """Trains, kills and resumes one model under one setting.

    Args:
        model: one of MODELS.
        setting: one of SETTINGS.
        folder: for checkpoints and logs.
        tiny: small sizes.
        deadline: a value of time.monotonic, at which what still runs is killed.

    Returns:
        "half_same" and "whole_same", or "failed"; and the seconds of the first and of the resumed process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tuning, row = folder / "tuning.txt", {"model": model, "setting": setting}

    def start(name: str, checkpoints: str, *, first: bool) -> subprocess.Popen:
        command = [sys.executable, "-m", "benchmarks.accelerator.resume", "worker", model, str(folder / checkpoints)]
        with (folder / f"{name}.log").open("w") as log:
            return subprocess.Popen(
                [*command, *(["--tiny"] if tiny else [])],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(setting, tuning, first=first),
            )

    # XLA writes the tuning's results when it compiles, so that they are there when the first process is killed.
    started = time.monotonic()
    killed = start("killed", "run", first=True)
    assert killed.stdout is not None
    half = _line(killed, deadline)
    _end(killed)
    row["first_seconds"] = round(time.monotonic() - started, 1)
    if half is None:
        return {**row, "failed": _why(folder, deadline, "killed")}
    started = time.monotonic()
    resumed, whole = start("resumed", "run", first=False), start("whole", "whole", first=False)
    end, own_half, own_end = _line(resumed, deadline), _line(whole, deadline), _line(whole, deadline)
    row["resumed_seconds"] = round(time.monotonic() - started, 1)
    for process in (resumed, whole):
        _end(process)
    if end is None or own_half is None or own_end is None:
        return {**row, "failed": _why(folder, deadline, "resumed", "whole")}
    assert (end["from"], own_end["from"]) == (HALF, 0)
    return {
        **row,
        "half_same": half["digest"] == own_half["digest"],
        "whole_same": end["digest"] == own_end["digest"],
    }


def _line(process: subprocess.Popen, deadline: float) -> dict[str, Any] | None:
    """Reads a line of JSON; None if the process ended, or if time is out."""
    import threading

    assert process.stdout is not None
    timer = threading.Timer(max(0.1, deadline - time.monotonic()), process.kill)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    return json.loads(line) if line else None


def _end(process: subprocess.Popen) -> None:
    """Kills a process and closes its output."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _why(folder: Path, deadline: float, *names: str) -> str:
    """Returns why processes ended early: the ends of their logs, or that time was out."""
    if time.monotonic() >= deadline:
        return "not done in time"
    logs = [(folder / f"{name}.log").read_text(errors="replace").split() for name in names]
    return " | ".join(" ".join(words[-40:]) for words in logs if words)


def main(argv: Sequence[str] | None = None) -> None:
    """Is the worker process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator.resume", description=main.__doc__)
    parser.add_argument("verb", choices=["worker"])
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(argv)
    work(args.model, args.folder, tiny=args.tiny)


if __name__ == "__main__":
    main()
