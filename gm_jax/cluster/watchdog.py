"""Signs of life: what each process tells the others through the run's folder, and who is named when one fails.

Every second each process writes <folder>/processes/<id>.json: how often it has done so, and what it is doing. Nobody
reads them while all goes well. They are read to name the one to blame

  * when a phase outlasts its limit here: whose file no longer changes is dead or stopped, and whoever has passed fewer
    phases than this process is what it waits for (`Watchdog`);
  * when a collective fails, or when jax itself has given another process up and ends this one (`last_words`).

jax ends a process from C++, at once and with a page of text, so that only another process can still speak. That is
what this file does when it is run as a program: it stands between C++'s standard error and the real one, hands
everything on, and makes one line of that page. It imports nothing but the standard library.
"""

import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

BEAT = 1.0  # seconds from one sign to the next
AGAIN = "start all processes again: they go on from the last checkpoint"

_TIMES_MEDIAN = 20  # a phase may take this many times as long as those of its name usually do,
_TIMES_FLOOR = 60  # and the first of its name this many times the least limit: it may compile
_SIZE = 2048
DONE = "done"  # the last word of a process that has nothing more to do
_LEFT = "left, since "  # how the last words begin of one that blames another

_GLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d")
_COORDINATION = re.compile(r"coordination_service|preemption_sync|client\.h|distributed_runtime")
_GIVEN_UP = "the JAX distributed service detected fatal errors"
_UNHEALTHY = re.compile(r"stopped sending heartbeats\):((?:\s|,|\d+\b|/job\S*task:\d+)+)")


class Sign(NamedTuple):
    """What a process last said of itself.

    Attributes:
        process: its number.
        host: where it runs.
        pid: its id there.
        count: how many signs it has given.
        passed: how many phases it has been through; equal for all processes that are at the same point.
        phase: what it is doing.
        step: the training step it is at.
        ended: why it left, if it did and was able to say so.
    """

    process: int
    host: str
    pid: int
    count: int = 0
    passed: int = 0
    phase: str = "starting"
    step: int = 0
    ended: str | None = None

    def __str__(self) -> str:
        return f"process {self.process} (pid {self.pid} on {self.host})"


def write(folder: Path, sign: Sign) -> None:
    """Write a sign; whoever reads at the same time reads the old one, the new one or neither."""
    # In place and padded: a file renamed over another stays unseen for long on some network file systems.
    data = _encode(sign).ljust(_SIZE)
    with contextlib.suppress(OSError):  # a disk that is full for now must not end the run
        descriptor = os.open(folder / f"{sign.process}.json", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


def _encode(sign: Sign) -> bytes:
    """A sign in JSON, its last word cut to what there is room for."""
    data = json.dumps(sign._asdict(), ensure_ascii=False).encode(errors="replace")
    if len(data) <= _SIZE or not sign.ended:
        return data
    # A character may take six bytes; each of these cuts leaves less.
    return _encode(sign._replace(ended=sign.ended[: -1 - (len(data) - _SIZE) // 6]))


def read(folder: Path) -> dict[int, Sign]:
    """Every process's last sign."""
    signs = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            sign = Sign(**json.loads(path.read_bytes()))
            signs[sign.process] = sign
    return signs


class Hearing:
    """Which of the others are silent: whose count has stayed the same for long enough, by this process's own clock."""

    def __init__(self, silence: float):
        self._silence = silence
        self._heard: dict[int, tuple[int, float]] = {}

    def silent(self, signs: Iterable[Sign], now: float) -> list[Sign]:
        """Those of `signs` that have been silent for long."""
        silent = []
        for sign in signs:
            count, since = self._heard.get(sign.process, (None, now))
            if count != sign.count:
                self._heard[sign.process] = (sign.count, now)
            elif now - since >= self._silence:
                silent.append(sign)
        return silent


def blame(others: Sequence[Sign], silent: Sequence[Sign]) -> str | None:
    """The line that names who failed: who said so itself, or fell silent, but was not itself the victim of another."""
    others = [sign for sign in others if sign.ended != DONE]
    for sign in others:
        if sign.ended is not None and not sign.ended.startswith(_LEFT):
            return f"{sign} ended in {sign.phase} at step {sign.step}: {sign.ended}"
    for sign in silent:
        if sign.ended is None:
            return f"{sign} is dead or stopped: no sign of life since {sign.phase} at step {sign.step}"
    for sign in others:
        if sign.ended is not None:
            return sign.ended.removeprefix(_LEFT)
    return None


def blaming(line: str) -> str:
    """What a process says in its last sign that leaves because of another."""
    return _LEFT + line


class Watchdog:
    """This process's own signs of life, and the watch over the phase that it is in.

    The limit of a phase is `floor` seconds or, if longer, 20 times the median of those of its name. Past `floor` a
    process that is silent is enough to leave; past the limit, so is one that is behind, or anything. Phases whose
    names are in `limits` have those.
    """

    def __init__(self, folder: Path, process: int, *, floor: float, limits: Mapping[str, float] = MappingProxyType({})):
        self._folder, self._floor, self._limits = folder, floor, limits
        self._sign = Sign(process, socket.gethostname(), os.getpid())
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._since = time.monotonic()
        self._durations: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=100))
        self._hearing = Hearing(self._silence())
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to give signs, and to watch."""
        write(self._folder, self._sign)
        self._thread.start()

    def enter(self, phase: str, step: int) -> None:
        """Say that a phase begins, which ends the one before."""
        now = time.monotonic()
        with self._lock:
            self._durations[self._sign.phase].append(now - self._since)
            self._sign = self._sign._replace(phase=phase, step=step, passed=self._sign.passed + 1)
            self._since = now

    def limit(self, phase: str) -> float:
        """Seconds that a phase of this name may take."""
        if phase in self._limits:
            return self._limits[phase]
        durations = self._durations[phase]
        usual = _TIMES_MEDIAN * statistics.median(durations) if durations else _TIMES_FLOOR * self._floor
        return max(self._floor, usual)

    def end(self, why: str) -> None:
        """Give no more signs, the last with the reason."""
        self._stopped.set()
        with self._lock:
            self._sign = self._sign._replace(ended=why[:1000])
            write(self._folder, self._sign)

    def wait_for_others(self, seconds: float) -> None:
        """Wait until each of the others has said its last word, at most so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(sign.ended is None for sign in self._others()):
            time.sleep(BEAT / 10)

    def find_lost(self, seconds: float) -> str | None:
        """Who failed, looked for at most so long: for a collective that has failed here. The watch ends."""
        self._stopped.set()
        hearing, until = Hearing(3 * BEAT), time.monotonic() + seconds
        while time.monotonic() < until:
            self._beat()  # still alive, and not to be blamed
            others = self._others()
            line = blame(others, hearing.silent(others, time.monotonic()))
            if line is not None:
                return line
            time.sleep(BEAT / 2)
        return None

    def _silence(self) -> float:
        return max(4 * BEAT, self._floor / 2)  # a network file system may show a change half a minute late

    def _others(self) -> list[Sign]:
        return [sign for sign in read(self._folder).values() if sign.process != self._sign.process]

    def _run(self) -> None:
        while not self._stopped.wait(BEAT):
            self._beat()
            line = self._accusation()
            if line is not None:
                self.end(blaming(line))
                print(f"error: {line}; {AGAIN}", file=sys.stderr, flush=True)
                os._exit(1)

    def _beat(self) -> None:
        with self._lock:
            self._sign = self._sign._replace(count=self._sign.count + 1)
            write(self._folder, self._sign)

    def _accusation(self) -> str | None:
        now = time.monotonic()
        with self._lock:
            mine, age, limit = self._sign, now - self._since, self.limit(self._sign.phase)
        least = min(self._floor, limit)
        # Listened for before, so that who is silent is known by then: two beats, for signs come once in a beat.
        if age <= least - self._silence() - 2 * BEAT:
            self._hearing = Hearing(self._silence())
            return None
        others = self._others()
        silent = self._hearing.silent(others, now)
        if age <= least:
            return None
        line = blame(others, silent)
        if line is not None or age <= limit:
            return line
        behind, ahead = (choose([mine, *others], key=lambda sign: sign.passed) for choose in (min, max))
        if behind.passed == ahead.passed:
            return f"{mine.phase} at step {mine.step} takes {age:.0f} s, and no process is behind: devices or network"
        return (
            f"{behind} is stalled in {behind.phase} at step {behind.step}, "
            f"and {ahead.phase} at step {ahead.step} waits for it: {age:.0f} s so far"
        )


def filter_standard_error(folder: Path, process: int) -> None:
    """Send C++'s standard error to the real one through a process of its own, which outlives this one."""
    sys.stderr.flush()
    real = os.dup(2)
    # A session of its own: Ctrl-C and a scheduler's signals are for the processes that train.
    command = [sys.executable, "-I", __file__, str(folder), str(process)]
    speaker = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=real, start_new_session=True)
    os.dup2(speaker.stdin.fileno(), 2)
    speaker.stdin.close()
    # Python's own goes directly: in order, and to a terminal if it is one.
    sys.stderr = os.fdopen(real, "w", buffering=1, errors="backslashreplace")


def last_words(page: str, folder: Path, process: int) -> str:
    """One line for jax's page on the end of process `process`, which must say who was lost.

    jax names those that have stopped sending heartbeats, or else says only that process 0 cannot be reached, which may
    be because that one has just left for the same reason.
    """
    unhealthy = _UNHEALTHY.search(page)
    lost = [int(number) for number in re.findall(r"\d+(?=[\s,]|$)", unhealthy[1])] if unhealthy else []
    signs = read(folder)
    own = signs.get(process, Sign(process, socket.gethostname(), os.getppid()))
    if not lost:
        time.sleep(2 * BEAT)  # for process 0's own last words
        signs = read(folder)
        lost = [0]
    named = [signs[number] for number in lost if number in signs]
    line = blame(named, named) or f"process {lost[0]} is dead or cannot be reached"
    write(folder, own._replace(ended=blaming(line)))
    return f"error: {line}; {AGAIN}"


def _speak(folder: Path, process: int) -> None:
    """Hand standard input on to standard error, line by line, but what jax says of other processes' ends."""
    page: list[str] = []
    held = False
    for data in sys.stdin.buffer:
        line = data.decode(errors="replace")
        if _GLOG.match(line):
            held = _COORDINATION.search(line) is not None
        if held:
            page.append(line)
        else:
            _hand_on(line)
    if any(_GIVEN_UP in line for line in page):
        with contextlib.suppress(OSError):
            (folder / f"{process}.log").write_text("".join(page))
        _hand_on(last_words("".join(page), folder, process) + "\n")
    elif not _has_spoken(folder, process):
        _hand_on("".join(page))  # whatever ended it, it may have said so among this


def _has_spoken(folder: Path, process: int) -> bool:
    """Whether a process has said why it left; process 0 takes the folder away when all is done."""
    sign = read(folder).get(process)
    return sign.ended is not None if sign is not None else not folder.is_dir()


def _hand_on(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be there to read it
        sys.stderr.write(text)
        sys.stderr.flush()


def main(arguments: Sequence[Any]) -> None:
    """What `filter_standard_error` runs: FOLDER PROCESS."""
    _speak(Path(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
