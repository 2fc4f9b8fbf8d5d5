"""Worker processes that compile side by side and are timed one at a time.

A worker is `python -m benchmarks.accelerator.speed CASE`. It writes a line of JSON when it is warm, then reads a number
of seconds per line, works for about that long, and answers with seconds per unit of work (`serve`).
"""

import collections
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Answer = dict[str, Any]


class Case(NamedTuple):
    """Something to time.

    Attributes:
        make: (tiny) -> (run, facts); run(n) does n units of work and returns when they are done.
        examples: in a unit of work; not counted in a tiny one.
        flops: of matrix products for an example; None if they were not counted.
        precision: of these products, "bf16" or "f32"; the peak with which they are compared.
        group: the work; cases of one group are compared with its first case, which is ours.
    """

    make: Callable[[bool], tuple[Callable[[int], None], Answer]]
    examples: int
    group: str
    flops: float | None = None
    precision: str = "f32"


class Workers:
    """Processes of chosen cases, of which a limited number warm up at once."""

    def __init__(self, names: Sequence[str], *, out: Path, tiny: bool, parallel: int, deadline: float):
        """Starts workers in the order of `names` until the deadline, a value of time.monotonic.

        `facts` holds what each worker said when it was ready, or {"failed": ...}.
        """
        self.facts: dict[str, Answer] = {}
        self._processes: dict[str, subprocess.Popen] = {}
        self._readers: dict[str, threading.Thread] = {}
        self._lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self._command = [sys.executable, "-m", "benchmarks.accelerator.speed", *(["--tiny"] if tiny else [])]
        self._out = out
        waiting = collections.deque(names)
        while len(self.facts) < len(names):
            while waiting and len(self._processes) - len(self.facts) < parallel:
                self._start(waiting.popleft())
            answered = self._next(deadline - time.monotonic())
            if answered is None:
                break
            name, line = answered
            if name in self.facts:  # it has ended; its first answer says why
                continue
            self.facts[name] = json.loads(line) if line else {"failed": f"died; see {self._log(name).name}"}
            print(f"  {name}: {_short(self.facts[name])}", file=sys.stderr, flush=True)
        for name in names:
            if name not in self.facts:
                self.facts[name] = {"failed": "not ready in time"}
                print(f"  {name}: not ready in time", file=sys.stderr, flush=True)
                self._kill(name)

    def sample(self, name: str, seconds: float, *, patience: float) -> Answer:
        """Times one sample: {"seconds": of a unit, "units": in the sample}, or {"failed": ...}."""
        stdin = self._processes[name].stdin
        assert stdin is not None
        with contextlib.suppress(OSError):
            stdin.write(f"{seconds}\n")
            stdin.flush()
            end = time.monotonic() + patience
            while (answered := self._next(end - time.monotonic())) is not None:
                if answered[0] == name:
                    return json.loads(answered[1]) if answered[1] else {"failed": "died while it was timed"}
        self._kill(name)
        return {"failed": "gave no answer"}

    def close(self) -> None:
        """Ends all workers."""
        for process in self._processes.values():
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
        for name, process in self._processes.items():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._kill(name)
                process.wait()
            if process.stdout is not None:
                self._readers[name].join(timeout=5)
                process.stdout.close()

    def _start(self, name: str) -> None:
        environ = {"OMP_NUM_THREADS": "2", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
        with self._log(name).open("w") as log:
            process = subprocess.Popen(
                [*self._command, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environ,
            )
        self._processes[name] = process
        self._readers[name] = threading.Thread(target=self._read, args=(name, process), daemon=True)
        self._readers[name].start()

    def _read(self, name: str, process: subprocess.Popen) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put((name, line))
        self._lines.put((name, None))

    def _next(self, seconds: float) -> tuple[str, str | None] | None:
        try:
            return self._lines.get(timeout=max(0.01, seconds))
        except queue.Empty:
            return None

    def _log(self, name: str) -> Path:
        return self._out / f"log_{''.join(c if c.isalnum() else '_' for c in name)}.txt"

    def _kill(self, name: str) -> None:
        if name in self._processes:
            self._processes[name].kill()


def run_all(
    commands: Mapping[str, Sequence[str]], *, parallel: int, deadline: float, environ: Mapping[str, str] = os.environ
) -> Iterator[tuple[str, str, int]]:
    """Runs commands side by side, and yields (name, output, exit status) as each ends; -1 if time was out."""
    waiting, running = collections.deque(commands.items()), {}
    while waiting or running:
        while waiting and len(running) < parallel:
            name, command = waiting.popleft()
            pipe = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(environ)
            )
            chunks: list[str] = []
            thread = threading.Thread(target=lambda p=pipe, c=chunks: c.extend(p.stdout or ()), daemon=True)
            thread.start()
            running[name] = (pipe, chunks, thread)
        for name, (pipe, chunks, thread) in list(running.items()):
            late = time.monotonic() > deadline
            if late:
                pipe.kill()
            if late or pipe.poll() is not None:
                pipe.wait()
                thread.join(timeout=5)
                if pipe.stdout is not None:
                    pipe.stdout.close()
                del running[name]
                yield name, "".join(chunks), -1 if late else pipe.returncode
        if time.monotonic() > deadline:
            waiting.clear()
        time.sleep(0.05)


def _short(facts: Mapping[str, Any]) -> str:
    return str(facts["failed"])[-300:] if "failed" in facts else str(dict(facts))


def serve(case: Case, *, tiny: bool) -> None:
    """Is a worker: warms the case up and answers, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log

    def answer(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")

    try:
        run, facts = case.make(tiny)
        answer(**facts)
    except BaseException:
        answer(failed=traceback.format_exc()[-1500:])
        return
    count = 1
    for line in sys.stdin:
        seconds = float(line)
        while (elapsed := _timed(run, count)) < seconds / 4 and count < 10**6:
            count *= 2
        units = max(1, round(count * seconds / elapsed))
        elapsed = _timed(run, units)
        count = max(1, units // 4)
        answer(seconds=elapsed / units, units=units, **memory())


def memory() -> dict[str, float]:
    """Returns the largest memory that this process has used on the device, where its library tells."""
    if "torch" in sys.modules:
        import torch

        return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9} if torch.cuda.is_available() else {}
    if "jax" not in sys.modules:
        return {}
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return {"peak_gb": stats["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in stats else {}


def _timed(run: Callable[[int], None], count: int) -> float:
    started = time.perf_counter()
    run(count)
    return time.perf_counter() - started
