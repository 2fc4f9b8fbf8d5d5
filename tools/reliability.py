"""Kills, stops and starves small runs at random moments, and counts how they end.

    python -m tools.reliability                     # 60 kills, 40 signals, 20 full disks, 20 power cuts; about an hour
    python -m tools.reliability --publish           # also writes the counts to docs/results/reliability.json

Each command is a process of its own, started as a user starts it. A run that was killed or starved is repeated until it
ends by itself and is then compared with an undisturbed run: the metrics, the results, and every array of every
checkpoint that is kept (parameters, the optimiser's state, averages, chains). A training that a signal stopped must
have saved the step that it names. Root on Linux is needed for power cuts, and for disks that are full; without it only
the sizes of files are limited.
"""

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from gm_jax import runner
from gm_jax.config import CountOrZero, Rate, Seed
from gm_jax.errors import UserError
from gm_jax.files import write_text
from gm_jax.runner import hardware
from tools import children, finished_runs, pulled_plug
from tools.results import RECORDS, REPO, read

_COMMON = (
    *("--train.batch-size", "32", "--train.log-every", "10", "--train.checkpoint-every", "20"),
    *("--train.patience", "0"),
)
# Averages, accumulated gradients, two players on two devices, points, chains, two stages.
RUNS = {
    "vae": "--hidden 16 --latent-dim 2 --importance-samples 3 --train.ema-decay 0.9 --train.steps 200",
    "fvsbn": "--train.ema-decay 0.9 --optimizer.accumulate-steps 3 --optimizer.warmup-steps 5 --train.steps 200",
    "wgan_gp": (
        "--data.name toy:eight_gaussians --hidden 16 --latent-dim 4 --train.ema-decay 0.9 --train.parallel pmap "
        "--train.steps 100"
    ),
    "realnvp": "--data.name toy:two_moons --hidden 16 --pairs 2 --optimizer.warmup-steps 5 --train.steps 200",
    "rbm": (
        "--hidden 8 --chains 16 --sampling-sweeps 10 --temperatures 20 --runs 4 --validation-temperatures 5 "
        "--raise-temperatures 0 --train.steps 200"
    ),
    "latent_diffusion": (
        "--autoencoder.steps 20 --autoencoder.hidden 16 --autoencoder.latent-dim 4 "
        "--autoencoder.optimizer.warmup-steps 5 --network.hidden 16 --network.blocks 1 --bound-terms 10 "
        "--validation-terms 5 --diffusion-steps 50 --sampler.steps 10 --optimizer.warmup-steps 5 --train.steps 60"
    ),
}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FILES_AFTER = 2  # the last pictures, which are drawn together
_TITLES = {
    **{f"kills-{name}": f"`{name}`: killed" for name in RUNS},
    **{
        f"signals-{what}": f"`vae`: Ctrl-C, SIGTERM, SIGHUP during {what}"
        for what in ("training", "evaluation", "sampling")
    },
    "full-disk": "`vae`: the disk is full",
    "full-file": "`vae`: the size of files is limited",
    "power-cuts": "`vae`: the power is cut",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Kills, stops and starves small runs at random moments, and counts how they end."""

    kills: CountOrZero = 60
    """SIGKILLs, shared out among the experiments."""
    signals: CountOrZero = 40
    """SIGINT, SIGTERM and SIGHUP in turn, while a run trains, is evaluated and is sampled from."""
    disks: CountOrZero = 20
    """Full disks: file systems that are too small in turn with a limit for the size of a file."""
    cuts: CountOrZero = 20
    """Power cuts; see tools.pulled_plug."""
    experiments: tuple[str, ...] = tuple(RUNS)
    """Which experiments are killed."""
    seed: Seed = 0
    """Seed of the moments and sizes."""
    limit: Rate = 900.0
    """Seconds after which a process that should have ended counts as hung."""
    publish: bool = False
    """Write the counts to reliability.json."""
    folder: Path = RECORDS
    """Folder of the records."""


@dataclasses.dataclass
class Counts:
    """How often something was done to a run, and what came of it.

    Attributes:
        tried: faults that met a living process.
        equal: of them, those of runs that were repeated to their end and equal the undisturbed run, bit for bit; None
            if nothing is repeated.
        swallowed: processes that went on as if nothing had happened, or stopped without the state that they name.
        hung: processes that did not end within the limit.
    """

    tried: int = 0
    equal: int | None = 0
    swallowed: int = 0
    hung: int = 0

    def __str__(self) -> str:
        equal = "" if self.equal is None else f"{self.equal} bit for bit equal, "
        return f"{self.tried} tried, {equal}{self.swallowed} swallowed, {self.hung} hung"


def measure(config: Config) -> str:
    """Does all of it, prints a line for each fault, and returns the counts.

    Raises:
        UserError: there is no such experiment; or something was swallowed, hung, or ended with other bits.
    """
    unknown = [name for name in config.experiments if name not in RUNS]
    if unknown:
        raise UserError(f"there are no settings for {', '.join(unknown)}: choose among {', '.join(RUNS)}.")
    found = _Found(config)
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        scratch = _Scratch(Path(folder), random.Random(config.seed), config.limit)
        for index, name in enumerate(config.experiments):
            share = len(range(index, config.kills, len(config.experiments)))
            if share:
                found.add(f"kills-{name}", _kill(scratch, name, share))
        for index, verb in enumerate(_VERBS):
            numbers = [_SIGNALS[i % 3] for i in range(config.signals) if i // 3 % len(_VERBS) == index]
            if numbers:
                found.add(f"signals-{verb}", _send(scratch, verb, numbers))
        for kind, share in (("disk", (config.disks + 1) // 2), ("file", config.disks // 2)):
            if share:
                found.add(f"full-{kind}", _fill(scratch, kind, share))
    if config.cuts:
        done = pulled_plug.cut_runs(pulled_plug.Config(cuts=config.cuts, seed=config.seed))
        found.add("power-cuts", Counts(tried=done.cuts, equal=done.cuts))
    if found.bad:
        raise UserError(f"{', '.join(found.bad)}: not all came back as they should.")
    return "all came back as they should" + (". Next: python -m tools.results" if config.publish else "")


class _Found:
    """The counts so far, printed and published one by one, because all of them take an hour."""

    def __init__(self, config: Config):
        self._config = config
        self.bad: list[str] = []

    def add(self, name: str, counts: Counts) -> None:
        """Prints counts and publishes them."""
        print(f"{name}: {counts}", flush=True)
        if counts.swallowed or counts.hung or counts.equal not in (None, counts.tried):
            self.bad.append(name)
        if self._config.publish:
            _publish({name: counts}, self._config.folder)


def _publish(found: Mapping[str, Counts], folder: Path) -> None:
    """Replaces the rows of the published record that were counted again."""
    table = read("reliability", folder)
    versions = {name: metadata.version(name) for name in ("jax", "jaxlib", "orbax-checkpoint")}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    where = {
        "device": f"{hardware.processor()}, {os.cpu_count()} cores",
        "versions": versions,
        "commit": commit.strip(),
    }
    command = "python -m tools.reliability --publish"
    rows = {row["id"]: row for row in table["rows"]}
    for name, counts in found.items():
        found_numbers = {key: n for key, n in dataclasses.asdict(counts).items() if n is not None}
        numbers = [{"name": key, "value": n, "unit": "times"} for key, n in found_numbers.items()]
        rows[name] = {"id": name, "labels": {"what": _TITLES[name]}, "numbers": numbers, "command": command, **where}
    path = folder / "reliability.json"
    rows = [rows[name] for name in _TITLES if name in rows]
    write_text(path, json.dumps({**table, "rows": rows}, indent=1, ensure_ascii=False) + "\n")


@dataclasses.dataclass(frozen=True)
class _Ended:
    """How a process ended: its code, None if it hung; what it printed; and the seconds that it took."""

    code: int | None
    out: str
    err: str
    seconds: float


class _Scratch:
    """A folder for the runs, the source of the moments, and the undisturbed runs, each made once."""

    def __init__(self, root: Path, rng: random.Random, limit: float):
        self.root, self.rng, self.limit = root, rng, limit
        self._out, self._err = root / "out", root / "err"
        self._whole: dict[str, tuple[Path, float]] = {}
        # One cache for all, also because a full disk must not meet the compiler's files.
        self._environment = {"JAX_COMPILATION_CACHE_DIR": str(root / "xla"), **os.environ, "PYTHONUNBUFFERED": "1"}
        self._environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def whole(self, name: str) -> tuple[Path, float]:
        """Returns the folder of a run that nothing disturbed, and the seconds that it takes with compiled programs."""
        if name not in self._whole:
            for attempt in ("cold", "warm"):
                folder = self.root / f"{name}-{attempt}"
                ended = self.run(name, "train", folder)
                if ended.code != 0:
                    raise UserError(f"the undisturbed run of {name} failed:\n{ended.err[-1000:]}")
            if not finished_runs.same_end(self.root / f"{name}-cold", folder):
                raise UserError(f"two undisturbed runs of {name} differ: nothing can be compared with them.")
            self._whole[name] = folder, ended.seconds
            print(f"{name}: an undisturbed run takes {ended.seconds:.0f} s")
        return self._whole[name]

    def start(
        self, name: str, verb: str, workdir: Path, *more: str, largest: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a command. `more` are flags that replace the run's; `largest` limits the bytes of a file."""
        flags = (*_COMMON, *RUNS[name].split()) if verb == "train" else ()
        environment = dict(self._environment)
        if "pmap" in flags:
            devices = "--xla_force_host_platform_device_count=2"
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {devices}".strip()
        command = [sys.executable, "-m", f"experiments.{name}", verb, "--workdir", str(workdir), *flags, *more]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            return children.start(command, stdout=out, stderr=err, env=environment, largest=largest)

    def end(self, process: subprocess.Popen[bytes], begun: float) -> _Ended:
        """Waits for the end of a process, at most until the limit."""
        code = children.wait(process, timeout=self.limit)
        if code is None:
            process.kill()
            process.wait()
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in (self._out, self._err))
        return _Ended(code, out, err, time.monotonic() - begun)

    def run(self, name: str, verb: str, workdir: Path, *more: str, largest: int | None = None) -> _Ended:
        """Runs a command to its end."""
        begun = time.monotonic()
        return self.end(self.start(name, verb, workdir, *more, largest=largest), begun)


def _kill(scratch: _Scratch, name: str, times: int) -> Counts:
    """Kills runs of an experiment; one that ends by itself is compared, and another is started."""
    whole, seconds = scratch.whole(name)
    counts, folder, unproven = Counts(), scratch.root / "killed", 0
    while counts.tried < times or unproven:
        begun = time.monotonic()
        process = scratch.start(name, "train", folder)
        if counts.tried < times:
            children.wait(process, timeout=scratch.rng.uniform(0.0, seconds))
        if counts.tried < times and process.poll() is None:
            process.kill()
            process.wait()
            counts.tried, unproven = counts.tried + 1, unproven + 1
            seconds_passed, kept = time.monotonic() - begun, finished_runs.steps(folder)
            print(f"{name}: kill {counts.tried} after {seconds_passed:.1f} s, checkpoints {kept}")
            continue
        ended = scratch.end(process, begun)
        counts.hung += ended.code is None
        if ended.code == 0 and finished_runs.same_end(whole, folder):
            counts.equal += unproven
        else:
            print(f"{name}: code {ended.code} {ended.err[-500:]}")
        print(f"{name}: a run that was killed {unproven} times is at its end: {counts}")
        unproven = 0
        shutil.rmtree(folder, ignore_errors=True)
    return counts


# A verb with flags that make it last, but for the evaluation, whose pictures take long enough.
_VERBS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "training": ("train", ("--train.steps", "1000000", "--optimizer.schedule", "constant")),
    "evaluation": ("evaluate", ("--importance-samples", "2000")),
    "sampling": ("sample", ("--num", "100000000")),
}


def _send(scratch: _Scratch, what: str, numbers: Sequence[signal.Signals]) -> Counts:
    """Sends signals to a training that would never end, to evaluations with their pictures, or to endless sampling."""
    (verb, more), (whole, seconds) = _VERBS[what], scratch.whole("vae")
    counts, folder = Counts(equal=None), scratch.root / f"signals-{what}"
    if verb != "train":
        shutil.copytree(whole, folder)
    for number in numbers:
        process, begun = None, 0.0
        while process is None or process.poll() is not None:  # it ended before the signal
            begun = time.monotonic()
            process = scratch.start("vae", verb, folder, *more)
            children.wait(process, timeout=scratch.rng.uniform(0.0, seconds))
        sent, then = time.time(), time.monotonic()
        process.send_signal(number)
        ended = scratch.end(process, begun)
        counts.tried += 1
        counts.hung += ended.code is None
        good = _obeyed(ended, number, verb, folder, sent) and (verb != "train" or _is_saved(ended, folder))
        counts.swallowed += ended.code is not None and not good
        after = time.monotonic() - then
        print(
            f"{what}: {number.name} at {then - begun:.1f} s: code {ended.code} after {after:.1f} s, "
            f"{(ended.out + ended.err).strip().splitlines()[-1:]}"
        )
    return counts


def _obeyed(ended: _Ended, number: signal.Signals, verb: str, folder: Path, sent: float) -> bool:
    """Returns whether a process stopped because of a signal, or had nothing left to stop."""
    if ended.code in (-number, 130) or "stopped" in ended.out:  # -number: before Python or the command handled it
        return True
    later = [path for path in folder.glob("*.*") if path.stat().st_mtime > sent]
    return verb == "evaluate" and ended.code == 0 and len(later) <= _FILES_AFTER


def _is_saved(ended: _Ended, folder: Path) -> bool:
    """Returns whether a training that was stopped has saved the step that it names, and all that is kept is whole."""
    stopped = re.search(r"stopped at step (\d+) and saved", ended.out)
    if stopped is not None and int(stopped[1]) not in finished_runs.steps(folder):
        return False
    return bool(finished_runs.digests(folder)) or not finished_runs.steps(folder)


def _fill(scratch: _Scratch, kind: str, times: int) -> Counts:
    """Trains where there is not enough room, then makes room and repeats the command."""
    whole, _ = scratch.whole("vae")
    files = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    counts, mounted = Counts(), kind == "disk" and sys.platform == "linux" and os.geteuid() == 0
    while counts.tried < times:
        folder = scratch.root / f"full-{kind}" / "run"
        most = sum(-(-size // 4096) * 4096 for size in files) if mounted else max(files)
        # Files are of all sizes, so that their limit is too.
        room = scratch.rng.randrange(4096, most) if mounted else int(most ** scratch.rng.uniform(0.5, 1.0))
        with _small_disk(folder.parent, room) if mounted else contextlib.nullcontext():
            ended = scratch.run("vae", "train", folder, largest=None if mounted else room)
            warnings = [line for line in ended.err.splitlines() if line.startswith("WARNING: ")]
            errors = [line for line in ended.err.splitlines() if line not in warnings]
            if ended.code == 0 and not warnings:
                print(f"{kind}: {room} bytes were enough")
                shutil.rmtree(folder)
                continue
            counts.tried += 1
            counts.hung += ended.code is None
            kept = finished_runs.steps(folder)
            if mounted:
                subprocess.run(["mount", "-o", "remount,size=1g", folder.parent], check=True)
            again = scratch.run("vae", "train", folder)
            counts.hung += again.code is None
            print(f"{kind}: {room} bytes: code {ended.code}, {len(warnings)} warnings, {errors}; kept {kept}")
            resumed = re.search(r"resuming from step (\d+)", again.out)
            is_kept = (
                not kept
                or max(kept) == max(finished_runs.steps(whole))
                or (resumed is not None and int(resumed[1]) == max(kept))
            )
            is_short = ended.code == 0 or (ended.code == 2 and 1 <= len(errors) <= 2)
            if again.code == 0 and is_kept and is_short and finished_runs.same_end(whole, folder):
                counts.equal += 1
            else:
                print(f"{kind}: NOT AS IT SHOULD BE: {ended} then {again}")
            shutil.rmtree(folder, ignore_errors=True)
    return counts


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    runner.program(Config, measure)
