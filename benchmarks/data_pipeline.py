"""Trains on a made-up set that is larger than the memory it may use: rates, peak memory, bits after a kill.

    python -m benchmarks.data_pipeline                                 # 2 GB of images in 0.8 GB of memory
    python -m benchmarks.data_pipeline --gigabytes 20 --memory 4       # writes 22 GB below --folder, and removes them

Every process is held to --memory by RLIMIT_DATA, which counts what a process allocates and not the pages of files,
because these are the system's to drop. To count them too, run all of it under systemd-run --scope -p MemoryMax=4G.

1. Decoding: the set, prepared as one of TensorFlow Datasets, goes to the cache on disk.
2. Reading: random batches are gathered, and placed on the device, without training.
3. Training: a run that is killed after its first checkpoint and resumed by the same command ends with the bits of a
   run that was left alone. The share of time in which the loop waited for data is that of its tracker's record.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import command, data_worker
from gm_jax.errors import UserError

REPO = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Args(command.Args):
    """How large the set is, in how much memory, and how long to train."""

    rounds: int = 3
    """Rounds of reading; the median is reported."""
    gigabytes: float = 2.0
    """Size of the decoded images, in 10^9 bytes."""
    memory: float = 0.8
    """What each process may allocate, in 10^9 bytes."""
    steps: int = 400
    """Steps of the run, a multiple of 20; it is killed after half of them."""
    folder: str | None = None
    """Where to write the set and its cache; by default the folder of temporary files. Both are removed at the end."""


class Ended(NamedTuple):
    """How a process ended: its output, its time, and the most memory that it had allocated and touched, in bytes."""

    out: str
    code: int
    seconds: float
    peak: int

    @property
    def found(self) -> dict[str, Any]:
        """What a worker printed, with the peak of its memory."""
        return {**json.loads(self.out.splitlines()[-1]), "peak": self.peak}


def measure(args: Args) -> dict[str, Any]:
    """Does all three parts."""
    if args.steps % 20:
        raise UserError(f"--steps {args.steps} is not a multiple of 20: choose one.")
    with _scratch(args) as folder:
        num = int(args.gigabytes * 1e9 / (data_worker.SIDE**2 * data_worker.CHANNELS))

        def worker(what: str, *numbers: float) -> dict[str, Any]:
            arguments = ["benchmarks.data_worker", what, str(folder / "set"), *map(str, numbers)]
            return _run(arguments, folder, args.memory).found

        made = worker("make", num)
        decoded, again = worker("load"), worker("load")
        reading = worker("read", args.seconds, args.rounds)
        return {
            "made": made,
            "decoded": decoded,
            "again": again,
            "reading": reading,
            "training": train(folder, args.steps, args.memory),
        }


def train(folder: Path, steps: int, memory: float) -> dict[str, Any]:
    """Trains twice, once with a kill and a resume, and compares the bits."""
    half = steps // 2
    arguments = [
        *("experiments.vae", "--data.name", data_worker.NAME, "--data.dir", str(folder / "set")),
        *("--hidden", "64", "--latent-dim", "8", "--importance-samples", "2", "--validation-samples", "2"),
        *("--train.steps", str(steps), "--train.batch-size", str(data_worker.BATCH), "--train.steps-per-call", "2"),
        *("--train.log-every", str(half // 5), "--train.checkpoint-every", str(half)),
        *("--train.ema-decay", "0.9", "--train.patience", "0", "--optimizer.learning-rate", "1e-5"),
    ]
    whole, cut = folder / "whole", folder / "cut"
    ended = [
        _run([*arguments, "--workdir", str(whole)], folder, memory),
        _run(
            [*arguments, "--workdir", str(cut)], folder, memory, kill_if=lambda: (cut / f"checkpoints/{half}").exists()
        ),
        _run([*arguments, "--workdir", str(cut)], folder, memory),
    ]
    if f"resuming from step {half} of {steps}" not in ended[2].out:
        raise UserError(f"the killed run did not resume from step {half}: give more --steps.\n{ended[2].out[-300:]}")
    shares, rates = (_recorded(whole, f"speed/{name}") for name in ("share_waiting_for_data", "examples_per_second"))
    return {
        "bits": {"left alone": digest(whole), "killed and resumed": digest(cut)},
        "waiting": shares[1:],  # the first one counts the time of compiling
        "images_per_second": rates[1:],
        "peak": max(one.peak for one in ended),
    }


def digest(workdir: Path) -> str:
    """Returns the SHA-256 of the metrics, the results and every array of the last state of a run."""
    import jax
    import numpy as np

    from gm_jax.runner.run import reopen
    from gm_jax.training.checkpoint import Checkpointer

    found = hashlib.sha256()
    for name in ("metrics.jsonl", "results.json"):
        found.update((workdir / name).read_bytes())
    run = reopen(workdir, with_data=False)
    with Checkpointer(workdir / "checkpoints", read_only=True) as checkpointer:
        restored = checkpointer.restore_latest(run.abstract_state())
    assert restored is not None
    for path, leaf in jax.tree_util.tree_flatten_with_path(restored.state)[0]:
        found.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]


@contextlib.contextmanager
def _scratch(args: Args) -> Iterator[Path]:
    needed = args.gigabytes * 1.15e9 + 1e9
    above = Path(args.folder or tempfile.gettempdir())
    if shutil.disk_usage(above).free < needed:
        raise UserError(f"{above} does not have the {needed / 1e9:.0f} GB needed: give another --folder.")
    folder = Path(tempfile.mkdtemp(prefix="gm_jax_data_", dir=above))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _run(arguments: list[str], folder: Path, memory: float, kill_if: Callable[[], bool] = lambda: False) -> Ended:
    """Runs a module in a process that may allocate `memory` GB; kills it by SIGKILL if `kill_if` says so."""
    most = int(memory * 1e9)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}
    start, peak, killed = time.perf_counter(), 0, False
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=REPO,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (most, most))
        while process.poll() is None:
            peak = max(peak, _allocated(process.pid))
            if not killed and kill_if():
                process.kill()
                killed = True
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        output.seek(0)
        out = output.read()
    if process.returncode != 0 and not killed:
        raise UserError(f"python -m {' '.join(arguments[:2])} ended with {process.returncode}:\n{out[-500:]}")
    return Ended(out, process.returncode, seconds, peak)


def _allocated(pid: int) -> int:
    """Returns the bytes of a process that are not pages of files."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0


def _recorded(workdir: Path, tag: str) -> list[float]:
    """Reads a scalar from TensorBoard's events of a run: records of a length, its checksum, an event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    found = []
    for file in sorted(workdir.rglob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [float(value.simple_value) for value in event.summary.value if value.tag == tag]
            at += length + 16
    return found


def report(results: dict[str, Any]) -> str:
    """Returns the three parts as Markdown."""
    args, training = results["args"], results["training"]
    decoded, again = results["decoded"], results["again"]
    images, bits = decoded["images"], training["bits"]

    same = "the same bits" if len(set(bits.values())) == 1 else "OTHER BITS"
    return "\n".join(
        [
            f"{images:,} images of 64 x 64 x 3 ({args['gigabytes']:g} GB) in {args['memory']:g} GB (RLIMIT_DATA):",
            "",
            "| | seconds | images/s | peak memory, GB |",
            "|---|---|---|---|",
            f"| decode into the cache | {decoded['seconds']:.1f} | {images / decoded['seconds']:,.0f} | "
            f"{decoded['peak'] / 1e9:.2f} |",
            f"| open the cache | {again['seconds']:.1f} | | {again['peak'] / 1e9:.2f} |",
            "",
            "| gather and place batches of 128 | images/s | images/s a core |",
            "|---|---|---|",
            *(
                f"| {name} | {rate['images_per_second']:,.0f} | {rate['images_per_core_second']:,.0f} |"
                for name, rate in results["reading"]["rates"].items()
            ),
            "",
            f"Training {args['steps']} steps: {max(training['images_per_second']):,.0f} images/s, "
            f"{max(training['waiting']):.2%} of the time waiting for data at most, "
            f"peak {training['peak'] / 1e9:.2f} GB.",
            f"Killed and resumed: {same} as left alone ({bits['killed and resumed']}, {bits['left alone']}).",
        ]
    )


if __name__ == "__main__":
    command.main("benchmarks.data_pipeline", Args, measure, report, against="jax")
