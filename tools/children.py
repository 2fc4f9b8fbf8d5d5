"""Commands that a tool runs as processes of their own: a request to stop reaches them too, and ends the tool last."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from gm_jax import signals

_LOOK = 0.05  # seconds between two looks at the flag of signals
_PATIENCE = 60.0  # seconds in which a command saves and leaves


def start(
    command: Sequence[str],
    *,
    stdout: IO,
    stderr: IO | int | None = None,
    env: Mapping[str, str] | None = None,
    preexec_fn: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a command; the arguments are those of `subprocess.Popen`.

    Its process group is its own, because a terminal would send Ctrl-C to it as well, and a second signal ends a command
    before it has saved.
    """
    return subprocess.Popen(
        command, stdout=stdout, stderr=stderr, env=env, preexec_fn=preexec_fn, start_new_session=True
    )


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
