"""TensorBoard's events, which a run can do without: a disk that is full costs events, and never the run.

tensorboardX writes through a thread behind a queue. A write that fails ends the thread, and the queue, once it is
full, then blocks the run for ever. Here each record is one write by the caller, and is taken back if it fails.
"""

import contextlib
import logging
import os
import secrets
import struct
import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c

_LOG = logging.getLogger("gm_jax")


class Events:
    """A file of events, opened at its first record. Failures print one warning, and every later record tries again."""

    def __init__(self, folder: Path, *, purge_step: int):
        """Prepares the file.

        Args:
            folder: where it is made, with the folder if that is missing.
            purge_step: TensorBoard drops the events of earlier files from this step on: they are of a run that died.
        """
        # Nobody can leave a link at a name that nobody knows.
        self._path = folder / f"events.out.tfevents.{int(time.time())}.{os.uname().nodename}.{secrets.token_hex(8)}"
        self._purge_step = purge_step
        self._descriptor: int | None = None
        self._size = 0  # of the whole records
        self._warned = False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Records a number."""
        self._record(summary.scalar(name, value), step)

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Records a picture, [H, W, 3] uint8."""
        self._record(summary.image(name, image, dataformats="HWC"), step)

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _record(self, values: Summary, step: int) -> None:
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            if not self._size:
                version = "brain.Event:2"
                self._append(
                    Event(file_version=version),
                    Event(step=self._purge_step, file_version=version),
                    Event(step=self._purge_step, session_log=SessionLog(status=SessionLog.START)),
                )
            self._append(Event(step=step, summary=values))
        except OSError as error:
            if not self._warned:
                _LOG.warning(f"some events are lost: {error.strerror}: {self._path}")
            self._warned = True

    def _open(self) -> int:
        self._path.parent.mkdir(exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    def _append(self, *events: Event) -> None:
        """Writes records, or none of them: a reader stops at a torn one for good."""
        assert self._descriptor is not None
        data = b""
        for event in events:
            event.wall_time = time.time()
            data += _framed(event.SerializeToString())
        try:
            done = 0
            while done < len(data):  # a write is short if the disk is about to be full: the next one says so
                done += os.pwrite(self._descriptor, data[done:], self._size + done)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)


def _framed(data: bytes) -> bytes:
    """Returns a record of TFRecord: the length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
