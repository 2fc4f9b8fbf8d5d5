"""Mistakes of the user, and how an error becomes a message and an exit code.

Exit codes of every command:

    0    done, or training was stopped by a signal: the same command goes on from the last checkpoint
    1    a defect, or training diverged, or another process failed
    2    a mistake of the user
    130  a command that saves no state was stopped by a signal: an evaluation, a drawing, samples, a tool
    134  C++ aborted this process, or jax did so because another process failed during preparation
"""

import errno
import re
import sys
from typing import overload

# The disk is full, is not writable, or lacks what was named: the user can repair it, this program cannot.
_DISK_ERRORS = {
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS),
}

# What an error says if there is no memory: of a library that cannot be loaded, of a thread, of the system.
_NO_MEMORY = ("failed to map segment", "can't start new thread", "Cannot allocate memory")

# How jax begins if an array does not fit the memory of a device, or the system's; the second one if a program that has
# started already wants the array.
_NO_DEVICE_MEMORY = re.compile("RESOURCE_EXHAUSTED: (.*)|(Out of memory allocating .*)")

SMALLER_STEP = (
    "Train with a smaller --train.batch-size and more --optimizer.accumulate-steps, whose product is the batch of an "
    "update, or let a U-Net recompute its blocks (--network.remat), or a Glow its steps (--remat)."
)

# What to do if an array of a command does not fit a device.
SMALLER_TRAINING = f"{SMALLER_STEP}\nThe verb plan prints what a step needs: docs/planning.md."
SMALLER_EVALUATION = "Evaluate with a smaller --batch-size."
SMALLER_SAMPLE = "Draw fewer samples at a time: --num; 500 and more are drawn in batches of 500."

_LONGEST_LINE = 600  # letters


class UserError(Exception):
    """A mistake that the user can correct: a name, a path, a size.

    The command line prints its message (at most three lines) and exits with code 2, without a traceback. Every other
    exception is a defect of this code and keeps its traceback.
    """


@overload
def report(error: UserError) -> int: ...


@overload
def report(error: BaseException) -> int | None: ...


def report(error: BaseException) -> int | None:
    """Prints what is wrong in at most three lines, and returns the exit code; None for a defect of this program."""
    error = too_large(error) or error
    if isinstance(error, UserError):
        print("\n".join(_shown(line) for line in f"error: {error}".splitlines()[:3]), file=sys.stderr)
        return 2
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        print(f"error: {error.strerror}: {error.filename or 'no file is named'}", file=sys.stderr)
        return 2
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        print("error: there is not enough memory: free some, or raise the limit (ulimit -v).", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    return None


def too_large(error: BaseException, remedy: str = "") -> UserError | None:
    """Returns the message of an error of jax that says that an array does not fit a device; None of any other error.

    Args:
        error: any error.
        remedy: what to do, at most two lines.
    """
    errors = sys.modules.get("jax.errors")  # --help does without jax
    if errors is None or not isinstance(error, errors.JaxRuntimeError):
        return None
    found = _NO_DEVICE_MEMORY.search(str(error))
    if found is None:
        return None
    lines = [f"the device has too little memory: {found[1] or found[2] or ''}", remedy]
    return UserError("\n".join(filter(None, lines)))


def _shown(line: str) -> str:
    """Returns a line without what would steer a terminal, because a file may be quoted in it, and not too long."""
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


NO_LABELS = (
    "the model is conditioned on labels, but the data have none: choose data with labels or an unconditional model."
)
NO_CAPTIONS = (
    "the model reads captions, but the data have none: choose data with captions, such as --data.name captions."
)
_REFUSED_OPTIONS = {
    "label": "this model has no labels to sample by: leave the label out.",
    "temperature": "this model cannot be sampled at a temperature: leave the temperature out.",
}


def refuse_options(**options: object) -> None:
    """Refuses the options of `sample` that a model does not have.

    Args:
        **options: `label`, `temperature`; None where it was not given.
    Raises:
        UserError: an option is given.
    """
    for name, value in options.items():
        if value is not None:
            raise UserError(_REFUSED_OPTIONS[name])
