"""Standard output and error that outlive their reader.

A run takes days; the pipe, the terminal or the ssh session that shows its output may close earlier. Output is then
discarded, and the run continues.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_READER_GONE = (errno.EPIPE, errno.EIO)  # a pipe, a terminal


class DetachedStream:
    """A text stream on a file descriptor that turns into the null device when its reader is gone."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes as the stream does, or discards the text."""
        with self._outliving_reader():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes as the stream does, or discards what it holds."""
        with self._outliving_reader():
            self._stream.flush()

    @contextlib.contextmanager
    def _outliving_reader(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _READER_GONE:
                raise
            # The stream's buffer goes to the null device too, at its next flush.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def reopen_closed() -> None:
    """Opens the null device as each standard stream that was closed when the program began, as daemons close them.

    Python has None in place of such a stream, and the next file that is opened gets its descriptor, to which C++ then
    writes messages.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
            os.set_inheritable(descriptor, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  open for the rest of the program


@contextlib.contextmanager
def detached() -> Iterator[None]:
    """Replaces `sys.stdout` and `sys.stderr` by detached streams for the length of a block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (DetachedStream(stream) for stream in before)
    try:
        yield
    finally:
        # Flush while errors are still caught: Python's own flush at exit would end with code 120.
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
