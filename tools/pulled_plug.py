"""Pulls the plug on runs, and checks that each of them comes back and ends with the same bits. It needs root and Linux.

    sudo python -m tools.pulled_plug            # 20 cuts of a small VAE, about ten minutes on two idle CPU cores

A run trains on an ext4 file system of its own: a file, mounted through a loop device. At a random moment the process is
stopped and the file is copied. What the kernel still holds in memory is not in the copy, as after a power cut. The copy
is mounted, which replays its journal, and the same command is given there. A run is cut until it ends by itself.
"""

import contextlib
import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from gm_jax.config import Count, Seed
from gm_jax.errors import UserError
from gm_jax.files import read_json
from gm_jax.runner import program
from tools import children

_STEPS, _EVERY = 600, 20
_COMMAND = (
    *(sys.executable, "-m", "experiments.vae", "--hidden", "16", "--latent-dim", "2", "--importance-samples", "3"),
    *("--validation-samples", "2", "--train.steps", str(_STEPS), "--train.steps-per-call", "2"),
    *("--train.batch-size", "32", "--train.log-every", "4", "--train.checkpoint-every", str(_EVERY)),
    *("--train.patience", "0", "--optimizer.schedule", "constant", "--optimizer.warmup-steps", "5"),
)
_RESUMED = re.compile(rb"resuming from step (\d+)")


@dataclasses.dataclass(frozen=True)
class Config:
    """Pulls the plug on a small run again and again, and compares its end with that of an undisturbed run."""

    cuts: Count = 20
    """Number of power cuts."""
    longest: float = 10.0
    """Seconds, at most, to a cut: from the start of the command (one cut of four), or from its first checkpoint."""
    seed: Seed = 0
    """Seed of the moments."""
    megabytes: Count = 64
    """Size of the file system."""


class Done(NamedTuple):
    """The cuts that were made.

    Attributes:
        cuts: how many.
        runs: how many runs were cut until they ended by themselves, all with the bits of the undisturbed run.
        most_lost: steps, at most, from the latest checkpoint before a cut to the one that was there after it.
    """

    cuts: int
    runs: int
    most_lost: int


def measure(config: Config) -> str:
    """Makes the cuts, prints a line for each, and returns a summary."""
    done = cut_runs(config)
    return f"{done.cuts} cuts of {done.runs} runs: at most {done.most_lost} steps lost, and every end as undisturbed"


def cut_runs(config: Config) -> Done:
    """Makes the cuts and prints a line for each.

    Raises:
        UserError: this is not Linux, or not root; or a run did not come back, lost too much, or ended with other bits.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise UserError("only root on Linux can mount the file systems of this test: use sudo.")
    rng, cuts, ended, worst = random.Random(config.seed), 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="pulled-plug-") as name:
        scratch = Path(name)
        _run_to_its_end(scratch / "whole", scratch / "log")
        while cuts < config.cuts:
            image, kept = scratch / "image", None
            _make_file_system(image, config.megabytes)
            while True:
                moment = _Moment(rng.uniform(0.0, config.longest), from_start=rng.random() < 0.25)
                cut = _cut(scratch, image, moment if cuts < config.cuts else None)
                if kept is not None and cut.resumed is not None:
                    lost = kept - cut.resumed
                    worst = max(worst, lost)
                    print(f"cut {cuts}: checkpoint {kept} was there, resumed from {cut.resumed}: {lost} steps lost")
                    if lost > _EVERY:
                        raise UserError(f"more than the {_EVERY} steps from one checkpoint to the next were lost.")
                if cut.whole:
                    break
                cuts, kept = cuts + 1, cut.kept
            _compare(scratch / "whole", scratch / "end")
            ended += 1
            print(f"run {ended} ended with the bits of the undisturbed run")
    return Done(cuts, ended, worst)


@dataclasses.dataclass(frozen=True)
class _Cut:
    """What one command did.

    Attributes:
        whole: whether it ended by itself.
        resumed: the step that it resumed from; 0 for a start, None if it was cut before that was printed.
        kept: the latest complete checkpoint that was in the folder at the cut.
    """

    whole: bool
    resumed: int | None
    kept: int


@dataclasses.dataclass(frozen=True)
class _Moment:
    """When to cut: seconds after the start, or after the first checkpoint that the command makes."""

    seconds: float
    from_start: bool

    def wait(self, process: subprocess.Popen[bytes], log: Path) -> int | None:
        """Waits for the moment, or for the end of the process, whose code it then returns."""
        while not self.from_start and process.poll() is None and b"step " not in _RESUMED.sub(b"", log.read_bytes()):
            children.wait(process, timeout=0.05)
        return children.wait(process, timeout=self.seconds)


def _cut(scratch: Path, image: Path, moment: _Moment | None) -> _Cut:
    """Runs the command on a file system; at the moment replaces `image` by what a power cut would leave."""
    mounted, copy, log = scratch / "mounted", scratch / "copy", scratch / "log"
    with _mounted(image, mounted):
        with log.open("wb") as out:
            process = _start(mounted / "run", out)
            try:
                code = moment.wait(process, log) if moment is not None else children.wait(process)
                if code is None:
                    process.send_signal(signal.SIGSTOP)
                    shutil.copyfile(image, copy)
                kept = max(_steps(mounted / "run"), default=0)
            finally:
                process.kill()
                process.wait()
        text = log.read_bytes()
        if code:
            raise UserError(f"the run did not come back after a cut:\n{text.decode()[-1000:]}")
        if code == 0:
            shutil.rmtree(scratch / "end", ignore_errors=True)
            shutil.copytree(mounted / "run", scratch / "end")
    if code is None:
        copy.replace(image)
    return _Cut(code == 0, _first_step(text, whole=code == 0), kept)


def _first_step(text: bytes, *, whole: bool) -> int | None:
    """Returns the step that a command started from, as its output shows; None if it was cut before."""
    resumed = _RESUMED.search(text)
    if resumed:
        return int(resumed[1])
    if re.search(rb"^step \d+:", text, re.MULTILINE):
        return 0
    return _STEPS if whole else None  # the training was complete


@contextlib.contextmanager
def _mounted(image: Path, folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _make_file_system(image: Path, megabytes: int) -> None:
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)


def _start(workdir: Path, out: IO[bytes]) -> subprocess.Popen[bytes]:
    arguments = [*_COMMAND, "--workdir", str(workdir)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return children.start(arguments, stdout=out, stderr=subprocess.STDOUT, env=environment)


def _run_to_its_end(workdir: Path, log: Path) -> None:
    begin = time.monotonic()
    with log.open("wb") as out:
        if children.wait(_start(workdir, out)):
            raise UserError(f"the undisturbed run failed:\n{log.read_text(encoding='utf-8')[-1000:]}")
    print(f"the undisturbed run took {time.monotonic() - begin:.0f} s")


def _steps(run: Path) -> list[int]:
    return [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]


def _compare(whole: Path, end: Path) -> None:
    """Compares two runs: their numbers, and the SHA-256 of every array of their last checkpoints."""
    for name in ("metrics.jsonl", "results.json"):
        if (whole / name).read_bytes() != (end / name).read_bytes():
            raise UserError(f"{name} is not as in the undisturbed run: {end}")
    if _hashes(whole) != _hashes(end):
        raise UserError("the last checkpoint is not that of the undisturbed run.")


def _hashes(run: Path) -> dict[str, str]:
    document = read_json(run / "checkpoints" / str(max(_steps(run))) / "manifest" / "metadata")
    return {path: leaf["sha256"] for path, leaf in document["manifest"]["leaves"].items()}


if __name__ == "__main__":
    program(Config, measure)
