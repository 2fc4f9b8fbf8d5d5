"""The parts of the benchmark on a made-up set of a few images; its limit on memory is a limit."""

import pytest

from benchmarks import data_pipeline, data_worker
from gm_jax.data import memory
from gm_jax.errors import UserError


def test_the_made_up_set_is_decoded_onto_the_disk_and_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "MOST_IN_MEMORY", 2**20)
    monkeypatch.setattr(data_worker, "_DISTINCT", 20)
    monkeypatch.setattr(data_worker, "_SHARD", 60)
    monkeypatch.setattr(data_worker, "HELD_OUT", 10)
    monkeypatch.setattr(data_worker, "BATCH", 16)
    made = data_worker.make(tmp_path / "set", 150.0)
    assert made["bytes"] > 0
    found = data_worker.load(tmp_path / "set")
    assert (found["images"], found["mapped"]) == (150, True)
    rates = data_worker.read(tmp_path / "set", 0.01, 1)["rates"]
    assert len(rates) == 3
    assert all(rate > 0 for each in rates.values() for rate in each.values())


def test_a_process_cannot_allocate_more_than_its_limit(tmp_path):
    enough = data_pipeline._run(["timeit", "-n1", "-r1", "bytearray(10**8)"], tmp_path, 0.5)
    assert enough.code == 0
    assert enough.peak < 5e8
    with pytest.raises(UserError, match="MemoryError"):
        data_pipeline._run(["timeit", "-n1", "-r1", "bytearray(10**9)"], tmp_path, 0.5)


def test_a_process_is_killed_when_it_is_due(tmp_path):
    ended = data_pipeline._run(["timeit", "-n1", "-r1", "while True: pass"], tmp_path, 0.5, kill_if=lambda: True)
    assert ended.code == -9


@pytest.mark.parametrize(("resumed", "said"), [("a", "the same bits as"), ("b", "OTHER BITS as")])
def test_the_report_says_whether_the_bits_agree(resumed, said):
    rates = {"on disk": {"images_per_second": 2e5, "images_per_core_second": 1e5}}
    results = {
        "args": {"gigabytes": 20.0, "memory": 4.0, "steps": 400},
        "decoded": {"images": 1_600_000, "seconds": 400.0, "peak": 10**9},
        "again": {"seconds": 2.0, "peak": 10**8},
        "reading": {"rates": rates},
        "training": {
            "bits": {"left alone": "a", "killed and resumed": resumed},
            "waiting": [0.0, 0.01],
            "images_per_second": [600.0, 700.0],
            "peak": 2 * 10**9,
        },
    }
    text = data_pipeline.report(results)
    assert "| decode into the cache | 400.0 | 4,000 | 1.00 |" in text
    assert "| on disk | 200,000 | 100,000 |" in text
    assert "1.00% of the time waiting for data at most, peak 2.00 GB" in text
    assert f"Killed and resumed: {said} left alone" in text
