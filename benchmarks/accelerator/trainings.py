"""Trainings in a box of time: the experiments' own commands, with as many steps as the box holds.

Each is a run in a folder of its own, which the same command resumes; validation chooses the checkpoint that is
measured. The steps are the box's seconds, less START for compiling and measuring, times the rate that the speed table
found, or a rate known from an earlier run. A training that is late gets SIGTERM, saves, and is measured all the same.
"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

START = 45.0  # seconds
VALIDATIONS = 10


class Training(NamedTuple):
    """A training.

    Attributes:
        experiment: a module of `experiments`.
        data: the file of `pack` that it needs.
        flags: of the experiment.
        rate: train steps per second with the device to itself, where the speed table has none.
        case: of the speed table, whose steps are the same; empty if there is none.
        batch_size: examples per step.
        evaluate: further flags of the verb `evaluate`.
        most_steps: however long the box is.
    """

    experiment: str
    data: str
    flags: str
    rate: float
    case: str
    batch_size: int
    evaluate: str = ""
    most_steps: int = 1_000_000


def _pixelcnn(more: str) -> Training:
    flags = "--features 64 --layers 8 --train.steps-per-call 10 --train.ema-decay 0.999 --train.patience 0"
    case = "gated PixelCNN 8 x 64, B128: gm_jax"
    rate = "--optimizer.learning-rate 1e-3"
    return Training("pixelcnn", "binarized_mnist", f"{flags} {rate} {more}", 110.0, case, 128)


_DDPM = (
    "--network unet --network.features 64 128 128 --network.blocks 2 --network.attention 2 --network.dropout 0.1 "
    "--network.dtype bfloat16 --bound-terms 20 --train.steps-per-call 5 --train.ema-decay 0.999 "
    "--optimizer.learning-rate 5e-4"
)
_FRECHET = "--features mnist-cnn --num-generated 10000 --sampler.method ddim --sampler.steps 50"
TRAININGS: Mapping[str, Training] = {
    "pixelcnn": _pixelcnn("--dropout 0.25"),
    "ddpm": Training("ddpm", "mnist", _DDPM, 60.0, "", 256, _FRECHET),
    "pixelcnn_without_dropout": _pixelcnn(""),
    "pixelcnn_dropout_0.1": _pixelcnn("--dropout 0.1"),
    "pixelcnn_dropout_0.5": _pixelcnn("--dropout 0.5"),
    "pixelcnn_weight_decay": _pixelcnn("--optimizer.weight-decay 0.1"),
    "tiny": Training("pixelcnn", "", "--data.name digits --features 4 --layers 1 --dropout 0.25", 5.0, "", 8, "", 20),
}


def steps_in(training: Training, seconds: float, *, speeds: Mapping[str, Any], share: float) -> int:
    """Returns the train steps that a box of seconds holds, a multiple of 100 * VALIDATIONS or else of VALIDATIONS.

    Args:
        training: the training.
        seconds: of the box.
        speeds: the speed table.
        share: of the device that the training has.
    """
    measured = speeds.get(training.case, {}).get("examples_per_second", 0.0)
    rate = share * (0.85 * measured / training.batch_size if measured else training.rate)
    steps, coarse = min(int(rate * max(0.0, seconds - START)), training.most_steps), 100 * VALIDATIONS
    return max(steps // coarse * coarse, steps // VALIDATIONS * VALIDATIONS if steps < coarse else 0, VALIDATIONS)


def command(name: str, steps: int, *, data: Path, runs: Path) -> list[str]:
    """Returns the command of a training."""
    training = TRAININGS[name]
    every = steps // VALIDATIONS
    packed = f"--data.name npz:{(data / training.data).absolute()}.npz" if training.data else ""
    log = next(size for size in (100, 10, 1) if every % size == 0)
    counts = f"--train.steps {steps} --train.checkpoint-every {every} --train.log-every {log}"
    batch = f"--train.batch-size {training.batch_size}"
    flags = f"{packed} {training.flags} {counts} {batch} --workdir {runs / name}"
    return [sys.executable, "-m", f"experiments.{training.experiment}", *shlex.split(flags)]


def run(
    names: Sequence[str], *, data: Path, runs: Path, out: Path, end: float, speeds: Mapping[str, Any], together: bool
) -> list[dict[str, Any]]:
    """Runs trainings, one after the other or all together, until `end`, a value of time.monotonic.

    Returns:
        A row for each: steps, seconds, and the records of its results.json.
    """
    rows, left = [], list(names)
    while left:
        now = left if together else left[:1]
        left = left[len(now) :]
        seconds = (end - time.monotonic()) * len(now) / (len(now) + len(left))
        started = [
            _start(name, seconds, data=data, runs=runs, out=out, speeds=speeds, share=1.0 / len(now)) for name in now
        ]
        box = time.monotonic() + seconds
        try:
            rows += [_finish(process, row, box, runs=runs, out=out) for process, row in started]
        finally:
            for process, _ in started:  # none is left if all went well
                process.kill()
                process.wait()
        (out / "trainings.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def _start(
    name: str, seconds: float, *, data: Path, runs: Path, out: Path, speeds: Mapping[str, Any], share: float
) -> tuple[subprocess.Popen, dict[str, Any]]:
    steps = steps_in(TRAININGS[name], seconds, speeds=speeds, share=share)
    words = command(name, steps, data=data, runs=runs)
    with (out / f"training_{name}.log").open("w") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    print(f"  {name}: {steps} steps in {seconds:.0f} s", file=sys.stderr, flush=True)
    return process, {"training": name, "command": shlex.join(words[1:]), "steps": steps, "started": time.monotonic()}


def _finish(process: subprocess.Popen, row: dict[str, Any], box: float, *, runs: Path, out: Path) -> dict[str, Any]:
    """Waits for a training until its box ends, measures what it has not, and adds the numbers to its row."""
    name = row["training"]
    training, reserve = TRAININGS[name], 20.0
    try:
        process.wait(timeout=max(1.0, box - reserve - time.monotonic()))
    except subprocess.TimeoutExpired:
        row["stopped"] = True
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=reserve)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    row["seconds"] = round(time.monotonic() - row.pop("started"), 1)
    results = runs / name / "results.json"
    if (training.evaluate or not results.exists()) and (runs / name / "checkpoints").exists():
        words = f"-m experiments.{training.experiment} evaluate --workdir {runs / name} {training.evaluate}"
        with (out / f"training_{name}.log").open("a") as log:
            try:
                seconds = max(30.0, box + 45.0 - time.monotonic())
                subprocess.run([sys.executable, *shlex.split(words)], stdout=log, stderr=log, timeout=seconds)
            except subprocess.TimeoutExpired:
                row["failed"] = "measuring took too long"
    if results.exists():
        row["results"] = json.loads(results.read_text())
    else:
        row.setdefault("failed", f"exit status {process.returncode}; see training_{name}.log")
    for file in ("results.json", "metrics.jsonl"):
        if (runs / name / file).exists():
            shutil.copy(runs / name / file, out / f"training_{name}_{file}")
    return row
