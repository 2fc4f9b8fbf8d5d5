"""How long experiments take to their first step, with an empty cache of compiled programs and with a full one.

    python -m benchmarks.first_step                            # all experiments: about ten minutes on an idle machine
    python -m benchmarks.first_step --experiments vae made

Each experiment starts twice with its default flags, from a process of its own to the first line that states a loss. The
first start finds no compiled program, the second one those of the first (`gm_jax/runner/compiled_programs.py`).
"""

import dataclasses
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import command, timing

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
HEADER = ("experiment", "empty cache, s", "full cache, s", "saved, s")


@dataclasses.dataclass(frozen=True)
class Args(command.Args):
    """Which experiments to start."""

    experiments: tuple[str, ...] = ()
    """Names of modules in experiments/; by default all that train a model."""


def names() -> list[str]:
    """Returns the names of all experiments."""
    files = sorted(EXPERIMENTS.glob("*.py"))
    return [file.stem for file in files if "runner.main(CONFIG)" in file.read_text(encoding="utf-8")]


def seconds_to_first_step(name: str, workdir: Path, cache: Path) -> float:
    """Starts an experiment, and returns the seconds until it prints its first loss; the process is then killed.

    Raises:
        RuntimeError: it ended before.
    """
    train = importlib.import_module(f"experiments.{name}").CONFIG.train
    flags = ("--workdir", str(workdir), "--train.log-every", str(train.steps_per_call))
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONUNBUFFERED": "1"}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *flags],
        env=environment,
        cwd=EXPERIMENTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            if line.startswith("step "):
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
            printed.append(line)
    raise RuntimeError(f"experiments.{name} ended before its first step:\n{''.join(printed[-5:])}")


def measure(args: Args) -> dict[str, Any]:
    """Starts each experiment twice."""
    starts = []
    for name in args.experiments or names():
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder, "cache")
            cache.mkdir(mode=0o700)
            cold, warm = (seconds_to_first_step(name, Path(folder, f"run{k}"), cache) for k in range(2))
        print(f"{name}: {cold:.1f} s, then {warm:.1f} s", flush=True)
        starts.append({"experiment": name, "cold": cold, "warm": warm})
    return {"starts": starts}


def report(results: dict[str, Any]) -> str:
    """Returns the seconds as a Markdown table."""
    seconds = [(each["experiment"], each["cold"], each["warm"]) for each in results["starts"]]
    return timing.table(HEADER, [[name, f"{a:.1f}", f"{b:.1f}", f"{a - b:.1f}"] for name, a, b in seconds])


if __name__ == "__main__":
    command.main(__spec__.name, Args, measure, report, against="jax")
