"""Standard output and error that outlive whoever reads them.

A run takes days; the pipe, the terminal or the ssh session that shows what it prints may be closed before. What is
written from then on goes nowhere, and the run goes on.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO)  # a pipe, a terminal


class Lasting:
    """A text stream on a file descriptor; once its reader has gone, the descriptor is that of the null device."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as the stream does, or nowhere."""
        with self._outliving():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as the stream does, or to nowhere."""
        with self._outliving():
            self._stream.flush()

    @contextlib.contextmanager
    def _outliving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise
            # What the stream still holds goes there too, at its next flush.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Make `sys.stdout` and `sys.stderr` so for the length of a block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Lasting(stream) for stream in before)
    try:
        yield
    finally:
        # While it can still be borne: Python, which flushes at its end, would leave with exit code 120.
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
