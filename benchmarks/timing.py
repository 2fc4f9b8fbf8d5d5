"""Cases side by side: live worker processes, timed in turns, and which of the samples a busy machine has spoiled.

    rounds = alternate({"ours": Case(make_ours, 256), "theirs": Case(make_theirs, 256)})
    ratio(rounds, over="theirs", under="ours")        # above 1: ours is faster

A case is a picklable `make(*args)` that returns `run(count)`: do `count` units of work, return when they are done. It
lives in a process of its own, on as many cores as every other case. A round times each case once, and every other round
in reverse order (A B B A ...). What is compared are ratios within a round, so that a slow drift of the machine cancels;
what is reported is their median.

A sample is clean when the rest of the machine used less than MOST_OTHERS cores while it ran, by /proc/stat: contention
slows some thread pools ten times more than others, so that a ratio measured under it says nothing. No verdict is given
on fewer than FEWEST_CLEAN clean rounds.
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
from pathlib import Path
from typing import Any, NamedTuple

from gm_jax.errors import UserError

MOST_OTHERS = 0.2  # cores
FEWEST_CLEAN = 5  # rounds
THREADS = 2

# Fresh interpreters: a fork would share the parent's thread pools, or their corpses.
_SPAWN = multiprocessing.get_context("spawn")

Run = Callable[[int], None]


class Sample(NamedTuple):
    """One timing.

    Attributes:
        seconds: of one unit of work.
        others: cores that everything but this worker used meanwhile.
        count: units that it took.
    """

    seconds: float
    others: float
    count: int = 1

    @property
    def clean(self) -> bool:
        """Whether the worker had the machine to itself."""
        return self.others < MOST_OTHERS


class Ratio(NamedTuple):
    """Paired ratios of two cases, over the rounds where both were clean.

    Attributes:
        median: None where no round was clean.
        low: the smallest, or None.
        high: the largest, or None.
        clean: rounds where both samples were clean.
        rounds: all rounds.
    """

    median: float | None
    low: float | None
    high: float | None
    clean: int
    rounds: int

    @property
    def cleanliness(self) -> str:
        """Clean rounds of all rounds, "9/11"."""
        return f"{self.clean}/{self.rounds}"

    def __str__(self) -> str:
        if self.median is None:
            return "-"
        places = 0 if self.median >= 100 else 2
        return f"{self.median:.{places}f} ({self.low:.{places}f}-{self.high:.{places}f})"


class Case:
    """Something to time, not begun yet: make(*args) -> run(count)."""

    def __init__(self, make: Callable[..., Run], *args: Any):
        """A function of a module, and its arguments; both travel to the worker."""
        self.make, self.args = make, args


def alternate(
    cases: Mapping[str, Case], *, rounds: int = 9, seconds: float = 1.0, title: str = ""
) -> list[dict[str, Sample]]:
    """Time the cases in turns, until so many rounds are clean or twice as many are done.

    When to stop depends on how clean the samples are, never on how fast. Progress goes to stderr.

    Args:
        cases: name -> case.
        rounds: clean rounds wanted.
        seconds: length of a sample; /proc/stat counts in hundredths of a second.
        title: what the progress is headed by.

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
    """Time of the case `over`, divided by that of `under`: how many times faster `under` is."""
    pairs = [(r[over], r[under]) for r in rounds]
    ratios = [a.seconds / b.seconds for a, b in pairs if a.clean and b.clean]
    if not ratios:
        return Ratio(None, None, None, 0, len(pairs))
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios), len(pairs))


def median_seconds(rounds: Sequence[Mapping[str, Sample]], name: str) -> float | None:
    """Seconds of one unit of work, over the clean samples; None where there are none."""
    clean = [r[name].seconds for r in rounds if r[name].clean]
    return statistics.median(clean) if clean else None


def verdict(result: Ratio, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """The goal, and whether it is met: "at least 1.3: met", "at most 1.1: missed", "at least 1.3: no verdict"."""
    goal = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    if result.median is None or result.clean < FEWEST_CLEAN:
        return f"{goal}: no verdict"
    met = result.median >= at_least if at_least is not None else result.median <= at_most
    return f"{goal}: {'met' if met else 'missed'}"


def in_own_process(fn: Callable, *args: Any) -> Any:
    """What fn(*args) returns, computed in a fresh process."""
    with futures.ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:
        return pool.submit(fn, *args).result()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def number(value: float | None, form: str) -> str:
    """A cell of a table; "-" where nothing is known."""
    return "-" if value is None else format(value, form)


def add_xla_flags(flags: str) -> None:
    """For a worker, before it uses jax: flags beside those of the environment. XLA ends a process that names others."""
    if flags:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


def check_machine() -> None:
    """Refuse a machine on which clean samples cannot be told from others.

    Raises:
        UserError: it has no /proc/stat.
    """
    if not Path("/proc/stat").exists():
        raise UserError("benchmarks need Linux: without /proc/stat nobody knows what else the machine was doing.")


def machine() -> str:
    """Processor, cores and threads, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    cores = os.cpu_count() or 1
    return f"{name}, {cores} cores, {min(THREADS, cores)} threads for each case, {platform.system()}"


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def others_used(busy: float, own: float, elapsed: float) -> float:
    """Cores in use by others: all CPU seconds of the machine, less one's own, per second; at least 0."""
    return max(0.0, busy - own) / elapsed


def busy_seconds(stat: str, ticks_per_second: int) -> float:
    """CPU seconds in use since boot, of all cores, from the text of /proc/stat; stolen ones are in use, by others."""
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / ticks_per_second


class _Worker:
    """A case in a process of its own, which is made at once, side by side with others."""

    def __init__(self, case: Case):
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, case.make, case.args), daemon=True)
        self._process.start()
        theirs.close()
        self._count = 1

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *exception) -> None:
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def get_ready(self) -> None:
        """Wait until it is made and warm."""
        self._receive()

    def calibrate(self, seconds: float) -> None:
        """Find out how much work a sample of that length is."""
        while (elapsed := self._count * self.sample().seconds) < seconds / 4:
            self._count *= 2
        self._count = max(1, round(self._count * seconds / elapsed))

    def sample(self) -> Sample:
        """Time the work of one sample."""
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


def _serve(connection, make: Callable[..., Run], args: tuple) -> None:
    """A worker's whole life: make the case, then answer each count with a Sample; a str is a traceback."""
    # Before any thread pool is made, for they size themselves by it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
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
    return busy_seconds(Path("/proc/stat").read_text(), os.sysconf("SC_CLK_TCK"))
