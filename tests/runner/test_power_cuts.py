"""A power cut at any moment of a run loses at most the interval since its last checkpoint."""

import json
import shutil

import pytest

from gm_jax.runner.folder import Folder
from gm_jax.runner.run import load_saved, reopen
from gm_jax.training import metrics
from gm_jax.training.checkpoint import Checkpointer
from tests import power_cuts

EVERY = 10  # of conftest's tiny run
FLAGS = ("--train.steps", "30")


@pytest.mark.slow
def test_a_power_cut_at_any_moment_loses_at_most_one_interval(
    command, tiny, tmp_path, monkeypatch, state_hash, contents, caplog
):
    base, begun, save = tmp_path / "base", [0], Checkpointer.save

    def noted(self, step, *args, **kwargs):
        save(self, step, *args, **kwargs)  # the save before this one has ended
        begun[0] = step

    base.mkdir()
    monkeypatch.setattr(Checkpointer, "save", noted)
    recorder = power_cuts.Recorder(base, note=lambda: begun[0])
    with recorder.watching():
        ended = command("--workdir", base / "run", *tiny, *FLAGS)
    assert ended.code == 0, ended.err
    assert len(recorder.cuts) > 100
    whole, lines = base / "run", metrics.read(base / "run" / "metrics.jsonl")
    like, expected = reopen(whole, with_data=False).abstract_state(), load_saved(whole)
    last_of, left = {}, tmp_path / "left"
    for cut in recorder.cuts:
        folder = Folder(power_cuts.write(cut.tree, left) / "run")
        assert not folder.foreign_files(), cut.moment
        restored = None
        if folder.holds_run():
            assert load_saved(folder.root) == expected
            assert not folder.versions.exists() or json.loads(folder.versions.read_text())
            with Checkpointer(folder.checkpoints, read_only=True) as checkpointer:
                restored = checkpointer.restore_latest(like)
        step = 0 if restored is None else restored.step
        assert step >= cut.note - EVERY, cut.moment
        found = [line for line in metrics.read(folder.metrics) if line.step <= step]
        assert found == [line for line in lines if line.step <= step], cut.moment
        last_of[step] = cut
        shutil.rmtree(left)
    assert not [record for record in caplog.records if "damaged" in record.getMessage()]
    assert set(last_of) == {0, 10, 20, 30}
    for cut in last_of.values():  # and all the way to the end
        folder = power_cuts.write(cut.tree, left) / "run"
        assert command("--workdir", folder, *tiny, *FLAGS).code == 0
        assert state_hash(folder) == state_hash(whole)
        for name in ("metrics.jsonl", "results.json"):
            assert contents(folder)[name] == contents(whole)[name]
        shutil.rmtree(left)
