"""Heartbeats: how the processes of a run notice that one of them died or stalled, and name the culprit.

Each process writes <folder>/<id>.json once a second: a count, its phase and its step. The first process that learns why
the run fails writes one line to <folder>/failure. All others read that line within a second, print it and exit with
code 1, so that every survivor names the same culprit. A process looks for the culprit

  * if a collective fails, or jax aborts the process from C++ because process 0 is gone;
  * if another process gives no heartbeat for `heartbeat_timeout` seconds;
  * if its own phase exceeds its limit: a silent process is the culprit, or else the one that has passed fewest phases.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import statistics
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

from gm_jax.files import read_json

BEAT = 1.0  # seconds between two heartbeats
FAILURE = "failure"  # the file that names the culprit

_SEARCH = 10  # beats to look for the process that made a collective fail
_PROOF = 4  # beats without a change that prove death once something has failed
_PATIENCE = 3  # beats that process 0, which hosts jax's coordination service, may outlive the others
_TIMES_MEDIAN = 20  # a phase may take this many times its median duration,
_TIMES_FLOOR = 60  # and its first occurrence, which compiles, this many times `stall_timeout`
_SIZE = 2048  # bytes of each file


class Heartbeat(NamedTuple):
    """The last report of a process.

    Attributes:
        process: its index.
        host: where it runs.
        pid: its id there.
        count: number of heartbeats so far.
        passed: number of phases so far; equal for all processes that are at the same point.
        phase: what it is doing.
        step: its training step.
        left: whether it has exited in an orderly way.
    """

    process: int
    host: str
    pid: int
    count: int = 0
    passed: int = 0
    phase: str = "starting"
    step: int = 0
    left: bool = False

    def __str__(self) -> str:
        return f"process {self.process} (pid {self.pid} on {self.host})"


def write(folder: Path, heartbeat: Heartbeat) -> None:
    """Writes a heartbeat. A concurrent reader finds the old one, the new one or neither."""
    _write(folder / f"{heartbeat.process}.json", json.dumps(heartbeat._asdict()))


def read(folder: Path) -> dict[int, Heartbeat]:
    """Reads the last heartbeat of every process."""
    heartbeats = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            heartbeat = Heartbeat(**read_json(path, most_bytes=2 * _SIZE))
            heartbeats[heartbeat.process] = heartbeat
    return heartbeats


def read_failure(folder: Path) -> str | None:
    """Reads the line that names the culprit; None while nothing has failed."""
    with contextlib.suppress(OSError):
        return (folder / FAILURE).read_bytes().decode(errors="ignore").strip("\0 ") or None
    return None


def report_failure(folder: Path, line: str) -> str:
    """Writes the line that names the culprit, unless another process was first; returns the line that stands."""
    if read_failure(folder) is None:
        _write(folder / FAILURE, line)
    return read_failure(folder) or line


def _write(path: Path, text: str) -> None:
    # In place and padded: some network file systems show a renamed file late, and a full disk still takes it.
    data = text.encode(errors="replace")[:_SIZE].ljust(_SIZE)
    with contextlib.suppress(OSError):  # a disk that fails for a moment must not end the run
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


class SilenceDetector:
    """Finds processes whose heartbeat count stays the same over several looks.

    It counts looks, not seconds: a disk that hangs for a minute accuses nobody.
    """

    def __init__(self, looks: int):
        self._looks = max(1, looks)
        self._unchanged: dict[int, tuple[int, int]] = {}

    def silent(self, heartbeats: Iterable[Heartbeat]) -> list[Heartbeat]:
        """Looks once more; returns the heartbeats that have now been unchanged for `looks` looks."""
        silent = []
        for heartbeat in heartbeats:
            count, looks = self._unchanged.get(heartbeat.process, (None, 0))
            looks = looks + 1 if count == heartbeat.count else 0
            self._unchanged[heartbeat.process] = (heartbeat.count, looks)
            if looks >= self._looks:
                silent.append(heartbeat)
        return silent


class Watchdog:
    """Gives this process's heartbeats, and ends it when the run has failed elsewhere or its own phase takes too long.

    All waiting is counted in beats of `beat` seconds.
    """

    def __init__(
        self,
        folder: Path,
        process: int,
        *,
        heartbeat_timeout: float,
        stall_timeout: float,
        beat: float = BEAT,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Makes a watchdog that does nothing before `start`.

        Args:
            folder: where the processes write their heartbeats.
            process: the index of this process.
            heartbeat_timeout: seconds of silence after which another process counts as dead.
            stall_timeout: seconds that a phase may take at least.
            beat: seconds between two heartbeats.
            clock: returns the time in seconds.
        """
        self._folder, self._heartbeat_timeout, self._stall_timeout = folder, heartbeat_timeout, stall_timeout
        self._beat_seconds, self._clock = beat, clock
        self._own = Heartbeat(process, socket.gethostname(), os.getpid())
        # Reentrant: a signal may interrupt the thread that holds it.
        self._lock, self._exiting, self._stopped = threading.RLock(), threading.Lock(), threading.Event()
        self._durations: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=100))
        self._begin(None)

    def start(self) -> None:
        """Gives the first heartbeat and begins to watch."""
        write(self._folder, self._own)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def enter(self, phase: str, step: int, *, limit: float | None = None) -> None:
        """Begins a phase, which ends the one before.

        Args:
            phase: its name; phases of the same name share their limit.
            step: the training step.
            limit: seconds that it may take, in place of `limit(phase)`.
        """
        with self._lock:
            self._durations[self._own.phase].append(self._clock() - self._since)
            self._own = self._own._replace(phase=phase, step=step, passed=self._own.passed + 1)
            self._begin(limit)

    def limit(self, phase: str) -> float:
        """Returns the seconds that a phase may take: 20 times its median duration, and at least `stall_timeout`."""
        durations = self._durations[phase]
        usual = _TIMES_MEDIAN * statistics.median(durations) if durations else _TIMES_FLOOR * self._stall_timeout
        return max(self._stall_timeout, usual)

    def check(self) -> str | None:
        """Checks once, as the watch does at every beat, whether the run has failed; returns the line that says why."""
        with self._lock:
            own, age = self._own, self._clock() - self._since
            limit = self.limit(own.phase) if self._given_limit is None else self._given_limit
        if age > limit:
            line = self.find_culprit(_PROOF + 1)
            went_on = self._own.passed != own.passed
            return line if line or went_on else report_failure(self._folder, self._stalled(own, age))
        # Nobody waits for a dead process while phases are short: then only one file is read.
        return read_failure(self._folder) if age < self._heartbeat_timeout / 2 else self._look(self._detector)

    def find_culprit(self, beats: int = _SEARCH) -> str | None:
        """Looks for so many beats for the process that made the run fail; returns the line that names it, or None."""
        detector = SilenceDetector(_PROOF)
        for _ in range(beats):
            self._give_heartbeat()  # this process is alive, and others search too
            line = self._look(detector)
            if line is not None:
                return line
            time.sleep(self._beat_seconds)
        return None

    def fail(self, reason: str) -> None:
        """Stops to watch and names this process as the culprit, unless another one is named already."""
        self._stopped.set()
        report_failure(self._folder, f"{self._own} ended in {self._own.phase} at step {self._own.step}: {reason}")

    def leave(self) -> None:
        """Ends the heartbeats in an orderly way. Process 0 first waits a few beats until the others have left."""
        self._stopped.set()
        for _ in range(10 * _PATIENCE if self._own.process == 0 else 0):
            if not self._others():
                break
            time.sleep(self._beat_seconds / 10)
        with self._lock:
            self._own = self._own._replace(left=True)
            write(self._folder, self._own)

    def give_up(self, line: str) -> NoReturn:
        """Prints the line that names the culprit and ends this process with exit code 1."""
        self._exiting.acquire()  # and never released: the first thread that comes here ends the process
        with contextlib.suppress(OSError):
            print(f"error: {line}; start all processes again: they resume from the last checkpoint", file=sys.stderr)
            sys.stderr.flush()
        self.leave()
        os._exit(1)

    def catch_abort(self) -> None:
        """Names the culprit if C++ aborts, as jax does as soon as process 0 with its coordination service is gone.

        The handler is libc's: an abort does not wait for a signal handler of Python.
        """
        libc = ctypes.CDLL(None)

        def on_abort(_: int) -> None:
            line = self.find_culprit()
            if line is not None:
                self.give_up(line)
            self.fail("aborted by C++, which gives the reason on its standard error")
            libc.signal(signal.SIGABRT, None)  # the default handler
            os.abort()

        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)  # libc holds no reference
        libc.signal(signal.SIGABRT, self._on_abort)

    def _begin(self, limit: float | None) -> None:
        self._since, self._given_limit = self._clock(), limit
        self._detector = SilenceDetector(round(self._heartbeat_timeout / self._beat_seconds))

    def _run(self) -> None:
        while not self._stopped.wait(self._beat_seconds):
            self._give_heartbeat()
            line = self.check()
            if line is not None and not self._stopped.is_set():
                self.give_up(line)

    def _give_heartbeat(self) -> None:
        with self._lock:
            self._own = self._own._replace(count=self._own.count + 1)
            write(self._folder, self._own)

    def _others(self) -> list[Heartbeat]:
        return [one for one in read(self._folder).values() if one.process != self._own.process and not one.left]

    def _look(self, detector: SilenceDetector) -> str | None:
        line = read_failure(self._folder)
        if line is not None:
            return line
        for silent in detector.silent(self._others()):
            line = f"{silent} is dead or stopped: no heartbeat since {silent.phase} at step {silent.step}"
            return report_failure(self._folder, line)
        return None

    def _stalled(self, own: Heartbeat, age: float) -> str:
        everyone = [own, *self._others()]
        behind, ahead = (choose(everyone, key=lambda one: one.passed) for choose in (min, max))
        if behind.passed == ahead.passed:
            return (
                f"{own.phase} at step {own.step} takes {age:.0f} s, and no process is behind: check devices and network"
            )
        return (
            f"{behind} is stalled in {behind.phase} at step {behind.step}, "
            f"and {ahead.phase} at step {ahead.step} waits for it: {age:.0f} s so far"
        )
