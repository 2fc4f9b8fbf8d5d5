"""TensorBoard's events are whole records, and a disk that takes no more of them costs one warning."""

import logging
import os
import resource
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from gm_jax.runner.events import Events


def records(folder) -> list[Event]:
    """Reads every record of a folder; a torn one is an error."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            assert len(data) >= 16 + length, "torn"
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(folder) -> dict[int, float]:
    return {e.step: e.summary.value[0].simple_value for e in records(folder) if e.HasField("summary")}


def test_the_file_is_framed_as_tensorboardx_frames_it(tmp_path):
    events = Events(tmp_path / "tensorboard", purge_step=7)
    events.add_scalar("a/b", 1.5, 7)
    events.add_image("samples", np.full((4, 6, 3), 200, np.uint8), 8)
    events.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    writer = RecordWriter(str(tmp_path / "oracle"))
    found = records(tmp_path / "tensorboard")
    for event in found:
        writer.write(event.SerializeToString())
    writer.close()
    assert path.read_bytes() == (tmp_path / "oracle").read_bytes()
    version, _, purge, scalar, image = found
    assert version.file_version == "brain.Event:2"
    assert (purge.step, purge.session_log.status) == (7, 1)  # START
    assert (scalar.step, scalar.summary.value[0].tag, scalar.summary.value[0].simple_value) == (7, "a/b", 1.5)
    assert (image.summary.value[0].image.height, image.summary.value[0].image.width) == (4, 6)


@pytest.mark.parametrize("limit", range(700, 780, 7))
def test_a_full_disk_loses_events_and_no_more(limit, tmp_path, caplog):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    events = Events(tmp_path / "tensorboard", purge_step=1)
    try:
        for step in range(1, 400):
            if step == 300:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            elif step == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            events.add_scalar("loss", float(step), step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    events.close()
    kept = scalars(tmp_path / "tensorboard")
    assert kept == {step: float(step) for step in kept}
    assert 5 < len([step for step in kept if step < 300]) < 30
    assert [step for step in kept if step >= 300] == list(range(300, 400))
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("some events are lost: File too large: ")


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("in the way")
    events = Events(tmp_path / "tensorboard", purge_step=1)
    for step in range(3):
        events.add_scalar("loss", 0.0, step)
    events.close()
    assert len(caplog.records) == 1


def test_a_short_write_is_completed(tmp_path, monkeypatch):
    events, write = Events(tmp_path / "tensorboard", purge_step=0), os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, data, place: write(descriptor, data[: max(1, len(data) // 2)], place)
    )
    for step in range(3):
        events.add_scalar("a", float(step), step)
    events.close()
    assert scalars(tmp_path / "tensorboard") == {0: 0.0, 1: 1.0, 2: 2.0}
