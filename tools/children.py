"""Commands that a tool runs as processes of their own: a request to stop reaches them too, and ends the tool last."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO

from gm_jax import signals

_LOOK = 0.05  # seconds between two looks at the flag of signals
_PATIENCE = 60.0  # seconds in which a command saves and leaves
# Undoes nohup and the shell's settings for background jobs, limits the size of files, and becomes the command. The
# child does so itself, because what Popen runs between fork and exec may block for ever if JAX has threads.
_LAUNCHER = """
import os, resource, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
largest = int(sys.argv[1])
if largest >= 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def start(
    command: Sequence[str],
    *,
    stdout: IO,
    stderr: IO | int | None = None,
    env: Mapping[str, str] | None = None,
    largest: int | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a command that obeys signals, with the arguments of `subprocess.Popen`.

    `largest` is the size in bytes of the largest file that it may write.
    Its process group is its own, because a terminal would send Ctrl-C to it as well, and a second signal ends a command
    before it has saved.
    """
    launch = [sys.executable, "-S", "-c", _LAUNCHER, str(-1 if largest is None else largest)]
    return subprocess.Popen([*launch, *command], stdout=stdout, stderr=stderr, env=env, start_new_session=True)


def wait(process: subprocess.Popen[bytes], *, timeout: float = float("inf")) -> int | None:
    """Waits for the end of a process; returns its code, or None after the timeout.

    Args:
        process: that `start` has returned.
        timeout: seconds.

    Raises:
        KeyboardInterrupt: a signal has asked this process to stop; it was passed on, and the process has ended.
    """
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if signals.requested():
            stop(process)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(_LOOK, max(0.0, deadline - time.monotonic())))
    if process.poll() is not None:
        signals.check()
    return process.poll()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks a process to save and to leave; kills it if it does not."""
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
