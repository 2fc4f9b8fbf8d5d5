"""A row of the table of samplers: the mean over seeds and its spread, with where the run was made."""

import json
import shutil

import numpy as np
import pytest

from gm_jax import runner
from gm_jax.errors import UserError
from gm_jax.evaluation.results import Record
from gm_jax.runner import sample_quality
from tests.tools.test_publish import COMMAND, REPO
from tools import sampler_distances


def test_words_become_the_fields_that_they_name():
    found = sampler_distances.changes(("sampler.method=dpmpp", "sampler.steps=15", "sampler.clip=true", "guidance=1.5"))
    assert found == {"sampler": {"method": "dpmpp", "steps": 15, "clip": True}, "guidance": 1.5}
    with pytest.raises(UserError, match="is not a field and its value"):
        sampler_distances.changes(("sampler.steps",))


def test_a_row_holds_the_mean_over_the_seeds_and_their_spread(tmp_path, monkeypatch, capsys):
    shutil.copytree(REPO / "tests" / "runner" / "data" / "legacy_vae", tmp_path / "run")
    (tmp_path / "score_samples.json").write_text(json.dumps({"columns": [], "rows": [{"id": "old"}, {"id": "kept"}]}))
    drawn = []

    def measured(run, extractor, sampler, *, settings):
        drawn.append(sampler(10))
        value = float(settings["seed"] + 1)
        return [Record("frechet[digits-cnn]", value, "squared", "score", "digits", "17 levels", "train", 10, settings)]

    monkeypatch.setattr(sample_quality, "measure", measured)
    argv = [str(tmp_path / "run"), "--row", "old", "--model", "a VAE", "--evaluations", "1", "--seeds", "3"]
    argv += ["--command", COMMAND, "--folder", str(tmp_path)]
    runner.program(sampler_distances.Config, sampler_distances.measure, argv)
    assert "a VAE: 2.000 over 3 seeds" in capsys.readouterr().out
    assert len(drawn) == 3
    assert np.any(drawn[0] != drawn[1])
    row, kept = json.loads((tmp_path / "score_samples.json").read_text())["rows"]
    assert (kept["id"], row["id"], row["command"]) == ("kept", "old", COMMAND)
    evaluations, number = row["numbers"]
    assert evaluations["value"] == 1
    assert (number["name"], number["value"], number["standard_deviation"]) == ("frechet", 2.0, 1.0)
    assert number["settings"]["seeds"] == 3
    (tmp_path / "score_samples.json").unlink()
    runner.program(sampler_distances.Config, sampler_distances.measure, argv)
    content = json.loads((tmp_path / "score_samples.json").read_text())
    assert content["columns"] == sampler_distances.COLUMNS
    assert [row["id"] for row in content["rows"]] == ["old"]
