"""Times several cases side by side in live worker processes, and marks samples that a busy machine has spoiled.

    rounds = alternate({"ours": Case(make_ours, 256), "theirs": Case(make_theirs, 256)})
    ratio(rounds, over="theirs", under="ours")        # above 1: ours is faster

A case is a picklable `make(*args)` that returns `run(count)`, which does `count` units of work and returns when they
are done. Each case has a process of its own, with the same number of cores. A round times each case once; every other
round runs in reverse order (A B B A ...). Ratios are taken within a round, so that a slow drift of the machine cancels,
and their median is reported.

A sample is clean if, by /proc/stat, the rest of the machine used less than MOST_OTHERS cores while it ran. Contention
slows some thread pools ten times more than others, so a ratio from a busy machine is meaningless. Fewer than
FEWEST_CLEAN clean rounds give no verdict.
"""

import contextlib
import multiprocessing
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from gm_jax.errors import UserError

MOST_OTHERS = 0.2  # cores
FEWEST_CLEAN = 5  # rounds
THREADS = 2

# A fork would inherit the thread pools of the parent without their threads.
_SPAWN = multiprocessing.get_context("spawn")

Run = Callable[[int], None]


class Sample(NamedTuple):
    """One timing.

    Attributes:
        seconds: time of one unit of work.
        others: cores in use by everything except this worker.
        count: units of work in the sample.
    """

    seconds: float
    others: float
    count: int = 1

    @property
    def clean(self) -> bool:
        """Whether the rest of the machine was idle."""
        return self.others < MOST_OTHERS


class Ratio(NamedTuple):
    """Ratios of two cases within the rounds in which both were clean.

    Attributes:
        median: their median; None if no round was clean.
        low: the smallest ratio, or None.
        high: the largest ratio, or None.
        clean: number of rounds in which both samples were clean.
        rounds: number of all rounds.
    """

    median: float | None
    low: float | None
    high: float | None
    clean: int
    rounds: int

    @property
    def cleanliness(self) -> str:
        """Clean rounds out of all rounds, such as "9/11"."""
        return f"{self.clean}/{self.rounds}"

    def __str__(self) -> str:
        if self.median is None:
            return "-"
        places = 0 if self.median >= 100 else 2
        return f"{self.median:.{places}f} ({self.low:.{places}f}-{self.high:.{places}f})"


class Case:
    """Something to time: make(*args) -> run(count), which the worker calls."""

    def __init__(self, make: Callable[..., Run], *args: Any):
        """Takes a function of a module and its arguments, both of which are pickled for the worker."""
        self.make, self.args = make, args


def alternate(
    cases: Mapping[str, Case], *, rounds: int = 9, seconds: float = 1.0, title: str = ""
) -> list[dict[str, Sample]]:
    """Times the cases in turns, until `rounds` rounds are clean or twice as many are done.

    The samples' cleanness decides when to stop, never their speed. Progress goes to stderr.

    Args:
        cases: name -> case.
        rounds: number of clean rounds wanted.
        seconds: length of a sample; /proc/stat counts in hundredths of a second.
        title: heading of the progress.

    Returns:
        The rounds: name -> sample.
    """
    print(title, file=sys.stderr, flush=True)
    done: list[dict[str, Sample]] = []
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(_Worker(case)) for name, case in cases.items()}
        for worker in workers.values():
            worker.get_ready()
        for worker in workers.values():
            worker.calibrate(seconds)
        while len(done) < 2 * rounds and sum(all(s.clean for s in samples.values()) for samples in done) < rounds:
            order = list(workers) if len(done) % 2 == 0 else list(workers)[::-1]
            samples = {name: workers[name].sample() for name in order}
            done.append({name: samples[name] for name in workers})
            shown = (f"{name} {1e3 * s.seconds:.4g} ms (others {s.others:.2f})" for name, s in done[-1].items())
            print(f"  round {len(done)}: {', '.join(shown)}", file=sys.stderr, flush=True)
    return done


def ratio(rounds: Sequence[Mapping[str, Sample]], *, over: str, under: str) -> Ratio:
    """Divides the time of case `over` by the time of case `under`: how many times faster `under` is."""
    pairs = [(r[over], r[under]) for r in rounds]
    ratios = [a.seconds / b.seconds for a, b in pairs if a.clean and b.clean]
    if not ratios:
        return Ratio(None, None, None, 0, len(pairs))
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios), len(pairs))


def median_seconds(rounds: Sequence[Mapping[str, Sample]], name: str) -> float | None:
    """Returns the median time of one unit of work over the clean samples; None if there are none."""
    clean = [r[name].seconds for r in rounds if r[name].clean]
    return statistics.median(clean) if clean else None


def verdict(result: Ratio, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Formats a goal and whether it is met: "at least 1.3: met", "at most 1.1: missed", "at least 1.3: no verdict"."""
    goal = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    if result.median is None or result.clean < FEWEST_CLEAN:
        return f"{goal}: no verdict"
    met = result.median >= at_least if at_least is not None else result.median <= at_most
    return f"{goal}: {'met' if met else 'missed'}"


def in_own_process(fn: Callable, *args: Any) -> Any:
    """Returns fn(*args), computed in a fresh process."""
    with futures.ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(fn, *args).result()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def number(value: float | None, form: str) -> str:
    """Formats a cell of a table; None becomes "-"."""
    return "-" if value is None else format(value, form)


def add_xla_flags(flags: str) -> None:
    """Adds XLA flags to the environment, before a worker uses jax. XLA ends the process if it does not know a flag."""
    if flags:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


def set_devices(count: int) -> None:
    """Makes a worker's jax see so many CPU devices, before the worker computes anything.

    Raises:
        RuntimeError: jax has other devices, such as a GPU.
    """
    import jax

    jax.config.update("jax_num_cpu_devices", count)
    if jax.devices()[0].platform != "cpu" or jax.device_count() != count:
        raise RuntimeError(f"jax has {jax.devices()}, not {count} CPU devices: set JAX_PLATFORMS=cpu.")


def cores() -> list[int]:
    """Lists the cores that a case uses."""
    return sorted(os.sched_getaffinity(0))[:THREADS]


def matmul_rate(size: int = 2048, seconds: float = 2.0) -> float:
    """Measures this machine's FLOP/s in products of square float32 matrices, by jax in this process."""
    import jax
    import jax.numpy as jnp

    os.sched_setaffinity(0, cores())
    product, ones = jax.jit(jnp.matmul), jnp.ones((size, size), jnp.float32)
    jax.block_until_ready(product(ones, ones))
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(product(ones, ones))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(times)


def check_machine() -> None:
    """Checks that this machine can recognise clean samples.

    Raises:
        UserError: it has no /proc/stat.
    """
    if not Path("/proc/stat").exists():
        raise UserError("there is no /proc/stat, which shows whether the machine is idle: run benchmarks on Linux.")


def machine() -> str:
    """Describes processor, cores and threads."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    cores = os.cpu_count() or 1
    return f"{name}, {cores} cores, {min(THREADS, cores)} threads for each case, {platform.system()}"


def versions(*packages: str) -> dict[str, str]:
    """Returns the versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def others_used(busy: float, own: float, elapsed: float) -> float:
    """Returns the cores in use by others: CPU seconds of the machine minus one's own, per second; at least 0."""
    return max(0.0, busy - own) / elapsed


def busy_seconds(stat: str, ticks_per_second: int) -> float:
    """Sums the CPU seconds of all cores since boot from the text of /proc/stat; stolen time counts as busy."""
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / ticks_per_second


class _Worker:
    """A case in a process of its own, which starts at once."""

    def __init__(self, case: Case):
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, case.make, case.args), daemon=True)
        self._process.start()
        theirs.close()
        self._count = 1

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def get_ready(self) -> None:
        """Waits until the case is made and warm."""
        self._receive()

    def calibrate(self, seconds: float) -> None:
        """Finds out how much work a sample of that length contains."""
        while (elapsed := self._count * self.sample().seconds) < seconds / 4:
            self._count *= 2
        self._count = max(1, round(self._count * seconds / elapsed))

    def sample(self) -> Sample:
        """Times one sample."""
        self._connection.send(self._count)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a worker died with exit code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise RuntimeError(f"a worker failed:\n{answer}")
        return answer


def _serve(connection: Connection, make: Callable[..., Run], args: tuple) -> None:
    """Runs a worker: makes the case, then answers each count with a Sample, or with a traceback as str."""
    # First of all, because thread pools size themselves by it.
    os.sched_setaffinity(0, cores())
    try:
        run = make(*args)
        run(1)
        connection.send(None)
        while True:
            connection.send(_timed(run, connection.recv()))
    except EOFError:
        return
    except Exception:
        connection.send(traceback.format_exc())


def _timed(run: Run, count: int) -> Sample:
    busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
    run(count)
    elapsed = time.perf_counter() - start
    others = others_used(_busy_seconds() - busy, time.process_time() - own, elapsed)
    return Sample(elapsed / count, others, count)


def _busy_seconds() -> float:
    return busy_seconds(Path("/proc/stat").read_text(encoding="utf-8"), os.sysconf("SC_CLK_TCK"))
