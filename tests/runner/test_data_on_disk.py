"""A run on data that stay on disk: the bits of a run in memory, also if it fails half way and resumes."""

import os
import re
import threading

import pytest

import gm_jax
from experiments import vae
from gm_jax.data import mapped_arrays, memory, pipeline
from gm_jax.errors import UserError
from gm_jax.runner.recorder import RunRecorder
from gm_jax.runner.run import reopen
from tests.data.tfds_examples import examples, prepare

SETTINGS = {
    "train": {
        "steps": 12,
        "batch_size": 8,
        "steps_per_call": 2,
        "log_every": 4,
        "checkpoint_every": 4,
        "ema_decay": 0.9,
    },
    "optimizer": {"schedule": "constant"},
    "hidden": (8,),
    "latent_dim": 2,
    "validation_samples": 2,
}


def trained(folder):
    return gm_jax.train(vae, data="tiny", workdir=folder, evaluate=False, **SETTINGS)


@pytest.fixture
def data(tmp_path, monkeypatch):
    prepare(tmp_path / "data", {"train": examples(60, shape=(8, 8, 1))})
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gm_jax"


@pytest.mark.slow
def test_a_run_from_disk_that_failed_and_resumed_has_the_bits_of_a_run_in_memory(
    data, tmp_path, monkeypatch, state_hash, capsys
):
    trained(tmp_path / "in memory")
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 100)
    batches, threads = pipeline.train_batches, set()

    def truncating(split, batch_size, seed, first_step, *rest, **settings):
        if first_step:  # the first batch also shapes the state, in the main thread
            threads.add(threading.current_thread().name)
        if first_step == 8:
            (file,) = data.rglob("train.x.npy")
            os.truncate(file, 1000)
        return batches(split, batch_size, seed, first_step, *rest, **settings)

    monkeypatch.setattr(pipeline, "train_batches", truncating)
    with pytest.raises(UserError, match=r"train\.x\.npy was cut short while it was read"):
        trained(tmp_path / "on disk")
    assert threads == {"batches_0"}
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    assert state_hash(tmp_path / "on disk")[1] == 8  # saved before the batch that failed
    monkeypatch.setattr(pipeline, "train_batches", batches)
    run = trained(tmp_path / "on disk")
    assert mapped_arrays.is_mapped(run.data["train"]["x"])
    assert state_hash(tmp_path / "on disk") == state_hash(tmp_path / "in memory")
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("on disk", "in memory")]
    assert lines[0] == lines[1]
    with RunRecorder(reopen(tmp_path / "on disk"), 12) as recorder:
        recorder.waited(1e9)
        for step in (16, 20):
            recorder.log(step, {"loss": 1.0})
    lines = capsys.readouterr().out.splitlines()
    waited, not_waited = [line for line in lines if line.startswith(("step 16", "step 20"))]
    assert re.search(r" examples/s \(\d+% of the time waiting for data\), ", waited)
    assert "waiting" not in not_waited
    events = [file.read_bytes() for file in (tmp_path / "on disk").rglob("events.out.tfevents.*")]
    assert all(b"speed/share_waiting_for_data" in records for records in events)
